// The page of a partner that embeds elements: what a website does, in the fewest lines that do it right. It asks its own backend for
// tokens, frames the gateway and passes messages. No card number, security code or PIN is ever in here.

// The origin of the gateway. In the demo it is the page's own as well; a partner names the gateway's here.
const gateway = location.origin;

const ways = { out: "page → frame", in: "frame → page", call: "page → backend" };
const longestLog = 60; // lines

/** A card of the page: a place for frames, a line of status, and the log. */
class Panel {
  constructor(id) {
    this.root = document.getElementById(id);
    this.stage = this.root.querySelector(".stage");
    this.line = this.root.querySelector(".status");
    this.log = this.root.querySelector(".log");
    this.last = null; // line of the log
  }

  /** Notes that something crossed: its type, and nothing of what is in it. */
  note(way, type) {
    const list = this.log.firstElementChild;
    if (this.last?.way === way && this.last.type === type) {
      this.last.times++;
      list.lastElementChild.lastElementChild.textContent = `${type}\u00a0×\u00a0${this.last.times}`;
      return;
    }
    this.last = { way, type, times: 1 };
    const item = document.createElement("li");
    for (const [name, text] of [["way", ways[way]], ["type", type]]) {
      const span = document.createElement("span");
      span.className = name;
      span.textContent = text;
      item.append(span);
    }
    list.append(item);
    while (list.children.length > longestLog) list.firstElementChild.remove();
    this.log.scrollTop = this.log.scrollHeight;
  }

  status(text, mood = "") {
    this.line.textContent = text;
    this.line.className = `status ${mood}`.trim();
  }

  fail(error) {
    this.status(error instanceof Error ? error.message : "Something went wrong.", "bad");
  }

  /** Asks the partner's backend, which asks the gateway: certificates and API keys stay there. */
  async ask(what, body = {}) {
    this.note("call", `POST /demo/${what}`);
    let answer;
    let said;
    try {
      answer = await fetch(`/demo/${what}`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
        credentials: "omit",
        redirect: "error",
      });
      said = await answer.json();
    } catch {
      throw new Error("The demo did not answer. Is it still running?");
    }
    if (!answer.ok) throw new Error(sentence(said.error));
    return said;
  }
}

/** Makes a sentence of an error of the backend. */
function sentence(text) {
  return typeof text === "string" && text !== "" ? `${text[0].toUpperCase()}${text.slice(1)}.` : "Something went wrong.";
}

// What elements say, and what that means to whoever reads along.
const said = {
  SetPinSuccess: "The PIN is set. The page knows that it is, and not which.",
  DoneSettingPin: "Done.",
  CardNumberCopied: "The frame put the card number on the clipboard.",
  CardExpirationCopied: "The frame put the expiry date on the clipboard.",
  CardSecurityCodeCopied: "The frame put the security code on the clipboard.",
  EphemeralTokenInvalid: "",
  Error: "",
};

const mostRefreshes = 3; // in refreshSpan: tokens that are refused one after the other say that something else is wrong
const refreshSpan = 10_000; // ms

/** An element: one frame, and the protocol of @gnosispay/pse-sdk 2.0.1, version 1. */
class CardElement {
  constructor(panel, session, type, title) {
    this.panel = panel;
    this.session = session;
    this.type = type;
    this.refreshes = [];
    this.frame = document.createElement("iframe");
    this.frame.title = title;
    this.frame.allow = "clipboard-write";
    this.frame.src = `${gateway}/?appId=${encodeURIComponent(session.appId)}`;
    this.frame.addEventListener("load", () => this.begin(), { once: true });
    this.listener = (event) => this.hear(event);
    window.addEventListener("message", this.listener);
    panel.stage.replaceChildren(this.frame);
    panel.stage.classList.add("open");
  }

  close() {
    window.removeEventListener("message", this.listener);
    this.frame.remove();
    this.panel.stage.classList.remove("open");
  }

  begin() {
    this.say({
      type: "init",
      version: "2.0.1",
      appId: this.session.appId,
      elementType: this.type,
      cardToken: this.session.cardToken,
      ephemeralToken: this.session.ephemeralToken,
      gnosisPayApiAuthToken: this.session.userToken || undefined,
    });
    this.session.ephemeralToken = ""; // it opens one thing, and is the frame's now
  }

  /** Messages name the origin that is to get them: should another page stand in the frame, it gets nothing. */
  say(message) {
    this.panel.note("out", message.type);
    this.frame.contentWindow?.postMessage(message, gateway);
  }

  /** Other pages can send messages as well: what counts is which frame, and of which origin. */
  hear(event) {
    if (event.origin !== gateway || event.source !== this.frame.contentWindow) return;
    const type = event.data?.type;
    if (typeof type !== "string" || !Object.hasOwn(said, type)) return;
    this.panel.note("in", type);
    if (said[type]) this.panel.status(said[type], "good");
    if (type === "Error") this.panel.status("The frame says that something went wrong, and what.", "bad");
    if (type === "EphemeralTokenInvalid") this.refresh().catch((error) => this.panel.fail(error));
    if (type === "DoneSettingPin") this.close();
  }

