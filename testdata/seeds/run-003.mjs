// Bridge's four steps. The page keeps its secret; the partner's backend sees the nonce alone.
import crypto from "node:crypto";

const { BASE, API_KEY, CUSTOMER, CARD_ACCOUNT } = process.env;

function nonceOf(clientSecret, clientTimestamp) {
  return crypto.createHmac("sha256", clientSecret).update(`nonce:${clientTimestamp}`).digest("base64");
}

// 1. The page derives a nonce.
const clientSecret = crypto.randomBytes(32).toString("hex");
const clientTimestamp = Math.floor(Date.now() / 1000).toString();
const nonce = nonceOf(clientSecret, clientTimestamp);

// 2. and 3. Its backend relays the nonce and gets a key for it.
const minted = await fetch(`${BASE}/v0/customers/${CUSTOMER}/card_accounts/${CARD_ACCOUNT}/ephemeral_keys`, {
  method: "POST",
  headers: { "Api-Key": API_KEY, "Content-Type": "application/json", "Idempotency-Key": crypto.randomUUID() },
  body: JSON.stringify({ client_nonce: nonce }),
});
const { ephemeral_key: ephemeralKey } = await minted.json();

// 4. The page shows the key, and what the nonce was made of; a second time it is told nothing.
async function reveal() {
  const query = new URLSearchParams({ clientSecret, clientTimestamp });
  return fetch(`${BASE}/v0/card_details/?${query}`, { headers: { Authorization: `Bearer ${ephemeralKey}` } });
}
const first = await reveal();
const { card_number, card_security_code, expiry_date } = await first.json();
const second = await reveal();
console.log(minted.status, first.status, second.status, expiry_date);
console.log(`${card_number} ${card_security_code}`);
console.log(nonceOf("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "1700000000"));
