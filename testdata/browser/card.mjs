// The elements of a card, as partners embed them with the published SDK.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { accessible, discreet, doc, fits, frame, host, inside, mint, partnerPage, phone, pins, requests, said, settle, shots, show, shown, signed, spent, until, v1, v3, values } from "./harness.mjs";

const { card } = doc;
const expiry = `${card.expiry_month}/${card.expiry_year.slice(2)}`;
const grouped = card.pan.replace(/(\d{4})(?=\d)/g, "$1 ");
let pin = card.pin;

/** opaque asserts that the partner's page cannot look into our frame. */
async function opaque(page) {
  const looked = await page.evaluate(() => {
    const frame = document.querySelector("#element iframe");
    const attempt = (look) => {
      try {
        return String(look());
      } catch (error) {
        return error.name;
      }
    };
    return [
      frame.contentDocument === null,
      attempt(() => frame.contentWindow.document.body.innerText),
      attempt(() => frame.contentWindow.location.href),
      attempt(() => frame.contentWindow.eval("1")),
    ];
  });
  assert.deepEqual(looked, [true, "SecurityError", "SecurityError", "SecurityError"]);
}

describe("cardData", () => {
  for (const [version, config] of [["V1", () => v1()], ["V3", () => v3("view-details")]]) {
    test(`${version} shows the card, and the partner's page sees nothing of it`, async (t) => {
      const page = await partnerPage(t);
      const frame = await show(page, "cardData", await config());
      await shown(frame);
      assert.deepEqual(await values(frame), [grouped, expiry, card.cvc]);
      await opaque(page);
      await discreet(page, [card.pan, grouped, card.cvc]);
      assert.deepEqual(await said(page), []);
      for (const id of ["#pse-card-data-container", ".pse-container", ".pse-card-field", ".pse-card-label"]) {
        assert.ok((await frame.locator(id).count()) > 0, id);
      }
    });
  }

  test("looks right", async (t) => {
    const page = await partnerPage(t);
    await shown(await show(page, "cardData", await v1()));
    await shots(page, "card-data");
    await page.setViewportSize({ width: 320, height: 640 });
    await fits(page);
  });

  test("looks as an app's own configuration says", async (t) => {
    const page = await partnerPage(t);
    const frame = await show(page, "cardData", await v1({ appId: "branded" }), { style: { copyButton: { color: "#7a1fa2" }, value: { fontSize: 22, position: "fixed", background: "url(https://elsewhere.example/)" } } });
    await shown(frame);
    assert.equal(await frame.locator("html").getAttribute("lang"), "de");
    const style = await frame.locator(".pse-card-value").first().evaluate((value) => {
      const { fontSize, position, backgroundImage, letterSpacing, fontWeight } = getComputedStyle(value);
      return { fontSize, fixed: position === "fixed", backgroundImage, letterSpacing, fontWeight };
    });
    assert.deepEqual(style, { fontSize: "22px", fixed: false, backgroundImage: "none", letterSpacing: "1px", fontWeight: "700" });
    await shots(page, "card-data-branded");
  });

  test("copies, and says so", async (t) => {
    const page = await partnerPage(t);
    const frame = await show(page, "cardData", await v1());
    await shown(frame);
    for (const [button, type, text] of [
      ["Copy card number", "CardNumberCopied", card.pan],
      ["Copy expiry date", "CardExpirationCopied", expiry],
      ["Copy security code", "CardSecurityCodeCopied", card.cvc],
    ]) {
      await frame.getByRole("button", { name: button }).click();
      await until(page, type);
      assert.equal(await clipboard(page), text);
    }
    assert.deepEqual(await page.evaluate(() => window.did), ["CardNumberCopied", "CardExpirationCopied", "CardSecurityCodeCopied"]);
    await discreet(page, [card.pan, grouped, card.cvc]);
    await shots(page, "card-data-copied");
  });

  test("copies where the partner's page does not let it use the clipboard", async (t) => {
    const page = await partnerPage(t, undefined, { violates: true }); // the browser says that it was tried
    await page.evaluate(async (src) => {
      const frame = document.createElement("iframe"); // as it comes, without allow="clipboard-write"
      frame.src = src;
      await new Promise((resolve) => {
        frame.onload = resolve;
        document.querySelector("#element").replaceChildren(frame);
      });
    }, `${host}/?appId=demo`);
    await post(page, { type: "init", cardToken: card.id, ephemeralToken: await mint(), elementType: "cardData", appId: "demo" });
    await shown(frame(page));
    await frame(page).getByRole("button", { name: "Copy card number" }).click();
    await until(page, "CardNumberCopied");
    assert.equal(await clipboard(page), card.pan);
  });

  test("is taken away when its time is over, and comes again with a fresh token", async (t) => {
    const page = await partnerPage(t);
    const frame = await show(page, "cardData", await v1({ appId: "short" }));
    await shown(frame);
    assert.match(await frame.getByRole("timer").innerText(), /\b(1[0-5]|[1-9]) s/);
    const held = await inside(page).evaluateHandle(() => document.querySelector(".pse-card-value").firstChild); // as a script might
    await frame.locator(".pse-card-value.cs-masked").first().waitFor();
    const text = await inside(page).evaluate(() => document.documentElement.outerHTML);
    for (const secret of [card.pan, grouped, ">" + card.cvc + "<"]) {
      assert.ok(!text.includes(secret), "it is still in the page");
    }
    assert.equal(await held.evaluate((node) => node.textContent), "");
    await shots(page, "card-data-hidden");
    await page.evaluate(() => (window.refreshes = true));
    await frame.getByRole("button", { name: "Show again" }).click();
    await shown(frame);
    assert.deepEqual(await said(page), ["EphemeralTokenInvalid"]);
    assert.deepEqual(await values(frame), [grouped, expiry, card.cvc]);
    await frame.getByRole("button", { name: "Hide" }).click();
    await frame.locator(".pse-card-value.cs-masked").first().waitFor();
  });

  test("a used token is answered by a fresh one", async (t) => {
    const page = await partnerPage(t);
    const token = await spent();
    const frame = await show(page, "cardData", await v1({ ephemeralToken: token }));
    await until(page, "EphemeralTokenInvalid");
    assert.match((await page.evaluate(() => window.did)).join(), /^invalid token: /);
    assert.equal(await frame.locator(".pse-card-value:not(.cs-masked)").count(), 0);
    await shots(page, "card-data-waiting");
    await page.evaluate(async () => window.sdk.refreshToken(await window.freshToken()));
    await shown(frame);
    assert.deepEqual(await values(frame), [grouped, expiry, card.cvc]);
    await discreet(page, [card.pan, token]);
  });

  test("a signature is good for one action, of its kind, and once", async (t) => {
    const page = await partnerPage(t);
    await page.evaluate(() => (window.refreshes = true));
    await show(page, "cardData", await v3("view-pin"));
    await until(page, "Error");
    const config = await v3("view-details");
    await shown(await show(page, "cardData", config));
    await show(page, "cardData", { ...config, ephemeralToken: await mint() });
    await until(page, "Error", 2);
    await settle(page);
    assert.equal(await frame(page).locator(".pse-card-value:not(.cs-masked)").count(), 0);
  });

  test("a card that is not there is an error, for the person and for the partner", async (t) => {
    const page = await partnerPage(t);
    const frame = await show(page, "cardData", await v1(), { cardToken: "00000000-0000-4000-8000-000000000000" });
    await until(page, "Error");
    await frame.locator(".cs-error").waitFor();
    await shots(page, "card-data-error");
  });

  test("works on a phone, by the keyboard", async (t) => {
    const page = await partnerPage(t, undefined, { viewport: phone, hasTouch: true, isMobile: true });
    const frame = await show(page, "cardData", await v1());
    await shown(frame);
    await fits(page);
    await frame.getByRole("button", { name: "Copy card number" }).focus();
    await page.keyboard.press("Enter");
    await until(page, "CardNumberCopied");
    await page.keyboard.press("Tab");
    assert.equal(await inside(page).evaluate(() => document.activeElement.getAttribute("aria-label")), "Copy expiry date");
    const outline = await inside(page).evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.notEqual(outline, "none", "what has the focus is not seen");
  });
});

