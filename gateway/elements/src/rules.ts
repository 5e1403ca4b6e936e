// What a person types into hosted fields, as the gateway wants it.

export type CardField = "cardholderName" | "cardNumber" | "expiryDate" | "cvv";

/** normal returns the value to send, or nothing where it cannot be right. The gateway judges what it gets for itself. */
export function normal(field: CardField, typed: string): string | undefined {
  const text = typed.trim();
  switch (field) {
    case "cardNumber": {
      const digits = text.replace(/[ -]/g, "");
      return /^\d{12,19}$/.test(digits) && luhn(digits) ? digits : undefined;
    }
    case "expiryDate": {
      const match = /^(0?[1-9]|1[0-2]) ?[/-]? ?(?:20)?(\d{2})$/.exec(text);
      return match === null ? undefined : `${(match[1] ?? "").padStart(2, "0")}${match[2] ?? ""}`;
    }
    case "cvv":
      return /^\d{3,4}$/.test(text) ? text : undefined;
    case "cardholderName":
      return text.length >= 1 && text.length <= 100 && !/\d{8}/.test(text.replace(/[ -]/g, "")) ? text : undefined; // no card number
  }
}

/** dressed writes a value as it stands on cards. */
export function dressed(field: CardField, typed: string): string {
  switch (field) {
    case "cardNumber": {
      const digits = typed.replace(/\D/g, "").slice(0, 19);
      return /^3[47]/.test(digits) ? digits.replace(/^(\d{4})(\d{1,6})?(\d{1,5})?.*/, (_, a: string, b = "", c = "") => [a, b, c].filter((part) => part !== "").join(" ")) : digits.replace(/(\d{4})(?=\d)/g, "$1 ");
    }
    case "expiryDate": {
      const value = normal(field, typed);
      return value === undefined ? typed : `${value.slice(0, 2)}/${value.slice(2)}`;
    }
    case "cvv":
      return typed.replace(/\D/g, "").slice(0, 4);
    case "cardholderName":
      return typed;
  }
}

/** luhn is the check of ISO/IEC 7812-1, annex B. */
function luhn(digits: string): boolean {
  let sum = 0;
  for (let i = 0; i < digits.length; i++) {
    const digit = Number(digits[digits.length - 1 - i]);
    sum += i % 2 === 0 ? digit : digit < 5 ? digit * 2 : digit * 2 - 9;
  }
  return sum % 10 === 0;
}
