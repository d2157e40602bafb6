import assert from "node:assert/strict";
import { test } from "node:test";

import { applyUpdate, applySnapshot } from "../../web/js/training/session.js";

const update = (number, losses, more = {}) => ({
  prompt: "p", node: "4", workflow: "w", run: "r", number, status: "running", message: "", phase: { name: "training" },
  values: {}, losses, validation: [], fidelity: [], likeness: [],
  samples: [], can_sample: false, stopping: false, sample_asked: false, ...more,
});

test("updates in order make one curve, and the newest state", () => {
  let session;
  for (let number = 1; number <= 5; number += 1) {
    const taken = applyUpdate(session, update(number, [[number, number / 10]], { values: { step: number } }));
    assert.equal(taken.missed, false);
    session = taken.session;
  }
  assert.deepEqual(session.losses.map(([step]) => step), [1, 2, 3, 4, 5]);
  assert.equal(session.values.step, 5);
});

test("a gap is noticed and what came is shown all the same", () => {
  const { session } = applyUpdate(undefined, update(1, [[1, 1]]));
  const after = applyUpdate(session, update(3, [[3, 3]]));
  assert.equal(after.missed, true);
  assert.deepEqual(after.session.losses.map(([step]) => step), [1, 3]);
});

test("updates that are known already change nothing", () => {
  const { session } = applyUpdate(undefined, update(1, [[1, 1]]));
  assert.equal(applyUpdate(session, update(1, [[9, 9]])).session, session);
});

test("a run that was going on before this page is asked for whole", () => {
  assert.deepEqual(applyUpdate(undefined, update(7, [[40, 1]])), { session: undefined, missed: true });
});

test("a new run takes the place of the old", () => {
  const { session } = applyUpdate(undefined, update(1, [[1, 1], [2, 1]]));
  const { session: next, missed } = applyUpdate(session, update(1, [], { prompt: "q", run: "s" }));
  assert.equal(missed, false);
  assert.deepEqual(next.losses, []);
});

test("of a list, each run takes the place of the one before, though prompt and node are the same", () => {
  const first = applyUpdate(undefined, update(1, [[1, 1], [2, 1]])).session;
  const later = applyUpdate(first, update(2, [[3, 1]], { status: "complete" })).session;
  const { session: next, missed } = applyUpdate(later, update(1, [[1, 9]], { run: "s" }));
  assert.equal(missed, false);
  assert.deepEqual([next.status, next.losses], ["running", [[1, 9]]]);
  const snapshot = update(1, [[1, 9]], { run: "s" });
  assert.equal(applySnapshot(later, snapshot), snapshot, "its number is lower, but counts another run's updates");
});

test("a snapshot and updates meet in any order without a gap or a double", () => {
  const snapshot = update(4, [[1, 1], [2, 2], [3, 3], [4, 4], [5, 5]]);
  const expected = [1, 2, 3, 4, 5, 6];
  // The snapshot already has step 5, which the fifth updates bring again.
  const first = applyUpdate(applySnapshot(undefined, snapshot), update(5, [[5, 5], [6, 6]]));
  assert.equal(first.missed, false);
  assert.deepEqual(first.session.losses.map(([step]) => step), expected);

  const gap = applyUpdate(applyUpdate(undefined, update(1, [[1, 1]])).session, update(5, [[5, 5], [6, 6]])).session;
  assert.deepEqual(applySnapshot(gap, snapshot).losses.map(([step]) => step), expected);
  assert.equal(applySnapshot(gap, snapshot).number, 5);
});

test("what is measured again at a step takes the place of what was", () => {
  const { session } = applyUpdate(undefined, update(1, [], { validation: [[4, 0.5], [8, 0.4]] }));
  const again = applyUpdate(session, update(2, [], { validation: [[8, 0.3], [12, 0.2]] })).session;
  assert.deepEqual(again.validation, [[4, 0.5], [8, 0.3], [12, 0.2]]);
});

test("a curve does not grow without end, and keeps its beginning as well as its end", () => {
  let session = applyUpdate(undefined, update(1, [])).session;
  for (let number = 2; number <= 1001; number += 1) {
    const points = Array.from({ length: 100 }, (_, i) => [(number - 2) * 100 + i + 1, (number - 2) * 100 + i + 1]);
    session = applyUpdate(session, update(number, points)).session;
    assert.ok(session.losses.length <= 4096 + 32);
  }
  assert.equal(session.losses.at(-1)[0], 100_000);
  assert.ok(session.losses.length >= 2048);
  let [before, exact] = [0, 0];
  for (const [step, value] of session.losses) {
    assert.equal(step - before, 32);
    assert.ok(before < value && value <= step);
    exact += value === before + 16.5; // the mean of its steps
    before = step;
  }
  // But for those within which the width doubled, where some steps weigh more.
  assert.ok(exact >= session.losses.length - 5, `${exact} of ${session.losses.length}`);
});

test("validation losses stay as they are, however long the run", () => {
  let session = applyUpdate(undefined, update(1, [])).session;
  const looks = [];
  for (let number = 2; number <= 101; number += 1) {
    const more = Array.from({ length: 40 }, (_, i) => [((number - 2) * 40 + i + 1) * 25, i === 7 ? 0.1 : 0.5]);
    looks.push(...more);
    session = applyUpdate(session, { ...update(number, [[more.at(-1)[0], 1]]), validation: more }).session;
  }
  assert.equal(session.losses.at(-1)[0], 100_000);
  assert.deepEqual(session.validation, looks);
});

test("scores of samples go the way of losses: by update, by snapshot, and once each", () => {
  const scores = (...points) => ({ fidelity: points, likeness: points.map(([step, value]) => [step, value * 2]) });
  const first = applyUpdate(undefined, update(1, [], scores([0, 0.2]))).session;
  const second = applyUpdate(first, update(2, [[1, 1]], scores([1, 0.25]))).session;
  assert.deepEqual([second.fidelity, second.likeness], [[[0, 0.2], [1, 0.25]], [[0, 0.4], [1, 0.5]]]);
  const older = applySnapshot(second, update(1, [], scores([0, 0.2])));
  assert.deepEqual(older.fidelity, [[0, 0.2], [1, 0.25]]);
  assert.deepEqual(applyUpdate(second, update(3, [], scores())).session.likeness, [[0, 0.4], [1, 0.5]]);
});
