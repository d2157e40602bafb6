"""Write the demo's result as a static HTML page."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable
from pathlib import Path

from ..files import write_text
from .result import StoryResult, picture_name

_STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 20%, transparent); }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; }
img { max-width: 100%; display: block; border-radius: 4px; }
figure { margin: 0; } figcaption { font-size: .85em; opacity: .75; padding-top: .3em; }
.row { display: grid; grid-template-columns: repeat(auto-fill, minmax(120px, 1fr)); gap: 10px; }
table { border-collapse: collapse; }
th, td { padding: .25em .9em .25em 0; text-align: left; border-bottom: 1px solid var(--line); }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
"""


def write_page(result: StoryResult) -> Path:
    """Write `index.html` into the demo's folder, with relative links to its pictures."""
    path = result.out / "index.html"
    parts = [f"<h1>{_text(result.story.title)}</h1>", f"<pre>{_text(result.text())}</pre>", *_rows(result)]
    if result.content_scores:
        parts += ["<h2>CLIP scores</h2>", _table(result)]
    plot = result.training.folder.plot
    parts += ["<h2>Training</h2>", _picture(path, plot, "Loss by optimiser step; the best validation is marked.")]
    if result.grid:
        parts += ["<h2>Grid</h2>", _picture(path, result.grid,
                                            "Each block of 2 × 2: one picture of the tuned model, three fillers.")]
    write_text(path, "\n".join([
        "<!doctype html>", '<html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(result.story.title)}</title><style>{_STYLE}</style>", *parts, "</html>", ""]))
    return path


def _rows(result: StoryResult) -> Iterable[str]:
    page = result.out / "index.html"
    titles = {"base": "Without the LoRA", "lora": "With the LoRA",
              "lora, unasked": "With the LoRA, style not asked for"}
    for name, pictures in result.rows.items():
        yield f"<h2>{titles[name]}</h2><div class=row>"
        for i, picture in enumerate(pictures):
            file = result.out / "pictures" / picture_name(name, i)
            yield _picture(page, file, f"{picture.prompt} · seed {picture.seed}")
        yield "</div>"


def _table(result: StoryResult) -> str:
    names = list(result.content_scores)
    head = "".join(f"<th>{_text(name)}: {what}</th>" for name in names for what in ("content", "style"))
    lines = [f"<table><tr><th>compared with</th>{head}</tr>"]
    for i, content in enumerate(result.story.contents):
        cells = "".join(f"<td class=n>{item.value:.3f}</td><td class=n>{item.style or 0:.3f}</td>"
                        for item in (result.content_scores[name].items[i] for name in names))
        lines.append(f"<tr><td>{_text(content)}</td>{cells}</tr>")
    return "".join([*lines, "</table>"])


def _picture(page: Path, picture: Path, words: str) -> str:
    link = Path(os.path.relpath(picture, page.parent)).as_posix()
    return (f'<figure><img src="{html.escape(link, quote=True)}" alt="{html.escape(words, quote=True)}" loading="lazy">'
            f"<figcaption>{_text(words)}</figcaption></figure>")


def _text(text: str) -> str:
    return html.escape(text, quote=False)
