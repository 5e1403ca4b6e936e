// The page of one hosted field: what is typed here goes to the gateway, and never to the page around.
import { type Problem, isProblem, mintToken, submitField } from "./field-calls.ts";
import { type Key, speak } from "./i18n.ts";
import { meta, onLeave } from "./page.ts";
import type { FromField } from "./protocol.ts";
import { type CardField, dressed, normal } from "./rules.ts";
import { member } from "./session.ts";
import { uuid } from "./uuid.ts";

const session = meta("session");
const target = meta("target-origin");
const text = speak(meta("locale"));
const stop = new AbortController();

function tell(message: FromField): void {
  window.parent.postMessage(message, target);
}

/** hear takes messages of the page around, if it is of the origin that this page was made for. */
function hear(listener: (type: unknown, message: unknown) => void): void {
  window.addEventListener("message", (event: MessageEvent<unknown>) => {
    if (window.parent !== window && event.source === window.parent && event.origin === target) {
      listener(member(event.data, "type"), event.data);
    }
  });
}

/** isOver reports whether a refusal ends the session: nothing that is typed helps then. */
function isOver(problem: Problem): boolean {
  return problem.status === 401 || problem.status === 403 || problem.parameter === "hostedFieldsSessionId";
}

interface Traits {
  readonly label: Key;
  readonly bad: Key;
  readonly autocomplete: string;
  readonly inputmode: string;
  readonly maxlength: string;
  readonly mandatory: boolean;
}

const traits: Readonly<Record<CardField, Traits>> = {
  cardholderName: { label: "field_name", bad: "field_name_bad", autocomplete: "cc-name", inputmode: "text", maxlength: "100", mandatory: meta("name-mandatory") === "true" },
  cardNumber: { label: "number", bad: "field_number_bad", autocomplete: "cc-number", inputmode: "numeric", maxlength: "23", mandatory: true },
  expiryDate: { label: "field_expiry", bad: "field_expiry_bad", autocomplete: "cc-exp", inputmode: "numeric", maxlength: "7", mandatory: true },
  cvv: { label: "cvc", bad: "field_cvv_bad", autocomplete: "cc-csc", inputmode: "numeric", maxlength: "4", mandatory: meta("cvv-mandatory") === "true" },
};

/** Field is an input and what the gateway has of it. */
class Field {
  private accepted: string | undefined;
  private sending: { readonly value: string; readonly done: Promise<FromField> } | undefined;

  constructor(
    private readonly field: CardField,
    private readonly input: HTMLInputElement,
  ) {
    const { label, autocomplete, inputmode, maxlength, mandatory } = traits[field];
    for (const [name, value] of Object.entries({ autocomplete, inputmode, maxlength, "aria-label": text(label), "aria-required": String(mandatory), spellcheck: "false" })) {
      input.setAttribute(name, value);
    }
    document.title = text(label);
    input.addEventListener("input", () => this.typed());
    input.addEventListener("blur", () => void this.left());
  }

  /** flush answers whether the field is in, having sent it if need be. */
  async flush(flush: number): Promise<void> {
    tell({ ...(await this.judged()), ...{ flush } } as FromField);
  }

  wipe(): void {
    this.input.value = "";
    this.accepted = undefined;
  }

  private typed(): void {
    const { input, field } = this;
    input.removeAttribute("aria-invalid");
    if (input.selectionStart === input.value.length && field !== "expiryDate") {
      input.value = dressed(field, input.value); // elsewhere the caret would jump
    }
  }

  private async left(): Promise<void> {
    const { input, field } = this;
    input.value = dressed(field, input.value);
    if (input.value.trim() !== "") {
      tell(await this.judged());
    }
  }

