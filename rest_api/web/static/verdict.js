// What this page makes of an answer. It believes its own bytes and the key it was loaded with, not what the answer says.

import { fromBase64, hasWebCrypto, sha256, verify } from "./bytes.js";

const wrong = (text) => ({ kind: "wrong", label: "Wrong signature", text: `${text} Do not use it.` });

// `message`: the bytes that were sent. `keys`: key id -> {public_key, …} as this page knows them.
export async function judge(message, asked, answer, keys) {
  const signature = fromBase64(answer.signature);
  if (signature?.length !== 64) return wrong("What came back is not an Ed25519 signature.");
  if (asked.key_id !== undefined && asked.key_id !== answer.key_id) {
    return wrong(`This answer is of the key “${answer.key_id}”, and “${asked.key_id}” was asked for.`);
  }
  const key = keys.get(answer.key_id);
  if (key === undefined || key.public_key !== answer.public_key) {
    return wrong("This answer names another public key than the one this page was loaded with.");
  }
  const digest = await sha256(message);
  if (digest !== null && digest !== answer.message_sha256) {
    return wrong("This answer is about another message than the one you gave.");
  }
  const valid = await verify(fromBase64(key.public_key), signature, message);
  if (valid === false) return wrong("This signature is not valid for your message under the service’s key.");
  if (valid === true) {
    return {
      kind: "verified",
      label: "Verified",
      text: "Your browser checked this signature itself (WebCrypto Ed25519), over the bytes you gave and under the service’s key.",
    };
  }
  const why = hasWebCrypto()
    ? "This browser’s WebCrypto has no Ed25519"
    : "This page did not come over HTTPS, so the browser offers no WebCrypto";
  return {
    kind: "unchecked",
    label: "Not verified here",
    text: `${why}: the signature was not verified here. The openssl commands below do the same check.`,
  };
}
