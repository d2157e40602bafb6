import assert from "node:assert/strict";
import { test } from "node:test";

import { loadExtension } from "./stub-editor.mjs";

await loadExtension();
const { FolderPicker } = await import("../../web/js/dataset/folder_picker.js");

function picker(upload, named = "") {
  const chosen = [];
  const made = new FolderPicker({
    list: async () => [{ name: "fox", pictures: 2 }], upload, get: () => named, set: (name) => chosen.push(name),
  });
  return { made, chosen };
}

const files = ["a.png", "b.png"].map((name) => ({ name }));

test("pictures go into the folder that is named, or into one of their own, which is then named", async () => {
  for (const [named, folder] of [["", "my-pictures"], [" fox ", "fox"]]) {
    const sent = [];
    const { made, chosen } = picker(async (to, { name }) => void sent.push([to, name, made.button.disabled]), named);
    await made.send(files);
    assert.deepEqual(sent, [[folder, "a.png", true], [folder, "b.png", true]]);
    assert.deepEqual([chosen, made.button.disabled, made.files.value], [[folder], false, ""]);
    assert.equal(made.choice.children.length, 2, "the folders are asked for again");
  }
});

test("what could not be uploaded is told, and a folder that got nothing is not named", async () => {
  const some = picker(async (_, { name }) => (name === "a.png" ? "a.png is no picture." : undefined));
  await some.made.send(files);
  assert.deepEqual(some.chosen, ["my-pictures"]);
  assert.match(some.made.note.textContent, /1 of 2 .*a.png is no picture\.$/);
  const none = picker(() => Promise.reject(new Error()));
  await none.made.send(files);
  assert.deepEqual([none.chosen, none.made.button.disabled], [[], false]);
  assert.match(none.made.note.textContent, /0 of 2 .*b\.png/);
});
