/** What web/js uses of ComfyUI's editor (https://github.com/Comfy-Org/ComfyUI_frontend), and no more. */

interface EditorWidget {
  name: string;
  value?: unknown;
  label?: string;
  /** Not drawn on the canvas. */
  hidden?: boolean;
  serialize?: boolean;
  options: { step2?: number; advanced?: boolean };
  callback?(this: EditorWidget, ...values: unknown[]): void;
  onRemove?(): void;
}

/** The declaration of one input as the server sends it: its type, then its options. */
type InputSpec = [type: unknown, options?: { arrow_step?: number; lengths?: Record<string, string>; folder_list?: boolean;
  caption_edits?: boolean }];

interface EditorNode {
  id: number | string;
  /** Missing until the editor puts the node into a graph. */
  graph?: EditorGraph;
  subgraph?: EditorGraph;
  comfyClass?: string;
  constructor: Function & { nodeData?: { input?: Record<"required" | "optional", Record<string, InputSpec> | undefined> } };
  size: [number, number];
  inputs?: { name: string; link: number | null; widget?: { name: string } }[];
  widgets?: EditorWidget[];
  hideOutputImages?: boolean;
  onDrawBackground?(): void;
  onConnectionsChange?(this: EditorNode, ...change: unknown[]): void;
  onExecuted?(this: EditorNode, output: NodeOutput, ...rest: unknown[]): void;
  computeSize(): [number, number];
  setSize(size: [number, number]): void;
  /** With `canvasOnly`, the widget is not shown where nodes are drawn as page elements. */
  addWidget(type: "button", name: string, value: null, press: () => void,
    options: { serialize: boolean; canvasOnly: boolean }): EditorWidget;
  addDOMWidget(name: string, type: string, element: HTMLElement,
    options: { serialize: boolean; hideOnZoom: boolean; getMinHeight(): number; getMaxHeight?(): number }): EditorWidget;
}

interface EditorGraph {
  id: string;
  isRootGraph: boolean;
  nodes: EditorNode[];
}

/** A picture as the server's `/view` takes it. */
type ServedImage = Record<"filename" | "subfolder" | "type", string>;

/** What a node gave the editor (`ui` of its result); the keys below are this pack's, others are the host's. */
interface NodeOutput {
  bars?: { label: string; value: number }[];
  /** Parts of the picture that stand out, in shares of its width and height. */
  cells?: { x: number; y: number; width: number; height: number; label: string }[];
  /** Of Caption Pictures: each picture with its caption. */
  captions?: import("../../web/js/dataset/caption_review.js").Item[];
  /** Thumbnails in a row of the picture that has all of them. */
  columns?: number[];
  images?: ServedImage[];
  text?: string[];
  /** The training whose result it is. */
  run?: string[];
}

/** Why the server refuses to run a node. */
interface NodeRefusal {
  errors: { message: string; details: string }[];
  /** Output nodes that are not run because of it. */
  dependent_outputs?: string[];
}

/** The error that the editor throws for a refused prompt. */
interface Refused {
  response?: { node_errors?: Record<string, NodeRefusal> };
}

interface EditorExtension {
  name: string;
  /** Before the editor makes any node; awaited, as the next is. */
  init?(): Promise<void>;
  refreshComboInNodes?(): Promise<void>;
  setup?(): unknown;
  nodeCreated?(node: EditorNode): void;
  afterConfigureGraph?(): void;
  onNodeOutputsUpdated?(outputs: Record<string, NodeOutput>): void;
}

declare const LiteGraph: { uuidv4(): string };

declare module "*/scripts/app.js" {
  export const app: {
    rootGraph: EditorGraph;
    extensionManager: { setting: { get(id: string): string } };
    registerExtension(extension: EditorExtension): void;
    queuePrompt(number: number): Promise<unknown>;
  };
}

declare module "*/scripts/api.js" {
  export const api: {
    fetchApi(route: string, options?: RequestInit): Promise<Response>;
    apiURL(route: string): string;
    getWorkflowTemplates?(): Promise<Record<string, string[]>>;
    queuePrompt(this: unknown, ...args: unknown[]): Promise<{ node_errors?: Record<string, NodeRefusal> } | undefined>;
    addEventListener(type: string, listener: (event: CustomEvent) => void): void;
  };
}
