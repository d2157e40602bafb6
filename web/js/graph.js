/** Finding one's way in a graph with subgraphs. Graphs and nodes are the editor's, of which this needs few properties. */

/** The id of a graph that has none yet. */
const NO_ID = "00000000-0000-0000-0000-000000000000";

/**
 * Every execution id of a node: one, or one for each instance of the subgraph it stands in.
 *
 * @param {{nodes: any[]}} root the outermost graph
 * @param {{id: number | string, graph: object}} node
 * @returns {string[]}
 */
export function executionIds(root, node) {
  const found = [];
  const visit = (graph, prefix) => {
    if (graph === node.graph) found.push(`${prefix}${node.id}`);
    for (const inner of graph.nodes ?? []) {
      if (inner.subgraph) visit(inner.subgraph, `${prefix}${inner.id}:`);
    }
  };
  visit(root, "");
  return found;
}

/**
 * Under which name the editor keeps what a node gave out: the same for each instance of the subgraph it stands in.
 *
 * @param {{id: number | string, graph: {id: string, isRootGraph: boolean}}} node
 * @returns {string}
 */
export function locatorId({ id, graph }) {
  return graph.isRootGraph ? String(id) : `${graph.id}:${id}`;
}

/**
 * All nodes of a graph and of its subgraphs, each once.
 *
 * @param {{nodes: any[]}} root
 * @returns {any[]}
 */
export function allNodes(root) {
  const graphs = new Set([root]);
  // A set goes on to what is added while it is walked.
  for (const graph of graphs) {
    for (const { subgraph } of graph.nodes ?? []) if (subgraph) graphs.add(subgraph);
  }
  return [...graphs].flatMap((graph) => graph.nodes ?? []);
}

/**
 * Give an empty graph its id, should it have none.
 *
 * The editor gives one to graphs that it loads, but not to what it builds from the API's form; there, only the next
 * load would, and what is known of the graph would no longer be found. With nodes in it, it is too late: their widgets
 * are kept under the id.
 *
 * @param {{id: string, nodes: any[]}} root
 * @param {() => string} newId
 */
export function nameGraph(root, newId) {
  if (root.id === NO_ID && !root.nodes.length) root.id = newId();
}
