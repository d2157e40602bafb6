import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { test } from "node:test";

import { drawCurve, drawScores, gains, paletteFor } from "../../web/js/training/draw.js";
import { looksAsItDid, svgCanvas } from "./svg_canvas.mjs";

/** WCAG 2.2: relative luminance of a colour "#rrggbb". */
function luminance(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(first, second) {
  const [dark, light] = [luminance(first), luminance(second)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}

const rgb = (colour) => `rgb(${[1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)).join(", ")})`;

test("contrast by hand: black on white, and a colour on itself", () => {
  assert.equal(contrast("#000000", "#ffffff"), 21);
  assert.equal(contrast("#4da3ff", "#4da3ff"), 1);
});

test("every curve stands out from the ground it is drawn on, in the editor's dark and light themes", () => {
  // The widgets' ground in the editor's own themes.
  for (const ground of ["#222222", "#2e3440", "#002b36", "#161b22", "#c9c9c9", "#ffffff"]) {
    for (const [name, colour] of Object.entries(paletteFor(rgb(ground)))) {
      assert.ok(contrast(colour, ground) >= 3, `${name} ${colour} on ${ground}: ${contrast(colour, ground)}`);
    }
  }
});

/** A canvas' context that measures letters as seven pixels wide and notes what is drawn where. */
function notingContext() {
  const noted = { texts: [], fills: [], path: [] };
  const context = {
    font: "", textAlign: "", fillStyle: "",
    measureText(text) {
      assert.ok(context.font, "measured in the font that it is written in");
      return { width: 7 * String(text).length };
    },
    fillText(text, x) { noted.texts.push({ text, x, align: context.textAlign }); },
    beginPath() { noted.path = []; },
    lineTo(x, y) { noted.path.push([x, y]); },
    arc(x, y) { noted.path.push([x, y]); },
    fill() { noted.fills.push({ colour: context.fillStyle, path: noted.path }); },
  };
  for (const name of ["clearRect", "save", "restore", "rect", "clip", "moveTo", "stroke", "closePath"]) {
    context[name] = () => {};
  }
  return { context, noted };
}

function drawn(session) {
  const { context, noted } = notingContext();
  const palette = paletteFor("rgb(0, 0, 0)");
  drawCurve(context, { width: 360, height: 120 }, { validation: [], values: {}, ...session },
    { palette, text: "white", grid: "grey" });
  return { ...noted, stars: noted.fills.filter(({ colour }) => colour === palette.best) };
}

test("the numbers of the loss axis fit in, however long they are", () => {
  for (const losses of [[[1, 0.00121], [2, 0.00135]], [[1, 0.12345], [2, 0.12346]], [[1, 1234567], [2, 1334567]]]) {
    const labels = drawn({ losses }).texts.filter(({ align }) => align === "right");
    assert.ok(labels.length >= 2);
    for (const { text, x } of labels) assert.ok(x - 7 * text.length >= 0, `${text} begins at ${x - 7 * text.length}`);
  }
});

test("the star stands where the best step was, though the curve has no point there", () => {
  const losses = Array.from({ length: 100 }, (_, i) => [4 * (i + 1), 1 / (i + 1)]);
  const at = (best_step) => drawn({ losses, values: { best_step } }).stars.map(({ path }) => path[0][0]);
  const [[exact], [between]] = [at(200), at(199)];
  assert.equal(exact, between);
  assert.deepEqual(at(undefined), []);
  assert.deepEqual(drawn({ losses, validation: [[90, 0.5]], values: { best_step: 90 } }).stars.length, 1);
});

test("scores are drawn as what they gain on the base model's, each where its step and its value say", () => {
  const { context, noted } = notingContext();
  const palette = paletteFor("rgb(0, 0, 0)");
  const session = {
    losses: [[200, 1]], fidelity: [[0, 0.3], [100, 0.32], [200, 0.25]], likeness: [[0, 0.6], [100, 0.65], [200, 0.7]],
  };
  assert.deepEqual(gains(session.likeness).map(([step, value]) => [step, Number(value.toFixed(9))]),
    [[0, 0], [100, 0.05], [200, 0.1]]);
  drawScores(context, { width: 360, height: 120 }, session, { palette, text: "white", grid: "grey" });
  const dots = (colour) => noted.fills.filter((fill) => fill.colour === colour).map(({ path }) => path[0]);
  const [fidelity, likeness] = [dots(palette.fidelity), dots(palette.likeness)];
  assert.deepEqual(fidelity[0], likeness[0], "both begin at the base model");
  const [[left, zero], [middle, up], [right, down]] = fidelity;
  assert.ok(Math.abs((left + right) / 2 - middle) < 1e-9);
  // 0.02 up, 0.05 down, and likeness 0.1 up, on one scale.
  assert.ok(Math.abs((zero - up) / (down - zero) - 0.02 / 0.05) < 1e-6 && zero > up);
  assert.ok(Math.abs((zero - likeness[2][1]) / (down - zero) - 2) < 1e-6);
  for (const [, y] of [...fidelity, ...likeness]) assert.ok(y > 0 && y < 120);
});

/** Losses that fall and scatter, the same each time. */
const falling = (steps) => Array.from({ length: steps },
  (_, i) => [i + 1, 0.1 + 0.2 / (1 + i / 20) + 0.03 * Math.sin(7 * i)]);

const DRAWN = {
  "curve of losses": [drawCurve, { losses: falling(240),
    validation: [[60, 0.2], [120, 0.16], [180, 0.15], [240, 0.17]], values: { best_step: 180 } }],
  "curve of the first step": [drawCurve, { losses: [[1, 0.25]], validation: [], values: {} }],
  "curve on light ground": [drawCurve, { losses: falling(30), validation: [], values: { best_step: 25 } }, "light"],
  "curve of scores": [drawScores, { losses: [[400, 0.1]], fidelity: [[0, 0.31], [200, 0.32], [400, 0.318]],
    likeness: [[0, 0.62], [200, 0.66], [400, 0.7]] }],
  "curve of scores before the first step": [drawScores, { losses: [], fidelity: [[0, 0.31]], likeness: [] }, "light"],
};

test("a picture is stored of each drawing of the panel", async () => {
  const stored = (await readdir(new URL("../data/drawn/", import.meta.url))).filter((name) => name.endsWith(".svg"));
  assert.deepEqual(stored.sort(), Object.keys(DRAWN).map((name) => `${name}.svg`).sort());
});

for (const [name, [draw, session, ground = "dark"]] of Object.entries(DRAWN)) {
  test(`the panel draws as it did: ${name}`, async () => {
    const [back, text] = ground === "dark" ? ["#222222", "#dddddd"] : ["#ffffff", "#222222"];
    const size = { width: 360, height: 120 };
    const { context, svg } = svgCanvas(size, back);
    draw(context, size, session, { palette: paletteFor(rgb(back)), text, grid: "#888888" });
    await looksAsItDid(name, svg());
  });
}
