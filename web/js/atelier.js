/**
 * The pack's extension of the editor: the training panel on Train LoRA, and results on the other nodes. The only file
 * that imports the editor's scripts.
 */

import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { CaptionReview } from "./dataset/caption_review.js";
import { FolderPicker } from "./dataset/folder_picker.js";
import { addDisplay } from "./display.js";
import { clearError, refusalTexts, showError } from "./errors.js";
import { addFold } from "./fold.js";
import { allNodes, executionIds, locatorId, nameGraph } from "./graph.js";
import { message, speak } from "./messages.js";
import { removeProgressText } from "./progress_text.js";
import { resultView } from "./results/view.js";
import { orderTemplates, packOf } from "./templates.js";
import { Feed } from "./training/feed.js";
import { Panel } from "./training/panel.js";
import { plannedLength } from "./training/plan.js";

/** @typedef {import("./training/session.js").Session} Session */

const TRAINER = "AtelierTrainLora";
const EVENT = "atelier.training";
const ROUTE = "/atelier/training";
const [WIDTH, HEIGHT] = [400, 390];
const FOLDERS = "/atelier/folders";
const PICKER_HEIGHT = 64;
const GRID = "AtelierBlockGrid";
const SHEET = "AtelierImageFolder";
const CAPTIONS = "AtelierCaptionPictures";
const RESULT_HEIGHT = 160;
/**
 * Heights of results with pictures, which the editor itself would draw below them.
 *
 * @type {Record<string, number>}
 */
const HEIGHTS = { [GRID]: 320, [SHEET]: 200, [CAPTIONS]: 320 };

const feed = new Feed(async () => {
  const answer = await api.fetchApi(ROUTE);
  if (!answer.ok) throw new Error(String(answer.status));
  return (await answer.json()).sessions;
});

// The editor creates nodes that never enter a graph, one for each copy, and drops others without an event. So nothing
// here holds a node: every event looks up the nodes that are in the graph then.

/**
 * The panel of each trainer.
 *
 * @type {WeakMap<EditorNode, Panel>}
 */
const panels = new WeakMap();
/**
 * The run whose result each trainer put out. It may be one of another node or workflow: the host gives a result that it
 * has in its cache to every copy of a graph.
 *
 * @type {WeakMap<EditorNode, import("./training/session.js").Output>}
 */
const putOut = new WeakMap();
/**
 * What each node does with its output.
 *
 * @type {WeakMap<EditorNode, (output: NodeOutput | null | undefined) => void>}
 */
const results = new WeakMap();

/** @param {Session} session */
const addressOf = ({ prompt, node, workflow }) => ({ prompt, node, workflow });

/**
 * @param {"stop" | "sample" | "continue"} request
 * @param {Session} session
 * @returns {Promise<string>} what will happen, or why nothing will
 */
