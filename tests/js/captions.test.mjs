import assert from "node:assert/strict";
import { test } from "node:test";

import { readEdits, withEdit } from "../../web/js/dataset/caption_review.js";

const item = { digest: "a", file: "a.png", caption: "a dog", edited: false, left_out: false, failure: "" };

test("a changed caption and a picture left out are kept by the picture's digest, others stay", () => {
  assert.deepEqual(withEdit({ b: null }, item, " a\n black  dog ", true), { a: "a black dog", b: null });
  assert.deepEqual(withEdit({ b: "x" }, item, "a dog", false), { a: null, b: "x" });
});

test("a picture that is as the model captioned it has no edit", () => {
  assert.deepEqual(withEdit({ a: "a cat", b: "x" }, item, "a dog", true), { b: "x" });
});

test("a caption that was edited in an earlier run stays edited", () => {
  assert.deepEqual(withEdit({ a: "a dog" }, { ...item, edited: true }, "a dog", true), { a: "a dog" });
  assert.deepEqual(withEdit({ a: null }, { ...item, left_out: true }, "a dog", true), { a: "a dog" });
});

test("a picture that the model refused needs a caption to be used", () => {
  const refused = { ...item, caption: "", left_out: true, failure: "refused" };
  assert.deepEqual(withEdit({}, refused, "by hand", true), { a: "by hand" });
  assert.deepEqual(withEdit({ a: "by hand" }, refused, "", true), {});
  assert.deepEqual(withEdit({}, refused, "", false), {});
});

test("a text that holds no edits counts as none", () => {
  for (const text of ["", "{", "[]", "null", undefined]) assert.deepEqual(readEdits(text), {});
  assert.deepEqual(readEdits('{"a": null}'), { a: null });
});
