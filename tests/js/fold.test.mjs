import assert from "node:assert/strict";
import { test } from "node:test";

import { addFold } from "../../web/js/fold.js";
import { speakFromDisk } from "./tables.mjs";

await speakFromDisk("en");

/** A node with one plain widget and two advanced ones, each 20 high. */
function made() {
  const node = {
    size: [200, 60],
    widgets: ["name", "beta1", "beta2"].map((name) => ({ name, options: { advanced: name !== "name" } })),
    inputs: [{ name: "beta2", link: null, widget: { name: "beta2" } }, { name: "model", link: 3 }],
    setSize(size) { this.size = size; },
    computeSize() { return [150, 20 * this.widgets.filter(({ hidden }) => !hidden).length]; },
    addWidget(type, name, value, press, options) {
      const widget = { type, name, press, options };
      this.widgets.push(widget);
      return widget;
    },
  };
  addFold(node);
  return node;
}

const seen = (node) => node.widgets.filter(({ hidden }) => !hidden).map(({ name }) => name);

test("advanced widgets are folded, and the button shows them and folds them again", () => {
  const node = made();
  const button = node.widgets.at(-1);
  assert.deepEqual([seen(node), node.size], [["name", "atelier_more"], [200, 40]]);
  assert.match(button.label, /2 more options/);
  button.press();
  assert.deepEqual([seen(node), node.size], [["name", "beta1", "beta2", "atelier_more"], [200, 80]]);
  node.setSize([300, 200]);
  button.press();
  assert.deepEqual([seen(node), node.size], [["name", "atelier_more"], [300, 160]]);
});

test("the button stands after all values and is saved nowhere", () => {
  const node = made();
  const button = node.widgets.at(-1);
  assert.deepEqual([button.serialize, button.options], [false, { serialize: false, canvasOnly: true }]);
});

test("what is linked is shown", () => {
  const node = made();
  node.inputs[0].link = 7;
  node.onConnectionsChange(1, 0, true);
  assert.deepEqual(seen(node), ["name", "beta2", "atelier_more"]);
  node.widgets.at(-1).press();
  node.onConnectionsChange(1, 0, true);
  assert.deepEqual(seen(node), ["name", "beta1", "beta2", "atelier_more"], "unfolded stays unfolded");
});

test("a node without advanced widgets gets no button", () => {
  const node = { size: [1, 1], widgets: [{ name: "text", options: {} }, { name: "pictures" }] };
  addFold(node);
  assert.equal(node.widgets.length, 2);
});
