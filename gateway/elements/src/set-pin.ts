import { writePin } from "./cards.ts";
import { type Context, type View, explain, report } from "./context.ts";
import { failureOf } from "./failure.ts";
import { h } from "./page.ts";
import { isWeak } from "./pin.ts";

/** setCardPin has a PIN typed twice, and sets it. What was typed is kept until it is sent, and no longer. */
export function setCardPin(ctx: Context): View {
  const { text, styles, pinDigits: digits } = ctx;
  const stop = new AbortController();
  const hint = h("p", { class: "cs-hint", id: "cs-pin-hint" }, text("pin_hint", { digits }));
  const problem = h("p", { class: "cs-status cs-error", id: "cs-pin-problem", role: "alert" });
  const first = pinInput("cs-pin", digits);
  const second = pinInput("cs-pin-repeated", digits);
  const send = styles.apply("changePinButton", h("button", { type: "submit", class: "pse-set-pin-button", id: "pse-continue-pin-button" }, text("set_pin")));
  const form = h(
    "form",
    { id: "pse-set-pin-form", novalidate: "", autocomplete: "off" },
    labelled(ctx, text("new_pin"), first),
    labelled(ctx, text("repeat_pin"), second),
    hint,
    problem,
    send,
  );
  const box = h("div", { class: "pse-set-pin-container" }, form);
  const note = h("p", { class: "cs-status", role: "status" });
  const root = styles.apply("container", h("main", { class: "pse-container" }, h("h1", { class: "cs-unseen" }, text("set_pin_title")), box, note));
  let sending = false;

  const clear = (): void => {
    first.value = "";
    second.value = "";
  };
  const complain = (input: HTMLInputElement, message: string): void => {
    problem.replaceChildren(message);
    for (const each of [first, second]) {
      each.setAttribute("aria-invalid", String(each === input));
    }
    input.focus();
  };
  const busy = (on: boolean): void => {
    sending = on;
    send.setAttribute("aria-disabled", String(on));
    first.readOnly = second.readOnly = on;
    note.replaceChildren(on ? text("setting") : "");
  };
  const succeed = (): void => {
    const done = styles.apply("changePinButton", h("button", { type: "button", class: "pse-set-pin-button", id: "pse-done-button" }, text("done")));
    done.addEventListener("click", () => ctx.tell("DoneSettingPin"));
    const notice = h("p", { class: "cs-success", id: "cs-pin-set" }, text("pin_set"));
    box.replaceChildren(styles.apply("successNotice", h("div", { id: "pse-set-pin-success-container" }, notice, done)));
    note.classList.add("cs-unseen");
    note.replaceChildren(text("pin_set"));
    done.focus();
    ctx.tell("SetPinSuccess");
  };
  const submit = async (): Promise<void> => {
    const pin = first.value;
    problem.replaceChildren("");
    if (!/^\d+$/.test(pin) || pin.length !== digits) {
      return complain(first, text("pin_length", { digits }));
    }
    if (isWeak(pin)) {
      clear();
      return complain(first, text("pin_weak"));
    }
    if (second.value !== pin) {
      second.value = "";
      return complain(second, text("pin_differs"));
    }
    busy(true);
    clear();
    try {
      await ctx.access.perform((token) => writePin(ctx, token, stop.signal, pin), stop.signal);
      busy(false);
      succeed();
    } catch (thrown) {
      if (!stop.signal.aborted) {
        busy(false);
        const failure = failureOf(thrown);
        complain(first, text(failure.status === 422 ? "pin_weak" : explain(failure).key));
        report(ctx, failure.status === 422 ? "The PIN is too weak." : "The PIN could not be set.", failure);
      }
    }
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!sending) {
      void submit();
    }
  });
  return {
    root,
    title: text("set_pin_title"),
    leave: clear,
    close: () => {
      stop.abort();
      clear();
    },
  };
}

/**
 * pinInput takes digits and shows dots. It is a text field where the browser can mask one: password managers offer to keep
 * what is typed into a password field.
 */
function pinInput(id: string, digits: number): HTMLInputElement {
  const masks = CSS.supports("-webkit-text-security", "disc");
  const input = h("input", {
    id,
    class: "cs-pin",
    type: masks ? "text" : "password",
    inputmode: "numeric",
    pattern: "[0-9]*",
    maxlength: String(digits),
    autocomplete: "off",
    autocorrect: "off",
    spellcheck: "false",
    required: "",
    "aria-describedby": "cs-pin-hint cs-pin-problem",
    "data-1p-ignore": "",
    "data-lpignore": "true",
  });
  input.addEventListener("input", () => {
    input.value = input.value.replace(/\D/g, "");
    input.removeAttribute("aria-invalid");
  });
  return input;
}

function labelled(ctx: Context, text: string, input: HTMLInputElement): HTMLElement {
  const label = ctx.styles.apply("label", h("label", { class: "pse-card-label", for: input.id }, text));
  return ctx.styles.apply("field", h("div", { class: "pse-card-field" }, h("div", { class: "cs-text" }, label, input)));
}
