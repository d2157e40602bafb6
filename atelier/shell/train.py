"""`atelier train`: a LoRA by a configuration file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .output import add_device, add_json, show
from .progress import ShellProgress

EXAMPLE = """\
A configuration file (paths are relative to it):

  name = "my-style"                      the LoRA's file name
  model = "sd15.safetensors"             checkpoint or diffusers folder
  preset = "style"                       subject, style, quick look, reference recipe
  steps = 800                            or epochs; left out: as the preset has it
  seed = 0

  [data]
  folder = "pictures"
  captions = "sidecar"                   or template, fixed, metadata
  trigger = "zwx style"
  resolution = { size = 512, crop = "bucket" }

  [lora]                                 what differs from the preset: any field of LoraConfig
  rank = 16

  [options]                              and any field of the request's other parts
  learning_rate = 1e-4
  sample_prompt = "a cat, zwx style"

  [place]
  loras = "loras"                        finished files
  runs = "runs"                          state of each run
  cache = "cache"                        latents and embeddings
"""


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("train", help="train a LoRA as a TOML file says", epilog=EXAMPLE,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, metavar="CONFIG.toml")
    add_device(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Read the file, train, report. An interrupted run goes on when it is asked for again."""
    from ..dataset.folder import read_folder
    from ..models.open import open_model
    from ..train.devices import pick_device
    from ..train.run import train
    from .train_file import read_train_file

    pick_device(arguments.device)  # before anything is read
    wanted = read_train_file(arguments.config, device=arguments.device)
    progress = ShellProgress()
    own = wanted.paths
    data = read_folder(wanted.folder, wanted.data, progress, leave_out=(own.runs, own.cache, own.loras))
    model = open_model(wanted.model, prediction_type=wanted.prediction_type, progress=progress)
    report = train(wanted.name, model, data, wanted.request, wanted.paths, progress)
    progress.close()
    show(arguments, report.text(), {"lora": report.lora, "run": report.folder.path, "plot": report.folder.plot,
                                    "reused": report.reused, **report.result.as_dict()})
