/** A list of folders with pictures, and a button to upload pictures into one. It knows nothing of the editor. */

import { element } from "../element.js";

/** @typedef {{ name: string, pictures: number }} Folder as the server lists it */

const PROMPT = "Choose a folder …";
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
    this.choice = element("select", { "aria-label": "Folders with pictures" });
    this.button = element("button", { type: "button",
      title: "Pictures and their text files go into the folder that is named above" }, "Upload pictures …");
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
      `${name} (${pictures} picture${pictures === 1 ? "" : "s"})`));
    if (options.length + 1 === this.choice.children?.length
      && options.every((option, index) => option.textContent === this.choice.children[index + 1].textContent)) return;
    this.choice.replaceChildren(element("option", { value: "" }, PROMPT), ...options);
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
      this.note.textContent = `Uploading ${index + 1} of ${files.length} …`;
      try {
        const fault = await this.upload(folder, file);
        if (fault) faults.push(fault);
      } catch {
        faults.push(`${file.name}: the server does not answer.`);
      }
    }
    this.button.disabled = false;
    this.files.value = ""; // or the same files could not be chosen again
    const done = files.length - faults.length;
    if (done) this.set(folder);
    this.note.textContent = [`${done} of ${files.length} files are in ${folder}.`, ...faults.slice(0, 3)].join(" ");
    await this.refresh();
  }
}
