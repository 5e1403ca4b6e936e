// What the pages of hosted fields and the library in the merchant's page say to each other. No message carries card data.

import type { CardField } from "./rules.ts";

export type FieldName = CardField | "submit";

/** FromField are messages to the merchant's page. Source of their types: Payroc's hosted fields; members are ours. */
export type FromField =
  | { readonly type: "payroc:field-connected"; readonly field: FieldName }
  | {
      readonly type: "payroc:field-valid";
      readonly field: FieldName;
      readonly valid: boolean;
      readonly message?: string; // for a person, in the page's language
      readonly info?: Info;
      readonly flush?: number; // of the message that this answers
    }
  | { readonly type: "payroc:field-submitting"; readonly field: "submit" }
  | { readonly type: "payroc:field-submitted"; readonly field: "submit"; readonly token: string; readonly expiresAt: string }
  | {
      readonly type: "payroc:field-error";
      readonly field: FieldName;
      readonly message: string;
      readonly status: number; // HTTP's, or 0
      readonly fatal: boolean; // the session is over
    };

export interface Info {
  readonly showCvv?: boolean;
  readonly cardType?: string;
}

/** ToField are messages to a field's page. */
export type ToField =
  | { readonly type: "cardstile:flush"; readonly flush: number } // send what was typed, answer field-valid
  | { readonly type: "cardstile:mint" } // to submit: all fields are in, make a token of them
  | { readonly type: "cardstile:idle" } // to submit: it came to nothing, the button may be pressed again
  | { readonly type: "cardstile:wipe" }; // a token stands for the card now
