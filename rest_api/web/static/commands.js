// The same request for curl and the same check for openssl, to paste into a POSIX shell. Nothing but base64 and what
// `quote` made stands in them, so no message can break out of its quotes.

import { toBase64 } from "./bytes.js";

// Text that a person can still read in a terminal; anything else goes by its file.
const READABLE = /^[^\p{Cc}\p{Cf}\p{Co}\p{Cs}]{0,400}$/u;
// SubjectPublicKeyInfo of Ed25519 up to the key (RFC 8410, 4): 12 bytes, so its base64 can stand before the key's.
const SPKI = "MCowBQYDK2VwAyEA";

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

const isReadable = (entry) => entry.text !== null && READABLE.test(entry.text);

// A file's own name may begin with a dash or hold a quote; one with control characters is not repeated.
const hasName = (entry) => entry.text === null && READABLE.test(entry.name);
const fileOf = (entry) => quote(`./${hasName(entry) ? entry.name : "message.bin"}`);

// Whether the commands read a message.bin that has to be saved from this page first.
export function needsMessageFile(entry) {
  return !isReadable(entry) && !hasName(entry);
}

export function curl(entry, origin, tokensNeeded) {
  const head = [`curl ${quote(`${origin}/v1/sign`)}`, `-H 'Content-Type: application/json'`];
  if (tokensNeeded) head.push('-H "Authorization: Bearer $TOKEN"');
  const key = entry.asked.key_id === undefined ? "" : `"key_id": ${JSON.stringify(entry.asked.key_id)}, `;
  if (isReadable(entry)) {
    head.push(`-d ${quote(`{${key}"text": ${JSON.stringify(entry.text)}}`)}`);
    return head.join(" \\\n  ");
  }
  const body = `printf '{${key}"data": "%s"}' "$(openssl base64 -A -in ${fileOf(entry)})"`;
  return `${body} |\n  ${[...head, "--data-binary @-"].join(" \\\n  ")}`;
}

// "Could not allocate 0 bytes", says `openssl pkeyutl`.
export const opensslReads = (entry) => entry.bytes.length > 0;

export function openssl(entry, publicKey, signature) {
  const lines = [];
  if (isReadable(entry)) lines.push(`printf '%s' ${quote(entry.text)} > message.bin`);
  lines.push(
    `printf '%s' \\\n  ${quote(toBase64(signature))} |\n  openssl base64 -d -A > message.sig`,
    `printf '%s\\n' '-----BEGIN PUBLIC KEY-----' \\\n  ${quote(SPKI + publicKey)} \\\n  '-----END PUBLIC KEY-----' > signer.pem`,
    `openssl pkeyutl -verify -pubin -inkey signer.pem -rawin \\\n  -in ${fileOf(entry)} -sigfile message.sig`,
  );
  return lines.join("\n");
}
