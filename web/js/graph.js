/** Lookups in a graph with subgraphs. `EditorGraph` and `EditorNode` are declared in tools/js/editor.d.ts. */

/** The id of a graph that has none yet. */
const NO_ID = "00000000-0000-0000-0000-000000000000";

/**
 * Every execution id of a node: one, or one for each instance of the subgraph that holds it.
 *
 * @param {Pick<EditorGraph, "nodes">} root the outermost graph
 * @param {Pick<EditorNode, "id" | "graph">} node
 * @returns {string[]}
 */
export function executionIds(root, node) {
  /** @type {string[]} */
  const ids = [];
  /** @type {(graph: Pick<EditorGraph, "nodes">, prefix: string) => void} */
  const visit = (graph, prefix) => {
    if (graph === node.graph) ids.push(`${prefix}${node.id}`);
    for (const inner of graph.nodes ?? []) {
      if (inner.subgraph) visit(inner.subgraph, `${prefix}${inner.id}:`);
    }
  };
  visit(root, "");
  return ids;
}

/**
 * The key under which the editor keeps a node's output: the same for each instance of the subgraph that holds the node.
 *
 * @param {Pick<EditorNode, "id" | "graph">} node in a graph
 * @returns {string}
 */
export function locatorId({ id, graph }) {
  return !graph || graph.isRootGraph ? String(id) : `${graph.id}:${id}`;
}

/**
 * All nodes of a graph and of its subgraphs, each once.
 *
 * @param {Pick<EditorGraph, "nodes">} root
 * @returns {EditorNode[]}
 */
export function allNodes(root) {
  const graphs = new Set([root]);
  // Iterating over a set reaches what is added meanwhile.
  for (const graph of graphs) {
    for (const { subgraph } of graph.nodes ?? []) if (subgraph) graphs.add(subgraph);
  }
  return [...graphs].flatMap((graph) => graph.nodes ?? []);
}

/**
 * Give an empty graph an id if it has none.
 *
 * The editor gives an id to graphs that it loads, but not to a graph that it builds from the API format: that one gets
 * its id at the next load, and sessions stored under the old id would no longer be found. Once there are nodes it is
 * too late, because their widgets are kept under the id.
 *
 * @param {Pick<EditorGraph, "id" | "nodes">} root
 * @param {() => string} newId
 */
export function nameGraph(root, newId) {
  if (root.id === NO_ID && !root.nodes.length) root.id = newId();
}
