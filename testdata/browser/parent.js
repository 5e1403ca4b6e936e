// What a partner's page does: it mounts elements with the published SDK, and notes what it is told.
window.said = []; // every message that arrives, whoever sent it
window.did = []; // what the SDK made of them
window.addEventListener("message", (event) => window.said.push({ origin: event.origin, data: event.data }));

window.show = (config, element, options) => {
  window.sdk = new GPSDK.default({
    ...config,
    onActionSuccess: (action) => window.did.push(action),
    onInvalidToken: async (message) => {
      window.did.push(`invalid token: ${message}`);
      if (window.refreshes) {
        window.sdk.refreshToken(await window.freshToken());
      }
    },
    onError: (message, details) => window.did.push(`error: ${message} ${JSON.stringify(details)}`),
  });
  window.element = window.sdk.init(element, "#element", options);
};
window.freshToken = async () => (await fetch("/token", { method: "POST" })).text();

// raw embeds the page without the SDK, with whatever is to be tried.
window.raw = (src) => {
  const frame = document.createElement("iframe");
  frame.src = src;
  frame.allow = "clipboard-write";
  frame.style.width = frame.style.height = "100%";
  const loaded = new Promise((resolve) => (frame.onload = resolve));
  document.querySelector("#element").replaceChildren(frame);
  return loaded;
};
