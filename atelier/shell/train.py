"""`atelier train`: a LoRA by a configuration file."""

from __future__ import annotations

import argparse
import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .output import add_device, add_json, show
from .progress import QuietProgress, ShellProgress

if TYPE_CHECKING:
    from ..train.processes import Processes

TRACKERS = ("tensorboard", "wandb", "jsonl")
"""Where numbers of a training can go beside the terminal."""

EXAMPLE = """\
# A configuration file: copy all of this. Paths are relative to the file.
name = "my-style"                         # the LoRA's file name
model = "sd15.safetensors"                # checkpoint or diffusers folder
preset = "style"                          # subject, style, quick look, reference recipe
steps = 800                               # or epochs; left out: as the preset has it
seed = 0

[data]
folder = "pictures"
captions = "sidecar"                      # or template, fixed, metadata
text = "a picture"                        # for pictures without a text file
trigger = "zwx style"
resolution = { size = 512, crop = "bucket" }

[lora]                                    # what differs from the preset
rank = 16

[options]                                 # and here
learning_rate = 1e-4
sample_prompt = "a cat, zwx style"

[place]
loras = "loras"                           # finished files
runs = "runs"                             # state of each run
cache = "cache"                           # latents and embeddings
"""


def _options() -> str:
    """Every field of the option tables with its default, as comments of TOML."""
    from dataclasses import fields

    from ..dataset.folder import FolderOptions
    from ..prior.options import PriorOptions
    from ..toml_files import toml_value
    from ..train.request.request import PARTS

    def lines(*parts: type) -> list[str]:
        return [f"# {option.name} = {toml_value(option.default)}" for part in parts for option in fields(part)
                if isinstance(option.default, bool | int | float | str)]

    return "\n".join([
        "# Every option with its default, where no preset changes it. In [data]:", *lines(FolderOptions),
        "#", "# In [prior], for pictures of what the model should not forget; it draws them itself before training:",
        *lines(PriorOptions), "#", "# In [lora]:", *lines(PARTS["lora"]),
        "#", "# In [options]:", *lines(*(part for name, part in PARTS.items() if name != "lora"))])


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("train", help="train a LoRA as a TOML file says",
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.details = lambda: f"{EXAMPLE}\n{_options()}"
    parser.add_argument("config", type=Path, metavar="CONFIG.toml")
    parser.add_argument("--export", type=Path, metavar="FOLDER",
                        help="do not train: write all but the model to a folder that another machine can train")
    # torchrun takes --log for an abbreviation of its own options, even behind the script's name.
    parser.add_argument("--log", "--tracker", dest="log", action="append", default=[], choices=TRACKERS,
                        metavar="TRACKER",
                        help=f"also write losses and rates for {', '.join(TRACKERS)} (may be repeated); files go into "
                             "logs, beside the configuration. Behind torchrun or accelerate launch: --tracker")
    add_device(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Read the file, train, report. An interrupted run goes on when it is asked for again."""
    from ..train.devices import pick_device
    from ..train.process_group import join_processes

    pick_device(arguments.device)  # before anything is read
    if arguments.export:
        _export(arguments)
        return
    with join_processes(arguments.device) as (processes, device):
        _train(arguments, processes, device)


def _export(arguments: argparse.Namespace) -> None:
    from .export_training import export_training, next_steps
    from .train_file import read_train_file

    progress, wanted = ShellProgress(), read_train_file(arguments.config)
    data, model = wanted.read_data(progress), wanted.open_model(progress)
    data = wanted.add_prior(data, model, progress)
    folder = export_training(arguments.export, wanted.name, model, data, wanted.request, progress)
    progress.close()
    show(arguments, next_steps(folder, model), {"folder": folder, "model": model.path})


def _train(arguments: argparse.Namespace, processes: Processes, device: str) -> None:
    from ..train.run import train
    from .train_file import read_train_file

    progress = ShellProgress() if processes.first else QuietProgress()
    if not processes.first:
        logging.getLogger("atelier").setLevel(logging.ERROR)  # the first says the same
    with processes.together():
        wanted = read_train_file(arguments.config, device=device)
        data, model = wanted.read_data(progress), wanted.open_model(progress)
        tracked = contextlib.nullcontext(progress)
        if arguments.log and processes.first:
            from .trackers import tracked_progress

            tracked = tracked_progress(arguments.log, wanted.name, arguments.config.resolve().parent / "logs",
                                       wanted.request)
    with tracked as progress:
        data = wanted.add_prior(data, model, progress, processes)
        report = train(wanted.name, model, data, wanted.request, wanted.paths, progress, processes=processes)
    progress.close()
    if not processes.first:
        return
    show(arguments, report.text(), {"lora": report.lora, "run": report.folder.path, "plot": report.folder.plot,
                                    "reused": report.reused, **report.result.as_dict()})
