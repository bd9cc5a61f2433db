// Bytes in the forms that people copy: base64, hex, sizes; and what WebCrypto makes of them.

const ED25519 = { name: "Ed25519" };

export function toBase64(bytes) {
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary);
}

// Strict: returns null for anything that is not exactly what toBase64 writes.
export function fromBase64(text) {
  if (typeof text !== "string") return null;
  try {
    const bytes = Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
    return toBase64(bytes) === text ? bytes : null;
  } catch {
    return null;
  }
}

export function toHex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function sizeInWords(count) {
  if (count < 1024) return count === 1 ? "1 byte" : `${count} bytes`;
  const unit = count < 1024 * 1024 ? ["KiB", 1024] : ["MiB", 1024 * 1024];
  const amount = (count / unit[1]).toFixed(1).replace(/\.0$/, "");
  return `${amount} ${unit[0]} (${count.toLocaleString("en")} bytes)`;
}

// Browsers keep WebCrypto from pages that came over plain HTTP, except from this machine.
export const hasWebCrypto = () => globalThis.crypto?.subtle !== undefined;

// SHA-256 in lower-case hex, or null where the browser cannot.
export async function sha256(bytes) {
  if (!hasWebCrypto()) return null;
  return toHex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));
}

// Resolves to true or false, or to null where the browser has no Ed25519.
export async function verify(publicKey, signature, message) {
  if (!hasWebCrypto()) return null;
  let key;
  try {
    key = await crypto.subtle.importKey("raw", publicKey, ED25519, false, ["verify"]);
  } catch (error) {
    if (error.name === "NotSupportedError") return null;
    return false;
  }
  try {
    return await crypto.subtle.verify(ED25519, key, signature, message);
  } catch {
    return false;
  }
}
