import { copy } from "./clipboard.ts";
import { type Context, type View, explain, report } from "./context.ts";
import { Countdown } from "./countdown.ts";
import type { Told } from "./channel.ts";
import { failureOf } from "./failure.ts";
import type { Key } from "./i18n.ts";
import { h, icon } from "./page.ts";

const copyIcon = "M8 8V5a2 2 0 0 1 2-2h9a2 2 0 0 1 2 2v9a2 2 0 0 1-2 2h-3M5 8h9a2 2 0 0 1 2 2v9a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2v-9a2 2 0 0 1 2-2z";
const doneIcon = "M5 12.5l4.5 4.5L19 7.5";

/** Field is a line of what is shown. */
export interface Field {
  readonly label: Key;
  readonly dots: string; // what stands there while nothing is shown
  readonly wide?: boolean;
  readonly copy?: { readonly label: Key; readonly told: Told };
}

/** Shown is the value of a field: what is read, and what is copied. */
export interface Shown {
  readonly text: string;
  readonly copied: () => string;
}

/** Revealed are the values of all fields, in their order; nothing where one is withheld. Wipe ends what copies are made of. */
export interface Revealed {
  readonly values: readonly (Shown | undefined)[];
  readonly wipe: () => void;
}

/** Source says what is shown, and where it comes from. */
export interface Source {
  readonly id: string;
  readonly title: Key;
  readonly failed: string; // constant: what the app's page is told
  readonly fields: readonly Field[];
  /** read returns a message where there is nothing to show. */
  readonly read: (token: string, signal: AbortSignal) => Promise<Revealed | Key>;
}

/** Line is a field on the page. */
class Line {
  readonly root: HTMLElement;
  private readonly value: HTMLElement;
  private readonly button: HTMLButtonElement | undefined;
  private shown: Shown | undefined;

  constructor(
    private readonly ctx: Context,
    private readonly field: Field,
    id: string,
    private readonly say: (text: string) => void,
  ) {
    const label = ctx.styles.apply("label", h("span", { class: "pse-card-label", id }, ctx.text(field.label)));
    this.value = ctx.styles.apply("value", h("span", { class: "pse-card-value" }));
    this.root = ctx.styles.apply("field", h("div", { class: `pse-card-field${field.wide === true ? " cs-wide" : ""}`, role: "group", "aria-labelledby": id }));
    this.root.append(h("div", { class: "cs-text" }, label, this.value));
    if (field.copy !== undefined) {
      this.button = ctx.styles.apply("copyButton", h("button", { type: "button", class: "cs-copy", "aria-label": ctx.text(field.copy.label) }));
      this.button.addEventListener("click", () => void this.copy());
      this.root.append(this.button);
    }
    this.mask("hidden");
  }

  show(shown: Shown | undefined): void {
    if (shown === undefined) {
      this.mask("not_available");
      return;
    }
    this.shown = shown;
    this.value.classList.remove("cs-masked");
    this.value.replaceChildren(shown.text);
    if (this.button !== undefined) {
      this.button.hidden = false;
    }
  }

  /** mask takes the value off the page. Its text node is emptied too, since a reference to it may be held elsewhere. */
  mask(why: Key): void {
    this.shown = undefined;
    for (const node of this.value.childNodes) {
      node.textContent = "";
    }
    this.value.classList.add("cs-masked");
    this.value.replaceChildren(h("span", { "aria-hidden": "true" }, this.field.dots), h("span", { class: "cs-unseen" }, this.ctx.text(why)));
    if (this.button !== undefined) {
      this.button.hidden = true;
      this.button.replaceChildren(icon(copyIcon));
    }
  }

  private async copy(): Promise<void> {
    const { shown, button, field } = this;
    if (shown === undefined || button === undefined || field.copy === undefined) {
      return;
    }
    if (!(await copy(shown.copied(), this.value))) {
      this.say(this.ctx.text("not_copied"));
      return;
    }
    this.ctx.tell(field.copy.told);
    this.say(this.ctx.text("copied", { what: this.ctx.text(field.label) }));
    button.replaceChildren(icon(doneIcon));
    setTimeout(() => button.replaceChildren(icon(copyIcon)), 2000);
  }
}

/** reveal shows values until a countdown, or the person, takes them away again. */
export function reveal(ctx: Context, source: Source): View {
  const stop = new AbortController();
  const note = h("p", { class: "cs-status", role: "status" });
  const say = (text: string): void => {
    note.classList.remove("cs-unseen");
    note.replaceChildren(text);
  };
  const lines = source.fields.map((field, i) => new Line(ctx, field, `cs-label-${i}`, say));
  const left = h("p", { class: "cs-left", role: "timer" });
  const bar = h("span", { class: "cs-bar", "aria-hidden": "true" }, h("span"));
  const button = h("button", { type: "button", class: "cs-button" });
  const box = h("div", { id: source.id, class: "cs-card" }, ...lines.map((line) => line.root));
  const heading = h("h1", { class: "cs-unseen" }, ctx.text(source.title));
  const root = ctx.styles.apply("container", h("main", { class: "pse-container" }, heading, box, bar, h("div", { class: "cs-foot" }, h("div", {}, left, note), button)));

  let countdown: Countdown | undefined;
  let revealed: Revealed | undefined;
  let reading = false;

  const wipe = (): void => {
    countdown?.stop();
    countdown = undefined;
    revealed?.wipe();
    revealed = undefined;
    lines.forEach((line) => line.mask("hidden"));
    left.replaceChildren("");
    fill(0);
  };
  const fill = (part: number): void => (bar.firstElementChild as HTMLElement).style.setProperty("transform", `scaleX(${part})`);
  const offer = (key: Key, hidden = false): void => {
    button.textContent = ctx.text(key);
    button.hidden = hidden;
  };
  const hide = (): void => {
    wipe();
    say(ctx.text("hidden"));
    offer("show");
  };
  const show = (values: Revealed): void => {
    revealed = values;
    lines.forEach((line, i) => line.show(values.values[i]));
    say(ctx.text("shown_for", { seconds: ctx.showSeconds }));
    note.classList.add("cs-unseen"); // whoever sees, sees the countdown
    offer("hide");
    countdown = new Countdown(
      ctx.showSeconds,
      (seconds) => {
        left.replaceChildren(ctx.text("hidden_in", { seconds }));
        fill(seconds / ctx.showSeconds);
      },
      hide,
    );
  };
  const load = async (): Promise<void> => {
    if (reading) {
      return;
    }
    reading = true;
    root.setAttribute("aria-busy", "true");
    note.classList.remove("cs-error");
    say(ctx.text("loading"));
    try {
      const result = await ctx.access.perform((token) => source.read(token, stop.signal), stop.signal);
      if (typeof result === "string") {
        say(ctx.text(result));
        offer("retry", true);
      } else if (stop.signal.aborted) {
        result.wipe();
      } else {
        show(result);
      }
    } catch (thrown) {
      if (!stop.signal.aborted) {
        const failure = failureOf(thrown);
        const { key, retry } = explain(failure);
        note.classList.add("cs-error");
        say(ctx.text(key));
        offer("retry", !retry);
        report(ctx, source.failed, failure);
      }
    } finally {
      reading = false;
      root.removeAttribute("aria-busy");
    }
  };

  button.addEventListener("click", () => (revealed === undefined ? void load() : hide()));
  offer("show", true);
  void load();
  return {
    root,
    title: ctx.text(source.title),
    leave: () => {
      if (revealed !== undefined) {
        hide();
      }
    },
    close: () => {
      stop.abort();
      wipe();
    },
  };
}
