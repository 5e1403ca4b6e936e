// Hosted fields whose script is a vendor's, served elsewhere: the page runs that, if it is what the operator has looked at.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { app, call, comes, fieldsSession, host, partnerPage, settle, setup, vendor, vendorScript } from "./harness.mjs";

const file = join(setup.dir, "config.yaml");
const config = readFileSync(file, "utf8");
const url = `${vendor}/lib/payroc.js`;

async function field() {
  return `${host}/merchant/hosted-fields?field=cardNumber&hostedFieldsSessionId=${await fieldsSession()}&targetOrigin=${encodeURIComponent(app)}`;
}

/**
 * configure has the gateway take up a vendor's script, and waits for it. There are no pages of cards beside it: the
 * gateway wants them on a listener of their own.
 */
async function configure(script, isIt) {
  const without = config.replace(/\n    apps:(\n {6}.*)+/, "");
  assert.notEqual(without, config);
  assert.match(without, /hosted_fields: \{/);
  writeFileSync(`${file}.new`, script === "" ? config : without.replace("hosted_fields: {", `hosted_fields: {${script}, `));
  renameSync(`${file}.new`, file);
  await comes("the configuration is taken up", async () => isIt((await call(await field())).text));
}

const digest = (text) => `sha384-${createHash("sha384").update(text).digest("base64")}`;

describe("a vendor's script", () => {
  after(() => configure("", (text) => !text.includes(vendor)));

  test("runs in the field's page, and speaks with the merchant's", async (t) => {
    await configure(`script: "${url}", integrity: "${digest(vendorScript)}"`, (text) => text.includes(digest(vendorScript)));
    const page = await partnerPage(t);
    await page.evaluate((src) => window.raw(src), await field());
    await page.waitForFunction(() => window.said.length > 0);
    assert.deepEqual(await page.evaluate(() => window.said), [{ origin: host, data: { type: "payroc:field-connected", field: "cardNumber", by: "the vendor's script" } }]);
    assert.equal(await page.frameLocator("#element iframe").locator("input").count(), 1);
  });

  test("does not run when it has changed", async (t) => {
    await configure(`script: "${url}", integrity: "${digest(vendorScript + " ")}"`, (text) => text.includes(digest(vendorScript + " ")));
    const page = await partnerPage(t, app, { violates: true });
    await page.evaluate((src) => window.raw(src), await field());
    await settle(page);
    assert.deepEqual(await page.evaluate(() => window.said), []);
    assert.ok(page.console.some((text) => /integrity/.test(text)), page.console.join("\n"));
  });
});
