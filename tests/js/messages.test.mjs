import assert from "node:assert/strict";
import { test } from "node:test";

import { message, speak, stateName } from "../../web/js/messages.js";
import { readTable, speakFromDisk } from "./tables.mjs";

test("words are filled in where the language has them", async () => {
  await speakFromDisk("ja");
  assert.equal(message("panel.step", { step: 3, steps: 40 }), "ステップ 3/40");
  await speakFromDisk("en");
  assert.equal(message("panel.step", { step: 3, steps: 40 }), "step 3 of 40");
});

test("a count takes the form that the language has for it", async () => {
  await speakFromDisk("ru");
  const shown = [1, 2, 5, 11, 21, 22].map((count) => message("length.steps", { count }));
  assert.deepEqual(shown, ["1 шаг", "2 шага", "5 шагов", "11 шагов", "21 шаг", "22 шага"]);
  await speakFromDisk("fr");
  assert.deepEqual([0, 1, 2].map((count) => message("length.steps", { count })), ["0 étape", "1 étape", "2 étapes"]);
});

test("a language without a table is spoken in English, and a table is read once", async () => {
  const asked = [];
  const read = (language) => {
    asked.push(language);
    return readTable(language);
  };
  await speakFromDisk("zh");
  await speak("ar", read);
  await speak("de", read);
  assert.deepEqual(asked, ["en"]);
  assert.equal(message("panel.stop"), "Stop and keep");
});

test("a state that the table does not know has its own name", () => {
  assert.equal(stateName("phase", "saving"), "Saving");
  assert.equal(stateName("phase", "some new phase"), "some new phase");
});

test("a text with forms has those of its language's plural categories", async () => {
  for (const language of ["en", "es", "fr", "ja", "ko", "ru", "zh"]) {
    const categories = [...new Intl.PluralRules(language).resolvedOptions().pluralCategories].sort();
    for (const entry of Object.values(await readTable(language))) {
      if (typeof entry === "object") assert.deepEqual(Object.keys(entry).sort(), categories);
    }
  }
});