  private async judged(): Promise<FromField> {
    const { field, input } = this;
    const typed = input.value.trim();
    const { mandatory, bad } = traits[field];
    if (typed === "") {
      // What the gateway has of a field cannot be taken back.
      return mandatory || this.accepted !== undefined ? this.invalid("field_required") : { type: "payroc:field-valid", field, valid: true };
    }
    const value = normal(field, typed);
    if (value === undefined) {
      return this.invalid(bad);
    }
    if (value === this.accepted) {
      return { type: "payroc:field-valid", field, valid: true };
    }
    if (this.sending?.value !== value) {
      this.sending = { value, done: this.send(value) };
    }
    const { sending } = this;
    try {
      return await sending.done;
    } finally {
      if (this.sending === sending) {
        this.sending = undefined;
      }
    }
  }

  private async send(value: string): Promise<FromField> {
    const { field } = this;
    try {
      const result = await submitField(session, field, value, stop.signal);
      if (!isProblem(result)) {
        this.accepted = value;
        return { type: "payroc:field-valid", field, valid: true, info: result };
      }
      if (result.status === 400 && !isOver(result)) {
        return this.invalid(traits[field].bad);
      }
      tell({ type: "payroc:field-error", field, message: result.message, status: result.status, fatal: isOver(result) });
    } catch {
      tell({ type: "payroc:field-error", field, message: "The field could not be sent.", status: 0, fatal: false });
    }
    return this.invalid("failed");
  }

  private invalid(key: Key): FromField {
    this.input.setAttribute("aria-invalid", "true");
    return { type: "payroc:field-valid", field: this.field, valid: false, message: text(key) };
  }
}

/** Submit is the button. The page around has all fields sent between its press and the token. */
class Submit {
  private key = uuid(); // of the token that is to be made, until it is known what became of it
  private busy = false;

  constructor(private readonly button: HTMLButtonElement) {
    if (button.textContent === "") {
      button.textContent = text("field_submit");
    }
    document.title = button.textContent ?? "";
    button.addEventListener("click", () => {
      if (!this.busy) {
        this.wait(true);
        tell({ type: "payroc:field-submitting", field: "submit" });
      }
    });
  }

  wait(busy: boolean): void {
    this.busy = busy;
    this.button.setAttribute("aria-disabled", String(busy));
  }

  async mint(): Promise<void> {
    if (!this.busy) {
      return; // nobody pressed
    }
    try {
      const result = await mintToken(session, this.key, stop.signal);
      if (!isProblem(result)) {
        this.key = uuid();
        tell({ type: "payroc:field-submitted", field: "submit", ...result });
      } else {
        if (result.status < 500) {
          this.key = uuid(); // it is known that there is no token
        }
        tell({ type: "payroc:field-error", field: "submit", message: result.message, status: result.status, fatal: isOver(result) });
      }
    } catch {
      tell({ type: "payroc:field-error", field: "submit", message: "The card could not be sent.", status: 0, fatal: false });
    }
    this.wait(false);
  }
}

function isCardField(name: string): name is CardField {
  return Object.prototype.hasOwnProperty.call(traits, name);
}

const name = meta("field");
const control = document.getElementById(name);
if (target === window.location.origin && meta("same-origin") !== "true") {
  control?.remove(); // a page of our own origin could read what is typed here
} else if (control instanceof HTMLInputElement && isCardField(name)) {
  const field = new Field(name, control);
  hear((type, message) => {
    const flush = member(message, "flush");
    if (type === "cardstile:flush" && typeof flush === "number") {
      void field.flush(flush);
    } else if (type === "cardstile:wipe") {
      field.wipe();
    }
  });
  onLeave(() => field.wipe());
  tell({ type: "payroc:field-connected", field: name });
} else if (control instanceof HTMLButtonElement) {
  const submit = new Submit(control);
  hear((type) => {
    if (type === "cardstile:mint") {
      void submit.mint();
    } else if (type === "cardstile:idle") {
      submit.wait(false);
    }
  });
  tell({ type: "payroc:field-connected", field: "submit" });
}
onLeave(() => stop.abort());
