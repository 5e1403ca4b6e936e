// All tests of pages, in one process with one browser. Run by browser_test.go, which makes what they run against.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { app, close, evil, host, mint, open, otherApp, requests, show, shown, partnerPage, until, v1, vendor } from "./harness.mjs";

before(open);
after(close);

const early = { token: await mint(), at: Date.now() };

const { counted } = await import("./violations.mjs");
await import("./card.mjs");
await import("./refusals.mjs");
await import("./fields.mjs");
await import("./demo.mjs");
await import("./vendor.mjs");

test("a token that has expired is answered by a fresh one", { timeout: 90_000 }, async (t) => {
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, early.at + 61_000 - Date.now()))); // a token lives 60 s
  const page = await partnerPage(t);
  await page.evaluate(() => (window.refreshes = true));
  const frame = await show(page, "cardData", await v1({ ephemeralToken: early.token }));
  await shown(frame);
  await until(page, "EphemeralTokenInvalid");
});

test("what pages of ours may not do, is counted", { timeout: 90_000 }, counted);

test("nothing was asked of anybody else", () => {
  const known = [app, otherApp, evil, vendor, host].map((origin) => new URL(origin).host);
  const foreign = requests.filter(({ url }) => /^(https?|wss?):/.test(url) && !known.includes(new URL(url).host));
  assert.deepEqual(foreign.filter(({ url }) => !url.startsWith("https://elsewhere.example/")), []); // what a test had our page try
  assert.ok(requests.length > 100);
  for (const { url, referrer, frame } of requests) {
    if (frame.startsWith(host) && !url.startsWith("https://elsewhere.example/")) {
      assert.ok(!referrer, `${url} was asked for with ${referrer}`);
    }
  }
});
