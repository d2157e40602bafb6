/** The tables of texts, read from the disk. */

import { readFile } from "node:fs/promises";

import { speak } from "../../web/js/messages.js";

/** @param {string} language */
export async function readTable(language) {
  return JSON.parse(await readFile(new URL(`../../web/js/messages/${language}.json`, import.meta.url), "utf-8"));
}

/** @param {string} language */
export const speakFromDisk = (language) => speak(language, readTable);
