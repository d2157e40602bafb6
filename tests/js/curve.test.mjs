import assert from "node:assert/strict";
import { test } from "node:test";

import { even, linear, smooth, thin, ticks, valueRange } from "../../web/js/training/curve.js";

const noisy = (count) => Array.from({ length: count }, (_, i) => [i + 1, 1 + Math.sin(i * 12.9898) * 0.3]);

test("smoothing starts at the first value and follows a constant exactly", () => {
  const smoothed = smooth([[1, 0.5], [2, 0.5], [3, 0.5]]);
  for (const [, value] of smoothed) assert.ok(Math.abs(value - 0.5) < 1e-12);
});

test("smoothing by hand: weight 0.5 over 1, 0", () => {
  // average 0.5, mass 0.5 -> 1; average 0.25, mass 0.75 -> 1/3
  assert.deepEqual(smooth([[1, 1], [2, 0]], 0.5).map(([, value]) => value.toFixed(6)), ["1.000000", "0.333333"]);
});

test("thinning keeps few points, the ends, and every spike", () => {
  const points = noisy(50_000);
  points[31_234] = [31_235, 40];
  points[777] = [778, -3];
  const kept = thin(points, 300);
  assert.ok(kept.length <= 4 * 301, `${kept.length} points`);
  assert.deepEqual(kept[0], points[0]);
  assert.deepEqual(kept.at(-1), points.at(-1));
  assert.ok(kept.some(([, value]) => value === 40));
  assert.ok(kept.some(([, value]) => value === -3));
  for (let i = 1; i < kept.length; i += 1) assert.ok(kept[i][0] > kept[i - 1][0]);
});

test("few points are not thinned", () => {
  const points = noisy(100);
  assert.equal(thin(points, 300), points);
});

test("made even, points are means over equally many steps, and the last part waits until it is full", () => {
  assert.deepEqual(even([[1, 1], [2, 3], [3, 5], [4, 7], [5, 9]], 2), [[2, 2], [4, 6], [5, 9]]);
  assert.deepEqual(even([[1, 1], [2, 3], [3, 5], [4, 7]], 4), [[4, 4]]);
  assert.deepEqual(even([[1, 1], [2, 3], [3, 5]], 1), [[1, 1], [2, 3], [3, 5]]);
  // Where not every step has a point.
  assert.deepEqual(even([[3, 1], [6, 3], [7, 5], [21, 7], [23, 9]], 8), [[7, 3], [21, 7], [23, 9]]);
});

test("made even bit by bit or at once is the same", () => {
  const points = noisy(4096);
  let bits = [];
  for (let start = 0; start < points.length; start += 7) bits = even([...bits, ...points.slice(start, start + 7)], 16);
  const whole = even(points, 16);
  assert.equal(bits.length, 256);
  bits.forEach(([step, value], i) => {
    assert.equal(step, whole[i][0]);
    assert.ok(Math.abs(value - whole[i][1]) < 1e-12);
  });
});

test("the range shows steady curves whole and leaves out rare spikes of the noisy one", () => {
  const points = noisy(1000);
  points[500] = [501, 90];
  const [low, high] = valueRange(points, [[1, 0.2], [9, 2.5]]);
  assert.ok(low <= 0.2 && low >= 0);
  assert.ok(high >= 2.5 && high < 3);
});

test("a range is never empty", () => {
  for (const points of [[], [[1, 0]], [[1, 0.3], [2, 0.3]], [[1, -1], [2, -1]]]) {
    const [low, high] = valueRange(points);
    assert.ok(high > low, JSON.stringify(points));
  }
});

test("ticks are round, inside, and about as many as asked for", () => {
  assert.deepEqual(ticks(0, 1, 4), [0, 0.5, 1]);
  assert.deepEqual(ticks(0, 1000, 5), [0, 200, 400, 600, 800, 1000]);
  assert.deepEqual(ticks(0.11, 0.42, 4), [0.2, 0.3, 0.4]);
  for (let i = 0; i < 200; i += 1) {
    const low = Math.sin(i) * 10 ** (i % 7 - 3);
    const high = low + 10 ** ((i * 3) % 9 - 5);
    const found = ticks(low, high, 4);
    assert.ok(found.length >= 1 && found.length <= 6, `${low}..${high}: ${found}`);
    const rounding = 1e-9 * Math.max(1, Math.abs(low), Math.abs(high));
    assert.ok(found.every((value) => value >= low - rounding && value <= high + rounding), `${low}..${high}: ${found}`);
  }
  assert.deepEqual(ticks(3, 3, 4), [3]);
});

test("values that differ by rounding alone are shown as one, with room around it", () => {
  let apart = 0;
  for (let i = 1; i <= 1000; i += 1) {
    const first = [[1, Math.abs(Math.sin(i))]]; // as after the first step: its average is the same but for rounding
    const smoothed = smooth(first);
    apart += Number(smoothed[0][1] !== first[0][1]);
    const [low, high] = valueRange(first, smoothed);
    assert.ok(high - low > 0.1 * first[0][1], `${low}..${high}`);
    const found = ticks(low, high, 4);
    assert.ok(found.length >= 1 && found.length <= 6, `${low}..${high}: ${found}`);
  }
  assert.ok(apart > 0);
  assert.deepEqual(ticks(0.3, 0.3 + Number.EPSILON / 4, 4), [0.3]);
});

test("the scale maps ends to ends, and a range without width to its start", () => {
  const scale = linear([10, 20], [100, 0]);
  assert.deepEqual([scale(10), scale(15), scale(20)], [100, 50, 0]);
  assert.equal(linear([5, 5], [0, 100])(5), 0);
});
