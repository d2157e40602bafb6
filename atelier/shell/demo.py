"""`atelier demo` and `atelier demo-model`: the whole pipeline with the shipped model, and its files for ComfyUI."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .output import add_device, add_json, show
from .progress import ShellProgress


def add(verbs: Any) -> None:
    """Add both verbs to the command line."""
    parser = verbs.add_parser("demo", help="convert, train a LoRA, generate, score and compose, with what ships here")
    parser.add_argument("--model", type=Path, help="a checkpoint of your own instead of the demo model")
    parser.add_argument("--pictures", type=Path, help="with --model: your training pictures with .txt captions")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder (default: demo)")
    add_device(parser)
    add_json(parser)
    parser.set_defaults(run=run)
    model = verbs.add_parser("demo-model", help="write the demo's model, CLIP and pictures into ComfyUI's folders")
    model.add_argument("base", type=Path, nargs="?", default=Path("demo-model"), metavar="FOLDER",
                       help="ComfyUI's folder, the one with models and input in it (default: demo-model)")
    add_json(model)
    model.set_defaults(run=run_model)


def run(arguments: argparse.Namespace) -> None:
    """Run the demo and print its summary."""
    from ..demo.stories import own_model_story, pencil_story
    from ..demo.story import run_story
    from ..errors import AtelierError
    from ..train.devices import pick_device

    if arguments.pictures and not arguments.model:
        raise AtelierError("--pictures was given without --model; the demo model knows drawn shapes only.",
                           "Give a checkpoint of your own with --model, too.")
    progress = ShellProgress()
    if arguments.model:
        story = own_model_story(arguments.model, arguments.pictures, arguments.out,
                                large=pick_device(arguments.device).type == "cuda")
    else:
        story = pencil_story(arguments.out, progress)
    result = run_story(story, arguments.out, device=arguments.device, progress=progress)
    progress.close()
    show(arguments, result.text(), result.numbers())


def run_model(arguments: argparse.Namespace) -> None:
    """Write what the template "Try it without downloads" needs."""
    from ..demo.folders import DemoFolders, fill_folders

    progress = ShellProgress()
    written = fill_folders(DemoFolders.below(arguments.base), progress)
    progress.close()
    show(arguments, "\n".join(map(str, written)), written)
