import { Failure } from "./failure.ts";

const patience = 30_000; // milliseconds that an app has to bring a token

/**
 * Access spends tokens. Each is good for one call; where there is none left, or it is refused, the app is asked for another,
 * and what was to be done is done again.
 */
export class Access {
  private waiting: ((token: string) => void) | undefined;
  private done = false; // something succeeded with what proves the user

  /**
   * @param token the first token
   * @param signed whether a signature for one action proves the user
   * @param ask tells the app that a token is needed
   */
  constructor(
    private token: string | undefined,
    private readonly signed: boolean,
    private readonly ask: () => void,
  ) {}

  /** refresh takes a token from the app, for the call that waits or the next one. */
  refresh(token: string): void {
    if (this.waiting === undefined) {
      this.token = token;
    } else {
      this.waiting(token);
    }
  }

  /**
   * perform calls with a token. Refusals of it (401) do not come through until fresh tokens are refused as well: an app
   * that answers each of them would otherwise go on for ever.
   */
  async perform<T>(call: (token: string) => Promise<T>, signal: AbortSignal): Promise<T> {
    for (let refused = 0; ; ) {
      const token = this.take() ?? (await this.next(signal));
      try {
        const result = await call(token);
        this.done = true;
        return result;
      } catch (thrown) {
        if (!(thrown instanceof Failure) || thrown.status !== 401) {
          throw thrown;
        }
        refused++;
        if (this.signed && (this.done || refused >= 2)) {
          throw new Failure(401, "signature_used");
        }
        if (refused >= 3) {
          throw new Failure(401, "not_authorized");
        }
      }
    }
  }

  private take(): string | undefined {
    const { token } = this;
    this.token = undefined;
    return token;
  }

  private next(signal: AbortSignal): Promise<string> {
    return new Promise((resolve, reject) => {
      const end = (): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", fail);
        this.waiting = undefined;
      };
      const fail = (): void => {
        end();
        reject(new Failure(0, "no_token"));
      };
      const timer = setTimeout(fail, patience);
      signal.addEventListener("abort", fail);
      this.waiting = (token) => {
        end();
        resolve(token);
      };
      this.ask();
    });
  }
}
