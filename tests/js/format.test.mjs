import assert from "node:assert/strict";
import { test } from "node:test";

import {
  formatDuration, formatSpeed, headline, learningRate, memory, position, secondsLeft,
} from "../../web/js/training/format.js";
import { speakFromDisk } from "./tables.mjs";

await speakFromDisk("en");

const running = (phase, more = {}) => ({ status: "running", phase, stopping: false, ...more });

test("phases have names, and a count where there is something to count", () => {
  assert.equal(headline(running({ name: "encoding", done: 37, total: 120 })),
    "Encoding pictures and captions, 37 of 120");
  assert.equal(headline(running({ name: "training", done: 3, total: 100 })), "Training");
  assert.equal(headline(running({ name: "saving", done: 0, total: 1 })), "Saving");
  assert.equal(headline(running({ name: "some new phase", done: 0, total: 0 })), "some new phase");
  assert.equal(headline(running({ name: "training" }, { stopping: true })), "Stopping after this step");
  assert.equal(headline({ status: "stopped by user", phase: {} }), "Stopped, best weights kept");
});

test("stop is said beside what still goes on, and only a training step is the last one", () => {
  const stopping = { stopping: true };
  assert.equal(headline(running({ name: "encoding", done: 37, total: 5000 }, stopping)),
    "Encoding pictures and captions, 37 of 5000 · will stop");
  assert.equal(headline(running({ name: "sampling", done: 2, total: 20 }, stopping)),
    "Drawing a sample, 2 of 20 · will stop");
  assert.equal(headline(running({ name: "saving", done: 0, total: 1 }, stopping)), "Saving");
});

test("step and epoch", () => {
  assert.equal(position({ step: 120, steps: 1200, epoch: 3 }), "step 120 of 1200 · epoch 3.0 of 30");
  assert.equal(position({ step: 1, steps: 10, epoch: 0.25 }), "step 1 of 10 · epoch 0.3 of 3");
  assert.equal(position({ step: 2, steps: 2 }), "step 2 of 2");
  assert.equal(position({}), "");
});

test("speed, time and memory", () => {
  assert.deepEqual([2.14, 1].map(formatSpeed), ["2.14 it/s", "1.00 it/s"]);
  assert.equal(formatSpeed(0.25), "4.0 s/it");
  assert.equal(formatSpeed(undefined), "–");
  assert.equal(secondsLeft({ step: 20, steps: 100, steps_per_second: 2 }), 40);
  assert.equal(secondsLeft({ step: 0, steps: 100 }), undefined);
  assert.deepEqual([7, 760, 11_100, undefined].map(formatDuration), ["0:07", "12:40", "3:05:00", "–"]);
  assert.equal(memory({ memory_used: 3.14e9, memory_total: 24e9 }), "3.1 / 24 GB");
  assert.equal(memory({}), "–");
  assert.equal(learningRate(1e-4), "1.0e-4");
  assert.equal(learningRate(0), "0");
});
