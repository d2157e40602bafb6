/** The training panel: its elements, and how a session is shown in them. It knows nothing of the editor. */

import { drawCurve, drawScores, paletteFor } from "./draw.js";
import {
  formatDuration, formatSpeed, headline, learningRate, loss, memory, position, score, secondsLeft,
} from "./format.js";
import { smooth } from "./curve.js";
import { element } from "../element.js";
import { message } from "../messages.js";

/** @typedef {import("./session.js").Session} Session */
/** @typedef {keyof import("./draw.js").Palette} CurveName */

/** @type {("training" | "smoothed" | "validation" | "best")[]} */
const CURVES = ["training", "smoothed", "validation", "best"];
/** @type {("fidelity" | "likeness")[]} */
const SCORES = ["fidelity", "likeness"];

/**
 * The panel of each canvas.
 *
 * @type {WeakMap<Element, Panel>}
 */
const panels = new WeakMap();
/** One observer for all panels: it holds no panel that the page has dropped. */
const sizes = new ResizeObserver((changes) => {
  for (const { target } of changes) panels.get(target)?.redraw();
});

/** A panel needs no teardown: it goes with its element. */
export class Panel {
  /**
   * @param {object} actions
   * @param {(session: Session) => Promise<string>} actions.resume lets a stopped training go on; resolves to a message
   * @param {(session: Session) => Promise<string>} actions.stop asks to stop and keep; resolves to the server's message
   * @param {(session: Session) => Promise<string>} actions.sample asks for a sample picture
   * @param {(session: Session, step: number) => string} actions.pictureUrl address of a sample picture
   */
  constructor({ resume, stop, sample, pictureUrl }) {
    this.pictureUrl = pictureUrl;
    /** @type {Session | undefined} */
    this.session = undefined;
    /** How long a training will be, in words; empty where that is not known. */
    this.plan = "";
    /** The animation frame that will draw the curve; 0 for none. */
    this.frame = 0;

    this.element = element("section", { class: "atelier-panel", "aria-label": message("panel.region") });
    this.title = element("strong", { class: "atelier-title", role: "status" });
    this.position = element("span", { class: "atelier-position" });
    this.bar = element("progress", { class: "atelier-bar", "aria-label": message("panel.progress"), max: "1" });
    this.canvas = element("canvas", { class: "atelier-curve", role: "img" });
    this.hint = element("p", { class: "atelier-hint" });
    this.legend = element("ul", { class: "atelier-legend", "aria-hidden": "true" });
    this.scorePlot = element("div", { class: "atelier-plot" });
    this.scoreCanvas = element("canvas", { class: "atelier-curve", role: "img" });
    this.scoreLegend = element("ul", { class: "atelier-legend atelier-score-legend" });
    this.numbers = element("dl", { class: "atelier-numbers" });
    this.values = {
      pace: this.number("pace", message("panel.speed")),
      left: this.number("left", message("panel.left")),
      loss: this.number("loss", message("panel.loss")),
      rate: this.number("rate", message("panel.rate")),
      memory: this.number("memory", message("panel.memory")),
    };
    this.pictures = element("ol", { class: "atelier-samples", "aria-label": message("panel.samples") });
    this.stop = element("button", { type: "button" }, message("panel.stop"));
    this.resume = element("button", { type: "button", hidden: "" }, message("panel.resume"));
    this.sample = element("button", { type: "button" }, message("panel.sample"));
    this.note = element("p", { class: "atelier-note", role: "status" });
    this.assemble();

    this.stop.addEventListener("click", () => this.press(this.stop, stop));
    this.resume.addEventListener("click", () => this.press(this.resume, resume));
    this.sample.addEventListener("click", () => this.press(this.sample, sample));
    for (const canvas of [this.canvas, this.scoreCanvas]) {
      panels.set(canvas, this);
      sizes.observe(canvas);
    }
    this.show(undefined);
  }

  /**
   * Add a labelled number.
   *
   * @param {string} name
   * @param {string} label
   */
  number(name, label) {
    const value = element("dd", { "data-value": name });
    const pair = element("div");
    pair.append(element("dt", {}, label), value);
    this.numbers.append(pair);
    return value;
  }

