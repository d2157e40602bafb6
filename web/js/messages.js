/**
 * The texts that a person reads on the page, in the editor's language: one table for each language in messages/, all with
 * the keys of the English one.
 */

/** @typedef {keyof typeof import("./messages/en.json")} Key */
/** @typedef {Record<string, string | Record<string, string>>} Table
 * by key, one text, or those for the language's plural categories, which `count` chooses from */

const LANGUAGES = ["en", "es", "fr", "ja", "ko", "ru", "zh"];
const FALLBACK = "en";

/** @type {Table} */
let table = {};
let language = "";
let plurals = new Intl.PluralRules(FALLBACK);

/**
 * Take the texts of a language; English where there are none of it.
 *
 * @param {string} wanted the editor's language
 * @param {(language: string) => Promise<Table>} read
 */
export async function speak(wanted, read) {
  const spoken = LANGUAGES.includes(wanted) ? wanted : FALLBACK;
  if (spoken === language) return;
  table = await read(spoken);
  language = spoken;
  plurals = new Intl.PluralRules(spoken);
}

/**
 * A text, with its words in braces filled in.
 *
 * @param {Key} key
 * @param {Record<string, string | number>} [values]
 * @returns {string}
 */
export function message(key, values = {}) {
  const entry = table[key] ?? key;
  const text = typeof entry === "string" ? entry : entry[plurals.select(Number(values.count))];
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

/**
 * What a state of the server's is called; a state that the table does not know, by its own name.
 *
 * @param {"phase" | "ending"} kind
 * @param {string} state
 */
export function stateName(kind, state) {
  const name = `${kind}.${state}`;
  return name in table ? message(/** @type {Key} */ (name)) : state;
}
