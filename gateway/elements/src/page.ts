// What the gateway wrote into the page, and the few ways in which scripts change it.

/** meta returns what a page was made with; it is empty where the page says nothing. */
export function meta(name: string): string {
  return document.querySelector<HTMLMetaElement>(`meta[name="cardstile-${name}"]`)?.content ?? "";
}

type Attributes = Readonly<Record<string, string>>;

/**
 * h makes an element. Children are elements or text; nothing here takes HTML, and the page's policy has no sink that
 * would.
 */
export function h<K extends keyof HTMLElementTagNameMap>(tag: K, attributes: Attributes = {}, ...children: (Node | string)[]): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** icon draws a path in a box of 24, in the colour of the text around it. */
export function icon(path: string): SVGSVGElement {
  const namespace = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(namespace, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const shape = document.createElementNS(namespace, "path");
  shape.setAttribute("d", path);
  svg.append(shape);
  return svg;
}

/** onLeave calls back when the page goes out of sight for good, or is frozen: whoever looks next may be somebody else. */
export function onLeave(leave: () => void): void {
  window.addEventListener("pagehide", leave);
  document.addEventListener("freeze", leave); // of the Page Lifecycle; browsers without it never freeze
}
