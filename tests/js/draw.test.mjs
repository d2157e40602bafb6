import assert from "node:assert/strict";
import { test } from "node:test";

import { paletteFor } from "../../web/js/training/draw.js";

/** WCAG 2.2: relative luminance of a colour "#rrggbb". */
function luminance(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(first, second) {
  const [dark, light] = [luminance(first), luminance(second)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}

const rgb = (colour) => `rgb(${[1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)).join(", ")})`;

test("contrast by hand: black on white, and a colour on itself", () => {
  assert.equal(contrast("#000000", "#ffffff"), 21);
  assert.equal(contrast("#4da3ff", "#4da3ff"), 1);
});

test("every curve stands out from the ground it is drawn on, in the editor's dark and light themes", () => {
  // The widgets' ground in the editor's own themes.
  for (const ground of ["#222222", "#2e3440", "#002b36", "#161b22", "#c9c9c9", "#ffffff"]) {
    for (const [name, colour] of Object.entries(paletteFor(rgb(ground)))) {
      assert.ok(contrast(colour, ground) >= 3, `${name} ${colour} on ${ground}: ${contrast(colour, ground)}`);
    }
  }
});
