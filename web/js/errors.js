/** An error's own words on the node that it is about, where the editor itself shows a general sentence. */

import { addDisplay } from "./display.js";
import { element } from "./element.js";
import { message } from "./messages.js";

const HEIGHT = 72;

/**
 * The element that shows each node's error.
 *
 * @type {WeakMap<EditorNode, HTMLElement>}
 */
const shown = new WeakMap();

/**
 * The texts of a refused prompt by node, as the server answers it: why each node is refused, and of what is not run
 * because of that, the reason.
 *
 * @param {Record<string, NodeRefusal> | undefined} refusals
 * @returns {Record<string, string>}
 */
export function refusalTexts(refusals = {}) {
  /** @type {Record<string, string>} */
  const texts = {};
  for (const [node, { errors }] of Object.entries(refusals)) {
    texts[node] = errors.map((error) => error.details || error.message).join("\n");
  }
  for (const [node, { dependent_outputs: dependents = [] }] of Object.entries(refusals)) {
    for (const output of dependents) texts[output] ??= message("error.because", { node, reason: texts[node] });
  }
  return texts;
}

/**
 * Show an error below a node's widgets.
 *
 * @param {EditorNode} node
 * @param {string} text
 */
export function showError(node, text) {
  const present = shown.get(node);
  if (present) {
    present.textContent = text;
    return;
  }
  const note = element("p", { class: "atelier-error", role: "alert", tabindex: "0" }, text);
  shown.set(node, note);
  addDisplay(node, "atelier_error", "atelier_error", note, { getMinHeight: () => HEIGHT });
}

/**
 * Take a node's error away, as a new run begins.
 *
 * @param {EditorNode} node
 */
export function clearError(node) {
  if (!shown.delete(node)) return;
  const widgets = node.widgets ?? [];
  const index = widgets.findIndex(({ name }) => name === "atelier_error");
  if (index >= 0) {
    widgets[index].onRemove?.();
    widgets.splice(index, 1);
  }
  node.setSize([node.size[0], Math.max(0, node.size[1] - HEIGHT)]);
}
