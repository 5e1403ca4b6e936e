import { readDetails, readPin } from "./cards.ts";
import type { Context, View } from "./context.ts";
import { Failure } from "./failure.ts";
import { pinOf } from "./pin.ts";
import { reveal } from "./reveal.ts";
import type { Secret } from "./secret.ts";

/** cardData shows number, expiry date and security code, as far as the gateway's policy lets this user see them. */
export function cardData(ctx: Context): View {
  return reveal(ctx, {
    id: "pse-card-data-container",
    title: "card_title",
    failed: "The card could not be shown.",
    fields: [
      { label: "number", dots: "•••• •••• •••• ••••", wide: true, copy: { label: "copy_number", told: "CardNumberCopied" } },
      { label: "expiry", dots: "••/••", copy: { label: "copy_expiry", told: "CardExpirationCopied" } },
      { label: "cvc", dots: "•••", copy: { label: "copy_cvc", told: "CardSecurityCodeCopied" } },
    ],
    read: async (token, signal) => {
      const { number, cvc, expiry } = await readDetails(ctx, token, signal);
      const wipe = (): void => {
        number?.wipe();
        cvc?.wipe();
      };
      try {
        return {
          values: [digitsOf(number, 12, 19, grouped), { text: expiry, copied: () => expiry }, digitsOf(cvc, 3, 4, (code) => code)],
          wipe,
        };
      } catch (thrown) {
        wipe();
        throw thrown;
      }
    },
  });
}

/** cardPin shows the PIN, or that there is none. It cannot be copied: a PIN is to be remembered, not pasted. */
export function cardPin(ctx: Context): View {
  return reveal(ctx, {
    id: "pse-card-pin-container",
    title: "pin_title",
    failed: "The PIN could not be shown.",
    fields: [{ label: "pin", dots: "••••", wide: true }],
    read: async (token, signal) => {
      const block = await readPin(ctx, token, signal);
      if (block === undefined) {
        return "no_pin";
      }
      const pin = pinOf(block);
      block.wipe();
      if (pin === undefined) {
        throw new Failure(0, "bad_answer");
      }
      return { values: [{ text: pin, copied: () => "" }], wipe: () => undefined };
    },
  });
}

function digitsOf(secret: Secret | undefined, min: number, max: number, format: (digits: string) => string): { text: string; copied: () => string } | undefined {
  if (secret === undefined) {
    return undefined;
  }
  const digits = secret.digits(min, max);
  if (digits === undefined) {
    throw new Failure(0, "bad_answer");
  }
  return { text: format(digits), copied: () => secret.text() };
}

/** grouped writes a number as it stands on cards: in fours, those of 15 digits in 4, 6 and 5. */
function grouped(digits: string): string {
  return digits.length === 15 ? digits.replace(/^(\d{4})(\d{6})(\d{5})$/, "$1 $2 $3") : digits.replace(/(\d{4})(?=\d)/g, "$1 ");
}
