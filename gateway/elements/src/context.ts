import type { Access } from "./access.ts";
import type { Init, Told } from "./channel.ts";
import type { Failure } from "./failure.ts";
import type { Key, Text } from "./i18n.ts";
import type { Styles } from "./style.ts";

/** Context is what an element works with. */
export interface Context {
  readonly app: string; // its appId
  readonly init: Init;
  readonly access: Access;
  readonly text: Text;
  readonly styles: Styles;
  readonly tell: (type: Told, message?: string, details?: Readonly<Record<string, string | number>>) => void;
  readonly showSeconds: number;
  readonly pinDigits: number;
}

/** View is an element on the page. Close wipes what it shows, and ends what it does. */
export interface View {
  readonly root: HTMLElement;
  readonly title: string; // of the document
  readonly leave: () => void; // wipe, since nobody looks any more; the view goes on when somebody does
  readonly close: () => void;
}

/** explain says what a person reads of a failure, and whether trying again may help. */
export function explain(failure: Failure): { key: Key; retry: boolean } {
  switch (failure.code) {
    case "network":
      return { key: "failed_network", retry: true };
    case "outcome_unknown":
      return { key: "failed_unknown", retry: true };
    case "no_token":
    case "not_authorized":
      return { key: "failed_app", retry: true };
    case "signature_used":
      return { key: "failed_app", retry: false };
    case "insecure_context":
      return { key: "failed", retry: false };
  }
  switch (failure.status) {
    case 403:
      return { key: "failed_denied", retry: false };
    case 404:
      return { key: "failed_card", retry: false };
    case 429:
    case 503:
      return { key: "failed_busy", retry: true };
  }
  return { key: "failed", retry: true };
}

/** report tells the app's page of a failure: a constant message, and a status that it may act on. */
export function report(ctx: Context, message: string, failure: Failure): void {
  ctx.tell("Error", message, { status: failure.status, code: failure.code });
}
