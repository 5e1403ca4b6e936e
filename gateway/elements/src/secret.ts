/**
 * Secret holds plaintext as bytes until it is wiped. It does not reach copies that the browser made: text that was shown
 * was a string, and strings stay in memory until they are collected.
 */
export class Secret {
  constructor(private readonly bytes: Uint8Array) {}

  /** digits returns the secret, or nothing where it is not min to max ASCII digits. */
  digits(min: number, max: number): string | undefined {
    const { bytes } = this;
    return bytes.length >= min && bytes.length <= max && bytes.every((b) => b >= 0x30 && b <= 0x39) ? this.text() : undefined;
  }

  /** text returns the secret as a string, for the DOM or the clipboard. It is empty once the secret is wiped. */
  text(): string {
    return String.fromCharCode(...this.bytes.filter((b) => b !== 0));
  }

  wipe(): void {
    this.bytes.fill(0);
  }
}
