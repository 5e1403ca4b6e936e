/**
 * Failure is a call that did not do what it was for. Code is for programs, status is HTTP's, or 0 where there was no
 * answer. Neither it nor what is made of it quotes an answer.
 */
export class Failure extends Error {
  constructor(
    readonly status: number,
    readonly code: Code,
  ) {
    super(code);
  }
}

export type Code =
  | "network" // no answer
  | "refused" // an answer that says no
  | "bad_answer" // an answer that cannot be read
  | "not_authorized" // one fresh token after the other was refused
  | "signature_used" // the user's signature was good for one action, which was done
  | "no_token" // the app was asked for a token and sent none
  | "outcome_unknown" // what was sent may have been done
  | "insecure_context"; // no WebCrypto: some page above this one came over plain HTTP

/** failureOf takes whatever was thrown. What is no Failure is a mistake of ours. */
export function failureOf(thrown: unknown): Failure {
  return thrown instanceof Failure ? thrown : new Failure(0, "bad_answer");
}
