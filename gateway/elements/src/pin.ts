import { ascii } from "./session.ts";
import type { Secret } from "./secret.ts";

// The block is the gateway's, see vault/pinblock: 16 characters, "2", how many digits in hex, the digits, "F" to the end.

const size = 16;
export const minDigits = 4;
export const maxDigits = 12;

/** blockOf writes a PIN as a block. The caller wipes it. */
export function blockOf(pin: string): Uint8Array<ArrayBuffer> {
  return ascii(`2${pin.length.toString(16)}${pin}`.padEnd(size, "F"));
}

/** pinOf reads a block; nothing where it is none. */
export function pinOf(block: Secret): string | undefined {
  const match = /^2([4-9a-c])(\d{4,12})F{2,10}$/i.exec(block.text());
  const digits = match?.[2] ?? "";
  return match !== null && digits.length === parseInt(match[1] ?? "", 16) && digits.length + 2 <= size && block.text().length === size ? digits : undefined;
}

/**
 * isWeak agrees with the gateway: one digit repeated, or a run up or down by one in which 0 follows 9 (0000, 1234, 4321,
 * 8901).
 */
export function isWeak(pin: string): boolean {
  const steps = new Set<number>();
  for (let i = 1; i < pin.length; i++) {
    steps.add((10 + pin.charCodeAt(i) - pin.charCodeAt(i - 1)) % 10);
  }
  return steps.size === 0 || (steps.size === 1 && (steps.has(0) || steps.has(1) || steps.has(9)));
}
