// A cardholder's device as a published client writes it: session() and decrypt() are the documented functions, node:crypto and nothing else.
// stdin: {url, pem, apiKey, cardId, newPIN}; stdout: what the device could read, {pan, cvc, pin, pinAfter}.
import crypto from "node:crypto";

const { url, pem, apiKey, cardId, newPIN } = JSON.parse(await new Response(process.stdin).text());

function session() {
  const secret = crypto.randomUUID().replaceAll("-", "");
  const secretKeyBase64 = Buffer.from(secret, "hex").toString("base64");
  const secretKeyBase64Buffer = Buffer.from(secretKeyBase64, "utf8");
  const secretKeyBase64BufferEncrypted = crypto.publicEncrypt(
    { key: pem, padding: crypto.constants.RSA_PKCS1_OAEP_PADDING },
    secretKeyBase64Buffer,
  );
  return { sessionid: secretKeyBase64BufferEncrypted.toString("base64"), secret };
}

function decrypt(base64Secret, base64Iv, secretKey) {
  const secret = Buffer.from(base64Secret, "base64");
  const iv = Buffer.from(base64Iv, "base64");
  const decipher = crypto.createDecipheriv("aes-128-gcm", Buffer.from(secretKey, "hex"), iv);
  decipher.setAutoPadding(false);
  decipher.setAuthTag(secret.subarray(-16));
  return Buffer.concat([decipher.update(secret.subarray(0, -16)), decipher.final()]).toString("utf8");
}

function encryptPIN(pin, secretKey) {
  const block = `2${pin.length.toString(16)}${pin}${"F".repeat(14 - pin.length)}`;
  const iv = crypto.randomBytes(16);
  const cipher = crypto.createCipheriv("aes-128-gcm", Buffer.from(secretKey, "hex"), iv);
  const data = Buffer.concat([cipher.update(block, "utf8"), cipher.final(), cipher.getAuthTag()]);
  return { data: data.toString("base64"), iv: iv.toString("base64") };
}

async function call(path, { sessionid, method = "GET", body } = {}) {
  const response = await fetch(`${url}/issuing/cards/${cardId}${path}`, {
    method,
    headers: { "Api-Key": apiKey, accept: "application/json", "content-type": "application/json", SessionId: sessionid },
    body: body && JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status}`);
  return response.json();
}

async function readPIN() {
  const { sessionid, secret } = session();
  const { encryptedPin } = await call("/pin", { sessionid });
  return decrypt(encryptedPin.data, encryptedPin.iv, secret);
}

const { sessionid, secret } = session();
const { encryptedPan, encryptedCvc } = await call("/secrets", { sessionid });
const pin = await readPIN();
const setter = session();
await call("/pin", { sessionid: setter.sessionid, method: "PUT", body: { encryptedPin: encryptPIN(newPIN, setter.secret) } });

console.log(
  JSON.stringify({
    pan: decrypt(encryptedPan.data, encryptedPan.iv, secret),
    cvc: decrypt(encryptedCvc.data, encryptedCvc.iv, secret),
    pin,
    pinAfter: await readPIN(),
  }),
);
