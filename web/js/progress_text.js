/** The text that the editor shows on a running node ("encoding 4/4"): it goes when the node is done. */

const NAME = "$$node-text-preview";

/**
 * Remove a node's progress text; the next run brings it back.
 *
 * @param {EditorNode} node
 */
export function removeProgressText(node) {
  const { widgets = [] } = node;
  const index = widgets.findIndex(({ name }) => name === NAME);
  if (index < 0) return;
  const [text] = widgets.splice(index, 1);
  text.onRemove?.();
  const [width, height] = node.size;
  node.setSize([width, Math.max(node.computeSize()[1], height - (text.computedHeight ?? 0))]);
}
