import { Failure } from "./failure.ts";

const timeout = 30_000; // milliseconds; the gateway answers sooner, if only with a 504

/** Request is what differs between calls. */
export interface Request {
  readonly method?: "GET" | "PUT" | "POST";
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string; // JSON
  readonly signal: AbortSignal;
}

/**
 * request calls the gateway: no cookies, nothing cached, no redirect followed, no referrer. It returns an answer that says
 * yes; any other, and none, is a Failure. An abort is a Failure too, of code "network": whoever aborted does not look.
 */
export async function request(path: string, r: Request): Promise<Response> {
  const answer = await send(path, r);
  if (!answer.ok) {
    throw new Failure(answer.status, "refused");
  }
  return answer;
}

/** send is request for callers that read refusals themselves. */
export async function send(path: string, { method = "GET", headers = {}, body, signal }: Request): Promise<Response> {
  const stop = new AbortController();
  const abort = (): void => stop.abort();
  signal.addEventListener("abort", abort);
  const timer = setTimeout(abort, timeout);
  try {
    if (signal.aborted) {
      abort();
    }
    return await fetch(path, {
      method,
      headers: body === undefined ? headers : { ...headers, "Content-Type": "application/json" },
      ...(body === undefined ? {} : { body }),
      credentials: "omit",
      cache: "no-store",
      redirect: "error",
      referrerPolicy: "no-referrer",
      signal: stop.signal,
    });
  } catch {
    throw new Failure(0, "network");
  } finally {
    clearTimeout(timer); // a body that never ends is ended by the caller's signal alone
    signal.removeEventListener("abort", abort);
  }
}
