import assert from "node:assert/strict";
import { test } from "node:test";

import { allNodes, executionIds, locatorId, nameGraph } from "../../web/js/graph.js";

test("execution ids: at the top, in a subgraph, in each of its instances, and deeper", () => {
  const inner = { nodes: [] };
  const middle = { nodes: [{ id: 7, subgraph: inner }] };
  const root = { nodes: [{ id: 1 }, { id: 5, subgraph: middle }, { id: 6, subgraph: middle }] };
  assert.deepEqual(executionIds(root, { id: 1, graph: root }), ["1"]);
  assert.deepEqual(executionIds(root, { id: 4, graph: middle }), ["5:4", "6:4"]);
  assert.deepEqual(executionIds(root, { id: 9, graph: inner }), ["5:7:9", "6:7:9"]);
});

test("all nodes: each once, however often its subgraph is used and however deep it lies", () => {
  const inner = { nodes: [{ id: 9 }] };
  const middle = { nodes: [{ id: 7, subgraph: inner }, { id: 4 }] };
  const root = { nodes: [{ id: 1 }, { id: 5, subgraph: middle }, { id: 6, subgraph: middle }] };
  assert.deepEqual(allNodes(root).map(({ id }) => id), [1, 5, 6, 7, 4, 9]);
});

test("the editor's name for a node's outputs", () => {
  assert.equal(locatorId({ id: 4, graph: { id: "w", isRootGraph: true } }), "4");
  assert.equal(locatorId({ id: 4, graph: { id: "s", isRootGraph: false } }), "s:4");
});

test("an empty graph without an id gets one; no other graph does", () => {
  const none = "00000000-0000-0000-0000-000000000000";
  const named = (graph) => { nameGraph(graph, () => "new"); return graph.id; };
  assert.equal(named({ id: none, nodes: [] }), "new");
  assert.equal(named({ id: none, nodes: [{ id: 1 }] }), none);
  assert.equal(named({ id: "w", nodes: [] }), "w");
});
