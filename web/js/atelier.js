/**
 * The pack's part in the editor: the training panel on Train LoRA, and results on the other nodes. The only file that
 * meets the editor's scripts.
 */

import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { resultView } from "./results/view.js";
import { Feed } from "./training/feed.js";
import { Panel } from "./training/panel.js";
import { executionIds } from "./training/session.js";

const TRAINER = "AtelierTrainLora";
const EVENT = "atelier.training";
const ROUTE = "/atelier/training";
const [WIDTH, HEIGHT] = [400, 390];
const GRID = "AtelierBlockGrid";
const RESULT_HEIGHT = 160;
const GRID_HEIGHT = 320;

const feed = new Feed(async () => {
  const answer = await api.fetchApi(ROUTE);
  return (await answer.json()).sessions;
});

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
  pictureUrl: (session, step) => api.apiURL(`${ROUTE}/sample?${new URLSearchParams({ ...addressOf(session), step })}`),
};

function addPanel(node) {
  const panel = new Panel(actions);
  const update = () => {
    // A node that is being made, or pasted, stands in no graph yet.
    const root = node.graph?.rootGraph ?? node.graph;
    panel.show(root ? feed.find(root.id, executionIds(root, node)) : undefined);
  };
  const unsubscribe = feed.subscribe(update);
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
  const onRemoved = node.onRemoved;
  node.onRemoved = function (...rest) {
    unsubscribe();
    panel.remove();
    return onRemoved?.apply(this, rest);
  };
  // The graph gets its id, and a node in a subgraph its place, after the node is made.
  requestAnimationFrame(update);
}

/** Keep the editor from showing the pictures that a node gives out below its widgets. */
function hidePictures(node) {
  // On the canvas, the editor shows them from this method, which does nothing else; as page elements, it asks the flag.
  node.onDrawBackground = () => {};
  node.hideOutputImages = true;
}

/** Show what the node gives the editor after each run; the widget is made when there is something. */
function addResults(node) {
  const frame = document.createElement("div");
  frame.className = "atelier-result-frame";
  let widget;
  const show = (output) => {
    const view = resultView(output, (image) => api.apiURL(`/view?${new URLSearchParams(image)}`));
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
    api.addEventListener(EVENT, ({ detail }) => feed.take(detail));
    api.addEventListener("reconnected", () => feed.refresh());
    return feed.refresh();
  },
  nodeCreated(node) {
    if (node.comfyClass === TRAINER) addPanel(node);
    else if (node.comfyClass?.startsWith("Atelier")) addResults(node);
  },
  afterConfigureGraph() {
    feed.tell();
  },
});
