/** What a node has to show after a run, as page elements: scores as bars, a grid with its unique cells, or a text. */

/**
 * @param {object} output what the node gave the editor
 * @param {{label: string, value: number}[]} [output.bars]
 * @param {{x: number, y: number, width: number, height: number, label: string}[]} [output.cells] parts of the picture
 *   that stand out, in shares of its width and height
 * @param {{filename: string, subfolder: string, type: string}[]} [output.images]
 * @param {string[]} [output.text]
 * @param {(image: object) => string} pictureUrl
 * @returns {HTMLElement | undefined} nothing where there is nothing to show
 */
export function resultView(output, pictureUrl) {
  if (output.bars?.length) return bars(output.bars, output.text?.[0]);
  if (output.cells && output.images?.length) return grid(output.cells, pictureUrl(output.images[0]));
  const text = output.text?.join("\n");
  return text ? make("pre", { class: "atelier-result", tabindex: "0" }, text) : undefined;
}

/** Lengths of bars for values: the largest fills its line, negative ones have none. */
export function shares(values) {
  const most = Math.max(...values, 0);
  return values.map((value) => (most > 0 ? Math.max(0, value / most) : 0));
}

function bars(items, table) {
  const view = make("div", { class: "atelier-result atelier-bars", tabindex: "0", title: table ?? "" });
  const rows = make("table", {});
  rows.append(make("caption", {}, `Scores, mean ${number(mean(items.map(({ value }) => value)))}`));
  const lengths = shares(items.map(({ value }) => value));
  items.forEach(({ label, value }, index) => {
    const row = make("tr", {});
    const bar = make("td", { class: "atelier-bar-cell" });
    const filled = make("div", {});
    filled.style.width = `${100 * lengths[index]}%`;
    bar.append(filled);
    row.append(make("th", { scope: "row", title: label }, label), bar, make("td", {}, number(value)));
    rows.append(row);
  });
  view.append(rows);
  return view;
}

function grid(cells, url) {
  const view = make("figure", { class: "atelier-result atelier-grid", tabindex: "0" });
  view.append(make("img", { src: url, alt: `Grid with ${cells.length} unique pictures, outlined under the pointer` }));
  for (const { x, y, width, height, label } of cells) {
    const outline = make("span", { title: label });
    Object.assign(outline.style, {
      left: `${100 * x}%`, top: `${100 * y}%`, width: `${100 * width}%`, height: `${100 * height}%`,
    });
    view.append(outline);
  }
  return view;
}

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function number(value) {
  return Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(3);
}

function make(name, attributes, text = "") {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}
