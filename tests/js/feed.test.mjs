import assert from "node:assert/strict";
import { test } from "node:test";

import { Feed } from "../../web/js/training/feed.js";

const session = (number, losses, more = {}) => ({
  prompt: "p", node: "4", workflow: "w", number, status: "running", values: {}, losses, validation: [], samples: [],
  ...more,
});
const steps = (feed, ...ids) => feed.find("w", ids.length ? ids : ["4"])?.losses.map(([step]) => step);

test("a reload in mid-run: what came before is fetched, what comes after follows on", async () => {
  const feed = new Feed(async () => [session(3, [[1, 1], [2, 1], [3, 1]])]);
  await feed.refresh();
  feed.take(session(4, [[4, 1]]));
  assert.deepEqual(steps(feed), [1, 2, 3, 4]);
});

test("a lost event is made good from the server", async () => {
  let asked = 0;
  const feed = new Feed(async () => { asked += 1; return [session(3, [[1, 1], [2, 1], [3, 1]])]; });
  feed.take(session(1, [[1, 1]]));
  feed.take(session(3, [[3, 1]]));
  await feed.fetching;
  assert.equal(asked, 1);
  assert.deepEqual(steps(feed), [1, 2, 3]);
});

test("an event that overtakes the answer is not lost", async () => {
  let answer;
  const feed = new Feed(() => new Promise((resolve) => { answer = resolve; }));
  const fetched = feed.refresh();
  feed.take(session(1, [[1, 1]]));
  feed.take(session(2, [[2, 1]]));
  answer([session(1, [[1, 1]])]);
  await fetched;
  assert.deepEqual(steps(feed), [1, 2]);
});

test("many gaps at once ask once more, not many times", async () => {
  let asked = 0;
  const feed = new Feed(async () => { asked += 1; return [session(90, [[1, 1]])]; });
  for (let number = 10; number < 60; number += 10) feed.take(session(number, []));
  await feed.fetching;
  await feed.fetching;
  assert.ok(asked <= 2, `${asked} times`);
});

test("a server that is away leaves what is known", async () => {
  const feed = new Feed(async () => { throw new Error("away"); });
  feed.take(session(1, [[1, 1]]));
  await feed.refresh();
  assert.deepEqual(steps(feed), [1]);
});

test("after a restart of the server its sessions are gone here, too", async () => {
  const feed = new Feed(async () => []);
  feed.take(session(1, [[1, 1]]));
  await feed.refresh();
  assert.equal(feed.find("w", ["4"]), undefined);
});

test("nodes and workflows do not mix", () => {
  const feed = new Feed(async () => []);
  feed.take(session(1, [[1, 1]]));
  feed.take(session(1, [[2, 1]], { node: "12:4" }));
  feed.take(session(1, [[3, 1]], { workflow: "other" }));
  assert.deepEqual(steps(feed), [1]);
  assert.deepEqual(steps(feed, "12:4"), [2]);
  assert.equal(feed.find("w", ["5"]), undefined);
  assert.equal(feed.find("", ["4"]), undefined);
});

test("of two instances of a subgraph the one that began last is shown", () => {
  const feed = new Feed(async () => []);
  feed.take(session(1, [[1, 1]], { node: "5:4", prompt: "a" }));
  feed.take(session(1, [[2, 1]], { node: "6:4", prompt: "b" }));
  assert.deepEqual(steps(feed, "5:4", "6:4"), [2]);
  feed.take(session(1, [[3, 1]], { node: "5:4", prompt: "c" }));
  assert.deepEqual(steps(feed, "5:4", "6:4"), [3]);
});

test("listeners hear of changes until they leave", () => {
  const feed = new Feed(async () => []);
  let heard = 0;
  const leave = feed.subscribe(() => { heard += 1; });
  feed.take(session(1, []));
  leave();
  feed.take(session(2, []));
  assert.equal(heard, 1);
});
