/**
 * The state of one training, kept up to date by the server's updates. Plain values in, plain values out.
 *
 * The server numbers its updates. A snapshot carries the number of the last update before it, so that nothing is lost or
 * counted twice whatever order they arrive in.
 */

import { even } from "./curve.js";

/** Most points of one curve; the server keeps as many. */
const MOST_POINTS = 4096;

/** @typedef {import("./curve.js").Point} Point */

/**
 * A session as the server describes it, in a snapshot or an update.
 *
 * @typedef {object} Session
 * @property {string} prompt
 * @property {string} node execution id: "4", or "12:4" inside subgraph node 12
 * @property {string} workflow the graph's id; empty when no editor queued it
 * @property {string} run unique for each run, also where a list runs the same node several times in one prompt
 * @property {number} number of the last update applied
 * @property {string} status "running", "complete", "stopped early", "stopped by user", "reused", "cancelled", "failed"
 * @property {string} message
 * @property {{name: string, done: number, total: number}} phase
 * @property {Record<string, number>} values the latest of each measurement; a key may be missing
 * @property {Point[]} losses
 * @property {Point[]} validation
 * @property {Point[]} fidelity of rounds of samples to their prompts; at step 0 the base model's
 * @property {Point[]} likeness of rounds of samples to the training pictures
 * @property {number[]} samples steps at which a sample picture was drawn
 * @property {boolean} can_sample
 * @property {boolean} stopping
 * @property {boolean} sample_asked
 */

/**
 * What a trainer put out: the run whose result it is, its report, and the node's own run at that time, if any.
 *
 * @typedef {{ run: string, report: string, after: string | undefined }} Output
 */

/**
 * Apply an update.
 *
 * @param {Session | undefined} session what is known; undefined for a training not heard of before
 * @param {Session} update its curves hold the new points only
 * @returns {{session: Session | undefined, missed: boolean}} missed: ask the server for a snapshot
 */
export function applyUpdate(session, update) {
  if (session?.run !== update.run) {
    // The first update of a run is complete; a later one of an unknown run is not.
    return { session: update.number === 1 ? update : session, missed: update.number !== 1 };
  }
  if (update.number <= session.number) return { session, missed: false };
  const merged = {
    ...update,
    losses: thinned(join(session.losses, update.losses)),
    validation: join(session.validation, update.validation),
    fidelity: join(session.fidelity, update.fidelity),
    likeness: join(session.likeness, update.likeness),
  };
  return { session: merged, missed: update.number !== session.number + 1 };
}

/**
 * Apply a snapshot, unless a newer update of the same run is known already.
 *
 * @param {Session | undefined} session
 * @param {Session} snapshot
 * @returns {Session}
 */
export function applySnapshot(session, snapshot) {
  if (session?.run !== snapshot.run || snapshot.number >= session.number) return snapshot;
  return {
    ...session,
    losses: thinned(join(snapshot.losses, after(snapshot.losses, session.losses))),
    validation: join(snapshot.validation, after(snapshot.validation, session.validation)),
    fidelity: join(snapshot.fidelity, after(snapshot.fidelity, session.fidelity)),
    likeness: join(snapshot.likeness, after(snapshot.likeness, session.likeness)),
  };
}

/**
 * A session of another node or workflow, whose result is used again; or what is known of it where the server has dropped
 * it.
 *
 * @param {Session | undefined} session
 * @param {Output} output
 * @returns {Session}
 */
export function reused(session, { run, report }) {
  const nothing = {
    prompt: "", node: "", workflow: "", run, number: 0, message: report, phase: { name: "saving", done: 0, total: 1 },
    values: {}, losses: [], validation: [], fidelity: [], likeness: [], samples: [], can_sample: false, stopping: false,
    sample_asked: false,
  };
  return { ...(session ?? nothing), status: "reused" };
}

/**
 * Those of `points` that come after all of `others`.
 *
 * @param {Point[]} others
 * @param {Point[]} points
 */
function after(others, points) {
  const last = others.at(-1)?.[0] ?? -Infinity;
  return points.filter(([step]) => step > last);
}

/**
 * The points of `earlier`, then those of `later`; for a step that both have, the later one counts.
 *
 * @param {Point[]} earlier
 * @param {Point[]} later
 */
function join(earlier, later) {
  if (!later.length) return earlier;
  const first = later[0][0];
  let end = earlier.length;
  while (end && earlier[end - 1][0] >= first) end -= 1;
  return [...earlier.slice(0, end), ...later];
}

/**
 * As even as the server's curve. Validation losses are left whole: they are few, and the best is one of them.
 *
 * @param {Point[]} points
 */
function thinned(points) {
  return points.length ? even(points, stride(points[points.length - 1][0])) : points;
}

/**
 * Steps for each point: 1 at first, doubled whenever there would be too many points. It depends on the last step alone,
 * so that old and new points stand for equally many steps.
 *
 * @param {number} steps
 */
function stride(steps) {
  return steps < MOST_POINTS ? 1 : 2 ** Math.floor(Math.log2(steps / (MOST_POINTS / 2)));
}
