import assert from "node:assert/strict";
import { setTimeout as pass } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { test } from "node:test";
import { runInNewContext } from "node:vm";

import { counts, listeners, loadExtension, makeNode, refused } from "./stub-editor.mjs";

const { extension, app } = await loadExtension();
const SCORES = { bars: [{ label: "a cat", value: 0.3 }], text: ["table"] };
const GRID = { cells: [{ x: 0, y: 0, width: 1, height: 1, label: "one" }], images: [{ filename: "grid.png" }] };

const names = (node) => node.widgets.map(({ name }) => name);

test("results come back when the editor makes the nodes anew, in subgraphs too", () => {
  const inner = { id: "s", isRootGraph: false, nodes: [] };
  app.rootGraph.nodes = [{ id: 5, subgraph: inner, graph: app.rootGraph }];
  const scores = makeNode(extension, "AtelierCLIPScore", app.rootGraph, 4);
  const grid = makeNode(extension, "AtelierBlockGrid", inner, 4);
  makeNode(extension, "KSampler", app.rootGraph, 6);
  extension.afterConfigureGraph();
  assert.deepEqual(names(scores), []);
  extension.onNodeOutputsUpdated({ 4: SCORES, "s:4": GRID, 6: { images: [] }, 99: SCORES });
  assert.deepEqual([names(scores), names(grid)], [["atelier_result"], ["atelier_result"]]);
  // Again, as with each further tab: the same place, not a second one.
  extension.onNodeOutputsUpdated({ 4: SCORES, "s:4": GRID });
  assert.deepEqual(names(scores), ["atelier_result"]);
  assert.equal(scores.widgets[0].shown.children.length, 1);
});

test("only the sheet of a folder shows a picture beside its text", () => {
  app.rootGraph.nodes = [];
  for (const [kind, parts] of [["AtelierReadPrompt", 0], ["AtelierImageFolder", 2]]) {
    const node = makeNode(extension, kind, app.rootGraph, 4);
    node.onExecuted({ text: ["a text"], images: [{ filename: "a.png" }] });
    assert.equal(node.widgets[0].shown.children[0].children.length, parts, kind);
  }
});

test("no outputs leave what is shown", () => {
  app.rootGraph.nodes = [];
  const node = makeNode(extension, "AtelierCLIPScore", app.rootGraph, 4);
  node.onExecuted(null);
  assert.deepEqual(names(node), []);
  node.onExecuted(SCORES);
  node.onExecuted(null);
  extension.onNodeOutputsUpdated({});
  assert.deepEqual(names(node), ["atelier_result"]);
});

test("a copied node that never stands in a graph leaves nothing behind", async () => {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc");
  app.rootGraph.nodes = [];
  makeNode(extension, "AtelierTrainLora", app.rootGraph, 1);
  const before = { ...counts };
  const copies = Array.from({ length: 20 }, () => new WeakRef(makeNode(extension, "AtelierTrainLora")));
  await pass(20); // the frame that was asked for
  collect();
  await pass(20);
  collect();
  assert.equal(copies.filter((copy) => copy.deref()).length, 0);
  assert.deepEqual(counts, before);
});

test("what is shown of a run never enters the workflow or the prompt, and stays when zoomed out", () => {
  app.rootGraph.nodes = [];
  const scores = makeNode(extension, "AtelierCLIPScore", app.rootGraph, 4);
  scores.onExecuted(SCORES);
  const trainer = makeNode(extension, "AtelierTrainLora", app.rootGraph, 5);
  for (const [widget] of [scores.widgets, trainer.widgets]) {
    assert.equal(widget.serialize, false); // the editor's workflow asks the widget, its prompt the options
    assert.deepEqual([widget.options.serialize, widget.options.hideOnZoom], [false, false]);
    assert.ok(widget.options.getMinHeight() > 100);
  }
});

