// What the tests of pages share: a browser, partners' pages on origins of their own, and their backends.
import assert from "node:assert/strict";
import { constants, publicEncrypt, randomBytes, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import https from "node:https";
import http from "node:http";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { chromium } from "playwright-core";
import { privateKeyToAccount } from "viem/accounts";

const require = createRequire(import.meta.url);

/** setup is what browser_test.go made, and doc is the demo's demo.json. */
export const setup = JSON.parse(readFileSync(process.env.CARDSTILE_BROWSER, "utf8"));
export const doc = JSON.parse(readFileSync(join(setup.dir, "demo.json"), "utf8"));

export const host = doc.public_url;
export const app = "https://app.example"; // registered for the apps demo, short and branded
export const otherApp = "https://other.example"; // registered for the app other
export const evil = "https://evil.example"; // registered for none
export const vendor = "https://cdn.example"; // serves a script

/** What is typed in the tests: browser_test.go looks for it in logs. */
export const typed = { number: "5555555555554444", expiry: "1230", cvv: "907", name: "Ada Example" };
export const pins = ["2580", "7391"];

const file = (name) => readFileSync(join(setup.dir, name));

/** call makes a request as a partner's backend does, and returns status, headers and body. */
export function call(url, { method = "GET", headers = {}, body, pair } = {}) {
  const secure = url.startsWith("https:");
  const options = { method, headers, ...(secure ? { ca: file(doc.ca) } : {}), ...(pair ? { cert: file(pair.certificate), key: file(pair.key) } : {}) };
  return new Promise((resolve, reject) => {
    const request = (secure ? https : http).request(url, options, (answer) => {
      const chunks = [];
      answer.on("data", (chunk) => chunks.push(chunk));
      answer.on("end", () => {
        const text = Buffer.concat(chunks).toString();
        let json;
        try {
          json = JSON.parse(text);
        } catch {
          // it has another form
        }
        resolve({ status: answer.statusCode, headers: answer.headers, text, json });
      });
    });
    request.setTimeout(20_000, () => request.destroy(new Error(`no answer from ${url}`)));
    request.on("error", reject);
    request.end(body);
  });
}

/** mint is what a partner's backend does for each element: it gets a token over mTLS. */
export async function mint(pair = doc.partner) {
  const answer = await call(`${doc.partners_url}/api/v1/ephemeral-token`, { method: "POST", pair });
  assert.equal(answer.status, 200, answer.text);
  return answer.json.data.ephemeralToken;
}

/** spent is a token that was used. */
export async function spent() {
  const token = await mint();
  const sessionid = publicEncrypt({ key: file(doc.session_public_key), padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: "sha1" }, Buffer.from(randomBytes(16).toString("base64"))).toString("base64");
  const answer = await call(`${host}/api/v1/cards/${doc.card.id}/details`, { headers: { Authorization: `Bearer ${token}`, sessionid } });
  assert.equal(answer.status, 200, answer.text);
  return token;
}

/** signed has the demo's user sign an action with their wallet, as partners do with viem. */
export async function signed(action) {
  const answer = await call(`${host}/pci/cards/${doc.card.id}/challenge?action=${action}`, { headers: { Authorization: `Bearer ${doc.gnosispay.user_token}` } });
  assert.equal(answer.status, 200, answer.text);
  const { domain, types, primaryType, message } = answer.json;
  const account = privateKeyToAccount(`0x${file(doc.gnosispay.wallet_key).toString().trim()}`);
  const eip712Signature = await account.signTypedData({ domain, types, primaryType, message: { authorization: message.authorization, nonce: BigInt(message.nonce) } });
  return { eip712Signature, eip712Nonce: message.nonce };
}

/** metric sums the samples of a metric whose labels include some. */
export async function metric(name, labels = "") {
  const { text } = await call(`${doc.admin_url}/metrics`);
  return text
    .split("\n")
    .filter((line) => line.startsWith(name) && line.includes(labels))
    .reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

/** vendorScript does the least that the script of a vendor does: it says that it is there. */
export const vendorScript = `
window.Payroc = { Gateway: { init() {
  const query = new URLSearchParams(location.search);
  parent.postMessage({ type: "payroc:field-connected", field: query.get("field"), by: "the vendor's script" }, query.get("targetOrigin"));
} } };
`;

// The pages of partners. The SDK is served as it was published.
const served = {
  "/": ["text/html", () => readFileSync(new URL("parent.html", import.meta.url))],
  "/sibling": ["text/html", () => "<!doctype html><title>Another frame of the partner's page</title>"],
  "/framing": ["text/html", () => `<!doctype html><title>A page that frames a partner's page</title><iframe src="${app}/"></iframe>`],
  "/lib/payroc.js": ["text/javascript", () => vendorScript],
  "/parent.js": ["text/javascript", () => readFileSync(new URL("parent.js", import.meta.url))],
  "/gp-sdk.umd.js": ["text/javascript", () => readFileSync(join(dirname(require.resolve("@gnosispay/pse-sdk")), "gp-sdk.umd.js"))],
};

/** serveParents serves the pages, and one call of the partner's backend: POST /token mints. */
async function serveParents() {
  const server = https.createServer({ cert: file(setup.parent.certificate), key: file(setup.parent.key) }, (request, answer) => {
    const { pathname } = new URL(request.url, app);
    if (request.method === "POST" && pathname === "/token") {
      mint().then(
        (token) => answer.end(token),
        () => answer.writeHead(502).end(),
      );
      return;
    }
    const [type, content] = served[pathname] ?? [];
    if (type === undefined) {
      answer.writeHead(404).end();
      return;
    }
    answer.writeHead(200, { "Content-Type": `${type}; charset=utf-8`, "Cache-Control": "no-store", "Access-Control-Allow-Origin": "*" }).end(content());
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}

let parents;
let browser;

export async function open() {
  parents = await serveParents();
  const at = `127.0.0.1:${parents.address().port}`;
  const rules = [app, otherApp, evil, vendor].map((origin) => `MAP ${new URL(origin).host} ${at}`);
  browser = await chromium.launch({
    executablePath: setup.chromium,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      `--ignore-certificate-errors-spki-list=${setup.spki.join(",")}`, // these servers' keys, and no others
      `--host-resolver-rules=${rules.join(", ")}, MAP * ~NOTFOUND, EXCLUDE localhost`, // nothing else has an address
    ],
  });
}

export async function close() {
  await browser?.close();
  parents?.closeAllConnections();
  parents?.close();
}

export const phone = { width: 390, height: 844 };
export const desktop = { width: 1280, height: 800 };

/** Everything that any page asked for. */
export const requests = [];

/**
 * partnerPage opens a page of a partner's in a context of its own. When the test is over, no script may have failed, and,
 * but for a test that says so, nothing have been done that a policy forbids.
 */
export async function partnerPage(t, origin = app, { permissions = true, path = "/", violates = false, ...options } = {}) {
  const context = await browser.newContext({ viewport: desktop, locale: "en-GB", reducedMotion: "reduce", ...options });
  t.after(async () => {
    await context.close();
    assert.deepEqual(page.problems, []);
    const violations = page.console.filter((text) => /Content Security Policy|Permissions policy|Trusted|Refused|integrity/i.test(text));
    assert.ok(violates || violations.length === 0, violations.join("\n"));
  });
  if (permissions) {
    // Permissions that are not named are denied then. Reports of violations need background-sync, as browsers have it.
    for (const each of [app, host]) {
      await context.grantPermissions(["clipboard-read", "clipboard-write", "background-sync"], { origin: each });
    }
  }
  context.setDefaultTimeout(30_000); // nothing is asserted about how long it takes
  context.on("request", (request) => requests.push({ url: request.url(), referrer: request.headers()["referer"], page: origin, frame: frameOf(request) }));
  const page = await context.newPage();
  page.problems = [];
  page.console = [];
  page.on("console", (message) => page.console.push(message.text()));
  page.on("pageerror", (error) => page.problems.push(String(error)));
  await page.goto(origin + path);
  return page;
}

function frameOf(request) {
  try {
    return request.frame().url();
  } catch {
    return ""; // of no frame, or of one that is not there yet
  }
}

/** v1 and v3 are what partners configure the SDK with. */
export async function v1(over = {}) {
  return { appId: "demo", iframeHost: host, ephemeralToken: await mint(), gnosisPayApiAuthToken: doc.gnosispay.user_token, ...over };
}

export async function v3(action, over = {}) {
  return { appId: "demo", iframeHost: host, pseVersion: 3, ephemeralToken: await mint(), authModuleToken: doc.gnosispay.user_token, ...(await signed(action)), ...over };
}

/** show has the partner's page mount an element with the SDK, and returns its frame. */
export async function show(page, element, config, options = {}) {
  const v = config.pseVersion === 3 ? { cardId: doc.card.id } : { cardToken: doc.card.id };
  await page.evaluate(([config, element, options]) => window.show(config, element, options), [config, element, { ...v, ...options }]);
  return frame(page);
}

/** frame is our page in the partner's. */
export function frame(page) {
  return page.frameLocator("#element iframe");
}

/** inside is the same, for scripts. */
export function inside(page, part = "/?appId=") {
  const found = page.frames().find((each) => each.url().startsWith(host + part));
  assert.ok(found, `no frame of ${host}${part}`);
  return found;
}

/** values are what a frame shows, by the id of their group's label. */
export async function values(frame) {
  return frame.locator(".pse-card-value").allInnerTexts();
}

/** shown waits until a card or PIN is shown. */
export async function shown(frame) {
  await frame.locator(".pse-card-value:not(.cs-masked)").first().waitFor();
}

/** said are the types of messages that the partner's page got; until waits for one. */
export const said = (page) => page.evaluate(() => window.said.map((message) => message.data?.type));

export async function until(page, type, count = 1) {
  await page.waitForFunction(([type, count]) => window.said.filter((message) => message.data?.type === type).length >= count, [type, count]);
}

/** comes waits until something holds. */
export async function comes(what, holds) {
  for (const end = Date.now() + 70_000; !(await holds()); ) {
    assert.ok(Date.now() < end, `${what}: waited for it in vain`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** settle waits until pages had their chance to do what they must not. */
export const settle = (page) => page.waitForTimeout(400);

/** discreet asserts that nothing of a card is in what the partner's page got, or in what it can see of itself. */
export async function discreet(page, secrets) {
  const [text, served] = await page.evaluate(async () => [
    JSON.stringify([window.said, window.did, document.documentElement.outerHTML]),
    await (await fetch(location.href)).text(),
  ]);
  for (const secret of secrets) {
    if (secret.length > 4) {
      assert.ok(!text.includes(secret), "the partner's page has card data");
      continue;
    }
    // A few digits stand in a port, or in a style, by chance: they count as a number of their own, that the page did not come with.
    const found = (where) => where.match(new RegExp(`(?<![0-9])${secret}(?![0-9])`, "g"))?.length ?? 0;
    assert.ok(found(text) <= found(served), "the partner's page has card data");
  }
}

const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

/** accessible asserts that axe finds nothing serious, in the page and in each frame of ours. */
export async function accessible(page, name) {
  for (const each of page.frames()) {
    if (!each.url().startsWith(host)) {
      continue;
    }
    const { violations } = await each.evaluate(async (source) => {
      if (!("axe" in window)) {
        (0, eval)(source);
      }
      return window.axe.run(document, { iframes: false, resultTypes: ["violations"] });
    }, axe);
    const serious = violations.filter((v) => v.impact === "serious" || v.impact === "critical");
    assert.deepEqual(
      serious.map((v) => `${v.id}: ${v.nodes.map((n) => `${n.target} (${n.failureSummary})`).join("; ")}`),
      [],
      `${name}: ${each.url()}`,
    );
  }
}

/** shots keeps how a page looks: on a phone and at a desk, in light and dark, and asserts each time that axe is content. */
export async function shots(page, name, { fullPage = false } = {}) {
  for (const [device, size] of Object.entries({ phone, desktop })) {
    await page.setViewportSize(size);
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      await accessible(page, `${name}, ${device}, ${colorScheme}`);
      await drawn(page);
      await page.screenshot({ path: join(setup.artefacts, `${name}-${device}-${colorScheme}.png`), fullPage, caret: "initial" });
    }
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize(desktop);
}

/** drawn waits until all frames have drawn what changed. */
async function drawn(page) {
  const twice = () => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  await Promise.all(page.frames().map((each) => each.evaluate(twice)));
}

/** fits asserts that a frame needs no scrolling to the side. */
export async function fits(page, part) {
  const { scroll, client } = await inside(page, part).evaluate(() => ({ scroll: document.documentElement.scrollWidth, client: document.documentElement.clientWidth }));
  assert.ok(scroll <= client, `the page is ${scroll} px wide in a frame of ${client}`);
}

// Payroc's way, as its partners' backends go it.

let bearer;

/** authorize exchanges the API key for a bearer. */
export async function authorize() {
  if (bearer === undefined) {
    const answer = await call(`${host}/authorize`, { method: "POST", headers: { "x-api-key": doc.payroc.api_key } });
    assert.equal(answer.status, 200, answer.text);
    bearer = answer.json.access_token;
  }
  return bearer;
}

/** fieldsSession begins hosted fields. */
export async function fieldsSession(scenario = "payment") {
  const answer = await call(`${host}/v1/processing-terminals/${doc.payroc.processing_terminal_id}/hosted-fields-sessions`, {
    method: "POST",
    headers: { Authorization: `Bearer ${await authorize()}`, "Content-Type": "application/json", "Idempotency-Key": randomUUID() },
    body: JSON.stringify({ libVersion: doc.payroc.lib_version, scenario }),
  });
  assert.equal(answer.status, 201, answer.text);
  return answer.json.token;
}

/** pay uses a card that was typed into hosted fields. */
export async function pay(token) {
  return call(`${host}/v1/payments`, {
    method: "POST",
    headers: { Authorization: `Bearer ${await authorize()}`, "Content-Type": "application/json", "Idempotency-Key": randomUUID() },
    body: JSON.stringify({
      channel: "web",
      processingTerminalId: doc.payroc.processing_terminal_id,
      order: { orderId: randomUUID().slice(0, 8), amount: 4999, currency: "USD" },
      paymentMethod: { type: "singleUseToken", token },
    }),
  });
}
