// Hosted fields: a card that is typed into frames of ours, in a merchant's page that never has it.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { accessible, app, call, comes, discreet, evil, fieldsSession, host, otherApp, partnerPage, pay, requests, settle, setup, shots, typed } from "./harness.mjs";

const grouped = typed.number.replace(/(\d{4})(?=\d)/g, "$1 ");
const secrets = [typed.number, grouped, typed.cvv];

/** merchant makes the page of a merchant's, with a session of its own, and the library loaded as it asks to be. */
async function merchant(t, session, { origin = app, ...options } = {}) {
  const page = await partnerPage(t, origin, options);
  await page.evaluate(
    async ([src, integrity]) => {
      document.querySelector("#element").replaceWith(
        ...["cardholderName", "cardNumber", "expiryDate", "cvv", "submit"].flatMap((name) => {
          const target = document.createElement("div");
          target.id = name;
          target.className = "field";
          const error = document.createElement("div");
          error.id = `${name}-error`;
          error.className = "error";
          return name === "submit" ? [target] : [target, error];
        }),
      );
      const script = document.createElement("script");
      Object.assign(script, { src, integrity, crossOrigin: "anonymous" });
      const loaded = new Promise((resolve, reject) => Object.assign(script, { onload: resolve, onerror: () => reject(new Error("the library is not to be had")) }));
      document.head.append(script);
      await loaded;
    },
    [host + setup.library.path, setup.library.integrity],
  );
  await page.evaluate((sessionToken) => {
    const field = (name, more) => ({ target: `#${name}`, ...(name === "submit" ? {} : { errorTarget: `#${name}-error` }), ...more });
    window.form = new Cardstile.hostedFields({
      sessionToken,
      mode: "payment",
      fields: {
        card: {
          cardholderName: field("cardholderName", { placeholder: "Name on card" }),
          cardNumber: field("cardNumber", { placeholder: "Card number" }),
          expiryDate: field("expiryDate", { placeholder: "MM/YY" }),
          cvv: field("cvv", { placeholder: "CVV" }),
          submit: field("submit", { value: "Pay $49.99" }),
        },
      },
    });
    window.form.on("submissionSuccess", (event) => window.did.push({ submissionSuccess: event }));
    window.form.on("error", (event) => window.did.push({ error: event }));
    return window.form.initialize();
  }, session);
  return page;
}

const input = (page, name) => page.frameLocator(`#${name} iframe`).locator(name === "submit" ? "button" : "input");
const leave = (page, name) => input(page, name).blur();

async function fill(page, card = typed) {
  for (const [name, text] of [["cardholderName", card.name], ["cardNumber", card.number], ["expiryDate", card.expiry], ["cvv", card.cvv]]) {
    await input(page, name).click();
    await input(page, name).pressSequentially(text);
    await leave(page, name);
  }
}

/** submitted waits for what became of a press of the button. */
async function submitted(page) {
  await input(page, "submit").click();
  await page.waitForFunction(() => window.did.length > 0);
  return page.evaluate(() => window.did);
}

const payroc = (page) => page.evaluate(() => window.said.map(({ data }) => `${data.type} ${data.field}${data.valid === undefined ? "" : ` ${data.valid}`}`));

