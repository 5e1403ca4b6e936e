// The page of one hosted field whose script is the vendor's: all that is ours is to start it.

declare global {
  interface Window {
    readonly Payroc?: { readonly Gateway?: { readonly init?: () => unknown } };
  }
}

window.Payroc?.Gateway?.init?.();

export {};
