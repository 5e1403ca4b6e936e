// Who may not embed, may not ask, and what our pages may not do.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { app, discreet, doc, evil, frame, host, metric, mint, otherApp, partnerPage, said, settle, setup, show, shown, v1, values } from "./harness.mjs";

const { card } = doc;
const init = async (over = {}) => ({ type: "init", cardToken: card.id, ephemeralToken: await mint(), gnosisPayApiAuthToken: doc.gnosispay.user_token, elementType: "cardData", appId: "demo", version: "2.0.1", ...over });

/** embeds reports whether a page of an origin gets our page into a frame, and sends it an init whatever happens. */
async function embeds(page, appId) {
  const redeemed = await metric("cardstile_tokens_redeemed_total");
  await page.evaluate((src) => window.raw(src), `${host}/?appId=${appId}`);
  await page.evaluate(async (message) => document.querySelector("#element iframe").contentWindow.postMessage(message, "*"), await init({ appId }));
  await settle(page);
  assert.equal(await metric("cardstile_tokens_redeemed_total"), redeemed, "a token was spent");
  assert.deepEqual(await said(page), []);
  const framed = page.frames().find((each) => each !== page.mainFrame());
  return framed.url().startsWith(host);
}

describe("who may embed", () => {
  for (const [what, origin, appId] of [
    ["a page of nobody's", evil, "demo"],
    ["a page of another partner's", otherApp, "demo"],
    ["a page of ours in a page of another partner's app", app, "other"],
    ["an app that there is not", app, "nosuchapp"],
    ["an app without a name", app, ""],
  ]) {
    test(`not ${what}`, async (t) => {
      const page = await partnerPage(t, origin, { violates: true });
      assert.equal(await embeds(page, appId), false);
      assert.ok(page.console.some((text) => /frame-ancestors|X-Frame-Options|refused/i.test(text)) || appId === "", page.console.join("\n"));
    });
  }

  test("a partner's page, but not in a frame of somebody else's", async (t) => {
    const page = await partnerPage(t, evil, { path: "/framing", violates: true });
    const partners = page.frames().find((each) => each.url().startsWith(app));
    assert.ok(partners, "the partner's page is framed");
    await partners.evaluate((src) => window.raw(src), `${host}/?appId=demo`);
    await settle(page);
    assert.equal(page.frames().some((each) => each.url().startsWith(host)), false);
  });

  test("nobody who opens it as a window", async (t) => {
    const page = await partnerPage(t);
    const [popup] = await Promise.all([page.context().waitForEvent("page"), page.evaluate((src) => void (window.popup = window.open(src)), `${host}/?appId=demo`)]);
    await popup.waitForLoadState();
    await page.evaluate(async (message) => window.popup.postMessage(message, "*"), await init());
    await settle(page);
    assert.equal(await popup.locator(".pse-card-value").count(), 0);
    assert.equal(await page.evaluate(() => window.popup.closed), true, "the partner's page has lost the window: it is of another group");
  });
});

describe("who may ask", () => {
  test("a window that is not the parent is ignored", async (t) => {
    const page = await partnerPage(t);
    await page.evaluate((src) => window.raw(src), `${host}/?appId=demo`);
    await page.evaluate(async () => {
      const frame = document.createElement("iframe");
      frame.id = "sibling";
      frame.src = "/sibling"; // of an origin that may embed
      document.body.append(frame);
      await new Promise((resolve) => (frame.onload = resolve));
    });
    const sibling = page.frames().find((each) => each.url().endsWith("/sibling"));
    const post = (where, message) => where.evaluate((message) => window.parent.document.querySelector("#element iframe").contentWindow.postMessage(message, "*"), message);
    const redeemed = await metric("cardstile_tokens_redeemed_total");
    await post(sibling, await init());
    await settle(page);
    assert.equal(await metric("cardstile_tokens_redeemed_total"), redeemed);
    assert.equal(await frame(page).locator(".pse-card-value").count(), 0);
    await page.evaluate((message) => document.querySelector("#element iframe").contentWindow.postMessage(message, "*"), await init()); // the same from the parent
    await shown(frame(page));
  });

  test("a parent that names another app is ignored", async (t) => {
    const page = await partnerPage(t);
    await page.evaluate((src) => window.raw(src), `${host}/?appId=demo`);
    for (const appId of ["other", "short", "", undefined, 1]) {
      await page.evaluate((message) => document.querySelector("#element iframe").contentWindow.postMessage(message, "*"), await init({ appId }));
    }
    await settle(page);
    assert.equal(await frame(page).locator(".pse-card-value").count(), 0);
    assert.deepEqual(await said(page), []);
  });

  test("what is no message of the protocol changes nothing", async (t) => {
    const page = await partnerPage(t);
    await shown(await show(page, "cardData", await v1()));
    for (const message of [null, 1, "init", {}, { type: "tokenRefresh" }, { type: "init" }, { type: "__proto__" }]) {
      await page.evaluate((message) => document.querySelector("#element iframe").contentWindow.postMessage(message, "*"), message);
    }
    await settle(page);
    assert.equal((await values(frame(page)))[0].replaceAll(" ", ""), card.pan);
    assert.deepEqual(await said(page), []);
  });

  test("another partner's token is refused, in whosoever's page", async (t) => {
    const page = await partnerPage(t);
    const theirs = await mint(setup.other);
    await show(page, "cardData", await v1({ ephemeralToken: theirs, gnosisPayApiAuthToken: undefined }), { cardToken: setup.other_card.id });
    await page.waitForFunction(() => window.said.length > 0);
    assert.deepEqual(await said(page), ["EphemeralTokenInvalid"]);
    await discreet(page, [setup.other_card.pan, card.pan]);
    assert.equal(await frame(page).locator(".pse-card-value:not(.cs-masked)").count(), 0);

    // The same partner's token opens that card in a page of that partner's: it is the page that was wrong.
    const right = await partnerPage(t, otherApp);
    const shows = await show(right, "cardData", await v1({ appId: "other", ephemeralToken: await mint(setup.other), gnosisPayApiAuthToken: undefined }), { cardToken: setup.other_card.id });
    await shown(shows);
    assert.equal((await values(shows))[0].replaceAll(" ", ""), setup.other_card.pan);
  });
});

test("pages say what they are", async (t) => {
  const page = await partnerPage(t);
  const [answer] = await Promise.all([page.waitForResponse((response) => response.url().startsWith(`${host}/?appId=demo`)), page.evaluate((src) => window.raw(src), `${host}/?appId=demo`)]);
  const headers = await answer.allHeaders();
  assert.match(headers["content-security-policy"], new RegExp(`frame-ancestors ${app} `));
  assert.equal(headers["referrer-policy"], "no-referrer");
  assert.equal(headers["cache-control"], "no-store");
  assert.equal(headers["x-content-type-options"], "nosniff");
  assert.equal(headers["strict-transport-security"], undefined);
  assert.equal(headers["set-cookie"], undefined);
});
