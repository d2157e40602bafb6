/**
 * Curves as numbers: smoothing, thinning, ranges, ticks. Nothing here knows of a page.
 *
 * A point is `[step, value]`; lists of points have rising steps.
 *
 * @typedef {[number, number]} Point
 */

/**
 * Exponential moving average, corrected for its start (Kingma & Ba 2015, section 3), as atelier/train/history.py does.
 *
 * @param {Point[]} points
 * @param {number} weight Of the past: 0 changes nothing.
 * @returns {Point[]}
 */
export function smooth(points, weight = 0.9) {
  let average = 0;
  let mass = 0;
  return points.map(([step, value]) => {
    average = weight * average + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return [step, average / mass];
  });
}

/**
 * At most four points for each of `columns` equal parts of the steps: its first, lowest, highest and last. On a plot of
 * that many pixels the line looks the same, spikes included.
 *
 * @param {Point[]} points
 * @param {number} columns
 * @returns {Point[]}
 */
export function thin(points, columns) {
  if (points.length <= 4 * columns) return points;
  const first = points[0][0];
  const width = (points[points.length - 1][0] - first) / columns;
  /** @type {Point[]} */
  const kept = [];
  let start = 0;
  while (start < points.length) {
    const column = Math.floor((points[start][0] - first) / width);
    let [end, low, high] = [start, start, start];
    while (end + 1 < points.length && Math.floor((points[end + 1][0] - first) / width) === column) {
      end += 1;
      if (points[end][1] < points[low][1]) low = end;
      if (points[end][1] > points[high][1]) high = end;
    }
    const chosen = [...new Set([start, low, high, end])].sort((a, b) => a - b);
    kept.push(...chosen.map((index) => points[index]));
    start = end + 1;
  }
  return kept;
}

/**
 * One point for each `width` steps (1 to width, and so on): the mean of the points within, at the step of the last. The
 * last group stays as it is until it is complete.
 *
 * @param {Point[]} points
 * @param {number} width
 * @returns {Point[]}
 */
export function even(points, width) {
  const full = Math.floor(points[points.length - 1][0] / width) * width;
  /** @type {Point[]} */
  const means = [];
  let start = 0;
  while (start < points.length && points[start][0] <= full) {
    const end = Math.ceil(points[start][0] / width) * width;
    let [next, sum] = [start, 0];
    for (; next < points.length && points[next][0] <= end; next += 1) sum += points[next][1];
    means.push([points[next - 1][0], sum / (next - start)]);
    start = next;
  }
  return [...means, ...points.slice(start)];
}

/**
 * The range of a value axis: all values of the steady curves, and the noisy curve without its extreme 2 % on each side.
 *
 * @param {Point[]} noisy
 * @param {Point[][]} steady
 * @returns {[number, number]} lowest and highest, never equal
 */
export function valueRange(noisy, ...steady) {
  const sorted = noisy.map(([, value]) => value).sort((a, b) => a - b);
  const cut = Math.floor(sorted.length * 0.02);
  const seen = [...sorted.slice(cut, sorted.length - cut), ...steady.flat().map(([, value]) => value)];
  if (!seen.length) return [0, 1];
  let low = Infinity;
  let high = -Infinity;
  for (const value of seen) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const room = narrow(low, high) ? Math.abs(high) * 0.1 || 1 : (high - low) * 0.06;
  // Losses are never negative: the room below them must not pretend they could be.
  return [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
}

/**
 * Whether two values differ by rounding alone, which leaves no room for ticks between them.
 *
 * @param {number} low
 * @param {number} high
 */
function narrow(low, high) {
  return high - low <= 1e-9 * Math.max(Math.abs(low), Math.abs(high));
}

/**
 * Round numbers within [low, high], about `count` of them.
 *
 * @param {number} low
 * @param {number} high
 * @param {number} count
 * @returns {number[]}
 */
export function ticks(low, high, count) {
  if (!(high > low) || narrow(low, high)) return [low];
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5].find((factor) => factor * power >= rough * 0.999) ?? 10) * power;
  const values = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index += 1) {
    values.push(Number((index * step).toPrecision(12)));
  }
  return values;
}

/**
 * The straight line through (from[0], to[0]) and (from[1], to[1]).
 *
 * @param {[number, number]} from
 * @param {[number, number]} to
 * @returns {(value: number) => number}
 */
export function linear(from, to) {
  const factor = (to[1] - to[0]) / (from[1] - from[0] || 1);
  return (value) => to[0] + (value - from[0]) * factor;
}
