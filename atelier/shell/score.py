"""`atelier score`: score pictures against texts with a CLIP model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import AtelierError
from ..json_files import parse_json
from ..limits import DEFAULT, read_limited
from .output import add_device, add_json, show
from .pictures import open_pictures, picture_files
from .progress import ShellProgress


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("score", help="score pictures against texts with a CLIP model")
    parser.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE", help="files or folders")
    parser.add_argument("--model", type=Path, required=True, help="CLIP model: a folder or a .safetensors file")
    parser.add_argument("--text", help="one text for all; left out: the prompt in each picture's .json or .txt file")
    parser.add_argument("--definition", choices=("cosine", "hessel", "torchmetrics"), default="cosine")
    parser.add_argument("--prefix", default="", help='put before every text, such as "A photo depicts "')
    parser.add_argument("--style", default="", help="a second text that all pictures are compared with")
    parser.add_argument("--csv", type=Path, help="also write the table to this file")
    add_device(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Score and print the table."""
    from ..fields import check_text
    from ..files import check_apart, write_text
    from ..score.definitions import Definition
    from ..score.load import open_scorer
    from ..train.devices import pick_device

    files = picture_files(arguments.pictures)
    for name in ("text", "prefix", "style"):
        check_text(f"--{name}", getattr(arguments, name) or "")
    device = pick_device(arguments.device)
    if arguments.csv:
        check_apart(arguments.csv, [*files, *(f.with_suffix(ending) for f in files for ending in (".json", ".txt"))])
        check_apart(arguments.csv, [arguments.model])
    texts = arguments.text if arguments.text is not None else _sidecar_texts(files)
    pictures, progress = open_pictures(files), ShellProgress()
    scorer = open_scorer(arguments.model, device=device)
    scores = scorer.score(pictures, texts, definition=Definition(arguments.definition), prefix=arguments.prefix,
                          style=arguments.style, progress=progress)
    progress.close()
    if arguments.csv:
        write_text(arguments.csv, scores.csv())
    rows = [{"file": file, "score": item.value, "cosine": item.cosine, "text": item.text, "tokens": item.tokens,
             "cut": item.cut, "style": item.style} for file, item in zip(files, scores.items, strict=True)]
    show(arguments, scores.table(), {"mean": scores.mean, "std": scores.std, "model": scores.model,
                                     "definition": scores.definition.value, "pictures": rows})


def _sidecar_texts(files: Sequence[Path]) -> list[str]:
    """The prompt of each picture, from the .json or .txt file beside it."""
    texts = [_saved_prompt(file.with_suffix(".json")) or _written_prompt(file.with_suffix(".txt")) for file in files]
    missing = [file.name for file, text in zip(files, texts, strict=True) if not text]
    if missing:
        raise AtelierError(f"{len(missing)} of {len(files)} pictures have no prompt in a .json or .txt file beside "
                           f"them: {', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}.",
                           "Give one text for all with --text.")
    return texts


def _saved_prompt(path: Path) -> str:
    """The `prompt` in Save Titled's JSON file; "" if there is no such file or another program wrote it."""
    try:
        details = parse_json(read_limited(path, DEFAULT))
    except (OSError, ValueError):
        return ""
    prompt = details.get("prompt") if isinstance(details, dict) else None
    return prompt.strip() if isinstance(prompt, str) else ""


def _written_prompt(path: Path) -> str:
    """A caption, or the prompt of an infotext."""
    from ..dataset.sidecar import read_sidecar

    return "\n".join(read_sidecar(path, by_lines=True)) if path.is_file() else ""
