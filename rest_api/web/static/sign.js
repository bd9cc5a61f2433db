// The page /sign: puts the parts together. Without this file the page is a plain form, and works.

import { toBase64 } from "./bytes.js";
import { ClusterPanel } from "./cluster.js";
import { Composer } from "./composer.js";
import { announce, find, setText } from "./dom.js";
import { Entries } from "./entries.js";
import { Connection } from "./socket.js";
import { judge } from "./verdict.js";

const settings = find("#composer").dataset;
const chooser = find("#key");
const tokensNeeded = settings.tokens === "needed";
// The keys as they stood in the page: what every signature is held against.
const keys = new Map(
  [...chooser.options].map((option) => [
    option.value,
    {
      public_key: option.dataset.publicKey,
      threshold: Number(option.dataset.threshold),
      seats: option.dataset.seats.split(" ").map(Number),
    },
  ]),
);
const byId = new Map();
let count = 0;
let retryAt = null;
let connectionBefore = "";
let introduced = "";

const entries = new Entries({
  origin: location.origin,
  tokensNeeded,
  keys,
  again: (entry) => submit([{ name: entry.name, text: entry.text, bytes: entry.bytes }]),
  withdraw: (entry) => connection.withdraw(entry.asked.id),
});

const connection = new Connection(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/sign/ws`, {
  state: showConnection,
  queued: (id) => entries.queued(byId.get(id)),
  sent: (id) => entries.sent(byId.get(id)),
  answer: async (id, body) => {
    const entry = byId.get(id);
    entries.answered(entry);
    if (body.error !== undefined) return entries.refused(entry, body.error);
    return entries.judged(entry, body, await judge(entry.bytes, entry.asked, body, keys));
  },
  lost: (ids) => ids.forEach((id) => entries.lost(byId.get(id))),
  caller: showCaller,
});

function submit(messages) {
  // Ctrl and Enter within the field do not say that it has changed.
  introduce();
  for (const { name, text, bytes } of messages) {
    count += 1;
    // Text with half a surrogate pair became U+FFFD when it was encoded, so bytes and text must go by the bytes.
    const asked = { id: String(count), data: toBase64(bytes) };
    if (chooser.options.length > 1) asked.key_id = chooser.value;
    const entry = { name, text, bytes, asked };
    byId.set(asked.id, entry);
    entries.add(entry);
    connection.ask(asked);
  }
}

// --- the connection ---------------------------------------------------------------------------------------------------

function showConnection({ name, retryAt: at, failures, reason }) {
  const bar = find("#connection");
  retryAt = name === "waiting" ? at : null;
  const state = name === "open" ? "open" : failures > 0 ? "lost" : "connecting";
  bar.dataset.state = state;
  find("#retry").hidden = state !== "lost";
  find("#plain").hidden = failures < 4;
  if (state === "open") setText(find("#connection-text"), "Connected");
  if (state === "connecting") setText(find("#connection-text"), "Connecting");
  if (state === "lost" && name === "connecting") setText(find("#connection-text"), "Connection lost. Trying now");
  if (reason) bar.title = reason;
  else bar.removeAttribute("title");
  countDown();
  if (connectionBefore !== "" && connectionBefore !== state && state !== "connecting") {
    announce(state === "open" ? "Connected again" : "Connection lost. It will be tried again.");
  }
  connectionBefore = state;
}

function countDown() {
  if (retryAt === null) return;
  const seconds = Math.max(1, Math.ceil((retryAt - Date.now()) / 1000));
  setText(find("#connection-text"), `Connection lost. Trying again in ${seconds} s`);
}

setInterval(countDown, 500);
find("#retry").addEventListener("click", () => connection.retryNow());

// --- who asks ---------------------------------------------------------------------------------------------------------

function showCaller(body) {
  const place = find("#caller");
  place.classList.toggle("bad", body.error !== undefined);
  find("#token").setAttribute("aria-invalid", String(body.error !== undefined));
  place.textContent = body.error === undefined ? `Signing as ${body.principal}.` : "This token is not known to the service.";
}

function introduce() {
  const token = find("#token").value.trim();
  if (token === "" || token === introduced) return;
  introduced = token;
  connection.introduce(token);
}

if (tokensNeeded) find("#token").addEventListener("change", introduce);

// --- what would be lost -----------------------------------------------------------------------------------------------

// Only while something waits for its answer: what was signed is there to be seen, and to be saved or not.
addEventListener("beforeunload", (event) => {
  if (connection.isOwed) event.preventDefault();
});

// --- begin ------------------------------------------------------------------------------------------------------------

for (const part of document.querySelectorAll("[data-needs-script]")) part.hidden = false;
for (const part of document.querySelectorAll("[data-without-script]")) part.hidden = true;
find("#token-row").hidden = !tokensNeeded;
find("#key-row").hidden = chooser.options.length < 2;
document.documentElement.classList.add("scripted");
if (/Mac|iPhone|iPad/.test(navigator.platform)) find(".keys kbd").textContent = "⌘";

new Composer(Number(settings.cap), submit);
// Nothing to hold a signature against: the page was made before the key was.
find("#sign").disabled = keys.size === 0;
const panel = new ClusterPanel(keys, () => chooser.value, () => (find("#reload").hidden = keys.size > 0));
chooser.addEventListener("change", () => panel.refresh());