  /** A token opens one thing, within a minute. For the next the frame asks for another. */
  async refresh() {
    const now = performance.now();
    this.refreshes = this.refreshes.filter((at) => now - at < refreshSpan);
    if (this.refreshes.length >= mostRefreshes) throw new Error("The gateway takes none of the tokens.");
    this.refreshes.push(now);
    const { ephemeralToken } = await this.panel.ask("token");
    this.panel.status("");
    this.say({ type: "tokenRefresh", ephemeralToken });
  }
}

/** Has the buttons of a panel open elements in it, one at a time. */
function elements(id) {
  const panel = new Panel(id);
  const buttons = [...panel.root.querySelectorAll("button[data-element]")];
  let open = null;
  const show = async (button) => {
    for (const b of buttons) b.disabled = true;
    open?.close();
    open = null;
    panel.status("");
    try {
      const session = await panel.ask("token");
      open = new CardElement(panel, session, button.dataset.element, button.dataset.frame);
    } catch (error) {
      panel.fail(error);
    } finally {
      for (const b of buttons) b.disabled = false;
    }
  };
  for (const button of buttons) button.addEventListener("click", () => show(button));
  return () => show(buttons[0]);
}

/** Loads the library of hosted fields, once. A script with another digest does not run. */
let library = null;
function load(path, integrity) {
  library ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = new URL(path, gateway).href;
    script.integrity = integrity;
    script.crossOrigin = "anonymous";
    script.addEventListener("load", () => resolve(globalThis.Cardstile));
    script.addEventListener("error", () => {
      library = null;
      script.remove();
      reject(new Error("The library of hosted fields did not load."));
    });
    document.head.append(script);
  });
  return library;
}

/** The form of hosted fields. */
class Checkout {
  constructor() {
    this.panel = new Panel("pay");
    this.anew = document.getElementById("pay-anew");
    this.again = document.getElementById("pay-again");
    this.form = null;
    this.token = ""; // of the last payment
    this.anew.addEventListener("click", () => this.begin());
    this.again.addEventListener("click", () => this.pay());
    window.addEventListener("message", (event) => this.hear(event));
  }

  async begin() {
    this.anew.disabled = true;
    this.panel.status("");
    this.clear();
    try {
      const session = await this.panel.ask("fields-session");
      const { hostedFields } = await load(session.library, session.integrity);
      this.panel.stage.classList.add("open");
      const field = (name, placeholder) => ({ target: `#pay-${name}`, errorTarget: `#pay-${name}-error`, placeholder });
      const form = new hostedFields({
        sessionToken: session.sessionToken,
        mode: "payment",
        fields: {
          card: {
            cardholderName: field("name", "Ada Example"),
            cardNumber: field("number", "1234 5678 9012 3456"),
            expiryDate: field("expiry", "MM/YY"),
            cvv: { ...field("cvv", "123"), wrapperTarget: "#pay-cvv-field" },
            submit: { target: "#pay-submit", value: "Pay €42.00" },
          },
        },
      });
      form.on("submissionSuccess", ({ token }) => {
        this.token = token;
        this.pay();
      });
      form.on("error", ({ type, message }) => {
        this.panel.status(message, "bad");
        if (type === "session") this.clear(); // ten minutes are over, or another page has it
      });
      this.form = form;
      await form.initialize();
    } catch (error) {
      this.panel.fail(error);
    } finally {
      this.anew.disabled = false;
    }
  }

  clear() {
    this.form?.destroy();
    this.form = null;
    this.panel.stage.classList.remove("open");
    for (const place of this.panel.stage.querySelectorAll(".error")) place.textContent = "";
  }

  /** The library talks to the frames; the page reads along. */
  hear(event) {
    const frames = [...this.panel.stage.querySelectorAll("iframe")];
    if (event.origin !== gateway || !frames.some((f) => f.contentWindow === event.source)) return;
    const type = event.data?.type;
    if (typeof type === "string" && /^[a-z]+:[a-z-]{1,40}$/.test(type)) this.panel.note("in", type);
  }

  async pay() {
    this.again.disabled = true;
    try {
      const { payment } = await this.panel.ask("pay", { token: this.token });
      this.clear();
      this.panel.stage.dataset.empty = "Paid. The fields are gone, and what was typed with them.";
      const result = `${payment.transactionResult.status} (${payment.transactionResult.responseCode})`;
      this.panel.status(`Payment ${payment.paymentId}: ${result}, with ${payment.card.type} ${payment.card.cardNumber}.`, "good");
    } catch (error) {
      this.panel.fail(error);
    } finally {
      this.again.disabled = this.token === "";
    }
  }
}

const show = elements("show");
elements("pin");
const checkout = new Checkout();
show();
checkout.begin();
