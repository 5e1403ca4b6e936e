// The page of the demo's partner, as a newcomer sees it.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { doc, host, partnerPage, pins, shots, typed, values } from "./harness.mjs";

const grouped = doc.card.pan.replace(/(\d{4})(?=\d)/g, "$1 ");
const open = (t, options = {}) => partnerPage(t, host, { path: "/demo/", ...options });
const element = (page, id) => page.frameLocator(`#${id} iframe`);
const status = (page, id, pattern) => page.locator(`#${id} .status`).filter({ hasText: pattern }).waitFor();
const log = (page, id) => page.locator(`#${id} .log .type`).allInnerTexts();

/** pageText is what stands on the page outside frames. */
const pageText = (page) => page.evaluate(() => document.documentElement.outerHTML);

async function typeCard(page, card = typed) {
  for (const [id, text] of [["name", card.name], ["number", card.number], ["expiry", card.expiry], ["cvv", card.cvv]]) {
    const input = page.frameLocator(`#pay-${id} iframe`).locator("input");
    await input.click();
    await input.pressSequentially(text);
    await input.blur();
  }
}

describe("the demo's page", () => {
  test("shows the card, sets a PIN and pays", async (t) => {
    const page = await open(t);
    await element(page, "show").locator(".pse-card-value:not(.cs-masked)").first().waitFor();
    assert.equal((await values(element(page, "show")))[0], grouped);
    await page.frameLocator("#pay-submit iframe").locator("button").waitFor();
    await page.waitForTimeout(200); // the last frames have drawn
    await shots(page, "demo", { fullPage: true });

    await element(page, "show").getByRole("button", { name: "Copy card number" }).click();
    await status(page, "show", /clipboard/);
    await page.getByRole("button", { name: "Show the card" }).click();
    await element(page, "show").locator(".pse-card-value:not(.cs-masked)").first().waitFor();

    await page.getByRole("button", { name: "Set another PIN" }).click();
    for (const label of ["New PIN", "Repeat PIN"]) {
      await element(page, "pin").getByLabel(label).fill(pins[1]);
    }
    await element(page, "pin").locator("#pse-continue-pin-button").click();
    await status(page, "pin", /PIN is set/);
    await shots(page, "demo-pin", { fullPage: true });
    await element(page, "pin").locator("#pse-done-button").click();
    await page.getByRole("button", { name: "Show the PIN" }).click();
    await element(page, "pin").locator(".pse-card-value:not(.cs-masked)").first().waitFor();
    assert.deepEqual(await values(element(page, "pin")), [pins[1]]);

    await typeCard(page);
    await page.frameLocator("#pay-submit iframe").locator("button").click();
    await status(page, "pay", new RegExp(`${typed.number.slice(0, 6)}\\*{6}${typed.number.slice(-4)}`));
    await page.locator("#pay-again").click();
    await page.locator("#pay .status.bad").waitFor();
    await shots(page, "demo-paid", { fullPage: true });

    const text = await pageText(page);
    for (const secret of [doc.card.pan, grouped, typed.number, `>${doc.card.cvc}<`, `>${pins[1]}<`]) {
      assert.ok(!text.includes(secret), "the page has card data");
    }
    assert.deepEqual(await log(page, "pin"), ["POST /demo/token", "init", "SetPinSuccess", "DoneSettingPin", "POST /demo/token", "init"]);
    assert.ok((await log(page, "pay")).includes("payroc:field-submitted"));
  });

  test("fits a phone", async (t) => {
    for (const width of [320, 390]) {
      const page = await open(t, { viewport: { width, height: 844 }, isMobile: true, hasTouch: true });
      await element(page, "show").locator(".pse-card-value:not(.cs-masked)").first().waitFor();
      const { scroll, client } = await page.evaluate(() => ({ scroll: document.documentElement.scrollWidth, client: document.documentElement.clientWidth }));
      assert.ok(scroll <= client, `it is ${scroll} px wide on a screen of ${client}`);
    }
  });
});