describe("cardPin", () => {
  for (const [version, config] of [["V1", () => v1()], ["V3", () => v3("view-pin")]]) {
    test(`${version} shows the PIN`, async (t) => {
      const page = await partnerPage(t);
      const frame = await show(page, "cardPin", await config());
      await shown(frame);
      assert.deepEqual(await values(frame), [pin]);
      await opaque(page);
      assert.deepEqual(await said(page), []);
      if (version === "V1") {
        await shots(page, "card-pin");
      }
    });
  }
});

describe("setCardPin", () => {
  const type = async (frame, first, second) => {
    await frame.getByLabel("New PIN").fill(first);
    await frame.getByLabel("Repeat PIN").fill(second);
    await frame.locator("#pse-continue-pin-button").click();
  };
  const sent = () => requests.filter(({ url }) => url.endsWith("/pin")).length;

  test("refuses what is weak or not the same before anything is sent", async (t) => {
    const page = await partnerPage(t);
    const frame = await show(page, "setCardPin", await v1());
    const before = sent();
    await shots(page, "set-pin");
    const problem = frame.getByRole("alert");
    for (const [first, second, message] of [
      ["1234", "1234", /too easy/],
      ["4321", "4321", /too easy/],
      ["8901", "8901", /too easy/],
      ["0000", "0000", /too easy/],
      ["258", "258", /4 digits/],
      [pins[0], pins[1], /not the same/],
    ]) {
      await type(frame, first, second);
      await problem.filter({ hasText: message }).waitFor();
    }
    await shots(page, "set-pin-refused");
    await settle(page);
    assert.equal(sent(), before);
    assert.deepEqual(await said(page), []);
  });

  for (const [version, config, next] of [["V1", () => v1(), pins[0]], ["V3", () => v3("change-pin"), pins[1]]]) {
    test(`${version} sets the PIN`, async (t) => {
      const page = await partnerPage(t);
      const frame = await show(page, "setCardPin", await config());
      await frame.getByLabel("New PIN").waitFor();
      const bodies = [];
      page.on("request", (request) => request.method() === "PUT" && bodies.push(request.postData()));
      await type(frame, next, next);
      await until(page, "SetPinSuccess");
      await frame.locator("#pse-set-pin-success-container").waitFor();
      assert.equal(bodies.length, 1);
      assert.deepEqual(Object.keys(JSON.parse(bodies[0])).sort(), ["data", "iv"]);
      assert.ok(!(await inside(page).evaluate(() => document.documentElement.outerHTML)).includes(next));
      if (version === "V1") {
        await shots(page, "set-pin-done");
      }
      await frame.locator("#pse-done-button").click();
      await until(page, "DoneSettingPin");
      assert.deepEqual(await page.evaluate(() => window.did), ["SetPin", "DoneSettingPin"]);
      await accessible(page, "after Done");
      pin = next;
      const shownAgain = await show(page, "cardPin", await v1());
      await shown(shownAgain);
      assert.deepEqual(await values(shownAgain), [next]);
    });
  }

  test("a used token is answered by a fresh one, and what was typed is sent", async (t) => {
    const page = await partnerPage(t);
    await page.evaluate(() => (window.refreshes = true));
    const frame = await show(page, "setCardPin", await v1({ ephemeralToken: await spent() }));
    await type(frame, pins[0], pins[0]);
    await until(page, "SetPinSuccess");
    assert.deepEqual(await said(page), ["EphemeralTokenInvalid", "SetPinSuccess"]);
    pin = pins[0];
  });
});

/** post sends a message to our frame as the SDK would. */
const post = (page, message) => page.evaluate(([message, host]) => document.querySelector("#element iframe").contentWindow.postMessage(message, host), [message, host]);

/** clipboard is what the partner's page could paste; it takes the focus for that. */
const clipboard = (page) =>
  page.evaluate(() => {
    window.focus();
    return navigator.clipboard.readText();
  });
