/** Numbers and states as a person reads them. */

const PHASES = {
  starting: "Starting",
  loading: "Loading the model",
  encoding: "Encoding pictures and captions",
  training: "Training",
  sampling: "Drawing a sample",
  saving: "Saving",
};

const ENDINGS = {
  complete: "Finished",
  "stopped early": "Finished early: no more progress",
  "stopped by user": "Stopped, best weights kept",
  reused: "Taken from an earlier run",
  cancelled: "Cancelled; Run goes on from here",
  failed: "Failed",
};

/** What happens now, or how it ended. */
export function headline({ status, phase, stopping }) {
  if (status !== "running") return ENDINGS[status] ?? status;
  if (stopping && phase.name === "training") return "Stopping after this step";
  const name = PHASES[phase.name] ?? phase.name;
  const counted = phase.name !== "training" && phase.total > 1;
  const now = counted ? `${name}, ${phase.done} of ${phase.total}` : name;
  return stopping && phase.name !== "saving" ? `${now} · will stop` : now;
}

/** "step 120 of 1200 · epoch 3.0 of 30"; empty before the first step. */
export function position({ step, steps, epoch }) {
  if (!step || !steps) return "";
  const epochs = epoch ? ` · epoch ${epoch.toFixed(1)} of ${Math.max(1, Math.ceil((steps * epoch) / step - 1e-6))}` : "";
  return `step ${step} of ${steps}${epochs}`;
}

/** "2.1 it/s", or "4.0 s/it" where a step takes longer than a second. */
export function pace(stepsPerSecond) {
  if (!(stepsPerSecond > 0)) return "–";
  return stepsPerSecond >= 1 ? `${stepsPerSecond.toFixed(1)} it/s` : `${(1 / stepsPerSecond).toFixed(1)} s/it`;
}

/** Seconds until the last step; undefined while it cannot be known. */
export function secondsLeft({ step, steps, steps_per_second: speed }) {
  return speed > 0 && steps >= step ? (steps - step) / speed : undefined;
}

/** "0:07", "12:40", "3:05:00". */
export function duration(seconds) {
  if (seconds === undefined) return "–";
  const whole = Math.round(seconds);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** "3.1 / 24 GB". */
export function memory({ memory_used: used, memory_total: total }) {
  return total ? `${(used / 1e9).toFixed(1)} / ${(total / 1e9).toFixed(0)} GB` : "–";
}

/** A learning rate: "1.0e-4". */
export function rate(lr) {
  return lr === undefined ? "–" : lr === 0 ? "0" : lr.toExponential(1);
}

/** A loss with three digits that count. */
export function loss(value) {
  return value === undefined ? "–" : value.toPrecision(3);
}
