/**
 * What is known of one training, kept up to date by the server's news. Plain values in, plain values out.
 *
 * The server numbers its news. A snapshot carries the number of the last news before it, so that nothing is lost or
 * counted twice whatever order they arrive in.
 */

import { even } from "./curve.js";

/** Of one curve; as many as the server keeps. */
const MOST_POINTS = 4096;

/**
 * A session as the panel uses it: the server's snapshot.
 *
 * @typedef {object} Session
 * @property {string} prompt
 * @property {string} node execution id: "4", or "12:4" inside subgraph node 12
 * @property {string} workflow the graph's id; empty when no editor queued it
 * @property {string} run another one for each run, also of the same node in the same prompt, as lists make them
 * @property {number} number of the last news taken in
 * @property {string} status "running", "complete", "stopped early", "stopped by user", "reused", "cancelled", "failed"
 * @property {string} message
 * @property {{name: string, done: number, total: number}} phase
 * @property {Record<string, number>} values
 * @property {[number, number][]} losses
 * @property {[number, number][]} validation
 * @property {number[]} samples steps at which a sample picture was drawn
 * @property {boolean} can_sample
 * @property {boolean} stopping
 * @property {boolean} sample_asked
 */

/**
 * Take in news.
 *
 * @param {Session | undefined} session what is known; nothing for a training not heard of before
 * @param {Session} news
 * @returns {{session: Session | undefined, missed: boolean}} missed: ask the server for a snapshot
 */
export function takeNews(session, news) {
  const same = session?.run === news.run;
  if (!same) {
    // The first news of a run are complete; later ones of a run not known are not.
    return { session: news.number === 1 ? news : session, missed: news.number !== 1 };
  }
  if (news.number <= session.number) return { session, missed: false };
  const merged = {
    ...news,
    losses: thinned(join(session.losses, news.losses)),
    validation: join(session.validation, news.validation),
  };
  return { session: merged, missed: news.number !== session.number + 1 };
}

/**
 * Take in a snapshot, unless newer news of the same run are known already.
 *
 * @param {Session | undefined} session
 * @param {Session} snapshot
 * @returns {Session}
 */
export function takeSnapshot(session, snapshot) {
  if (session?.run !== snapshot.run || snapshot.number >= session.number) return snapshot;
  return {
    ...session,
    losses: thinned(join(snapshot.losses, after(snapshot.losses, session.losses))),
    validation: join(snapshot.validation, after(snapshot.validation, session.validation)),
  };
}

/** Those of `points` that come after all of `others`. */
function after(others, points) {
  const last = others.at(-1)?.[0] ?? -Infinity;
  return points.filter(([step]) => step > last);
}

/** Points of `later` after those of `earlier`; of a step that both have, the later one counts. */
function join(earlier, later) {
  if (!later.length) return earlier;
  const first = later[0][0];
  let end = earlier.length;
  while (end && earlier[end - 1][0] >= first) end -= 1;
  return [...earlier.slice(0, end), ...later];
}

/** As even as the server's curve. Validation losses are left whole: they are few, and the best is one of them. */
function thinned(points) {
  return points.length ? even(points, stride(points.at(-1)[0])) : points;
}

/**
 * Steps for each point: 1 at first, and twice as many whenever there would be too many points. As it depends on nothing but
 * the last step, old points and new ones stand for equally many steps.
 */
function stride(steps) {
  return steps < MOST_POINTS ? 1 : 2 ** Math.floor(Math.log2(steps / (MOST_POINTS / 2)));
}
