/** The result of a node as page elements: scores as bars, a grid with its unique cells outlined, a contact sheet, or a
 * text. */

import { element } from "../element.js";
import { message } from "../messages.js";

/**
 * @param {NodeOutput} output what the node gave the editor
 * @param {(image: ServedImage) => string} pictureUrl
 * @param {boolean} [withPicture] whether a text is shown with the output's first picture
 * @returns {HTMLElement | undefined} undefined where there is nothing to show
 */
export function resultView(output, pictureUrl, withPicture = false) {
  if (output.bars?.length) return bars(output.bars, output.text?.[0]);
  if (output.cells && output.images?.length) return grid(output.cells, pictureUrl(output.images[0]));
  const text = output.text?.join("\n");
  if (!text) return undefined;
  const note = element("pre", { class: "atelier-result", tabindex: "0" }, text);
  return withPicture && output.images?.length ? sheet(note, pictureUrl(output.images[0])) : note;
}

/**
 * Lengths of bars as shares of the largest value; negative values get no bar.
 *
 * @param {number[]} values
 * @returns {number[]} 0 to 1
 */
export function shares(values) {
  const most = Math.max(...values, 0);
  return values.map((value) => (most > 0 ? Math.max(0, value / most) : 0));
}

/**
 * @param {NonNullable<NodeOutput["bars"]>} items
 * @param {string} [table] shown as a tooltip
 */
function bars(items, table) {
  const view = element("div", { class: "atelier-result atelier-bars", tabindex: "0", title: table ?? "" });
  const rows = element("table");
  rows.append(element("caption", {}, message("result.mean",
    { mean: number(mean(items.map(({ value }) => value))) })));
  const lengths = shares(items.map(({ value }) => value));
  items.forEach(({ label, value }, index) => {
    const row = element("tr");
    const bar = element("td", { class: "atelier-bar-cell" });
    const filled = element("div");
    filled.style.width = `${100 * lengths[index]}%`;
    bar.append(filled);
    row.append(element("th", { scope: "row", title: label }, label), bar, element("td", {}, number(value)));
    rows.append(row);
  });
  view.append(rows);
  return view;
}

/**
 * @param {NonNullable<NodeOutput["cells"]>} cells
 * @param {string} url
 */
function grid(cells, url) {
  const view = element("figure", { class: "atelier-result atelier-grid", tabindex: "0" });
  view.append(element("img", { src: url, alt: message("result.grid", { count: cells.length }) }));
  for (const { x, y, width, height, label } of cells) {
    const outline = element("span", { title: label });
    Object.assign(outline.style, {
      left: `${100 * x}%`, top: `${100 * y}%`, width: `${100 * width}%`, height: `${100 * height}%`,
    });
    view.append(outline);
  }
  return view;
}

/**
 * @param {HTMLElement} note
 * @param {string} url of the picture, which opens in a page of its own: its writing is small
 */
function sheet(note, url) {
  const view = element("figure", { class: "atelier-sheet" });
  const link = element("a", { href: url, target: "_blank", rel: "noopener" });
  link.append(element("img", { src: url, alt: message("result.sheet") }));
  view.append(note, link);
  return view;
}

/** @param {number[]} values */
function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** @param {number} value */
export function number(value) {
  return Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(3);
}
