import assert from "node:assert/strict";
import { test } from "node:test";

import { Feed } from "../../web/js/training/feed.js";

const session = (number, losses, more = {}) => ({
  prompt: "p", node: "4", workflow: "w", run: "r", number, status: "running", values: {}, losses, validation: [], fidelity: [], likeness: [],
  samples: [],
  ...more,
});
const steps = (feed, ...ids) => feed.find("w", ids.length ? ids : ["4"])?.losses.map(([step]) => step);

test("a reload in mid-run: what came before is fetched, what comes after follows on", async () => {
  const feed = new Feed(async () => [session(3, [[1, 1], [2, 1], [3, 1]])]);
  await feed.refresh();
  feed.receive(session(4, [[4, 1]]));
  assert.deepEqual(steps(feed), [1, 2, 3, 4]);
});

test("a lost event is made good from the server", async () => {
  let asked = 0;
  const feed = new Feed(async () => { asked += 1; return [session(3, [[1, 1], [2, 1], [3, 1]])]; });
  feed.receive(session(1, [[1, 1]]));
  feed.receive(session(3, [[3, 1]]));
  await feed.fetching;
  assert.equal(asked, 1);
  assert.deepEqual(steps(feed), [1, 2, 3]);
});

test("an event that overtakes the answer is not lost", async () => {
  let answer;
  const feed = new Feed(() => new Promise((resolve) => { answer = resolve; }));
  const fetched = feed.refresh();
  feed.receive(session(1, [[1, 1]]));
  feed.receive(session(2, [[2, 1]]));
  answer([session(1, [[1, 1]])]);
  await fetched;
  assert.deepEqual(steps(feed), [1, 2]);
});

test("a run that begins while an older answer is under way stays", async () => {
  for (const answered of [[], [session(50, [[40, 1]], { run: "old", status: "complete" })]]) {
    let answer;
    const feed = new Feed(() => new Promise((resolve) => { answer = resolve; }));
    const fetched = feed.refresh();
    feed.receive(session(1, [[1, 1]]));
    answer(answered);
    await fetched;
    assert.equal(feed.find("w", ["4"])?.run, "r");
    assert.deepEqual(steps(feed), [1]);
  }
});

test("of two runs that begin on the way the later one stays", async () => {
  let answer;
  const feed = new Feed(() => new Promise((resolve) => { answer = resolve; }));
  const fetched = feed.refresh();
  feed.receive(session(1, [[1, 1]]));
  feed.receive(session(1, [[1, 2]], { run: "s" }));
  answer([session(9, [[1, 1], [2, 1]])]);
  await fetched;
  assert.equal(feed.find("w", ["4"]).run, "s");
});

test("runs of a list in one prompt follow each other, and a fetch brings the last", async () => {
  const feed = new Feed(async () => [session(2, [[1, 9], [2, 9]], { run: "b" })]);
  for (let number = 1; number <= 40; number += 1) feed.receive(session(number, [[number, 1]], { run: "a" }));
  feed.receive(session(41, [], { run: "a", status: "complete" }));
  feed.receive(session(1, [[1, 9]], { run: "b" }));
  feed.receive(session(2, [[2, 9]], { run: "b" }));
  const shown = () => { const { status, losses } = feed.find("w", ["4"]); return [status, losses]; };
  assert.deepEqual(shown(), ["running", [[1, 9], [2, 9]]]);
  await feed.refresh();
  assert.deepEqual(shown(), ["running", [[1, 9], [2, 9]]]);
});

test("what a failed fetch should have brought is asked for again with the next event", async () => {
  let [away, asked] = [true, 0];
  const feed = new Feed(async () => {
    asked += 1;
    if (away) throw new Error("away");
    return [session(4, [[1, 1], [2, 1], [3, 1], [4, 1]])];
  });
  feed.receive(session(1, [[1, 1]]));
  feed.receive(session(3, [[3, 1]])); // the second is lost
  await feed.fetching;
  assert.deepEqual(steps(feed), [1, 3]);
  away = false;
  feed.receive(session(4, [[4, 1]]));
  await feed.fetching;
  assert.deepEqual(steps(feed), [1, 2, 3, 4]);
  feed.receive(session(5, [[5, 1]]));
  assert.deepEqual([asked, feed.fetching], [2, null]);
});

