/** The text that the editor shows on a running node ("encoding 4/4"): it goes when the node is done. */

const NAME = "$$node-text-preview";

/**
 * Remove a node's progress text; the next run brings it back.
 *
 * @param {EditorNode} node
 */
export function removeProgressText({ widgets = [] }) {
  const index = widgets.findIndex(({ name }) => name === NAME);
  if (index < 0) return;
  widgets[index].onRemove?.();
  widgets.splice(index, 1);
}