async function post(request, session) {
  const answer = await api.fetchApi(`${ROUTE}/${request}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(addressOf(session)),
  });
  const { reached, error } = await answer.json();
  return error ?? (reached.length ? message(`answer.${request}`) : message(`answer.${request}.none`));
}

const actions = {
  resume: async (/** @type {Session} */ session) => {
    const answer = await post("continue", session);
    await app.queuePrompt(0);
    return answer;
  },
  stop: (/** @type {Session} */ session) => post("stop", session),
  sample: (/** @type {Session} */ session) => post("sample", session),
  pictureUrl: (/** @type {Session} */ session, /** @type {number} */ step) => {
    const query = new URLSearchParams({ ...addressOf(session), run: session.run, step: String(step) });
    return api.apiURL(`${ROUTE}/sample?${query}`);
  },
};

/** @param {EditorNode} node a trainer */
function addPanel(node) {
  const panel = new Panel(actions);
  panels.set(node, panel);
  addDisplay(node, "training_panel", "atelier_training", panel.element, { getMinHeight: () => HEIGHT });
  // For a new node; a node of a saved workflow gets its own size after this.
  node.setSize([Math.max(node.size[0], WIDTH), node.size[1]]);
  hidePictures(node); // the plot and the samples are in the panel already
  results.set(node, (output) => {
    const run = output?.run?.at(-1); // a list is trained run by run
    if (!run || putOut.get(node)?.run === run) return;
    const own = feed.find(app.rootGraph.id, executionIds(app.rootGraph, node));
    putOut.set(node, { run, report: output?.text?.join("\n") ?? "", after: own?.run });
    showTrainings();
  });
  followOutput(node);
  // A new length is told in the panel. The callback comes after the value is set.
  for (const each of node.widgets ?? []) {
    const { callback } = each;
    each.callback = function (...values) {
      showTrainings();
      return callback?.apply(this, values);
    };
  }
  // The editor gives the graph its id, and puts the node into it, after the node is created.
  requestAnimationFrame(showTrainings);
}

/** Show in every panel the latest session of its node. */
function showTrainings() {
  const root = app.rootGraph;
  for (const node of allNodes(root)) {
    const panel = panels.get(node);
    if (!panel) continue;
    panel.plan = plannedLength(node);
    panel.show(feed.show(root.id, executionIds(root, node), putOut.get(node)));
  }
}

/** Redraw every panel when the editor changes its theme, which is a class and variables on these two elements. */
function followTheme() {
  const observer = new MutationObserver(() => {
    for (const node of allNodes(app.rootGraph)) panels.get(node)?.redraw();
  });
  for (const element of [document.documentElement, document.body]) {
    observer.observe(element, { attributes: true, attributeFilter: ["class", "style"] });
  }
}

/**
 * Keep the editor from showing a node's output pictures below its widgets.
 *
 * @param {EditorNode} node
 */
function hidePictures(node) {
  // On the canvas, the editor shows them in this method, which does nothing else; as page elements, it reads the flag.
  node.onDrawBackground = () => {};
  node.hideOutputImages = true;
}

/**
 * Show a node's output after each run; the widget is created with the first output.
 *
 * @param {EditorNode} node
 */
function addResults(node) {
  const frame = document.createElement("div");
  frame.className = "atelier-result-frame";
  const height = HEIGHTS[node.comfyClass ?? ""] ?? RESULT_HEIGHT;
  frame.style.setProperty("--atelier-result-height", `${height}px`);
  /** @type {EditorWidget | undefined} */
  let widget;
  const review = reviewOf(node);
  /** @param {NodeOutput | null | undefined} output */
  const show = (output) => {
    // A node whose result was cached in an earlier run may have no output.
    const url = (/** @type {ServedImage} */ image) => api.apiURL(`/view?${new URLSearchParams(image)}`);
    const view = output && (reviewed(review, output, url) ?? resultView(output, url, node.comfyClass === SHEET));
    if (!view) return;
    removeProgressText(node);
    frame.replaceChildren(view);
    if (widget) return;
    widget = addDisplay(node, "atelier_result", "atelier_result", frame, { getMinHeight: () => height });
    node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])]);
  };
  results.set(node, show);
  if (HEIGHTS[node.comfyClass ?? ""]) hidePictures(node);
  followOutput(node);
}

/**
 * The list of captions of a node that has a widget for its edits; see nodes/widgets.py.
 *
 * @param {EditorNode} node
 */
function reviewOf(node) {
  const edits = node.widgets?.find(({ name }) => inputOptions(node, name)?.caption_edits);
  return edits && new CaptionReview({
    get: () => edits.value,
    set: (text) => {
      edits.value = text;
      edits.callback?.(text);
    },
  });
}

/**
 * @param {CaptionReview | undefined} review
 * @param {NodeOutput} output
 * @param {(image: ServedImage) => string} url
 */
function reviewed(review, output, url) {
  if (!review || !output.captions || !output.images?.length) return undefined;
  review.show(output.captions, url(output.images[0]), output.columns?.[0] ?? 1, output.text?.join("\n") ?? "");
  return review.element;
}

/** @param {EditorNode} node */
function followOutput(node) {
  const { onExecuted } = node;
  node.onExecuted = function (output, ...rest) {
    results.get(node)?.(output);
    return onExecuted?.apply(this, [output, ...rest]);
  };
}

/**
 * What the server says about an input.
 *
 * @param {EditorNode} node
 * @param {string} name
 */
function inputOptions(node, name) {
  const { required, optional } = node.constructor.nodeData?.input ?? {};
  return { ...required, ...optional }[name]?.[1];
}

/**
 * Set how far the arrows move a number, apart from its `step`, which also limits the decimals; see nodes/widgets.py.
 *
 * @param {EditorNode} node
 */
function setArrows(node) {
  for (const widget of node.widgets ?? []) {
    const step = inputOptions(node, widget.name)?.arrow_step;
    if (step) widget.options.step2 = step;
  }
}

/**
 * Add the list of folders, and the button to upload pictures, to a node that asks for a folder; see nodes/widgets.py.
 *
 * @param {EditorNode} node
 */
function addFolderPicker(node) {
  const folder = node.widgets?.find(({ name }) => inputOptions(node, name)?.folder_list);
  if (!folder) return;
  const { element } = new FolderPicker({
    list: async () => {
      const answer = await (await api.fetchApi(FOLDERS)).json();
      if (answer.error) throw new Error(answer.error);
      return answer.folders;
    },
    upload: async (name, file) => {
      const body = new FormData();
      body.append("file", file);
      const answer = await api.fetchApi(`${FOLDERS}?${new URLSearchParams({ folder: name })}`, { method: "POST", body });
      return answer.status === 413 ? message("folders.too_large", { file: file.name }) : (await answer.json()).error;
    },
    get: () => String(folder.value ?? ""),
    set: (name) => {
      folder.value = name;
      folder.callback?.(name);
    },
  });
  const height = () => PICKER_HEIGHT;
  addDisplay(node, "atelier_folders", "atelier_folders", element, { getMinHeight: height, getMaxHeight: height });
}

/**
 * Show errors on those nodes of the pack that they are about.
 *
 * @param {Record<string, string>} texts by execution id
 */
function showErrors(texts) {
  for (const node of allNodes(app.rootGraph)) {
    const id = executionIds(app.rootGraph, node).find((each) => texts[each]);
    if (id && node.comfyClass?.startsWith("Atelier")) showError(node, texts[id]);
  }
}

/** Show why nodes fail or are refused, until the graph is queued again. */
function followErrors() {
  api.addEventListener("execution_error", ({ detail }) => showErrors({ [detail.node_id]: detail.exception_message }));
  // There is no event for a refused prompt: its reasons stand in the answer, or in the error that is thrown.
  const queue = api.queuePrompt;
  api.queuePrompt = async function (...args) {
    allNodes(app.rootGraph).forEach(clearError);
    try {
      const answer = await queue.apply(this, args);
      showErrors(refusalTexts(answer?.node_errors));
      return answer;
    } catch (error) {
      showErrors(refusalTexts(/** @type {Refused} */ (error)?.response?.node_errors));
      throw error;
    }
  };
}

/** Remove the progress texts of nodes that run no longer: the editor keeps them. The event's node is null at the end. */
function followProgress() {
  api.addEventListener("executing", ({ detail }) => {
    for (const node of allNodes(app.rootGraph)) {
      if (node.comfyClass?.startsWith("Atelier") && !executionIds(app.rootGraph, node).includes(String(detail))) {
        removeProgressText(node);
      }
    }
  });
}

function addStyle() {
  for (const sheet of ["./training/panel.css", "./results/results.css", "./dataset/folder_picker.css",
    "./dataset/caption_review.css"]) {
    const link = document.createElement("link");
    link.rel = "stylesheet";
    link.href = new URL(sheet, import.meta.url).href;
    document.head.append(link);
  }
}

/** Take the texts of the editor's language. */
async function followLanguage() {
  await speak(app.extensionManager.setting.get("Comfy.Locale"), async (language) => (
    (await fetch(new URL(`./messages/${language}.json`, import.meta.url))).json()));
}

app.registerExtension({
  name: "atelier.training",
  // Before any node is made.
  init: followLanguage,
  // When the language is changed, the editor does this and then makes all nodes anew.
  refreshComboInNodes: followLanguage,
  setup() {
    addStyle();
    followTheme();
    followErrors();
    followProgress();
    orderTemplates(api, packOf(import.meta.url));
    feed.subscribe(showTrainings);
    api.addEventListener(EVENT, ({ detail }) => feed.receive(detail));
    api.addEventListener("reconnected", () => feed.refresh());
    return feed.refresh();
  },
  nodeCreated(node) {
    nameGraph(app.rootGraph, LiteGraph.uuidv4);
    if (node.comfyClass?.startsWith("Atelier")) {
      setArrows(node);
      addFold(node);
      addFolderPicker(node);
    }
    if (node.comfyClass === TRAINER) addPanel(node);
    else if (node.comfyClass?.startsWith("Atelier")) addResults(node);
  },
  afterConfigureGraph() {
    feed.notify();
  },
  /** When a tab is reopened or a change undone, the editor creates the nodes anew but remembers their outputs. */
  onNodeOutputsUpdated(outputs) {
    for (const node of allNodes(app.rootGraph)) results.get(node)?.(outputs[locatorId(node)]);
  },
});
