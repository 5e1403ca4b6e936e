import type { Context } from "./context.ts";
import { Failure } from "./failure.ts";
import { blockOf } from "./pin.ts";
import { request } from "./request.ts";
import { Secret } from "./secret.ts";
import { type Sealed, Session, member, sealedOf } from "./session.ts";

// The calls of the gnosispay face that a cardholder's device makes: each spends a token, and has a session of its own.

/** Details are a card as far as the gateway's policy lets this user see it; the caller wipes it. */
export interface Details {
  readonly number: Secret | undefined;
  readonly cvc: Secret | undefined;
  readonly expiry: string; // MM/YY
}

export async function readDetails(ctx: Context, token: string, signal: AbortSignal): Promise<Details> {
  const session = await Session.begin(signal);
  const data = await read(ctx, "details", token, session, signal);
  const month = member(data, "expirationMonth");
  const year = member(data, "expirationYear");
  if (typeof month !== "string" || typeof year !== "string" || !/^\d{1,2}$/.test(month) || !/^\d{4}$/.test(year)) {
    throw new Failure(0, "bad_answer");
  }
  const number = await optional(session, member(data, "encryptedPan"));
  try {
    return { number, cvc: await optional(session, member(data, "encryptedCvc")), expiry: `${month.padStart(2, "0")}/${year.slice(2)}` };
  } catch (thrown) {
    number?.wipe();
    throw thrown;
  }
}

/** readPin returns the PIN's block, or nothing where the card has none. */
export async function readPin(ctx: Context, token: string, signal: AbortSignal): Promise<Secret | undefined> {
  const session = await Session.begin(signal);
  const sealed = member(await read(ctx, "pin", token, session, signal), "encryptedPin");
  return sealed === null ? undefined : session.open(required(sealed));
}

/** writePin sets the PIN. A call that was sent and not answered is a Failure of code "outcome_unknown". */
export async function writePin(ctx: Context, token: string, signal: AbortSignal, pin: string): Promise<void> {
  const session = await Session.begin(signal);
  const block = blockOf(pin);
  const sealed = await session.seal(block);
  block.fill(0);
  try {
    await request(path(ctx, "pin"), { method: "PUT", headers: headers(ctx, token, session), body: JSON.stringify(sealed), signal });
  } catch (thrown) {
    if (thrown instanceof Failure && (thrown.code === "network" || thrown.status === 504)) {
      throw new Failure(thrown.status, "outcome_unknown");
    }
    throw thrown;
  }
}

async function read(ctx: Context, what: string, token: string, session: Session, signal: AbortSignal): Promise<unknown> {
  const answer = await request(path(ctx, what), { headers: headers(ctx, token, session), signal });
  const data = member(await answer.json().catch(() => undefined), "data");
  if (typeof data !== "object" || data === null) {
    throw new Failure(0, "bad_answer");
  }
  return data;
}

const path = (ctx: Context, what: string): string => `/api/v1/cards/${encodeURIComponent(ctx.init.card)}/${what}`;

function headers(ctx: Context, token: string, session: Session): Record<string, string> {
  return { ...ctx.init.user, Authorization: `Bearer ${token}`, sessionid: session.id, "Cardstile-App": ctx.app };
}

const optional = async (session: Session, value: unknown): Promise<Secret | undefined> => (value === undefined ? undefined : session.open(required(value)));

function required(value: unknown): Sealed {
  const sealed = sealedOf(value);
  if (sealed === undefined) {
    throw new Failure(0, "bad_answer");
  }
  return sealed;
}
