/** The pack's part in the editor: the training panel on Train LoRA. The only file that meets the editor's scripts. */

import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { Feed } from "./training/feed.js";
import { Panel } from "./training/panel.js";
import { executionIds } from "./training/session.js";

const TRAINER = "AtelierTrainLora";
const EVENT = "atelier.training";
const ROUTE = "/atelier/training";
const HEIGHT = 390;

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
  // The plot and the samples that the node gives out are in the panel already. On the canvas, the editor shows such
  // pictures from this method, which does nothing else; as page elements, it asks this flag.
  node.onDrawBackground = () => {};
  node.hideOutputImages = true;
  const onRemoved = node.onRemoved;
  node.onRemoved = function (...rest) {
    unsubscribe();
    panel.remove();
    return onRemoved?.apply(this, rest);
  };
  // The graph gets its id, and a node in a subgraph its place, after the node is made.
  requestAnimationFrame(update);
}

function addStyle() {
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = new URL("./training/panel.css", import.meta.url).href;
  document.head.append(link);
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
  },
  afterConfigureGraph() {
    feed.tell();
  },
});
