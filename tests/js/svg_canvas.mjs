/** A canvas' context that writes what is drawn as SVG: a text to compare, and a picture to look at. */

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";

/** Advance width of each character in `measureText`, pixels. */
const CHARACTER = 7;
const ANCHORS = { left: "start", center: "middle", right: "end" };
const BASELINES = { top: "hanging", middle: "middle", alphabetic: "auto" };

const number = (value) => String(Number(value.toFixed(2)));
const attributes = (values) => Object.entries(values).map(([name, value]) => `${name}="${value}"`).join(" ");

/**
 * @param {{width: number, height: number}} size in CSS pixels
 * @param {string} ground CSS colour behind the drawing
 */
export function svgCanvas({ width, height }, ground) {
  const lines = [];
  let path = [];
  let clip = "";
  const saved = [];
  const add = (line) => lines.push(clip ? line.replace("/>", ` clip-path="url(#${clip})"/>`) : line);
  const context = {
    font: "", textAlign: "left", textBaseline: "alphabetic", fillStyle: "black", strokeStyle: "black", lineWidth: 1,
    lineJoin: "miter",
    measureText(text) {
      assert.ok(context.font, "measured in the font that it is written in");
      return { width: CHARACTER * String(text).length };
    },
    clearRect(...box) {
      assert.deepEqual(box, [0, 0, width, height], "the whole canvas is cleared");
      lines.length = 0;
    },
    save() { saved.push(clip); },
    restore() { clip = saved.pop(); },
    beginPath() { path = []; },
    closePath() { path.push("Z"); },
    moveTo(x, y) { path.push(`M${number(x)} ${number(y)}`); },
    lineTo(x, y) { path.push(`${path.length ? "L" : "M"}${number(x)} ${number(y)}`); },
    rect(x, y, across, down) {
      path.push(`M${number(x)} ${number(y)}h${number(across)}v${number(down)}H${number(x)}Z`);
    },
    arc(x, y, radius, from, to) {
      assert.deepEqual([from, to], [0, 2 * Math.PI], "whole circles alone");
      const [r, across] = [number(radius), number(2 * radius)];
      path.push(`M${number(x - radius)} ${number(y)}a${r} ${r} 0 0 1 ${across} 0a${r} ${r} 0 0 1 -${across} 0Z`);
    },
    clip() {
      clip = `clip${lines.length}`;
      lines.push(`<clipPath id="${clip}"><path d="${path.join("")}"/></clipPath>`);
    },
    stroke() {
      add(`<path ${attributes({ d: path.join(""), fill: "none", stroke: context.strokeStyle,
        "stroke-width": context.lineWidth, "stroke-linejoin": context.lineJoin })}/>`);
    },
    fill() { add(`<path ${attributes({ d: path.join(""), fill: context.fillStyle })}/>`); },
    fillText(text, x, y) {
      lines.push(`<text ${attributes({ x: number(x), y: number(y), fill: context.fillStyle,
        "text-anchor": ANCHORS[context.textAlign], "dominant-baseline": BASELINES[context.textBaseline],
        style: `font: ${context.font}` })}>${text}</text>`);
    },
  };
  const svg = () => [`<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">`,
    `<rect width="${width}" height="${height}" fill="${ground}"/>`, ...lines, "</svg>", ""].join("\n");
  return { context, svg };
}

/**
 * It looks as it did when somebody last looked at it. With the environment's DRAW=1 the stored picture is written.
 *
 * @param {string} name of the stored picture
 * @param {string} svg
 */
export async function looksAsItDid(name, svg) {
  const stored = new URL(`../data/drawn/${name}.svg`, import.meta.url);
  if (process.env.DRAW) await writeFile(stored, svg);
  assert.equal(svg, (await readFile(stored, "utf-8")).replaceAll("\r\n", "\n"),
    "if it should look so: DRAW=1 node --test tests/js/draw.test.mjs, and look at the picture");
}
