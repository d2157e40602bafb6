/** Page elements that show something on a node. */

/**
 * Add an element that has no value: nothing of it goes into the workflow or the prompt. It stays visible when a person
 * zooms out.
 *
 * @param {EditorNode} node
 * @param {string} name
 * @param {string} type
 * @param {HTMLElement} element
 * @param {{ getMinHeight: () => number, getMaxHeight?: () => number }} heights in pixels
 */
export function addDisplay(node, name, type, element, heights) {
  // The prompt asks the options, the editor's workflow the widget.
  const widget = node.addDOMWidget(name, type, element, { serialize: false, hideOnZoom: false, ...heights });
  widget.serialize = false;
  return widget;
}
