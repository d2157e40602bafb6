import assert from "node:assert/strict";
import { test } from "node:test";

import { loadExtension } from "./stub-editor.mjs";

await loadExtension();
const { Panel } = await import("../../web/js/training/panel.js");
const { CaptionReview } = await import("../../web/js/dataset/caption_review.js");
const { resultView } = await import("../../web/js/results/view.js");

const actions = { resume: async () => "", stop: async () => "", sample: async () => "", pictureUrl: (_, step) => `${step}` };
const session = (more) => ({
  prompt: "p", node: "4", workflow: "w", run: "r", number: 1, status: "running", message: "",
  phase: { name: "training", done: 0, total: 0 }, values: {}, losses: [], validation: [], fidelity: [], likeness: [],
  samples: [], can_sample: true, stopping: false, sample_asked: false, ...more,
});

test("a training that was asked to stop cannot be asked again", () => {
  const panel = new Panel(actions);
  panel.show(session());
  assert.equal(panel.stop.disabled, false);
  panel.show(session({ stopping: true }));
  assert.equal(panel.stop.disabled, true);
  panel.show(session({ status: "complete" }));
  assert.equal(panel.stop.disabled, true);
});

test("another run shows none of the pictures of the one before, though their steps are equal", () => {
  const panel = new Panel({ ...actions, pictureUrl: ({ run }, step) => `${run}/${step}` });
  panel.show(session({ samples: [1, 2] }));
  const before = [...panel.pictures.children];
  assert.equal(before.length, 2);
  panel.show(session({ run: "s", samples: [1, 2] }));
  assert.equal(panel.pictures.children.length, 2);
  assert.ok(panel.pictures.children.every((item) => !before.includes(item)));
});

test("the bar shows training as a whole, and other work by its own count", () => {
  const panel = new Panel(actions);
  const values = { step: 3, steps: 4 };
  const shown = [];
  for (const more of [
    {}, { values }, { values, phase: { name: "generating", done: 1, total: 2 } }, { values, status: "complete" },
    { phase: { name: "generating", done: 9, total: 2 } },
  ]) {
    panel.show(session(more));
    shown.push([panel.bar.value, panel.bar.hidden]);
  }
  assert.equal(panel.bar.attributes.max, "1");
  assert.deepEqual(shown, [[0, false], [0.75, false], [0.5, false], [0.75, true], [1, false]]);
});

test("the numbers say how fast it goes, how long it takes, and the loss as it is on average", () => {
  const panel = new Panel(actions);
  const told = (more) => {
    panel.show(session(more));
    return ["pace", "left", "loss", "rate"].map((name) => panel.values[name].textContent);
  };
  const values = { step: 2, steps: 12, steps_per_second: 0.5, lr: 1e-4 };
  assert.deepEqual(told({ values, losses: [[1, 0.5], [2, 0.4]] }), ["2.0 s/it", "0:20", "0.447", "1.0e-4"]);
  assert.equal(panel.numbers.hidden, false);
  panel.show(session({ values }));
  assert.equal(panel.numbers.hidden, true);
});

test("the legend names the curves that are there", () => {
  const panel = new Panel(actions);
  const named = (more) => {
    panel.show(session(more));
    panel.showLegend({});
    return panel.legend.hidden ? [] : panel.items(panel.legend).filter((item) => !item.hidden)
      .map((item) => item.dataset.curve).sort();
  };
  const losses = [[1, 0.5]];
  assert.deepEqual(named({}), []);
  assert.deepEqual(named({ losses }), ["smoothed", "training"]);
  assert.deepEqual(named({ losses, validation: [[1, 0.4]] }), ["smoothed", "training", "validation"]);
  assert.deepEqual(named({ losses, validation: [[1, 0.4]], values: { best_step: 1 } }),
    ["best", "smoothed", "training", "validation"]);
});

test("a text stands alone, but on a sheet beside its picture", () => {
  const output = { text: ["a", "b"], images: [{}] };
  assert.equal(resultView(output, () => "").textContent, "a\nb");
  assert.equal(resultView(output, () => "", true).children.length, 2);
});

test("bars are as long as their share of the largest value", () => {
  const view = resultView({ bars: [{ label: "a", value: 0.1 }, { label: "b", value: 0.4 }] });
  const widths = [];
  const search = (element) => {
    if (element.style.width) widths.push(element.style.width);
    element.children.forEach(search);
  };
  search(view);
  assert.deepEqual(widths, ["25%", "100%"]);
});

test("scores of samples stand in the panel with what they gained, and nothing stands there without", () => {
  const panel = new Panel(actions);
  panel.show(session());
  assert.deepEqual([panel.scorePlot.hidden, panel.scoreLegend.hidden], [true, true]);
  panel.show(session({ fidelity: [[0, 0.3], [4, 0.2876]], likeness: [[0, 0.6], [4, 0.6502]] }));
  assert.deepEqual([panel.scorePlot.hidden, panel.scoreLegend.hidden], [false, false]);
  assert.deepEqual([...panel.scoreLegend.children].map((item) => item.textContent),
    ["fidelity 0.288 (−0.012)", "likeness 0.650 (+0.050)"]);
});

test("what is changed is counted, and that it takes another run is said", () => {
  let edits = "";
  const review = new CaptionReview({ get: () => edits, set: () => {} });
  const told = (value) => {
    edits = value && JSON.stringify(value);
    review.show([], "", 1, "");
    return review.note.textContent;
  };
  assert.deepEqual(["", { a: "a fox" }, { a: null }, { a: "a fox", b: null, c: null }].map(told), [
    "", "1 changed. Run again to use it.", "1 left out. Run again to use it.",
    "1 changed, 2 left out. Run again to use it."]);
});
