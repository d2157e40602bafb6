/** How long a trainer will train, by its widgets. */

import { message } from "../messages.js";

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
  if (Number(length) > 0) return inUnit(Number(length), String(unit));
  const lengths = constructor.nodeData?.input?.required?.preset?.[1]?.lengths ?? {};
  const [count, counted] = lengths[String(preset)]?.split(" ") ?? [];
  return counted ? message("length.preset", { length: inUnit(Number(count), counted) }) : "";
}

/**
 * @param {number} count
 * @param {string} unit "steps" or "epochs"
 */
function inUnit(count, unit) {
  return message(unit === "steps" ? "length.steps" : "length.epochs", { count });
}
