// Steps 1 to 3 of Exa's page around 004-session.ts and 004-decrypt.ts, whose types are taken off before they come here.
import fs from "node:fs";
import path from "node:path";

const { BASE, COOKIE, PEM_FILE, DIR } = process.env;
globalThis.pem = fs.readFileSync(PEM_FILE, "utf8");
const { session } = await import(path.join(DIR, "session.mjs"));
const { decrypt } = await import(path.join(DIR, "decrypt.mjs"));

const { sessionid, secret } = session();
const response = await fetch(`${BASE}/card`, { headers: { sessionid, cookie: COOKIE } });
const card = await response.json();
const open = ({ data, iv }) => decrypt(data, iv, secret);
console.log(response.status, card.status, card.provider);
console.log(open(card.encryptedPan));
console.log(open(card.encryptedCvc));
console.log(open(card.pin));
