/** How long a trainer will train, by its widgets. */

/**
 * "300 steps", or what the preset says, as in "1200 steps, as the preset has it".
 *
 * @param {Pick<EditorNode, "widgets" | "inputs" | "constructor">} node
 * @returns {string} empty where a link decides it
 */
export function plannedLength({ widgets = [], inputs = [], constructor }) {
  if (inputs.some(({ widget, link }) => link != null && ["preset", "length", "unit"].includes(widget?.name ?? ""))) return "";
  const [preset, length, unit] = ["preset", "length", "unit"]
    .map((name) => widgets.find((widget) => widget.name === name)?.value);
  if (Number(length) > 0) return `${length} ${unit}`;
  const lengths = constructor.nodeData?.input?.required?.preset?.[1]?.lengths ?? {};
  return lengths[String(preset)] ? `${lengths[String(preset)]}, as the preset has it` : "";
}