  assemble() {
    for (const name of CURVES) this.legend.append(element("li", { "data-curve": name }, message(`curve.${name}`)));
    const plot = element("div", { class: "atelier-plot" });
    plot.append(this.hint, this.canvas);
    for (const name of SCORES) this.scoreLegend.append(element("li", { "data-curve": name }));
    this.scorePlot.append(this.scoreCanvas);
    const plots = element("div", { class: "atelier-plots" });
    plots.append(plot, this.scorePlot);
    const head = element("div", { class: "atelier-head" });
    head.append(this.title, this.position);
    const buttons = element("div", { class: "atelier-buttons" });
    buttons.append(this.resume, this.stop, this.sample);
    this.element.append(head, this.bar, plots, this.legend, this.scoreLegend, this.numbers, this.pictures, buttons, this.note);
  }

  /**
   * Show a session, or that there is none.
   *
   * @param {Session | undefined} session
   */
  show(session) {
    const another = session?.run !== this.session?.run;
    if (another || session?.status !== this.session?.status) this.note.textContent = "";
    if (another) this.pictures.replaceChildren();
    this.session = session;
    const running = session?.status === "running";
    this.element.dataset.status = session?.status ?? "idle";
    set(this.title, session ? headline(session) : message("panel.idle"));
    set(this.position, session ? position(session.values) : "");
    const idle = this.plan ? message("panel.press_run_for", { length: this.plan }) : message("panel.press_run");
    set(this.hint, !session ? idle : running && !session.losses.length ? message("panel.early") : "");
    this.showBar(session, running);
    this.showNumbers(session, running);
    this.showScores(session);
    this.showPictures(session);
    this.stop.disabled = !running || session.stopping;
    this.resume.hidden = session?.status !== "stopped by user";
    this.resume.disabled = false;
    this.stop.hidden = !this.resume.hidden;
    this.sample.disabled = !running || !session.can_sample || session.sample_asked;
    this.sample.title = running && !session.can_sample ? message("panel.no_samples") : "";
    if (session?.message) set(this.note, session.message);
    this.redraw();
  }

  /**
   * @param {Session | undefined} session
   * @param {boolean} running
   */
  showBar(session, running) {
    const { step, steps } = session?.values ?? {};
    const inTraining = session && (session.phase.name === "training" || !running);
    const [done, total] = inTraining ? [step, steps] : [session?.phase.done, session?.phase.total];
    this.bar.value = total && total > 0 ? Math.min(1, (done ?? 0) / total) : 0;
    this.bar.hidden = !running;
  }

  /**
   * @param {Session | undefined} session
   * @param {boolean} running
   */
  showNumbers(session, running) {
    const values = session?.values ?? {};
    set(this.values.pace, formatSpeed(values.steps_per_second));
    set(this.values.left, formatDuration(running ? secondsLeft(values) : undefined));
    set(this.values.loss, loss(session && smooth(session.losses.slice(-60)).at(-1)?.[1]));
    set(this.values.rate, learningRate(values.lr));
    set(this.values.memory, memory(values));
    this.numbers.hidden = !session?.losses.length;
  }

  /** @param {Session | undefined} session */
  showScores(session) {
    this.scorePlot.hidden = this.scoreLegend.hidden = !session?.fidelity.length;
    for (const [index, name] of SCORES.entries()) {
      const points = session?.[name] ?? [];
      const text = message(`curve.${name}`);
      set(this.items(this.scoreLegend)[index], points.length ? `${text} ${score(points)}` : text);
    }
  }

  /** @param {Session | undefined} session */
  showPictures(session) {
    const steps = [...(session?.samples ?? [])].reverse();
    const shown = new Map(this.items(this.pictures).map((item) => [Number(item.dataset.step), item]));
    if (steps.length === shown.size && steps.every((step) => shown.has(step))) return;
    const items = session ? steps.map((step) => shown.get(step) ?? this.picture(session, step)) : [];
    this.pictures.replaceChildren(...items);
    this.pictures.hidden = !steps.length;
  }

