"""`atelier score`: how well pictures match texts, by a CLIP model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import AtelierError
from .monitor import ShellMonitor
from .output import add_device, add_json, show
from .pictures import open_pictures, picture_files


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("score", help="score pictures against texts with a CLIP model")
    parser.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE", help="files or folders")
    parser.add_argument("--model", type=Path, required=True, help="CLIP model: a folder or a .safetensors file")
    parser.add_argument("--text", help="one text for all; left out: each picture's .txt file")
    parser.add_argument("--definition", choices=("cosine", "hessel", "torchmetrics"), default="cosine")
    parser.add_argument("--prefix", default="", help='put before every text, such as "A photo depicts "')
    parser.add_argument("--style", default="", help="a second text that all pictures are compared with")
    parser.add_argument("--csv", type=Path, help="also write the table to this file")
    add_device(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Score and print the table."""
    from ..files import write_text
    from ..score.definitions import Definition
    from ..score.load import open_scorer
    from ..train.place import pick_device

    files = picture_files(arguments.pictures)
    texts = arguments.text if arguments.text is not None else _sidecar_texts(files)
    pictures, monitor = open_pictures(files), ShellMonitor()
    scorer = open_scorer(arguments.model, device=pick_device(arguments.device))
    scores = scorer.score(pictures, texts, definition=Definition(arguments.definition), prefix=arguments.prefix,
                          style=arguments.style, monitor=monitor)
    monitor.close()
    if arguments.csv:
        write_text(arguments.csv, scores.csv())
    rows = [{"file": file, "score": item.value, "cosine": item.cosine, "text": item.text, "tokens": item.tokens,
             "cut": item.cut, "style": item.style} for file, item in zip(files, scores.items, strict=True)]
    show(arguments, scores.table(), {"mean": scores.mean, "std": scores.std, "model": scores.model,
                                     "definition": scores.definition.value, "pictures": rows})


def _sidecar_texts(files: Sequence[Path]) -> list[str]:
    """The first line of each picture's `.txt` file: its prompt, as `generate` and Save Titled Image write it."""
    missing = [file.name for file in files if not file.with_suffix(".txt").is_file()]
    if missing:
        raise AtelierError(f"{len(missing)} of {len(files)} pictures have no .txt file beside them: "
                           f"{', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}.",
                           "Give one text for all with --text.")
    return [file.with_suffix(".txt").read_text(encoding="utf-8-sig").strip().partition("\n")[0] for file in files]
