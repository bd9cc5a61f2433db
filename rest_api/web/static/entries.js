// What this tab asked for: one entry per message, newest first. Nothing of it is kept when the tab is closed.

import { fromBase64, sha256, sizeInWords, toHex } from "./bytes.js";
import { curl, needsMessageFile, openssl, opensslReads } from "./commands.js";
import { announce, copy, download, element, find, readable, stamp } from "./dom.js";

const LABELS = {
  queued: "Waits for a connection",
  sent: "Being signed",
  lost: "Outcome unknown",
  refused: "Not signed",
};

export class Entries {
  #list = find("#entries");
  #context;

  // `context`: {origin, tokensNeeded, keys, again(entry), withdraw(entry)}
  constructor(context) {
    this.#context = context;
  }

  add(entry) {
    const { root, part } = stamp("entry");
    Object.assign(entry, { root, part, askedAt: performance.now(), at: new Date() });
    part("title").textContent = name(entry);
    part("size").textContent = sizeInWords(entry.bytes.length);
    part("at").textContent = entry.at.toLocaleTimeString();
    part("at").dateTime = entry.at.toISOString();
    for (const open of this.#list.querySelectorAll("details.entry[open]")) open.open = false;
    const item = element("li");
    item.append(root);
    this.#list.prepend(item);
    find("#empty").hidden = true;
    this.queued(entry);
  }

  queued(entry) {
    this.#show(entry, "queued", "There is no connection at the moment. This message goes out as soon as there is one.");
    this.#buttons(entry, [["Do not send", () => this.#withdraw(entry)]]);
  }

  sent(entry) {
    entry.askedAt = performance.now();
    this.#show(entry, "sent", "The replicas are making the signature.");
    this.#buttons(entry, []);
  }

  lost(entry) {
    this.#show(
      entry,
      "lost",
      "The connection was lost before the answer came. The message may have been signed, but nobody was told; nothing is sent again by itself.",
    );
    this.#buttons(entry, [["Ask again", () => this.#context.again(entry)]]);
    announce(`Outcome unknown: ${name(entry)}`);
  }

  refused(entry, error) {
    const retryable = error?.retryable === true;
    const given = typeof error?.detail === "string" ? error.detail : "the service gave no reason";
    // What the service says then is for programs, which have no field for it.
    const detail = error?.status === 401 ? "this service signs for callers with a token: type yours above, and ask again" : given;
    this.#show(entry, "refused", `${capital(detail)}.${retryable ? " The same message may be signed if you ask again." : ""}`);
    if (typeof error?.request_id === "string") this.#facts(entry, [["Request", code(error.request_id)]]);
    this.#buttons(entry, retryable || error?.status === 504 || error?.status === 401 ? [["Ask again", () => this.#context.again(entry)]] : []);
    announce(`Not signed: ${name(entry)}. ${detail}`);
  }

  // The time stops when the answer comes, not when it has been checked.
  answered(entry) {
    entry.took = performance.now() - entry.askedAt;
  }

  async judged(entry, answer, verdict) {
    const { part } = entry;
    this.#show(entry, verdict.kind, verdict.text, verdict.label);
    announce(`${verdict.label}: ${name(entry)}`);
    if (verdict.kind === "wrong") {
      // Not offered for copying: a wrong signature must not leave this page by accident.
      this.#facts(entry, [["Said to be", element("span", `key ${answer.key_id}, request ${answer.request_id}`)]]);
      return this.#buttons(entry, [["Ask again", () => this.#context.again(entry)]]);
    }
    const signature = fromBase64(answer.signature);
    part("signature").textContent = answer.signature;
    part("signed").hidden = false;
    const key = this.#context.keys.get(answer.key_id);
    this.#facts(entry, [
      ["Signed by", seats(answer.signers, key.seats)],
      ["Time", element("span", `${inWords(entry.took)}, there and back`)],
      ["Key", element("span", `${answer.key_id}, epoch ${answer.epoch}`)],
      ["SHA-256", code((await sha256(entry.bytes)) ?? answer.message_sha256)],
      ["Request", code(answer.request_id)],
    ]);
    this.#buttons(entry, [
      ["Copy base64", (button) => copy(button, answer.signature, "Signature as base64")],
      ["Copy hex", (button) => copy(button, toHex(signature), "Signature as hex")],
      ["Download .sig", () => download(`${entry.text === null ? entry.name : "message"}.sig`, signature)],
    ]);
    this.#commands(entry, key.public_key, signature);
  }

  #commands(entry, publicKey, signature) {
    const { origin, tokensNeeded } = this.#context;
    const { part } = entry;
    part("commands").hidden = false;
    // Where the browser could not check it, this is how it is checked.
    part("commands").open = entry.root.dataset.state === "unchecked";
    part("curl").textContent = curl(entry, origin, tokensNeeded);
    part("openssl").textContent = openssl(entry, publicKey, signature);
    part("check").hidden = !opensslReads(entry);
    part("uncheckable").hidden = opensslReads(entry);
    for (const each of ["curl", "openssl"]) {
      part(`copy-${each}`).addEventListener("click", (event) => copy(event.currentTarget, part(each).textContent, `${each} commands`));
    }
    if (needsMessageFile(entry)) {
      part("save").hidden = false;
      part("save-button").addEventListener("click", () => download("message.bin", entry.bytes));
    }
  }

  #withdraw(entry) {
    if (!this.#context.withdraw(entry)) return;
    entry.root.parentElement.remove();
    find("#empty").hidden = this.#list.childElementCount > 0;
    announce("Not sent");
    find("#sign").focus();
  }

  #show(entry, kind, text, label = LABELS[kind]) {
    const { root, part } = entry;
    root.dataset.state = kind;
    part("state").textContent = label;
    part("verdict").textContent = text;
  }

  #facts(entry, facts) {
    entry.part("facts").replaceChildren(
      ...facts.map(([term, value]) => {
        const row = element("div");
        const held = element("dd");
        held.append(value);
        row.append(element("dt", term), held);
        return row;
      }),
    );
  }

  #buttons(entry, buttons) {
    entry.part("buttons").replaceChildren(
      ...buttons.map(([label, act]) => {
        const button = element("button", label, "secondary");
        button.type = "button";
        button.addEventListener("click", () => act(button));
        return button;
      }),
    );
  }
}

const code = (text) => element("code", text);
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const name = (entry) => readable(entry.text === null ? entry.name : firstLine(entry.text));

function firstLine(text) {
  const line = text.trim().split("\n", 1)[0].slice(0, 120);
  return line === "" ? (text === "" ? "(empty message)" : "(only white space)") : line;
}

const inWords = (milliseconds) =>
  milliseconds < 1_000 ? `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms` : `${(milliseconds / 1000).toFixed(2)} s`;

// Seats as chips; in words for who cannot see which are filled.
function seats(signers, all) {
  const signed = Array.isArray(signers) ? signers : [];
  const row = element("span", undefined, "seats");
  for (const seat of all) {
    const chip = element("span", String(seat), signed.includes(seat) ? "seat signed" : "seat");
    chip.setAttribute("aria-hidden", "true");
    row.append(chip);
  }
  row.append(element("span", `replicas ${signed.join(" and ")} of ${all.length}`, "in-words"));
  return row;
}
