// What is to be signed: a text or files, read and hashed here, with size and SHA-256 shown before anything is sent.

import { sha256, sizeInWords } from "./bytes.js";
import { announce, element, find, readable, stamp } from "./dom.js";

const MOST_FILES = 20;
const NO_DIGEST = "not available: this page did not come over HTTPS";

export class Composer {
  #form = find("#composer");
  #text = find("#text");
  #files = [];
  #measured = 0;
  #cap;
  #submit;

  // `submit` gets a list of {name, text, bytes}.
  constructor(cap, submit) {
    this.#cap = cap;
    this.#submit = submit;
    for (const radio of this.#form.elements.kind) radio.addEventListener("change", () => this.#switch());
    this.#text.addEventListener("input", () => this.#measure());
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    this.#form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.repeat) {
        event.preventDefault();
        this.#form.requestSubmit();
      }
    });
    // The second click of a double click is no second wish: a text would be signed twice, and no file be left to sign.
    find("#sign").addEventListener("click", (event) => {
      if (event.detail > 1) event.preventDefault();
    });
    const input = find("#files");
    input.addEventListener("change", async () => {
      await this.#add([...input.files]);
      input.value = "";
    });
    this.#acceptDrops(find("#drop"));
    this.#switch();
    this.#measure();
  }

  get #kind() {
    return this.#form.elements.kind.value;
  }

  #switch() {
    const isText = this.#kind === "text";
    find("#text-panel").hidden = !isText;
    find("#file-panel").hidden = isText;
    this.#complain("");
  }

  async #measure() {
    const bytes = new TextEncoder().encode(this.#text.value);
    const place = find("#measure");
    const tooLarge = bytes.length > this.#cap;
    place.classList.toggle("bad", tooLarge);
    find("[data-part=size]", place).textContent = sizeInWords(bytes.length);
    const turn = ++this.#measured;
    const digest = (await sha256(bytes)) ?? NO_DIGEST;
    // Typing goes on while it is computed: only the newest is shown.
    if (turn !== this.#measured) return;
    find("[data-part=digest]", place).textContent = digest;
    this.#complain(tooLarge ? this.#tooLarge("This text", bytes.length) : "");
  }

  #tooLarge(what, size) {
    return (
      `${what} has ${sizeInWords(size)}, and at most ${sizeInWords(this.#cap)} are signed. ` +
      "Sign its SHA-256 instead: paste the digest as text, and check both the digest and its signature later."
    );
  }

  #acceptDrops(zone) {
    zone.addEventListener("dragover", (event) => {
      event.preventDefault();
      zone.classList.add("over");
    });
    zone.addEventListener("dragleave", () => zone.classList.remove("over"));
    zone.addEventListener("drop", (event) => {
      event.preventDefault();
      zone.classList.remove("over");
      this.#add([...event.dataTransfer.files]);
    });
  }

  async #add(files) {
    this.#complain("");
    for (const file of files) {
      if (this.#files.length >= MOST_FILES) {
        this.#complain(`At most ${MOST_FILES} files at a time: the others were left out. Sign these first, or use the batch API.`);
        break;
      }
      await this.#read(file);
    }
    this.#list();
  }

  async #read(file) {
    const entry = { name: file.name, text: null, size: file.size, bytes: null, digest: null, problem: null };
    this.#files.push(entry);
    // Hashed even if it is too large to send: its digest is what may be signed in its place. Huge ones are not read.
    if (file.size > 256 * 1024 * 1024) {
      entry.problem = this.#tooLarge("This file", file.size);
      return;
    }
    try {
      const bytes = new Uint8Array(await file.arrayBuffer());
      entry.size = bytes.length;
      entry.digest = (await sha256(bytes)) ?? NO_DIGEST;
      if (bytes.length > this.#cap) entry.problem = this.#tooLarge("This file", bytes.length);
      else entry.bytes = bytes;
    } catch {
      entry.problem = "This file could not be read. If it is a folder, choose the files in it; if it changed, choose it again.";
    }
  }

  #list() {
    const list = find("#chosen");
    list.replaceChildren(...this.#files.map((file, index) => this.#row(file, index)));
    const good = this.#files.filter((file) => file.problem === null).length;
    const bad = this.#files.length - good;
    announce(`${good} ${good === 1 ? "file" : "files"} ready to sign${bad > 0 ? `, ${bad} refused` : ""}`);
  }

  #row(file, index) {
    const { root, part } = stamp("chosen-file");
    part("name").textContent = readable(file.name);
    part("size").textContent = sizeInWords(file.size);
    part("digest").textContent = file.digest ?? "not read";
    if (file.problem !== null) {
      root.classList.add("bad");
      part("problem").textContent = file.problem;
      part("problem").hidden = false;
    }
    part("remove").setAttribute("aria-label", `Remove ${readable(file.name)}`);
    part("remove").addEventListener("click", () => {
      this.#files.splice(index, 1);
      this.#list();
      (find("#chosen button") ?? find("#files")).focus();
    });
    return root;
  }

  #send() {
    if (this.#kind === "text") {
      const text = this.#text.value;
      const bytes = new TextEncoder().encode(text);
      if (bytes.length > this.#cap) return this.#complain(this.#tooLarge("This text", bytes.length));
      this.#complain("");
      return this.#submit([{ name: null, text, bytes }]);
    }
    const ready = this.#files.filter((file) => file.problem === null);
    if (ready.length === 0) {
      return this.#complain(
        this.#files.length === 0 ? "Choose a file first." : "None of these files can be signed as it is; the reason stands with each.",
      );
    }
    this.#files = this.#files.filter((file) => file.problem !== null);
    this.#list();
    this.#complain("");
    return this.#submit(ready);
  }

  #complain(text) {
    const place = find("#complaint");
    if (place.textContent === text) return;
    place.replaceChildren(...(text === "" ? [] : [element("span", text)]));
    place.hidden = text === "";
  }
}
