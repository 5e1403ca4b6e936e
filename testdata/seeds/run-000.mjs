// What the reader of 000-https-agent.mjs fills in: certificate, key, and the host. Imported before it.
import fs from "node:fs";
import https from "node:https";

globalThis.CERT = fs.readFileSync(process.env.CERT_FILE);
globalThis.KEY = fs.readFileSync(process.env.KEY_FILE);
const { hostname, port } = new URL(process.env.BASE);
const request = https.request;
https.request = (options, answered) => request({ ...options, hostname, port }, answered);