test("arrows move a number by its own step, not by its decimals", () => {
  const nodeData = { input: { required: { rate: ["FLOAT", { step: 1e-7, arrow_step: 1e-5 }], rank: ["INT", { step: 1 }] } } };
  const node = makeNode(extension, "AtelierTrainingOptions", app.rootGraph, 7, {
    nodeData, widgets: [{ name: "rate", options: { step2: 1e-7 } }, { name: "rank", options: { step2: 1 } }],
  });
  assert.deepEqual(node.widgets.map(({ options }) => options.step2), [1e-5, 1]);
});

test("after a lost connection the panels ask what they missed", async () => {
  const asked = counts.asked;
  listeners.get("reconnected")();
  await pass(0);
  assert.equal(counts.asked, asked + 1);
});

test("an error's words stand on the node until the graph is queued again", async () => {
  app.rootGraph.nodes = [];
  const score = makeNode(extension, "AtelierCLIPScore", app.rootGraph, 4);
  const core = makeNode(extension, "KSampler", app.rootGraph, 5);
  listeners.get("execution_error")({ detail: { node_id: "4", exception_message: "There is no file 'x'. Choose one." } });
  listeners.get("execution_error")({ detail: { node_id: "5", exception_message: "not ours" } });
  assert.deepEqual([names(score), names(core)], [["atelier_error"], []]);
  assert.equal(score.widgets[0].shown.textContent, "There is no file 'x'. Choose one.");
  assert.equal(score.widgets[0].options.serialize, false);
  score.onExecuted(SCORES);
  await stub.api.queuePrompt(0, {});
  assert.deepEqual(names(score), ["atelier_result"], "what stands below the error stays");
});

test("a refused prompt's reasons stand on their nodes, whole or in part refused", async () => {
  app.rootGraph.nodes = [];
  const score = makeNode(extension, "AtelierCLIPScore", app.rootGraph, 4);
  const errors = { 4: { errors: [{ message: "Custom validation failed", details: "model - There is no CLIP model" }] } };
  refused.response = { node_errors: errors };
  await assert.rejects(stub.api.queuePrompt(0, {}));
  assert.equal(score.widgets[0].shown.textContent, "model - There is no CLIP model");
  refused.response = undefined;
  refused.answer = { node_errors: errors };
  await stub.api.queuePrompt(0, {});
  assert.equal(score.widgets.length, 1);
  refused.answer = undefined;
});

test("what is not run because of another node says so", async () => {
  app.rootGraph.nodes = [];
  const [trainer, grid] = [["AtelierTrainLora", 5], ["AtelierBlockGrid", 6]]
    .map(([kind, id]) => makeNode(extension, kind, app.rootGraph, id));
  const gone = { errors: [{ message: "Value not in list", details: "There is no file 'x'" }], dependent_outputs: ["5", "4"] };
  refused.answer = { node_errors: { 4: gone } };
  await stub.api.queuePrompt(0, {});
  refused.answer = undefined;
  assert.deepEqual([trainer, grid].map((node) => node.widgets.at(-1)?.shown.textContent?.includes("because of node 4")),
    [true, undefined]);
  assert.match(trainer.widgets.at(-1).shown.textContent, /There is no file 'x'/);
});

test("progress texts go from nodes that run no longer, and from all at the end", () => {
  const inner = { id: "s", isRootGraph: false, nodes: [] };
  app.rootGraph.nodes = [{ id: 5, subgraph: inner, graph: app.rootGraph }];
  const text = () => ({ name: "$$node-text-preview", options: {} });
  const [first, second] = [[app.rootGraph, 4], [inner, 7]].map(([graph, id]) => (
    makeNode(extension, "AtelierOpenModel", graph, id, { widgets: [text()] })));
  const other = makeNode(extension, "KSampler", app.rootGraph, 9, { widgets: [text()] });
  listeners.get("executing")({ detail: "5:7" });
  assert.deepEqual([first, second, other].map((node) => node.widgets.length), [0, 1, 1]);
  listeners.get("executing")({ detail: null });
  assert.deepEqual([first, second, other].map((node) => node.widgets.length), [0, 0, 1]);
});