describe("hosted fields", () => {
  test("a card is typed, a token comes, and it pays once", async (t) => {
    const session = await fieldsSession();
    const page = await merchant(t, session);
    for (const name of ["cardholderName", "cardNumber", "expiryDate", "cvv", "submit"]) {
      await input(page, name).waitFor();
    }
    await shots(page, "fields-empty");
    await fill(page);
    assert.equal(await input(page, "cardNumber").inputValue(), grouped);
    await page.waitForFunction(() => window.said.filter(({ data }) => data.type === "payroc:field-valid" && data.valid).length === 4);
    await shots(page, "fields-filled");
    await discreet(page, secrets);
    const opaque = await page.evaluate(() => [...document.querySelectorAll("iframe")].every((frame) => frame.contentDocument === null));
    assert.ok(opaque, "the merchant's page can look into a field");

    const [{ submissionSuccess }] = await submitted(page);
    assert.ok(submissionSuccess.token.length > 20);
    const minutes = (Date.parse(submissionSuccess.expiresAt) - Date.now()) / 60_000;
    assert.ok(minutes > 28 && minutes < 31, submissionSuccess.expiresAt);
    await discreet(page, secrets);
    await page.waitForFunction(() => window.said.some(({ data }) => data.type === "payroc:field-submitted"));
    assert.deepEqual(
      (await payroc(page)).filter((text) => /connected|submit/.test(text)).sort(),
      ["cardNumber", "cardholderName", "cvv", "expiryDate", "submit"].map((name) => `payroc:field-connected ${name}`).concat(["payroc:field-submitted submit", "payroc:field-submitting submit"]).sort(),
    );
    assert.deepEqual([...new Set(await page.evaluate(() => window.said.map(({ origin }) => origin)))], [host]);
    await comes("what was typed goes", async () => (await input(page, "cardNumber").inputValue()) === "");
    await shots(page, "fields-submitted");

    const paid = await pay(submissionSuccess.token);
    assert.equal(paid.status, 201, paid.text);
    assert.equal(paid.json.card.cardNumber, `${typed.number.slice(0, 6)}******${typed.number.slice(-4)}`);
    assert.match(JSON.stringify(paid.json.transactionResult), /responseCode/);
    for (const secret of secrets) {
      assert.ok(!paid.text.includes(secret), "the answer has card data");
    }
    const again = await pay(submissionSuccess.token);
    assert.equal(again.status, 400);
    assert.equal(again.json.errors[0].parameter, "paymentMethod.token");
  });

  test("each field says what is wrong with it, and nothing is submitted", async (t) => {
    const page = await merchant(t, await fieldsSession());
    const says = (name, pattern) => page.locator(`#${name}-error`).filter({ hasText: pattern }).waitFor();
    const sent = () => requests.filter(({ url }) => url.endsWith("/single-use-tokens")).length;
    const before = sent();
    await fill(page, { number: "5555555555554445", expiry: "0120", cvv: "12", name: "1" });
    await says("cardNumber", /card number/);
    await says("expiryDate", /expiry date/);
    await says("cvv", /security code/);
    assert.equal(await input(page, "cardNumber").getAttribute("aria-invalid"), "true");
    await input(page, "submit").click();
    await page.waitForFunction(() => window.said.some(({ data }) => data.type === "payroc:field-submitting"));
    await settle(page);
    assert.equal(sent(), before);
    await shots(page, "fields-wrong");
    await input(page, "cardNumber").fill("");
    await leave(page, "cardNumber");
    await input(page, "submit").click();
    await says("cardNumber", /needed/);

    // And the same page goes on when all is right.
    for (const name of ["cardholderName", "cardNumber", "expiryDate", "cvv"]) {
      await input(page, name).fill("");
    }
    await fill(page);
    for (const name of ["cardNumber", "expiryDate", "cvv"]) {
      await says(name, /^$/);
    }
    assert.ok("submissionSuccess" in (await submitted(page))[0]);
    await discreet(page, secrets);
  });

  test("a session that another page has claimed is refused", async (t) => {
    const session = await fieldsSession();
    const first = await merchant(t, session);
    await input(first, "cardNumber").waitFor();
    const second = await merchant(t, session);
    const [{ error }] = await second.evaluate(() => window.did);
    assert.equal(error.type, "session");
    assert.equal(await second.locator("iframe").count(), 0);
    await fill(first); // the first has it still
    assert.ok("submissionSuccess" in (await submitted(first))[0]);
  });

  test("a session that there is not, is refused", async (t) => {
    const page = await merchant(t, "nosuchsession");
    const [{ error }] = await page.evaluate(() => window.did);
    assert.equal(error.type, "session");
    assert.equal(await page.locator("iframe").count(), 0);
  });

  for (const origin of [evil, otherApp]) {
    test(`${origin} has no fields`, async (t) => {
      const session = await fieldsSession();
      const page = await merchant(t, session, { origin, violates: true });
      const [{ error }] = await page.evaluate(() => window.did);
      assert.deepEqual([error.type, error.status], ["session", 0]); // the browser keeps the answer from it
      const query = (targetOrigin) => `/merchant/hosted-fields?field=cardNumber&hostedFieldsSessionId=${session}&targetOrigin=${encodeURIComponent(targetOrigin)}`;
      assert.equal((await call(host + query(app))).status, 200);
      assert.equal((await call(host + query(origin))).status, 400);
      await page.evaluate(async (src) => {
        const frame = document.createElement("iframe");
        frame.src = src;
        document.body.append(frame);
        await new Promise((resolve) => (frame.onload = resolve));
      }, host + query(app));
      assert.equal(page.frames().some((each) => each.url().startsWith(host)), false);
    });
  }

  test("messages of others are ignored", async (t) => {
    const page = await merchant(t, await fieldsSession());
    await input(page, "submit").waitFor();
    await fill(page);
    await page.waitForFunction(() => window.said.filter(({ data }) => data.type === "payroc:field-valid" && data.valid).length === 4);
    const tokens = () => requests.filter(({ url }) => url.endsWith("/single-use-tokens")).length;
    const before = tokens();
    await page.evaluate(async () => {
      for (const frame of [...document.querySelectorAll("iframe")]) {
        frame.contentWindow.postMessage({ type: "cardstile:mint" }, "*"); // nobody has pressed the button
        frame.contentWindow.postMessage({ type: "cardstile:flush", flush: "x" }, "*");
      }
      window.postMessage({ type: "payroc:field-submitted", field: "submit", token: "forged", expiresAt: "" }, "*");
      const sibling = document.createElement("iframe");
      sibling.src = "/sibling";
      document.body.append(sibling);
      await new Promise((resolve) => (sibling.onload = resolve));
    });
    const sibling = page.frames().find((each) => each.url().endsWith("/sibling"));
    await sibling.evaluate(() => {
      window.parent.postMessage({ type: "payroc:field-submitted", field: "submit", token: "forged", expiresAt: "" }, "*");
      window.parent.document.querySelector("#cardNumber iframe").contentWindow.postMessage({ type: "cardstile:wipe" }, "*");
    });
    await settle(page);
    assert.equal(tokens(), before);
    assert.deepEqual(await page.evaluate(() => window.did), []);
    assert.equal(await input(page, "cardNumber").inputValue(), grouped);
    await accessible(page, "fields");
  });

  test("pages say what they are", async () => {
    const query = `/merchant/hosted-fields?field=cardNumber&hostedFieldsSessionId=x&targetOrigin=${encodeURIComponent(app)}`;
    const { headers } = await call(host + query);
    assert.match(headers["content-security-policy"], new RegExp(`frame-ancestors ${app}(;|$)`));
    assert.equal(headers["referrer-policy"], "no-referrer");
    assert.equal(headers["set-cookie"], undefined);
  });
});
