// A wallet, in Node without packages: it signs what comes on standard input, with the key whose hex stands in a file: a text as
// personal_sign does (EIP-191), or typed data as eth_signTypedData_v4 does (EIP-712). To try things out from a shell and for
// nothing else: its arithmetic takes as long as the key says. An app asks the user's wallet instead, as in
// `await signer.signMessage(text)` and `await signer.signTypedData(domain, types, message)` of ethers.
//
//   node wallet.mjs wallet-key.hex < message
//   node wallet.mjs wallet-key.hex typed < typed-data.json
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";

// keccak256 is Keccak as Ethereum has it, which is SHA-3 but for one byte of padding.
function keccak256(input) {
  const mask = (1n << 64n) - 1n;
  const rotate = (x, n) => ((x << n) | (x >> (64n - n))) & mask;
  const rate = 136;
  const padded = Buffer.concat([input, Buffer.alloc(rate - (input.length % rate))]);
  padded[input.length] ^= 0x01;
  padded[padded.length - 1] ^= 0x80;
  const s = new Array(25).fill(0n);
  for (let at = 0; at < padded.length; at += rate) {
    for (let i = 0; i < rate / 8; i++) s[i] ^= padded.readBigUInt64LE(at + 8 * i);
    let lfsr = 1;
    for (let round = 0; round < 24; round++) {
      const c = [0, 1, 2, 3, 4].map((x) => s[x] ^ s[x + 5] ^ s[x + 10] ^ s[x + 15] ^ s[x + 20]);
      for (let i = 0; i < 25; i++) s[i] ^= c[(i + 4) % 5] ^ rotate(c[(i + 1) % 5], 1n);
      let [x, y, moving] = [1, 0, s[1]];
      for (let t = 0; t < 24; t++) {
        [x, y] = [y, (2 * x + 3 * y) % 5];
        [moving, s[x + 5 * y]] = [s[x + 5 * y], rotate(moving, BigInt((((t + 1) * (t + 2)) / 2) % 64))];
      }
      for (let row = 0; row < 25; row += 5) {
        const r = s.slice(row, row + 5);
        for (let i = 0; i < 5; i++) s[row + i] = r[i] ^ (~r[(i + 1) % 5] & mask & r[(i + 2) % 5]);
      }
      for (let j = 0; j < 7; j++) {
        if (lfsr & 1) s[0] ^= 1n << BigInt((1 << j) - 1);
        lfsr = (lfsr << 1) ^ (lfsr & 0x80 ? 0x171 : 0);
      }
    }
  }
  const out = Buffer.alloc(32);
  for (let i = 0; i < 4; i++) out.writeBigUInt64LE(s[i], 8 * i);
  return out;
}

// secp256k1 (SEC 2, section 2.4.1).
const p = 2n ** 256n - 2n ** 32n - 977n;
const n = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
const g = [0x79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798n, 0x483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8n];
const mod = (a, m) => ((a % m) + m) % m;

function inverse(a, m) {
  let [r, s, x, y] = [m, mod(a, m), 0n, 1n];
  while (s) [r, s, x, y] = [s, r % s, y, x - (r / s) * y];
  return mod(x, m);
}

function add(a, b) {
  if (!a || !b) return a ?? b;
  if (a[0] === b[0] && a[1] !== b[1]) return undefined;
  const slope = a[0] === b[0] ? 3n * a[0] * a[0] * inverse(2n * a[1], p) : (b[1] - a[1]) * inverse(b[0] - a[0], p);
  const x = mod(slope * slope - a[0] - b[0], p);
  return [x, mod(slope * (a[0] - x) - a[1], p)];
}

function multiply(point, k) {
  let sum;
  for (; k; k >>= 1n, point = add(point, point)) if (k & 1n) sum = add(sum, point);
  return sum;
}

const number = (bytes) => BigInt("0x" + bytes.toString("hex"));
const hex = (value) => value.toString(16).padStart(64, "0");

function personalHash(text) {
  const message = Buffer.from(text);
  return keccak256(Buffer.concat([Buffer.from(`\x19Ethereum Signed Message:\n${message.length}`), message]));
}

// typedHash is of data whose members are texts and numbers. The domain has a name, a version and a chain.
function typedHash({ domain, types, primaryType, message }) {
  const struct = (name, members, values) => {
    const type = `${name}(${members.map((m) => `${m.type} ${m.name}`).join(",")})`;
    const words = members.map((m) => (m.type === "string" ? keccak256(Buffer.from(values[m.name])) : Buffer.from(hex(BigInt(values[m.name])), "hex")));
    return keccak256(Buffer.concat([keccak256(Buffer.from(type)), ...words]));
  };
  const domainType = [{ name: "name", type: "string" }, { name: "version", type: "string" }, { name: "chainId", type: "uint256" }];
  return keccak256(Buffer.concat([Buffer.from([0x19, 0x01]), struct("EIP712Domain", domainType, domain), struct(primaryType, types[primaryType], message)]));
}

function sign(key, digest) {
  const hash = number(digest);
  for (;;) {
    const k = mod(number(randomBytes(40)), n);
    const [x, y] = multiply(g, k);
    const r = mod(x, n);
    let s = mod(inverse(k, n) * (hash + r * key), n);
    if (!r || !s || x >= n) continue;
    let v = y & 1n;
    if (s > n / 2n) [s, v] = [n - s, v ^ 1n]; // EIP-2
    return `0x${hex(r)}${hex(s)}${(27n + v).toString(16)}`;
  }
}

const [file, typed] = process.argv.slice(2);
const given = readFileSync(0, "utf8");
console.log(sign(BigInt("0x" + readFileSync(file, "utf8").trim()), typed === "typed" ? typedHash(JSON.parse(given)) : personalHash(given)));
