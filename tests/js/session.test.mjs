import assert from "node:assert/strict";
import { test } from "node:test";

import { executionIds, takeNews, takeSnapshot } from "../../web/js/training/session.js";

const news = (number, losses, more = {}) => ({
  prompt: "p", node: "4", workflow: "w", number, status: "running", message: "", phase: { name: "training" },
  values: {}, losses, validation: [], samples: [], can_sample: false, stopping: false, sample_asked: false, ...more,
});

test("news in order make one curve, and the newest state", () => {
  let session;
  for (let number = 1; number <= 5; number += 1) {
    const taken = takeNews(session, news(number, [[number, number / 10]], { values: { step: number } }));
    assert.equal(taken.missed, false);
    session = taken.session;
  }
  assert.deepEqual(session.losses.map(([step]) => step), [1, 2, 3, 4, 5]);
  assert.equal(session.values.step, 5);
});

test("a gap is noticed and what came is shown all the same", () => {
  const { session } = takeNews(undefined, news(1, [[1, 1]]));
  const after = takeNews(session, news(3, [[3, 3]]));
  assert.equal(after.missed, true);
  assert.deepEqual(after.session.losses.map(([step]) => step), [1, 3]);
});

test("news that are known already change nothing", () => {
  const { session } = takeNews(undefined, news(1, [[1, 1]]));
  assert.equal(takeNews(session, news(1, [[9, 9]])).session, session);
});

test("a run that was going on before this page is asked for whole", () => {
  assert.deepEqual(takeNews(undefined, news(7, [[40, 1]])), { session: undefined, missed: true });
});

test("a new run takes the place of the old", () => {
  const { session } = takeNews(undefined, news(1, [[1, 1], [2, 1]]));
  const { session: next, missed } = takeNews(session, news(1, [], { prompt: "q" }));
  assert.equal(missed, false);
  assert.deepEqual(next.losses, []);
});

test("a snapshot and news meet in any order without a gap or a double", () => {
  const snapshot = news(4, [[1, 1], [2, 2], [3, 3], [4, 4], [5, 5]]);
  const expected = [1, 2, 3, 4, 5, 6];
  // The snapshot already has step 5, which the fifth news bring again.
  const first = takeNews(takeSnapshot(undefined, snapshot), news(5, [[5, 5], [6, 6]]));
  assert.equal(first.missed, false);
  assert.deepEqual(first.session.losses.map(([step]) => step), expected);

  const gap = takeNews(takeNews(undefined, news(1, [[1, 1]])).session, news(5, [[5, 5], [6, 6]])).session;
  assert.deepEqual(takeSnapshot(gap, snapshot).losses.map(([step]) => step), expected);
  assert.equal(takeSnapshot(gap, snapshot).number, 5);
});

test("a curve does not grow without end", () => {
  let session = takeNews(undefined, news(1, [])).session;
  for (let number = 2; number < 400; number += 1) {
    const points = Array.from({ length: 100 }, (_, i) => [(number - 2) * 100 + i + 1, 1]);
    session = takeNews(session, news(number, points)).session;
  }
  assert.ok(session.losses.length <= 8192);
  assert.equal(session.losses.at(-1)[0], 39_800);
});

test("execution ids: at the top, in a subgraph, in each of its instances, and deeper", () => {
  const inner = { nodes: [] };
  const middle = { nodes: [{ id: 7, subgraph: inner }] };
  const root = { nodes: [{ id: 1 }, { id: 5, subgraph: middle }, { id: 6, subgraph: middle }] };
  assert.deepEqual(executionIds(root, { id: 1, graph: root }), ["1"]);
  assert.deepEqual(executionIds(root, { id: 4, graph: middle }), ["5:4", "6:4"]);
  assert.deepEqual(executionIds(root, { id: 9, graph: inner }), ["5:7:9", "6:7:9"]);
});
