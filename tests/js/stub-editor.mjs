/**
 * As much of the editor as atelier.js meets, so that it can be loaded without a browser: its two scripts, elements that
 * only hold what they are given, and observers that are counted.
 */

import { readFile } from "node:fs/promises";
import { register } from "node:module";

const SCRIPTS = {
  "/scripts/app.js": "export const app = globalThis.stub.app;",
  "/scripts/api.js": "export const api = globalThis.stub.api;",
};
const HOOKS = `
  const scripts = ${JSON.stringify(SCRIPTS)};
  export function resolve(name, context, next) {
    const known = Object.keys(scripts).find((end) => name.endsWith(end));
    return known ? { url: "stub:" + known, shortCircuit: true } : next(name, context);
  }
  export function load(url, context, next) {
    if (!url.startsWith("stub:")) return next(url, context);
    return { format: "module", source: scripts[url.slice("stub:".length)], shortCircuit: true };
  }
`;

function element() {
  return {
    children: [], dataset: {}, style: { setProperty() {} }, textContent: "",
    addEventListener() {},
    attributes: {},
    setAttribute(name, value) {
      this.attributes[name] = value;
      if (name.startsWith("data-")) this.dataset[name.slice(5)] = value;
    },
    append(...more) { this.children.push(...more); },
    replaceChildren(...others) { this.children = others; },
  };
}

export const counts = { themes: 0, listeners: 0, asked: 0 };
/** What the server answers to a prompt: an error with a `response`, or the `answer`. */
export const refused = { answer: undefined, response: undefined };
/** What listens to the server, by event. */
export const listeners = new Map();

/** Loads atelier.js; gives the extension that it registers and the stubbed `app`. */
export async function loadExtension() {
  let extension;
  const app = {
    rootGraph: { id: "w", isRootGraph: true, nodes: [] },
    extensionManager: { setting: { get: () => "en" } },
    registerExtension: (made) => { extension = made; },
  };
  app.rootGraph.rootGraph = app.rootGraph;
  const api = {
    addEventListener(event, act) {
      counts.listeners += 1;
      listeners.set(event, act);
    },
    fetchApi: async () => {
      counts.asked += 1;
      return { ok: true, json: async () => ({ sessions: [] }) };
    },
    apiURL: (url) => url,
    queuePrompt: async () => {
      if (refused.response) throw refused;
      return refused.answer;
    },
  };
  Object.assign(globalThis, {
    stub: { app, api },
    fetch: async (url) => ({ json: async () => JSON.parse(await readFile(url, "utf-8")) }),
    document: { createElement: element, documentElement: element(), body: element(), head: element() },
    ResizeObserver: class { observe() {} },
    MutationObserver: class { constructor() { counts.themes += 1; } observe() {} },
    LiteGraph: { uuidv4: () => "fresh" },
    requestAnimationFrame: (act) => setTimeout(act, 0),
  });
  register(`data:text/javascript,${encodeURIComponent(HOOKS)}`);
  await import("../../web/js/atelier.js");
  await extension.init();
  await extension.setup();
  return { extension, app };
}

/** A node as the editor makes it; where a graph is given, standing in it. */
export function makeNode(extension, comfyClass, graph, id, { nodeData = {}, widgets = [] } = {}) {
  const node = {
    id, comfyClass, size: [100, 100], widgets, constructor: { nodeData },
    setSize() {},
    computeSize: () => [100, 100],
    addDOMWidget(name, type, shown, options) {
      const widget = { name, shown, options };
      this.widgets.push(widget);
      return widget;
    },
  };
  extension.nodeCreated(node);
  node.graph = graph;
  graph?.nodes.push(node);
  return node;
}
