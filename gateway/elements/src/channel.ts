import { member } from "./session.ts";

/** Types of the messages that an app's page gets. Source: @gnosispay/pse-sdk 2.0.1, IframeMessageType. */
export type Told =
  | "SetPinSuccess"
  | "CardExpirationCopied"
  | "CardSecurityCodeCopied"
  | "CardNumberCopied"
  | "DoneSettingPin"
  | "EphemeralTokenInvalid"
  | "Error";

export type ElementType = "cardData" | "cardPin" | "setCardPin";

/** Init is what an app's page begins with. */
export interface Init {
  readonly element: ElementType;
  readonly card: string; // cardToken or cardId
  readonly token: string; // good for one call
  readonly user: Readonly<Record<string, string>>; // headers that prove the user
  readonly signed: boolean; // among them is a signature, which is good for one action
  readonly style: unknown;
}

export interface Listener {
  init(message: Init): void;
  badInit(): void;
  token(token: string): void;
}

/**
 * Channel is the line to the app's page. It listens to the window that embeds this one, and only where that is of an
 * origin that the gateway wrote into the page [22]: a message proves nothing about itself. What it says is sent to the
 * origin that init came from, and never to any other. Whatever else arrives is ignored, without a sign.
 */
export class Channel {
  private peer = ""; // the origin that the first init came from

  constructor(
    private readonly appId: string,
    private readonly origins: readonly string[],
    private readonly sameOrigin: boolean, // a page of our own origin may embed us, which sees all that we show
    private readonly listener: Listener,
  ) {}

  listen(): void {
    if (window.parent !== window) {
      window.addEventListener("message", (event) => this.receive(event));
    }
  }

  tell(type: Told, message?: string, details?: Readonly<Record<string, string | number>>): void {
    if (this.peer !== "") {
      window.parent.postMessage({ type, ...(message === undefined ? {} : { message }), ...(details === undefined ? {} : { details }) }, this.peer);
    }
  }

  private receive(event: MessageEvent<unknown>): void {
    if (event.source !== window.parent || !this.origins.includes(event.origin)) {
      return;
    }
    if (event.origin === window.location.origin && !this.sameOrigin) {
      return;
    }
    if (this.peer !== "" && this.peer !== event.origin) {
      return; // the window that embeds us went elsewhere
    }
    const { data } = event;
    switch (member(data, "type")) {
      case "init":
        if (member(data, "appId") === this.appId) {
          this.peer = event.origin;
          const init = readInit(data);
          init === undefined ? this.listener.badInit() : this.listener.init(init);
        }
        return;
      case "tokenRefresh": {
        const token = headerText(member(data, "ephemeralToken"));
        if (this.peer !== "" && token !== undefined) {
          this.listener.token(token);
        }
      }
    }
  }
}

/** readInit returns nothing where something is missing, or is not of the form that it must have. */
function readInit(data: unknown): Init | undefined {
  const element = member(data, "elementType");
  const token = headerText(member(data, "ephemeralToken"));
  const card = member(data, "cardToken") ?? member(data, "cardId");
  if (element !== "cardData" && element !== "cardPin" && element !== "setCardPin") {
    return undefined;
  }
  if (token === undefined || typeof card !== "string" || card === "" || card.length > 512) {
    return undefined;
  }
  const user: Record<string, string> = {};
  for (const [name, header] of proofs) {
    const given = member(data, name);
    if (given === undefined || given === null || given === "") {
      continue;
    }
    const text = headerText(given);
    if (text === undefined) {
      return undefined;
    }
    user[header] = text;
  }
  return { element, card, token, user, signed: userSignature in user, style: member(data, "style") };
}

const userSignature = "Cardstile-User-Signature";

/** proofs are the members that prove the user, and the headers that they travel in. */
const proofs: readonly (readonly [string, string])[] = [
  ["gnosisPayApiAuthToken", "Cardstile-User-Token"],
  ["authModuleToken", "Cardstile-User-Token"],
  ["eip712Nonce", "Cardstile-User-Nonce"],
  ["eip712Signature", userSignature],
];

/** headerText returns a value that can stand in a header as it is. */
function headerText(value: unknown): string | undefined {
  return typeof value === "string" && /^[\x21-\x7e]{1,8192}$/.test(value) ? value : undefined;
}
