/** The panel's elements and how a session is shown in them. It knows nothing of the editor. */

import { drawCurve, paletteFor } from "./draw.js";
import { duration, headline, loss, memory, pace, position, rate, secondsLeft } from "./words.js";
import { smooth } from "./curve.js";

const CURVES = { training: "training", smoothed: "smoothed", validation: "validation", best: "★ best" };
const NUMBERS = { pace: "Speed", left: "Time left", loss: "Loss", rate: "Learning rate", memory: "Memory" };
const IDLE = "Press Run to train. The loss curve appears here.";
const EARLY = "The loss curve begins with the first step.";

/** The panel of each canvas. */
const panels = new WeakMap();
/** One for all panels, so that it keeps none of them. */
const sizes = new ResizeObserver((changes) => {
  for (const { target } of changes) panels.get(target)?.redraw();
});

/** A panel needs no end: it is gone with its element. */
export class Panel {
  /**
   * @param {object} actions
   * @param {(session: object) => Promise<string>} actions.stop asks to stop and keep; gives the server's words
   * @param {(session: object) => Promise<string>} actions.sample asks for a sample picture
   * @param {(session: object, step: number) => string} actions.pictureUrl address of a sample picture
   */
  constructor({ stop, sample, pictureUrl }) {
    this.pictureUrl = pictureUrl;
    this.session = undefined;
    this.frame = 0;
    this.build();
    this.stop.addEventListener("click", () => this.press(this.stop, stop));
    this.sample.addEventListener("click", () => this.press(this.sample, sample));
    panels.set(this.canvas, this);
    sizes.observe(this.canvas);
    this.show(undefined);
  }

  build() {
    this.element = make("section", { class: "atelier-panel", "aria-label": "Training" });
    this.title = make("strong", { class: "atelier-title", role: "status" });
    this.position = make("span", { class: "atelier-position" });
    this.bar = make("progress", { class: "atelier-bar", "aria-label": "Progress of training", max: "1" });
    this.canvas = make("canvas", { class: "atelier-curve", role: "img" });
    this.hint = make("p", { class: "atelier-hint" });
    const plot = make("div", { class: "atelier-plot" });
    plot.append(this.hint, this.canvas);
    this.legend = make("ul", { class: "atelier-legend", "aria-hidden": "true" });
    for (const [name, text] of Object.entries(CURVES)) {
      this.legend.append(make("li", { "data-curve": name }, text));
    }
    this.numbers = make("dl", { class: "atelier-numbers" });
    this.values = {};
    for (const [name, text] of Object.entries(NUMBERS)) {
      this.values[name] = make("dd", { "data-value": name });
      const pair = make("div", {});
      pair.append(make("dt", {}, text), this.values[name]);
      this.numbers.append(pair);
    }
    this.pictures = make("ol", { class: "atelier-samples", "aria-label": "Sample pictures, newest first" });
    this.stop = make("button", { type: "button" }, "Stop and keep");
    this.sample = make("button", { type: "button" }, "Sample now");
    this.note = make("p", { class: "atelier-note", role: "status" });
    const head = make("div", { class: "atelier-head" });
    head.append(this.title, this.position);
    const buttons = make("div", { class: "atelier-buttons" });
    buttons.append(this.stop, this.sample);
    this.element.append(head, this.bar, plot, this.legend, this.numbers, this.pictures, buttons, this.note);
  }

  /** Show a session, or that there is none. */
  show(session) {
    const another = session?.run !== this.session?.run;
    if (another || session?.status !== this.session?.status) this.note.textContent = "";
    if (another) this.pictures.replaceChildren();
    this.session = session;
    const running = session?.status === "running";
    this.element.dataset.status = session?.status ?? "idle";
    set(this.title, session ? headline(session) : "Not trained yet");
    set(this.position, session ? position(session.values) : "");
    set(this.hint, !session ? IDLE : running && !session.losses.length ? EARLY : "");
    this.showBar(session, running);
    this.showNumbers(session, running);
    this.showPictures(session);
    this.stop.disabled = !running || session.stopping;
    this.sample.disabled = !running || !session.can_sample || session.sample_asked;
    this.sample.title = running && !session.can_sample ? "Set a sample prompt in Training Options first." : "";
    if (session?.message) set(this.note, session.message);
    this.redraw();
  }

