// The library that a merchant's page loads: it puts a frame of the gateway's into each of the page's elements, and gets a
// token for what was typed there. It sees no card data.
//
//   const form = new Cardstile.hostedFields({ sessionToken, mode: "payment", fields: { card: { cardNumber: { target: "#number" }, … } } });
//   form.on("submissionSuccess", ({ token, expiresAt }) => …);
//   form.on("error", ({ type, field, message, status }) => …);
//   form.initialize();
import type { FieldName, FromField, ToField } from "./protocol.ts";
import { uuid } from "./uuid.ts";

/** FieldOptions say where a field goes. Selectors are CSS; an element will do as well. */
export interface FieldOptions {
  readonly target: string | Element;
  readonly errorTarget?: string | Element; // gets what is wrong with the field, for a person
  readonly wrapperTarget?: string | Element; // hidden where the card has no such field
  readonly placeholder?: string;
  readonly value?: string; // of submit: what the button says
  readonly title?: string; // what screen readers call the frame
}

export interface Options {
  readonly sessionToken: string;
  readonly mode: "payment" | "tokenization";
  readonly fields: { readonly card: Readonly<Partial<Record<FieldName, FieldOptions>>> };
  readonly host?: string; // origin of the gateway; left out: that of this script
  readonly locale?: string;
}

/** Events are what a page listens to. */
export interface Events {
  readonly submissionSuccess: { readonly token: string; readonly expiresAt: string };
  readonly error: { readonly type: "session" | "field" | "submit"; readonly field?: FieldName; readonly message: string; readonly status: number };
}

interface Configuration {
  readonly cardHolderNameMandatory?: boolean;
  readonly tokenization?: { readonly cvvVerification?: string };
  readonly fraudDetection?: { readonly cvvVerification?: string };
}

interface Frame {
  readonly element: HTMLIFrameElement;
  readonly options: FieldOptions;
  flushed: ((valid: boolean) => void) | undefined;
  awaits: number; // the flush that flushed is for
  skipped: boolean; // the card has no such field
}

const loadedFrom = document.currentScript instanceof HTMLScriptElement ? new URL(document.currentScript.src).origin : "";
const names: readonly FieldName[] = ["cardholderName", "cardNumber", "expiryDate", "cvv", "submit"];
const titles: Readonly<Record<FieldName, string>> = { cardholderName: "Name on card", cardNumber: "Card number", expiryDate: "Expiry date", cvv: "Security code", submit: "Submit" };
const flushPatience = 35_000; // milliseconds: longer than a field waits for its answer
const attempts = 3;

/** hostedFields is called as the published library's class is. */
export class hostedFields {
  private readonly host: string;
  private readonly key = uuid(); // claims the session for this page; a repeated call has it again
  private readonly frames = new Map<FieldName, Frame>();
  private readonly listeners: { [K in keyof Events]: ((event: Events[K]) => void)[] } = { submissionSuccess: [], error: [] };
  private flushes = 0;
  private begun = false;

  constructor(private readonly options: Options) {
    this.host = new URL(options.host ?? loadedFrom).origin;
    if (options.sessionToken === "") {
      throw new Error("hostedFields: sessionToken is missing");
    }
  }

  on<K extends keyof Events>(event: K, listener: (event: Events[K]) => void): this {
    this.listeners[event].push(listener);
    return this;
  }

  /** initialize claims the session and puts the frames into the page. A page does it once. */
  async initialize(): Promise<void> {
    if (this.begun) {
      return;
    }
    this.begun = true;
    const configuration = await this.configure();
    if (configuration === undefined) {
      return;
    }
    window.addEventListener("message", this.receive);
    for (const name of names) {
      const options = this.options.fields.card[name];
      if (options !== undefined) {
        this.add(name, options, configuration);
      }
    }
  }

  /** destroy takes the frames, and what was typed into them, off the page. */
  destroy(): void {
    window.removeEventListener("message", this.receive);
    this.frames.forEach((frame) => {
      frame.flushed?.(false);
      frame.element.remove();
    });
    this.frames.clear();
  }

  private async configure(): Promise<Configuration | undefined> {
    const url = `${this.host}/merchant/api/v2/hosted-fields-sessions/${encodeURIComponent(this.options.sessionToken)}/configuration`;
    for (let attempt = 1; ; attempt++) {
      let status = 0;
      let message = "The gateway does not answer.";
      try {
        const answer = await fetch(url, { headers: { "Idempotency-Key": this.key, "Content-Type": "application/json" }, credentials: "omit", cache: "no-store", referrerPolicy: "no-referrer" });
        status = answer.status;
        const body = (await answer.json()) as { configuration?: Configuration; title?: string; errors?: { message?: string }[] };
        if (answer.ok) {
          return body.configuration ?? {};
        }
        message = body.errors?.[0]?.message ?? body.title ?? "The session was refused.";
      } catch {
        // told below
      }
      if (attempt === attempts || (status !== 0 && status !== 408 && status !== 429 && status < 500)) {
        this.emit("error", { type: "session", message, status });
        return undefined;
      }
      await new Promise((resolve) => setTimeout(resolve, 1000 * attempt));
    }
  }