test("an answer that is no list of sessions is as none", async () => {
  const feed = new Feed(async () => undefined);
  feed.receive(session(1, [[1, 1]]));
  await feed.refresh();
  assert.deepEqual(steps(feed), [1]);
});

test("many gaps at once ask once more, not many times", async () => {
  let asked = 0;
  const feed = new Feed(async () => { asked += 1; return [session(90, [[1, 1]])]; });
  for (let number = 10; number < 60; number += 10) feed.receive(session(number, []));
  await feed.fetching;
  await feed.fetching;
  assert.ok(asked <= 2, `${asked} times`);
});

test("a server that is away leaves what is known", async () => {
  const feed = new Feed(async () => { throw new Error("away"); });
  feed.receive(session(1, [[1, 1]]));
  await feed.refresh();
  assert.deepEqual(steps(feed), [1]);
});

test("after a restart of the server its sessions are gone here, too", async () => {
  const feed = new Feed(async () => []);
  feed.receive(session(1, [[1, 1]]));
  await feed.refresh();
  assert.equal(feed.find("w", ["4"]), undefined);
});

test("nodes and workflows do not mix", () => {
  const feed = new Feed(async () => []);
  feed.receive(session(1, [[1, 1]]));
  feed.receive(session(1, [[2, 1]], { node: "12:4" }));
  feed.receive(session(1, [[3, 1]], { workflow: "other" }));
  assert.deepEqual(steps(feed), [1]);
  assert.deepEqual(steps(feed, "12:4"), [2]);
  assert.equal(feed.find("w", ["5"]), undefined);
  assert.equal(feed.find("", ["4"]), undefined);
});

test("of two instances of a subgraph the one that began last is shown", () => {
  const feed = new Feed(async () => []);
  feed.receive(session(1, [[1, 1]], { node: "5:4", run: "a" }));
  feed.receive(session(1, [[2, 1]], { node: "6:4", run: "b" }));
  assert.deepEqual(steps(feed, "5:4", "6:4"), [2]);
  feed.receive(session(1, [[3, 1]], { node: "5:4", run: "c" }));
  assert.deepEqual(steps(feed, "5:4", "6:4"), [3]);
});

test("listeners hear of changes until they leave", () => {
  const feed = new Feed(async () => []);
  let heard = 0;
  const leave = feed.subscribe(() => { heard += 1; });
  feed.receive(session(1, []));
  leave();
  feed.receive(session(2, []));
  assert.equal(heard, 1);
});

test("a result that was trained in another workflow is shown until the node trains itself", async () => {
  const feed = new Feed(async () => [session(9, [[1, 1], [2, 1]], { status: "complete" })]);
  await feed.refresh();
  const output = { run: "r", report: "done", after: undefined };
  const shown = feed.show("copy", ["4"], output);
  assert.deepEqual([shown.status, shown.losses.length, shown.workflow], ["reused", 2, "w"]);
  assert.equal(feed.show("w", ["4"], { ...output, after: "r" }).status, "complete", "its own stays as it ended");
  assert.equal(feed.show("copy", ["4"], undefined), undefined);
  feed.receive(session(1, [], { workflow: "copy", run: "s", status: "failed" }));
  assert.equal(feed.show("copy", ["4"], output).status, "failed", "its own came later");
  const again = feed.show("copy", ["4"], { ...output, after: "s" });
  assert.deepEqual([again.status, again.run], ["reused", "r"]);
});

test("of a result whose session the server has dropped, the report is shown", () => {
  const shown = new Feed(async () => []).show("w", ["4"], { run: "gone", report: "complete after 5 steps", after: undefined });
  assert.deepEqual([shown.status, shown.message, shown.losses], ["reused", "complete after 5 steps", []]);
});
