import assert from "node:assert/strict";
import { test } from "node:test";

import { orderTemplates, packOf } from "../../web/js/templates.js";

test("a pack's templates come by their numbers, another's as they are", async () => {
  const api = { own: ["10 c", "2 b", "1 a"], async getWorkflowTemplates() { return { mine: this.own, other: ["b", "a"] }; } };
  orderTemplates(api, "mine");
  assert.deepEqual(await api.getWorkflowTemplates(), { mine: ["1 a", "2 b", "10 c"], other: ["b", "a"] });
});

test("where the host knows no templates of the pack, or the editor no list, nothing changes", async () => {
  const api = { getWorkflowTemplates: async () => ({ other: ["b", "a"] }) };
  orderTemplates(api, "mine");
  assert.deepEqual(await api.getWorkflowTemplates(), { other: ["b", "a"] });
  const old = {};
  orderTemplates(old, "mine");
  assert.deepEqual(old, {});
});

test("the pack's folder is the one its scripts are served from", () => {
  assert.equal(packOf("http://127.0.0.1:8188/extensions/My%20Pack/js/atelier.js?v=1"), "My Pack");
  assert.equal(packOf("file:///web/js/atelier.js"), "");
});
