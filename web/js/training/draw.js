/** The curves on a canvas: losses, and the scores of samples. */

/** @typedef {import("./curve.js").Point} Point */
/** @typedef {(value: number) => number} Scale */
/** @typedef {Record<"training" | "smoothed" | "validation" | "best" | "fidelity" | "likeness", string>} Palette by curve, CSS colours */

import { linear, smooth, thin, ticks, valueRange } from "./curve.js";

/**
 * Colours for a dark and a light background, distinguishable with red-green colour blindness.
 *
 * @type {Record<"dark" | "light", Palette>}
 */
const PALETTES = {
  dark: { training: "#6b7f99", smoothed: "#4da3ff", validation: "#ffb347", best: "#ffffff", fidelity: "#4dd0b0",
    likeness: "#f48fd0" },
  light: { training: "#5b6f8a", smoothed: "#0b62c4", validation: "#b45309", best: "#111111", fidelity: "#00695c",
    likeness: "#8e1a8e" },
};
const MARGIN = { right: 10, top: 8, bottom: 20 };
/** Pixels between the edge, a tick's number, and the plot. */
const GAP = 6;
/** Radius of a dot, in pixels; one at the last step is drawn whole. */
const DOT = 2.5;
/** The axis of scores shows at least so much: cosines that differ by less are alike. */
const LEAST_GAIN = 0.01;
const FONT = "12px system-ui, sans-serif";

/**
 * @param {string} background a CSS colour as the browser computes it: "rgb(34, 34, 34)"
 * @returns {Palette}
 */
export function paletteFor(background) {
  const [red, green, blue] = (background.match(/[\d.]+/g) ?? [0, 0, 0]).map(Number);
  return PALETTES[0.299 * red + 0.587 * green + 0.114 * blue < 128 ? "dark" : "light"];
}

/**
 * Draw a session's losses.
 *
 * @param {CanvasRenderingContext2D} context scaled so that one unit is one CSS pixel
 * @param {{width: number, height: number}} size in CSS pixels
 * @param {Pick<import("./session.js").Session, "losses" | "validation" | "values">} session
 * @param {{palette: Palette, text: string, grid: string}} colours
 */
export function drawCurve(context, { width, height }, session, { palette, text, grid }) {
  context.clearRect(0, 0, width, height);
  const { losses, validation, values } = session;
  const smoothed = smooth(losses);
  const lastStep = losses.at(-1)?.[0] ?? 1;
  const range = valueRange(losses, smoothed, validation);
  const levels = ticks(range[0], range[1], 4);
  context.font = FONT;
  const left = Math.ceil(Math.max(0, ...levels.map((level) => context.measureText(String(level)).width))) + 2 * GAP;
  const x = linear([0, Math.max(lastStep, 1)], [left, width - MARGIN.right]);
  const y = linear(range, [height - MARGIN.bottom, MARGIN.top]);
  const columns = Math.max(1, width - left - MARGIN.right);

  axes(context, { width, height, left, x, y, levels, lastStep, text, grid });
  context.save();
  context.beginPath();
  context.rect(left, MARGIN.top, columns + DOT, height - MARGIN.top - MARGIN.bottom);
  context.clip();
  line(context, thin(losses, columns), x, y, palette.training, 1);
  line(context, thin(smoothed, columns), x, y, palette.smoothed, 2);
  line(context, validation, x, y, palette.validation, 2);
  for (const [step, value] of validation) dot(context, x(step), y(value), DOT, palette.validation);
  context.restore();
  const best = bestPoint(validation, smoothed, values.best_step);
  if (best) star(context, x(best[0]), y(best[1]), palette.best);
}

/**
 * Draw how far the scores of samples lie above or below the base model's.
 *
 * @param {CanvasRenderingContext2D} context scaled so that one unit is one CSS pixel
 * @param {{width: number, height: number}} size in CSS pixels
 * @param {Pick<import("./session.js").Session, "fidelity" | "likeness" | "losses">} session
 * @param {{palette: Palette, text: string, grid: string}} colours
 */
