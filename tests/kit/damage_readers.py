"""A process that reads damaged files, one a line of its standard input, and says for each how that ended.

    python damage_readers.py ROOT        # ROOT holds the package `atelier` to test

A line in is `kind<TAB>path`. A line out is JSON: "read", "refused" or, for anything but an `AtelierError`, "fell" with
the error. Reading goes as far as a user's own use would: models are built, LoRAs checked.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

HEADROOM = 4 * 2**30
"""Bytes that reading may add to the process before the system refuses."""


def readers() -> dict[str, Callable[[Path], object]]:
    """The reader of each kind of file."""
    import torch

    from atelier.checkpoint.folder import component_entries
    from atelier.checkpoint.source import open_file
    from atelier.lora.file import read_lora
    from atelier.models.inspect import inspect
    from atelier.models.load import load_text, load_unet, load_vae
    from atelier.models.open import open_model
    from atelier.pictures.metadata.read import read_prompt
    from atelier.prompts.examples import ExampleLibrary
    from atelier.sampling import SAMPLERS, make_scheduler
    from atelier.shell.train_file import read_train_file

    def folder(path: Path) -> None:
        inspect(path)
        model = open_model(path)
        load_text(model).encode(["a cat"])
        load_vae(model)
        unet = load_unet(model)
        for sampler in SAMPLERS:
            make_scheduler(model.noise_schedule.as_config(), sampler, 3, torch.device("cpu"))
        with torch.no_grad():
            unet(torch.zeros(1, 4, 8, 8), 1, torch.zeros(1, 77, 32))

    def manifest(path: Path) -> None:
        from atelier.grid.manifest import parse_manifest

        parse_manifest(path.read_text(encoding="utf-8", errors="replace"))

    return {
        "checkpoint": inspect, "pickle": lambda path: open_file(path), "folder": folder, "index": component_entries,
        "lora": read_lora, "peft": read_lora, "train file": lambda path: read_train_file(path),
        "example set": lambda path: ExampleLibrary((path.parent,)).get(path.stem), "picture": read_prompt,
        "manifest": manifest,
    }


def main() -> None:
    """Read what standard input names until it ends."""
    out = sys.stdout
    sys.stdout = sys.stderr
    by_kind = readers()
    from atelier.errors import AtelierError

    logging.disable(logging.CRITICAL)
    _limit_memory()
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        kind, path = line.rstrip("\n").split("\t")
        result = {"how": "read", "error": ""}
        try:
            by_kind[kind](Path(path))
        except AtelierError as error:
            result = {"how": "refused", "error": str(error)[:500]}
        except Exception as error:  # noqa: BLE001 (what else there may be is the question)
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            result = {"how": "fell", "error": f"{type(error).__name__}: {str(error)[:200]} ({where})"}
        print(json.dumps(result), file=out, flush=True)


def _limit_memory() -> None:
    import psutil

    with contextlib.suppress(ImportError):  # Windows has no such limits; the parent watches all the same
        import resource

        limit = psutil.Process().memory_info().vms + HEADROOM
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    main()
