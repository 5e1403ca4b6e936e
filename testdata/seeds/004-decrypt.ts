import crypto from "node:crypto";
function decrypt(base64Secret: string, base64Iv: string, secretKey: string): string {
const secret = Buffer.from(base64Secret, "base64");
const iv = Buffer.from(base64Iv, "base64");
const decipher = crypto.createDecipheriv("aes-128-gcm", Buffer.from(secretKey, "hex"), iv);
decipher.setAutoPadding(false);
decipher.setAuthTag(secret.subarray(-16));
return Buffer.concat([decipher.update(secret.subarray(0, -16)), decipher.final()]).toString("utf8");
}
