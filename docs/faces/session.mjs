// A cardholder's device, in Node: what faces gnosispay, exa and paymentsgate encrypt for, and what it does with it. To try
// things out from a shell; an app keeps SECRET in memory and makes a new one for each call.
//
//   node session.mjs new [public.pem]    prints SESSIONID, which is sent, and SECRET, which is not
//   node session.mjs open                prints an answer from standard input with every {data, iv} opened; SECRET in the environment
//   node session.mjs pin 4821            prints {data, iv} of a PIN block
//   node session.mjs upload 4111…        prints a card number as gnosispay's users bring it; {publicKey} on standard input
import { constants, createCipheriv, createDecipheriv, createPublicKey, publicEncrypt, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";

// wrap encrypts a key for the gateway: RSA-OAEP with SHA-1, which is Node's default, over the text of its base64.
function wrap(publicKey, secret) {
  return publicEncrypt({ key: publicKey, padding: constants.RSA_PKCS1_OAEP_PADDING }, Buffer.from(secret.toString("base64"))).toString("base64");
}

// newSession draws the 16 random bytes of a session.
function newSession(publicKey) {
  const secret = randomBytes(16);
  return { sessionid: wrap(publicKey, secret), secret };
}

// open decrypts a value: AES-128-GCM, the tag behind the ciphertext, an iv of the length that it has.
function open(secret, { data, iv }) {
  const sealed = Buffer.from(data, "base64");
  const decipher = createDecipheriv("aes-128-gcm", secret, Buffer.from(iv, "base64"));
  decipher.setAuthTag(sealed.subarray(-16));
  return Buffer.concat([decipher.update(sealed.subarray(0, -16)), decipher.final()]).toString();
}

// seal encrypts a text: AES-GCM under a key of 16 or 32 bytes.
function seal(secret, text, iv = randomBytes(12)) {
  const cipher = createCipheriv(`aes-${8 * secret.length}-gcm`, secret, iv);
  const sealed = Buffer.concat([cipher.update(text), cipher.final(), cipher.getAuthTag()]);
  return { data: sealed.toString("base64"), iv: iv.toString("base64") };
}

// upload seals a card number under a key of its own, of 32 bytes. The text of its iv is 16 letters and digits.
function upload(spki, number) {
  const secret = randomBytes(32);
  let iv;
  do iv = randomBytes(12);
  while (/[+/]/.test(iv.toString("base64")));
  const publicKey = createPublicKey({ key: Buffer.from(spki, "base64"), format: "der", type: "spki" });
  const { data } = seal(secret, number, iv);
  return { encryptedPan: data, encryptedKey: wrap(publicKey, secret), iv: iv.toString("base64") };
}

// pinBlock is 16 characters: 2, how many digits there are in hex, the digits, and F to the end.
const pinBlock = (pin) => `2${pin.length.toString(16)}${pin}`.padEnd(16, "F");

const opened = (secret) => (_, value) =>
  typeof value?.data === "string" && typeof value?.iv === "string" ? open(secret, value) : value;

const [command, argument] = process.argv.slice(2);
const secret = Buffer.from(process.env.SECRET ?? "", "hex");
if (command === "new") {
  const made = newSession(readFileSync(argument ?? "session-public.pem"));
  console.log(`export SESSIONID='${made.sessionid}' SECRET=${made.secret.toString("hex")}`);
} else if (command === "open") {
  console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8"), opened(secret)), null, 2));
} else if (command === "pin") {
  console.log(JSON.stringify(seal(secret, pinBlock(argument))));
} else if (command === "upload") {
  console.log(JSON.stringify(upload(JSON.parse(readFileSync(0, "utf8")).publicKey, argument)));
} else {
  console.error("usage: node session.mjs new [public.pem] | open | pin DIGITS | upload NUMBER");
  process.exitCode = 2;
}