  showBar(session, running) {
    const { step, steps } = session?.values ?? {};
    const inTraining = session && (session.phase.name === "training" || !running);
    const [done, total] = inTraining ? [step, steps] : [session?.phase.done, session?.phase.total];
    this.bar.value = total > 0 ? Math.min(1, (done ?? 0) / total) : 0;
    this.bar.hidden = !running;
  }

  showNumbers(session, running) {
    const values = session?.values ?? {};
    set(this.values.pace, pace(values.steps_per_second));
    set(this.values.left, duration(running ? secondsLeft(values) : undefined));
    set(this.values.loss, loss(session && smooth(session.losses.slice(-60)).at(-1)?.[1]));
    set(this.values.rate, rate(values.lr));
    set(this.values.memory, memory(values));
    this.numbers.hidden = !session?.losses.length;
  }

  showPictures(session) {
    const wanted = [...(session?.samples ?? [])].reverse();
    const shown = new Map([...this.pictures.children].map((item) => [Number(item.dataset.step), item]));
    if (wanted.length === shown.size && wanted.every((step) => shown.has(step))) return;
    this.pictures.replaceChildren(...wanted.map((step) => shown.get(step) ?? this.picture(session, step)));
    this.pictures.hidden = !wanted.length;
  }

  picture(session, step) {
    const item = make("li", { "data-step": String(step) });
    const link = make("a", { href: this.pictureUrl(session, step), target: "_blank", rel: "noopener" });
    link.append(make("img", { src: this.pictureUrl(session, step), alt: `Sample picture after step ${step}` }));
    item.append(link, make("span", { "aria-hidden": "true" }, String(step)));
    return item;
  }

  async press(button, act) {
    button.disabled = true;
    try {
      set(this.note, await act(this.session));
    } catch {
      set(this.note, "The server does not answer. Try again.");
    }
    this.show(this.session);
  }

  /** Draw the curve with the next frame; several calls before it draw once. */
  redraw() {
    if (!this.frame) this.frame = requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = 0;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height) return;
    const scale = Math.max(2, window.devicePixelRatio); // the editor enlarges nodes beyond 100 %
    this.canvas.width = width * scale;
    this.canvas.height = height * scale;
    const context = this.canvas.getContext("2d");
    context.scale(scale, scale);
    const style = getComputedStyle(this.element);
    const palette = paletteFor(style.backgroundColor);
    this.element.dataset.ground = palette === paletteFor("rgb(0, 0, 0)") ? "dark" : "light";
    for (const item of this.legend.children) {
      item.style.setProperty("--curve", palette[item.dataset.curve]);
      const has = { validation: this.session?.validation.length, best: this.session?.values.best_step };
      item.hidden = item.dataset.curve in has && !has[item.dataset.curve];
    }
    const colours = { palette, text: style.color, grid: style.getPropertyValue("--atelier-grid") };
    if (this.session?.losses.length) drawCurve(context, { width, height }, this.session, colours);
    this.legend.hidden = !this.session?.losses.length;
    this.canvas.setAttribute("aria-label", describe(this.session));
  }
}

/** The curve in a sentence, for those who do not see it. */
function describe(session) {
  if (!session?.losses.length) return "Loss curve: nothing to show yet";
  const [first, last] = [session.losses[0][1], smooth(session.losses).at(-1)[1]];
  const best = session.values.best_step ? `, best at step ${session.values.best_step}` : "";
  return `Loss curve over ${session.losses.at(-1)[0]} steps: from ${loss(first)}, now about ${loss(last)}${best}`;
}

function make(name, attributes, text = "") {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}

/** Write only what changed: a status role would be read aloud again. */
function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
