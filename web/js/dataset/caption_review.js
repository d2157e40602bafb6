/** The list of captions on Caption Pictures: each picture with its caption to change, and whether it is used. It knows
 * nothing of the editor. */

import { element } from "../element.js";
import { message } from "../messages.js";

/** @typedef {{ digest: string, file: string, caption: string, edited: boolean, left_out: boolean, failure: string }} Item
 * a picture as the node gives it */
/** @typedef {Record<string, string | null>} Edits by digest: another caption, or null for a picture that is left out */

/**
 * The edits in a widget's text; none where it holds something else, which the server tells.
 *
 * @param {unknown} text
 * @returns {Edits}
 */
export function readEdits(text) {
  try {
    const edits = JSON.parse(String(text || "{}"));
    return edits && typeof edits === "object" && !Array.isArray(edits) ? edits : {};
  } catch {
    return {};
  }
}

/**
 * The edits after one picture was changed: none for a picture that is as the model captioned it.
 *
 * @param {Edits} edits
 * @param {Item} item
 * @param {string} caption
 * @param {boolean} used
 * @returns {Edits}
 */
export function withEdit(edits, item, caption, used) {
  const { [item.digest]: _, ...others } = edits;
  const text = caption.replace(/\s+/g, " ").trim();
  const untouched = !item.edited && !item.left_out && text === item.caption;
  if (!used) return item.failure ? others : { ...others, [item.digest]: null };
  return untouched || (item.failure && !text) ? others : { ...others, [item.digest]: text };
}

export class CaptionReview {
  /**
   * @param {object} edits the widget that keeps them
   * @param {() => unknown} edits.get
   * @param {(text: string) => void} edits.set
   */
  constructor({ get, set }) {
    this.get = get;
    this.set = set;
    this.element = element("div", { class: "atelier-captions" });
  }

  /**
   * @param {Item[]} items
   * @param {string} sheet address of one picture with all thumbnails
   * @param {number} columns thumbnails in its rows
   * @param {string} text what the node says
   */
  show(items, sheet, columns, text) {
    // A line of its own, and never a second one: it is written between the press and the release of a click on another
    // picture, which must not move away meanwhile.
    this.note = element("p", { role: "status" });
    const list = element("ul");
    const rows = Math.max(1, Math.ceil(items.length / columns));
    items.forEach((item, index) => list.append(this.row(item, sheet, [index % columns, Math.floor(index / columns)],
      [columns, rows])));
    this.element.replaceChildren(element("p", {}, text), this.note, list);
    this.tell();
  }

  /**
   * @param {Item} item
   * @param {string} sheet
   * @param {[number, number]} cell column and row of its thumbnail
   * @param {[number, number]} size of the sheet, in cells
   */
  row(item, sheet, cell, size) {
    const edits = readEdits(this.get());
    const edit = edits[item.digest];
    const row = element("li");
    const picture = element("span", { role: "img", "aria-label": item.file, title: item.file });
    const at = cell.map((place, axis) => (size[axis] > 1 ? (100 * place) / (size[axis] - 1) : 0));
    Object.assign(picture.style, {
      backgroundImage: `url("${sheet}")`,
      backgroundSize: `${100 * size[0]}% ${100 * size[1]}%`,
      backgroundPosition: `${at[0]}% ${at[1]}%`,
    });
    const caption = element("textarea", { rows: "3", "aria-label": message("captions.edit", { file: item.file }),
      placeholder: item.failure || message("captions.empty") });
    caption.value = edit ?? item.caption;
    const label = element("label", { title: message("captions.unticked") });
    const used = element("input", { type: "checkbox",
      "aria-label": message("captions.use_file", { file: item.file }) });
    used.checked = item.digest in edits ? edit !== null : !item.left_out;
    label.append(used, message("captions.use"));
    const keep = () => {
      this.set(JSON.stringify(withEdit(readEdits(this.get()), item, caption.value, used.checked)));
      row.dataset.used = String(used.checked);
      this.tell();
    };
    row.dataset.used = String(used.checked);
    caption.addEventListener("change", () => {
      if (item.failure) used.checked = Boolean(caption.value.trim());
      keep();
    });
    used.addEventListener("change", keep);
    // The editor has shortcuts on single keys, and zooms with the wheel.
    caption.addEventListener("keydown", (event) => event.stopPropagation());
    row.append(picture, caption, label);
    return row;
  }

  /** Say how much is changed. */
  tell() {
    const edits = Object.values(readEdits(this.get()));
    const out = edits.filter((edit) => edit === null).length;
    const changed = edits.length - out;
    const told = [changed ? message("captions.changed", { count: changed }) : "",
      out ? message("captions.left_out", { count: out }) : ""].filter(Boolean);
    const changes = told.length > 1 ? message("captions.and", { first: told[0], second: told[1] }) : told[0];
    if (this.note) this.note.textContent = changes ? message("captions.again", { changes }) : "";
  }
}