  /**
   * @param {Session} session
   * @param {number} step
   */
  picture(session, step) {
    const item = element("li", { "data-step": String(step) });
    const url = this.pictureUrl(session, step);
    const link = element("a", { href: url, target: "_blank", rel: "noopener" });
    link.append(element("img", { src: url, alt: message("panel.sample_of", { step }) }));
    item.append(link, element("span", { "aria-hidden": "true" }, String(step)));
    return item;
  }

  /**
   * The items of one of the panel's own lists.
   *
   * @param {HTMLElement} list
   * @returns {HTMLElement[]}
   */
  items(list) {
    return /** @type {HTMLElement[]} */ ([...list.children]);
  }

  /**
   * Carry out a button's action for the session that is shown, and show the server's answer.
   *
   * @param {HTMLButtonElement} button
   * @param {(session: Session) => Promise<string>} act
   */
  async press(button, act) {
    if (!this.session) return;
    button.disabled = true;
    try {
      set(this.note, await act(this.session));
    } catch {
      set(this.note, message("panel.no_answer"));
    }
    this.show(this.session);
  }

  /** Draw the curve in the next frame; several calls before it draw once. */
  redraw() {
    if (!this.frame) this.frame = requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = 0;
    if (!this.canvas.clientWidth || !this.canvas.clientHeight) return;
    const style = getComputedStyle(this.element);
    const palette = paletteFor(style.backgroundColor);
    this.element.dataset.ground = palette === paletteFor("rgb(0, 0, 0)") ? "dark" : "light";
    this.showLegend(palette);
    const colours = { palette, text: style.color, grid: style.getPropertyValue("--atelier-grid") };
    const { session } = this;
    this.onCanvas(this.canvas, (context, size) => {
      if (session?.losses.length) drawCurve(context, size, session, colours);
    });
    this.onCanvas(this.scoreCanvas, (context, size) => {
      if (session?.fidelity.length) drawScores(context, size, session, colours);
    });
    this.canvas.setAttribute("aria-label", describe(session));
    this.scoreCanvas.setAttribute("aria-label", message("curve.scores"));
  }

  /**
   * Empty a canvas at the size that it has now, and draw on it in CSS pixels.
   *
   * @param {HTMLCanvasElement} canvas
   * @param {(context: CanvasRenderingContext2D, size: {width: number, height: number}) => void} paint
   */
  onCanvas(canvas, paint) {
    const { clientWidth: width, clientHeight: height } = canvas;
    const context = canvas.getContext("2d");
    if (!width || !height || !context) return;
    const scale = Math.max(2, window.devicePixelRatio); // the editor enlarges nodes beyond 100 %
    canvas.width = width * scale;
    canvas.height = height * scale;
    context.scale(scale, scale);
    paint(context, { width, height });
  }

  /** @param {import("./draw.js").Palette} palette */
  showLegend(palette) {
    const { session } = this;
    for (const item of this.items(this.scoreLegend)) {
      item.style.setProperty("--curve", palette[/** @type {CurveName} */ (item.dataset.curve)]);
    }
    for (const item of this.items(this.legend)) {
      const curve = /** @type {CurveName} */ (item.dataset.curve);
      item.style.setProperty("--curve", palette[curve]);
      item.hidden = (curve === "validation" && !session?.validation.length)
        || (curve === "best" && !session?.values.best_step);
    }
    this.legend.hidden = !session?.losses.length;
  }
}

/**
 * The curve in a sentence, for screen readers.
 *
 * @param {Session | undefined} session
 */
function describe(session) {
  const [first] = session?.losses ?? [];
  const last = session && smooth(session.losses).at(-1);
  if (!session || !first || !last) return message("curve.none");
  const curve = message("curve.described", { steps: last[0], first: loss(first[1]), last: loss(last[1]) });
  const step = session.values.best_step;
  return step ? message("curve.described_best", { curve, step }) : curve;
}

/**
 * Write only what changed: a status role would be read aloud again.
 *
 * @param {HTMLElement} target
 * @param {string} text
 */
function set(target, text) {
  if (target.textContent !== text) target.textContent = text;
}
