/** Numbers and states of a training as text. */

import { message, stateName } from "../messages.js";

/** @typedef {import("./session.js").Session} Session */

/** What to show where a value is not known. */
const UNKNOWN = "–";

/**
 * The current phase, or how the run ended.
 *
 * @param {Pick<Session, "status" | "phase" | "stopping">} session
 * @returns {string}
 */
export function headline({ status, phase, stopping }) {
  if (status !== "running") return stateName("ending", status);
  if (stopping && phase.name === "training") return message("panel.stopping");
  const name = stateName("phase", phase.name);
  const counted = phase.name !== "training" && phase.total > 1;
  const now = counted ? message("panel.counted", { phase: name, done: phase.done, total: phase.total }) : name;
  return stopping && phase.name !== "saving" ? message("panel.will_stop", { phase: now }) : now;
}

/**
 * "step 120 of 1200 · epoch 3.0 of 30"; empty before the first step.
 *
 * @param {Session["values"]} values
 * @returns {string}
 */
export function position({ step, steps, epoch }) {
  if (!step || !steps) return "";
  if (!epoch) return message("panel.step", { step, steps });
  const epochs = Math.max(1, Math.ceil((steps * epoch) / step - 1e-6));
  return message("panel.epoch", { step, steps, epoch: epoch.toFixed(1), epochs });
}

/**
 * "2.14 it/s", or "4.0 s/it" below one step a second: the same text as `format_speed` in atelier/train/step_rate.py.
 *
 * @param {number | undefined} stepsPerSecond
 * @returns {string}
 */
export function formatSpeed(stepsPerSecond) {
  if (!stepsPerSecond || !(stepsPerSecond > 0)) return UNKNOWN;
  return stepsPerSecond >= 1 ? `${fixed(stepsPerSecond, 2)} it/s` : `${fixed(1 / stepsPerSecond, 1)} s/it`;
}

/**
 * Seconds until the last step; undefined while the speed is not known.
 *
 * @param {Session["values"]} values
 * @returns {number | undefined}
 */
export function secondsLeft({ step, steps, steps_per_second: speed }) {
  return speed > 0 && steps >= step ? (steps - step) / speed : undefined;
}

/**
 * "0:07", "12:40", "3:05:00", rounded to whole seconds: the same text as `format_duration` in atelier/train/step_rate.py.
 *
 * @param {number | undefined} seconds
 * @returns {string}
 */
export function formatDuration(seconds) {
  if (seconds === undefined) return UNKNOWN;
  const whole = Math.floor(seconds + 0.5);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const two = (/** @type {number} */ number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/**
 * "3.1 / 24 GB".
 *
 * @param {Session["values"]} values
 * @returns {string}
 */
export function memory({ memory_used: used, memory_total: total }) {
  return total ? `${(used / 1e9).toFixed(1)} / ${(total / 1e9).toFixed(0)} GB` : UNKNOWN;
}

/**
 * A learning rate: "1.0e-4".
 *
 * @param {number | undefined} rate
 * @returns {string}
 */
export function learningRate(rate) {
  return rate === undefined ? UNKNOWN : rate === 0 ? "0" : rate.toExponential(1);
}

/**
 * A loss with three significant digits.
 *
 * @param {number | undefined} value
 * @returns {string}
 */
export function loss(value) {
  return value === undefined ? UNKNOWN : value.toPrecision(3);
}

/**
 * The latest of a score, and how far it is from the first, the base model's: "0.281 (+0.012)".
 *
 * @param {import("./curve.js").Point[]} points at least one
 * @returns {string}
 */
export function score(points) {
  const [[, base], [, last]] = [points[0], points[points.length - 1]];
  const gain = last - base;
  return `${last.toFixed(3)} (${gain < -0.0005 ? "−" : "+"}${Math.abs(gain).toFixed(3)})`;
}

/**
 * Round half up, as the Python side does; `toFixed` alone and Python's formatting differ on ties such as 1.125.
 *
 * @param {number} value
 * @param {number} digits
 */
function fixed(value, digits) {
  const unit = 10 ** digits;
  return (Math.floor(value * unit + 0.5) / unit).toFixed(digits);
}