  private add(name: FieldName, options: FieldOptions, configuration: Configuration): void {
    const target = find(options.target);
    if (target === null) {
      this.emit("error", { type: "field", field: name, message: "There is no element for this field.", status: 0 });
      return;
    }
    const verification = this.options.mode === "payment" ? configuration.fraudDetection?.cvvVerification : configuration.tokenization?.cvvVerification;
    const cvv = String(verification === "mandatory");
    const query = new URLSearchParams({
      field: name,
      hostedFieldsSessionId: this.options.sessionToken,
      isCardholderNameMandatory: String(configuration.cardHolderNameMandatory === true),
      isCvvMandatory: cvv,
      isCvvMandatoryTerminalSetting: cvv,
      locale: this.options.locale ?? "",
      placeholder: options.placeholder ?? "",
      targetOrigin: window.location.origin,
      value: options.value ?? "",
    });
    const element = document.createElement("iframe");
    element.src = `${this.host}/merchant/hosted-fields?${query.toString()}`;
    element.title = options.title ?? titles[name];
    element.referrerPolicy = "no-referrer";
    element.setAttribute("sandbox", "allow-scripts allow-same-origin"); // its own origin, which is not the page's
    element.style.cssText = "display:block;width:100%;border:0";
    const room = target.clientHeight;
    element.style.height = room > 0 ? "100%" : "48px";
    const wrong = find(options.errorTarget);
    if (wrong !== null && !wrong.hasAttribute("aria-live") && !wrong.hasAttribute("role")) {
      wrong.setAttribute("aria-live", "polite");
    }
    this.frames.set(name, { element, options, flushed: undefined, awaits: 0, skipped: false });
    target.replaceChildren(element);
    if (room > 0 && element.offsetHeight > room) { // all of a height that follows its content is the frame's own
      element.style.height = `${room}px`;
    }
  }

  /** receive takes messages of our frames, from the origin that they were loaded from. */
  private readonly receive = (event: MessageEvent<unknown>): void => {
    if (event.origin !== this.host || typeof event.data !== "object" || event.data === null) {
      return;
    }
    for (const [name, frame] of this.frames) {
      if (event.source !== null && event.source === frame.element.contentWindow) {
        this.heard(name, frame, event.data as FromField); // of our own origin: a page of the gateway's
        return;
      }
    }
  };

  private heard(name: FieldName, frame: Frame, message: FromField): void {
    switch (message.type) {
      case "payroc:field-valid":
        say(frame.options.errorTarget, message.valid ? "" : (message.message ?? ""));
        if (name === "cardNumber" && message.info?.showCvv !== undefined) { // of other fields it says nothing
          this.skip("cvv", !message.info.showCvv);
        }
        if (message.flush !== undefined && message.flush === frame.awaits) {
          frame.flushed?.(message.valid);
        }
        return;
      case "payroc:field-submitting":
        if (name === "submit") {
          void this.submit(frame);
        }
        return;
      case "payroc:field-submitted":
        if (name === "submit") {
          this.frames.forEach((each) => this.tell(each, { type: "cardstile:wipe" }));
          this.emit("submissionSuccess", { token: message.token, expiresAt: message.expiresAt });
        }
        return;
      case "payroc:field-error":
        this.emit("error", { type: message.fatal ? "session" : name === "submit" ? "submit" : "field", field: name, message: message.message, status: message.status });
        if (message.fatal) {
          this.destroy();
        }
    }
  }

  private async submit(button: Frame): Promise<void> {
    const fields = [...this.frames.values()].filter((frame) => frame !== button && !frame.skipped);
    const valid = await Promise.all(fields.map((frame) => this.flush(frame)));
    this.tell(button, { type: valid.every((each) => each) ? "cardstile:mint" : "cardstile:idle" });
  }

  private flush(frame: Frame): Promise<boolean> {
    const flush = ++this.flushes;
    return new Promise((resolve) => {
      const end = (valid: boolean): void => {
        clearTimeout(timer);
        frame.flushed = undefined;
        resolve(valid);
      };
      const timer = setTimeout(() => end(false), flushPatience);
      frame.flushed = end;
      frame.awaits = flush;
      this.tell(frame, { type: "cardstile:flush", flush });
    });
  }

  private skip(name: FieldName, skipped: boolean): void {
    const frame = this.frames.get(name);
    const wrapper = find(frame?.options.wrapperTarget ?? frame?.options.target);
    if (frame !== undefined && wrapper instanceof HTMLElement) {
      frame.skipped = skipped;
      wrapper.hidden = skipped;
    }
  }

  private tell(frame: Frame, message: ToField): void {
    frame.element.contentWindow?.postMessage(message, this.host);
  }

  private emit<K extends keyof Events>(event: K, value: Events[K]): void {
    this.listeners[event].forEach((listener) => listener(value));
  }
}

function find(where: string | Element | undefined): Element | null {
  return typeof where === "string" ? document.querySelector(where) : (where ?? null);
}

function say(where: string | Element | undefined, text: string): void {
  const element = find(where);
  if (element !== null) {
    element.textContent = text;
  }
}
