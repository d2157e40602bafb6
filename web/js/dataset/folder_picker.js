/** A list of folders with pictures, and a button to upload pictures into one. It knows nothing of the editor. */

import { element } from "../element.js";
import { message } from "../messages.js";

/** @typedef {{ name: string, pictures: number }} Folder as the server lists it */

/** Where pictures go for which no folder is named. */
const DEFAULT = "my-pictures";

export class FolderPicker {
  /**
   * @param {object} actions
   * @param {() => Promise<Folder[]>} actions.list asks the server for its folders
   * @param {(folder: string, file: File) => Promise<string | undefined>} actions.upload resolves to what went wrong
   * @param {() => string} actions.get the folder that is named now
   * @param {(folder: string) => void} actions.set names a folder
   */
  constructor({ list, upload, get, set }) {
    this.list = list;
    this.upload = upload;
    this.get = get;
    this.set = set;
    this.element = element("div", { class: "atelier-folders" });
    this.choice = element("select", { "aria-label": message("folders.list") });
    this.button = element("button", { type: "button", title: message("folders.upload_hint") },
      message("folders.upload"));
    this.files = element("input", { type: "file", multiple: "", hidden: "", accept: "image/*,.txt,.caption" });
    this.note = element("p", { role: "status" });
    this.element.append(this.choice, this.button, this.files, this.note);
    this.fill([]);
    // The folders may have changed since the page was opened.
    this.choice.addEventListener("pointerdown", () => this.refresh());
    this.choice.addEventListener("focus", () => this.refresh());
    this.choice.addEventListener("change", () => {
      this.set(this.choice.value);
      this.choice.value = "";
    });
    this.button.addEventListener("click", () => this.files.click());
    this.files.addEventListener("change", () => this.send([...(this.files.files ?? [])]));
  }

  /** Ask for the folders again. */
  async refresh() {
    try {
      this.fill(await this.list());
    } catch (error) {
      this.note.textContent = String(/** @type {Error} */ (error).message);
    }
  }

  /** @param {Folder[]} folders */
  fill(folders) {
    const options = folders.map(({ name, pictures }) => element("option", { value: name },
      message("folders.entry", { name, count: pictures })));
    if (options.length + 1 === this.choice.children?.length
      && options.every((option, index) => option.textContent === this.choice.children[index + 1].textContent)) return;
    this.choice.replaceChildren(element("option", { value: "" }, message("folders.choose")), ...options);
  }

  /**
   * Upload files into the folder that is named, one after the other, and name it.
   *
   * @param {File[]} files
   */
  async send(files) {
    const folder = this.get().trim() || DEFAULT;
    /** @type {string[]} */
    const faults = [];
    this.button.disabled = true;
    for (const [index, file] of files.entries()) {
      this.note.textContent = message("folders.uploading", { number: index + 1, total: files.length });
      try {
        const fault = await this.upload(folder, file);
        if (fault) faults.push(fault);
      } catch {
        faults.push(message("folders.no_answer", { file: file.name }));
      }
    }
    this.button.disabled = false;
    this.files.value = ""; // or the same files could not be chosen again
    const done = files.length - faults.length;
    if (done) this.set(folder);
    const uploaded = message("folders.uploaded", { done, total: files.length, folder });
    this.note.textContent = [uploaded, ...faults.slice(0, 3)].join(" ");
    await this.refresh();
  }
}
