// The card page: an app's page embeds it, says which card, and brings tokens. See channel.ts for who may.
import { Access } from "./access.ts";
import { Channel, type ElementType } from "./channel.ts";
import type { Context, View } from "./context.ts";
import { speak } from "./i18n.ts";
import { meta, onLeave } from "./page.ts";
import { setCardPin } from "./set-pin.ts";
import { Styles } from "./style.ts";
import { cardData, cardPin } from "./views.ts";

const views: Readonly<Record<ElementType, (ctx: Context) => View>> = { cardData, cardPin, setCardPin };

const app = meta("app");
const text = speak(meta("locale"));
let open: { view: View; access: Access } | undefined;

const channel = new Channel(app, meta("origins").split(" "), meta("same-origin") === "true", {
  init(message) {
    open?.view.close();
    const access = new Access(message.token, message.signed, () => channel.tell("EphemeralTokenInvalid", "The token is used or has expired."));
    const view = views[message.element]({
      app,
      init: message,
      access,
      text,
      styles: new Styles(message.style),
      tell: (type, said, details) => channel.tell(type, said, details),
      showSeconds: Number(meta("show-seconds")),
      pinDigits: Number(meta("pin-digits")),
    });
    open = { view, access };
    document.title = view.title;
    document.getElementById("cardstile")?.replaceChildren(view.root);
  },
  badInit() {
    channel.tell("Error", "The message init is incomplete.", { status: 0, code: "bad_init" });
  },
  token(token) {
    open?.access.refresh(token);
  },
});

channel.listen();
onLeave(() => open?.view.leave());
