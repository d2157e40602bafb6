import assert from "node:assert/strict";
import { test } from "node:test";

import { number, resultView, shares } from "../../web/js/results/view.js";

test("the largest value fills its line, the others their share of it", () => {
  assert.deepEqual(shares([0.1, 0.4, 0.2]), [0.25, 1, 0.5]);
});

test("a negative value has no bar, and nothing divides by zero", () => {
  assert.deepEqual(shares([-0.1, 0.2]), [0, 1]);
  assert.deepEqual(shares([-1, -2]), [0, 0]);
  assert.deepEqual(shares([0, 0]), [0, 0]);
});

test("small values have three decimals, others one", () => {
  assert.deepEqual([0.12345, 9.9999, -0.5, 10, 27.26, -31.18].map(number),
    ["0.123", "10.000", "-0.500", "10.0", "27.3", "-31.2"]);
});

test("a node with nothing to show gets no widget", () => {
  assert.equal(resultView({}), undefined);
  assert.equal(resultView({ text: [""], bars: [], images: [{}] }), undefined);
});
