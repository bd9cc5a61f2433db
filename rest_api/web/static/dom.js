// The few things that every part of the page does to the document. Text only ever goes in as text.

export const find = (selector, root = document) => root.querySelector(selector);

// A copy of <template id=…>, and a way to its parts by their data-part.
export function stamp(id) {
  const root = document.getElementById(id).content.firstElementChild.cloneNode(true);
  return { root, part: (name) => root.querySelector(`[data-part="${name}"]`) };
}

export function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className !== undefined) made.className = className;
  return made;
}

// Only what changed is touched: a screen reader hears, and a selection loses, what is written anew.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// A name or a line as what it is: with characters that turn the order of what follows, photo\u202Egpj.exe looks like
// photoexe.jpg, and somebody would sign another file than he thinks.
export function readable(text) {
  return text.replace(/\p{Bidi_Control}/gu, (each) => `[U+${each.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}]`);
}

const MOST_LINES = 8;

// Says something to who cannot see it. Lines are added, never replaced: two that come at once are both heard.
export function announce(text) {
  const log = find("#announce");
  log.append(element("p", text));
  while (log.childElementCount > MOST_LINES) log.firstElementChild.remove();
}

export async function copy(button, text, what) {
  let done = true;
  try {
    if (navigator.clipboard === undefined) throw new Error("no clipboard on plain HTTP");
    await navigator.clipboard.writeText(text);
  } catch {
    done = copyBySelection(text);
    button.focus();
  }
  const before = button.dataset.label ?? button.textContent;
  button.dataset.label = before;
  button.textContent = done ? "Copied" : "Cannot copy";
  announce(done ? `${what} copied` : `The browser did not let this page copy. Select the text instead.`);
  clearTimeout(Number(button.dataset.timer));
  button.dataset.timer = setTimeout(() => (button.textContent = before), 1_600);
}

function copyBySelection(text) {
  const field = element("textarea", text, "visually-hidden");
  document.body.append(field);
  field.select();
  try {
    return document.execCommand("copy");
  } finally {
    field.remove();
  }
}

export function download(name, bytes) {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([bytes], { type: "application/octet-stream" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