export function drawScores(context, { width, height }, session, { palette, text, grid }) {
  context.clearRect(0, 0, width, height);
  const curves = { fidelity: gains(session.fidelity), likeness: gains(session.likeness) };
  const lastStep = Math.max(1, session.losses.at(-1)?.[0] ?? 1, session.fidelity.at(-1)?.[0] ?? 1);
  const range = valueRange([], curves.fidelity, curves.likeness, [[0, 0], [0, LEAST_GAIN]]);
  const levels = ticks(range[0], range[1], 3);
  context.font = FONT;
  const left = Math.ceil(Math.max(...levels.map((level) => context.measureText(String(level)).width))) + 2 * GAP;
  const x = linear([0, lastStep], [left, width - MARGIN.right]);
  const y = linear(range, [height - MARGIN.bottom, MARGIN.top]);
  axes(context, { width, height, left, x, y, levels, lastStep, text, grid });
  for (const name of /** @type {("fidelity" | "likeness")[]} */ (["fidelity", "likeness"])) {
    line(context, curves[name], x, y, palette[name], 2);
    for (const [step, value] of curves[name]) dot(context, x(step), y(value), DOT, palette[name]);
  }
}

/**
 * A score's differences from its first point, the base model's.
 *
 * @param {Point[]} points
 * @returns {Point[]}
 */
export function gains(points) {
  return points.map(([step, value]) => [step, value - points[0][1]]);
}

/**
 * Where the star goes: at the best validation, or on the smoothed curve, which need not have a point at every step.
 *
 * @param {Point[]} validation
 * @param {Point[]} smoothed
 * @param {number | undefined} best step
 */
function bestPoint(validation, smoothed, best) {
  if (!best) return undefined;
  return validation.find(([step]) => step === best) ?? smoothed.find(([step]) => step >= best);
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {{width: number, height: number, left: number, x: Scale, y: Scale, levels: number[], lastStep: number,
 *   text: string, grid: string}} plot
 */
function axes(context, { width, height, left, x, y, levels, lastStep, text, grid }) {
  context.fillStyle = text;
  context.strokeStyle = grid;
  context.lineWidth = 1;
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const value of levels) {
    const at = Math.round(y(value)) + 0.5;
    context.beginPath();
    context.moveTo(left, at);
    context.lineTo(width - MARGIN.right, at);
    context.stroke();
    context.fillText(String(value), left - GAP, at);
  }
  context.textAlign = "center";
  context.textBaseline = "top";
  for (const step of ticks(0, lastStep, 5).filter(Number.isInteger)) {
    context.fillText(String(step), Math.min(x(step), width - MARGIN.right - 8), height - MARGIN.bottom + 5);
  }
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Point[]} points
 * @param {Scale} x
 * @param {Scale} y
 * @param {string} colour
 * @param {number} thickness
 */
function line(context, points, x, y, colour, thickness) {
  if (!points.length) return;
  if (points.length === 1) {
    dot(context, x(points[0][0]), y(points[0][1]), DOT, colour);
    return;
  }
  context.beginPath();
  context.moveTo(x(points[0][0]), y(points[0][1]));
  for (const [step, value] of points) context.lineTo(x(step), y(value));
  context.strokeStyle = colour;
  context.lineWidth = thickness;
  context.lineJoin = "round";
  context.stroke();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number} x
 * @param {number} y
 * @param {number} radius
 * @param {string} colour
 */
function dot(context, x, y, radius, colour) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = colour;
  context.fill();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number} x
 * @param {number} y
 * @param {string} colour
 */
function star(context, x, y, colour) {
  context.beginPath();
  for (let point = 0; point < 10; point += 1) {
    const radius = point % 2 ? 2.6 : 6.5;
    const angle = (Math.PI / 5) * point - Math.PI / 2;
    context.lineTo(x + radius * Math.cos(angle), y + radius * Math.sin(angle));
  }
  context.closePath();
  context.fillStyle = colour;
  context.fill();
}
