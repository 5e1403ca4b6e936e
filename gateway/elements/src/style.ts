import { member } from "./session.ts";
import grammar from "./style.json";

// style.json is the allow-list of the gateway too: what an operator cannot configure, an app's page cannot pass either.

const kinds: Readonly<Record<string, string>> = grammar.kinds;
const properties: Readonly<Record<string, string>> = grammar.properties;

const maxValue = 200;
const unitless: readonly string[] = ["font-weight", "line-height"];

/** Part names what an app's page may style. Source: @gnosispay/pse-sdk 2.0.1, ElementStyle. */
export type Part = "container" | "field" | "label" | "value" | "changePinButton" | "copyButton" | "successNotice";

/**
 * Styles are what an app's page passed: for each part an object of properties as React spells them. What is not allowed is
 * left out; a page that has more than it may, loses no more than that.
 */
export class Styles {
  constructor(private readonly given: unknown) {}

  /** apply sets what is given for a part, by the object model alone: there is no text for anything to break out of. */
  apply<E extends HTMLElement>(part: Part, element: E): E {
    const style = member(this.given, part);
    if (typeof style === "object" && style !== null) {
      for (const [name, value] of Object.entries(style)) {
        if (typeof value !== "string" && typeof value !== "number") {
          continue;
        }
        const property = name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`);
        const text = typeof value === "number" && value !== 0 && !unitless.includes(property) ? `${value}px` : `${value}`;
        if (allows(property, text)) {
          element.style.setProperty(property, text);
        }
      }
    }
    return element;
  }
}

function allows(property: string, value: string): boolean {
  const pattern = member(properties, property);
  return typeof pattern === "string" && value.length <= maxValue && /^[ -~]+$/.test(value) && new RegExp(`^(?:${expand(pattern)})$`, "i").test(value);
}

function expand(pattern: string): string {
  return pattern.replace(/<([a-z]+)>/g, (_, kind: string) => `(?:${expand(kinds[kind] ?? "")})`);
}
