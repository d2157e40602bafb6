/**
 * Fold the advanced widgets of a node on the canvas, behind a button, as the editor itself does where it draws nodes as
 * page elements. Folded widgets keep their place and value: workflows are saved and read as before.
 */

import { message } from "./messages.js";

/** The button's name; it has no value and is not saved. */
const NAME = "atelier_more";

/**
 * Fold the node's advanced widgets, if it has any, and add the button that shows them.
 *
 * @param {EditorNode} node as it was just created
 */
export function addFold(node) {
  if (!advanced(node).length) return;
  const toggle = () => {
    const before = node.computeSize()[1];
    setFolded(node, !isFolded(node));
    // What a person or a result has added to the height stays.
    const [width, height] = node.size;
    const needed = node.computeSize()[1];
    node.setSize([width, Math.max(needed, height + needed - before)]);
  };
  const button = node.addWidget("button", NAME, null, toggle, { serialize: false, canvasOnly: true });
  button.serialize = false;
  setFolded(node, true);
  node.setSize([node.size[0], node.computeSize()[1]]);
  const { onConnectionsChange } = node;
  node.onConnectionsChange = function (...change) {
    if (isFolded(node)) setFolded(node, true);
    return onConnectionsChange?.apply(this, change);
  };
}

/** @param {EditorNode} node */
function advanced({ widgets = [] }) {
  return widgets.filter(({ options }) => options?.advanced);
}

/** @param {EditorNode} node */
function isFolded(node) {
  return advanced(node).some(({ hidden }) => hidden);
}

/**
 * @param {EditorNode} node
 * @param {boolean} folded
 */
function setFolded(node, folded) {
  // A link to a folded widget would end nowhere.
  const linked = new Set(node.inputs?.filter(({ link }) => link != null).map(({ widget }) => widget?.name));
  const widgets = advanced(node);
  for (const widget of widgets) widget.hidden = folded && !linked.has(widget.name);
  const button = node.widgets?.find(({ name }) => name === NAME);
  if (button) button.label = folded ? message("fold.more", { count: widgets.length }) : message("fold.fewer");
}
