import https from "https";
const httpsAgent = new https.Agent({
cert: CERT,
key: KEY,
rejectUnauthorized: true,
});
const req = https.request(
{
hostname: "api-pse.gnosispay.com",
path: "/api/v1/ephemeral-token",
method: "POST",
headers: {
"Content-Type": "application/json",
"User-Agent": "User-Client/1.0.0",
},
agent: httpsAgent,
},
(res) => {
let data = "";
res.on("data", (chunk) => {
data += chunk;
});
res.on("end", () => {
console.log("Status:", res.statusCode);
try {
const parsedData = JSON.parse(data);
console.log("Response:", parsedData);
} catch {
console.log("Raw response:", data);
}
});
},
);
req.on("error", (error) => {
console.error("Request error:", error);
});
req.end();
