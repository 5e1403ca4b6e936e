import { Failure } from "./failure.ts";
import { send } from "./request.ts";
import { member } from "./session.ts";
import type { CardField } from "./rules.ts";
import type { Info } from "./protocol.ts";
import { uuid } from "./uuid.ts";

/** Problem is a refusal, as far as fields act on it. */
export interface Problem {
  readonly status: number;
  readonly parameter: string; // of errors[0]
  readonly message: string; // for a program: what the gateway says of the parameter, or of the whole
}

/** submitField sends one field. Network failures are thrown, refusals returned. */
export async function submitField(session: string, field: CardField, value: string, signal: AbortSignal): Promise<Info | Problem> {
  const body = JSON.stringify({ type: field, [field]: value });
  const answer = await post(session, "fields", uuid(), signal, body);
  if (!answer.ok) {
    return problemOf(answer);
  }
  const info = member(await json(answer), "info");
  const showCvv = member(info, "showCvv");
  const cardType = member(info, "cardType");
  return { ...(typeof showCvv === "boolean" ? { showCvv } : {}), ...(typeof cardType === "string" ? { cardType } : {}) };
}

export interface Minted {
  readonly token: string;
  readonly expiresAt: string;
}

/** mintToken has a single-use token made of the fields; the same key makes no second one. */
export async function mintToken(session: string, key: string, signal: AbortSignal): Promise<Minted | Problem> {
  const answer = await post(session, "single-use-tokens", key, signal);
  if (!answer.ok) {
    return problemOf(answer);
  }
  const body = await json(answer);
  const token = member(body, "token");
  const expiresAt = member(body, "expiresAt");
  if (typeof token !== "string" || typeof expiresAt !== "string") {
    throw new Failure(answer.status, "bad_answer");
  }
  return { token, expiresAt };
}

export function isProblem(value: object): value is Problem {
  return "parameter" in value;
}

function post(session: string, what: string, key: string, signal: AbortSignal, body?: string): Promise<Response> {
  const path = `/merchant/api/v2/hosted-fields-sessions/${encodeURIComponent(session)}/${what}`;
  return send(path, { method: "POST", headers: { "Idempotency-Key": key }, ...(body === undefined ? {} : { body }), signal });
}

async function problemOf(answer: Response): Promise<Problem> {
  const body = await json(answer);
  const errors = member(body, "errors");
  const first: unknown = Array.isArray(errors) ? errors[0] : undefined;
  const parameter = member(first, "parameter");
  const message = member(first, "message") ?? member(body, "title");
  return {
    status: answer.status,
    parameter: typeof parameter === "string" ? parameter : "",
    message: typeof message === "string" ? message : "The call was refused.",
  };
}

const json = (answer: Response): Promise<unknown> => answer.json().catch(() => undefined);
