import assert from "node:assert/strict";
import { test } from "node:test";

import { plannedLength } from "../../web/js/training/plan.js";
import { speakFromDisk } from "./tables.mjs";

await speakFromDisk("en");

const nodeData = { input: { required: { preset: ["COMBO", { lengths: { subject: "1200 steps", recipe: "30 epochs" } }] } } };

function trainer(preset, length, linked = null) {
  const values = { preset, length, unit: "epochs" };
  return {
    constructor: { nodeData }, inputs: [{ name: "length", link: linked, widget: { name: "length" } }],
    widgets: Object.entries(values).map(([name, value]) => ({ name, value })),
  };
}

test("a length is told in its unit, and 0 as what the preset has", () => {
  assert.equal(plannedLength(trainer("subject", 12)), "12 epochs");
  assert.equal(plannedLength(trainer("subject", 0)), "1200 steps, as the preset has it");
  assert.equal(plannedLength(trainer("recipe", 0)), "30 epochs, as the preset has it");
});

test("what a link or an unknown preset decides is not told", () => {
  assert.equal(plannedLength(trainer("subject", 12, 5)), "");
  assert.equal(plannedLength(trainer("gone", 0)), "");
  assert.equal(plannedLength({ constructor: {} }), "");
});
