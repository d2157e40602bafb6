/**
 * The pack's part in the editor: the training panel on Train LoRA, and results on the other nodes. The only file that
 * meets the editor's scripts.
 */

import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { allNodes, executionIds, locatorId, nameGraph } from "./graph.js";
import { resultView } from "./results/view.js";
import { Feed } from "./training/feed.js";
import { Panel } from "./training/panel.js";

const TRAINER = "AtelierTrainLora";
const EVENT = "atelier.training";
const ROUTE = "/atelier/training";
const [WIDTH, HEIGHT] = [400, 390];
const GRID = "AtelierBlockGrid";
const RESULT_HEIGHT = 160;
const GRID_HEIGHT = 320;

const feed = new Feed(async () => {
  const answer = await api.fetchApi(ROUTE);
  if (!answer.ok) throw new Error(`The server answers ${answer.status}.`);
  return (await answer.json()).sessions;
});

// The editor makes nodes that never stand in a graph, one for each copy, and lets go of others without a word. So
// nothing here holds a node: what happens on the page looks for those that there are.

/** The panel of each trainer. */
const panels = new WeakMap();
/** How each other node shows what it gave out. */
const results = new WeakMap();

const addressOf = ({ prompt, node, workflow }) => ({ prompt, node, workflow });

async function post(what, session) {
  const answer = await api.fetchApi(`${ROUTE}/${what}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(addressOf(session)),
  });
  const { message, error } = await answer.json();
  return message ?? error;
}

const actions = {
  stop: (session) => post("stop", session),
  sample: (session) => post("sample", session),
  pictureUrl: (session, step) => {
    const query = new URLSearchParams({ ...addressOf(session), run: session.run, step });
    return api.apiURL(`${ROUTE}/sample?${query}`);
  },
};

function addPanel(node) {
  const panel = new Panel(actions);
  panels.set(node, panel);
  const widget = node.addDOMWidget("training_panel", "atelier_training", panel.element, {
    // Nothing of it belongs into the workflow or the prompt.
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => HEIGHT,
  });
  widget.serialize = false;
  // For a new node; one of a saved workflow gets its own size after this.
  node.setSize([Math.max(node.size[0], WIDTH), node.size[1]]);
  hidePictures(node); // the plot and the samples are in the panel already
  // The graph gets its id, and a node its place in it, after the node is made.
  requestAnimationFrame(showTrainings);
}

/** Show in every panel what is known of its node's training. */
function showTrainings() {
  const root = app.rootGraph;
  for (const node of allNodes(root)) panels.get(node)?.show(feed.find(root.id, executionIds(root, node)));
}

/** Draw every panel anew when the editor changes its theme, which is a class and variables on these two elements. */
function followTheme() {
  const observer = new MutationObserver(() => {
    for (const node of allNodes(app.rootGraph)) panels.get(node)?.redraw();
  });
  for (const element of [document.documentElement, document.body]) {
    observer.observe(element, { attributes: true, attributeFilter: ["class", "style"] });
  }
}

/** Keep the editor from showing the pictures that a node gives out below its widgets. */
function hidePictures(node) {
  // On the canvas, the editor shows them from this method, which does nothing else; as page elements, it asks the flag.
  node.onDrawBackground = () => {};
  node.hideOutputImages = true;
}

/** Show what the node gives out after each run; the widget is made when there is something. */
function addResults(node) {
  const frame = document.createElement("div");
  frame.className = "atelier-result-frame";
  let widget;
  const show = (output) => {
    // A node whose result was kept from an earlier run may give out nothing.
    const view = output && resultView(output, (image) => api.apiURL(`/view?${new URLSearchParams(image)}`));
    if (!view) return;
    removeProgressText(node);
    frame.replaceChildren(view);
    widget ??= node.addDOMWidget("atelier_result", "atelier_result", frame, {
      serialize: false,
      hideOnZoom: false,
      getMinHeight: () => (node.comfyClass === GRID ? GRID_HEIGHT : RESULT_HEIGHT),
    });
    widget.serialize = false;
  };
  results.set(node, show);
  if (node.comfyClass === GRID) hidePictures(node);
  const onExecuted = node.onExecuted;
  node.onExecuted = function (output, ...rest) {
    show(output);
    return onExecuted?.apply(this, [output, ...rest]);
  };
}

/** What a node told while it worked ("encoding 4/4") gives way to its result; the next run brings it back. */
function removeProgressText(node) {
  const index = node.widgets?.findIndex(({ name }) => name === "$$node-text-preview") ?? -1;
  if (index >= 0) {
    node.widgets[index].onRemove?.();
    node.widgets.splice(index, 1);
  }
}

/** Numbers whose `step` is as fine as what people type would move by it too; see nodes/numbers.py. */
function setArrows(node) {
  const { required, optional } = node.constructor.nodeData?.input ?? {};
  const inputs = { ...required, ...optional };
  for (const widget of node.widgets ?? []) {
    const step = inputs[widget.name]?.[1]?.arrow_step;
    if (step) widget.options.step2 = step;
  }
}

function addStyle() {
  for (const sheet of ["./training/panel.css", "./results/results.css"]) {
    const link = document.createElement("link");
    link.rel = "stylesheet";
    link.href = new URL(sheet, import.meta.url).href;
    document.head.append(link);
  }
}

app.registerExtension({
  name: "atelier.training",
  setup() {
    addStyle();
    followTheme();
    feed.subscribe(showTrainings);
    api.addEventListener(EVENT, ({ detail }) => feed.take(detail));
    api.addEventListener("reconnected", () => feed.refresh());
    return feed.refresh();
  },
  nodeCreated(node) {
    nameGraph(app.rootGraph, LiteGraph.uuidv4);
    if (node.comfyClass?.startsWith("Atelier")) setArrows(node);
    if (node.comfyClass === TRAINER) addPanel(node);
    else if (node.comfyClass?.startsWith("Atelier")) addResults(node);
  },
  afterConfigureGraph() {
    feed.tell();
  },
  /** The nodes are made anew when a tab is opened again or a change undone; what they gave out, the editor remembers. */
  onNodeOutputsUpdated(outputs) {
    for (const node of allNodes(app.rootGraph)) results.get(node)?.(outputs[locatorId(node)]);
  },
});
