import de from "./locales/de.json";
import en from "./locales/en.json";
import es from "./locales/es.json";
import fr from "./locales/fr.json";
import it from "./locales/it.json";
import pt from "./locales/pt.json";

export type Key = keyof typeof en;

/** Text returns a message in the page's language, with {names} replaced. */
export type Text = (key: Key, values?: Readonly<Record<string, string | number>>) => string;

const locales: Readonly<Record<string, Readonly<Record<Key, string>>>> = { de, en, es, fr, it, pt };

/** speak chooses the language that the page was made with, or else the first that the browser prefers and we speak. */
export function speak(locale: string): Text {
  const wanted = locale === "" ? navigator.languages.map((l) => l.slice(0, 2).toLowerCase()) : [locale];
  const language = wanted.find((l) => Object.prototype.hasOwnProperty.call(locales, l)) ?? "en";
  const messages = locales[language] ?? en;
  document.documentElement.lang = language;
  return (key, values = {}) => messages[key].replace(/\{([a-z]+)\}/g, (_, name: string) => String(values[name] ?? ""));
}
