import { Failure } from "./failure.ts";
import { request } from "./request.ts";
import { Secret } from "./secret.ts";

/** Sealed is a value on the wire: AES-128-GCM, the tag behind the ciphertext, both members in base64. */
export interface Sealed {
  readonly data: string;
  readonly iv: string;
}

const keyBytes = 16;
const ivBytes = 12; // of what we seal; what we open has 12 or 16

/**
 * Session is the key of one call. Its id is the key, wrapped for the gateway: RSA-OAEP with SHA-1, as published clients
 * have it, over the text of the key's base64.
 */
export class Session {
  private constructor(
    readonly id: string,
    private readonly key: CryptoKey,
  ) {}

  /** begin asks for the gateway's public key, each time anew since it may have been exchanged, and draws a key of its own. */
  static async begin(signal: AbortSignal): Promise<Session> {
    if (!window.isSecureContext) {
      throw new Failure(0, "insecure_context");
    }
    const answer: unknown = await (await request("/api/v1/session-key", { signal })).json().catch(() => undefined);
    const text = member(answer, "publicKey");
    if (typeof text !== "string") {
      throw new Failure(0, "bad_answer");
    }
    const secret = crypto.getRandomValues(new Uint8Array(keyBytes));
    const wrapped = ascii(toBase64(secret));
    try {
      const publicKey = await crypto.subtle.importKey("spki", fromBase64(text), { name: "RSA-OAEP", hash: "SHA-1" }, false, ["encrypt"]);
      const id = await crypto.subtle.encrypt({ name: "RSA-OAEP" }, publicKey, wrapped);
      const key = await crypto.subtle.importKey("raw", secret, "AES-GCM", false, ["encrypt", "decrypt"]);
      return new Session(toBase64(new Uint8Array(id)), key);
    } catch {
      throw new Failure(0, "bad_answer"); // it is no key that we can use
    } finally {
      secret.fill(0);
      wrapped.fill(0);
    }
  }

  /** open decrypts; the caller wipes what it gets. */
  async open(value: Sealed): Promise<Secret> {
    const iv = fromBase64(value.iv);
    if (iv.length !== 12 && iv.length !== 16) {
      throw new Failure(0, "bad_answer");
    }
    try {
      return new Secret(new Uint8Array(await crypto.subtle.decrypt({ name: "AES-GCM", iv }, this.key, fromBase64(value.data))));
    } catch {
      throw new Failure(0, "bad_answer"); // WebCrypto says nothing about why, and neither do we
    }
  }

  /** seal encrypts under a fresh iv. */
  async seal(plain: Uint8Array<ArrayBuffer>): Promise<Sealed> {
    const iv = crypto.getRandomValues(new Uint8Array(ivBytes));
    const data = await crypto.subtle.encrypt({ name: "AES-GCM", iv }, this.key, plain);
    return { data: toBase64(new Uint8Array(data)), iv: toBase64(iv) };
  }
}

/** member reads a member of what came as JSON, whatever that is. */
export function member(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null && Object.prototype.hasOwnProperty.call(value, name) ? (value as Record<string, unknown>)[name] : undefined;
}

/** sealedOf reads a sealed value; nothing where it is none. */
export function sealedOf(value: unknown): Sealed | undefined {
  const data = member(value, "data");
  const iv = member(value, "iv");
  return typeof data === "string" && typeof iv === "string" ? { data, iv } : undefined;
}

export function ascii(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(text, (c) => c.charCodeAt(0));
}

function toBase64(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes));
}

function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  try {
    return ascii(atob(text));
  } catch {
    throw new Failure(0, "bad_answer");
  }
}
