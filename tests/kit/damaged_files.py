"""Valid files of every kind that the pack reads, damaged at random, and a process that reads them within limits.

    python tests/kit/damaged_files.py --seed 7 --count 1000

A run's seed decides every damage, so that a fall can be had again.
"""

from __future__ import annotations

import argparse
import json
import queue
import random
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
CPU_SECONDS = 10.0
"""Processor time that reading one file may take; wall time would depend on who else computes."""
MEMORY = 1_500_000_000
"""Bytes that reading one file may add."""

Damage = Callable[[random.Random, bytes], bytes]


@dataclass(frozen=True)
class Target:
    """A file that is damaged, and what is read afterwards: the file, or the folder that it is a part of."""

    kind: str
    file: Path
    read: Path
    damage: tuple[Damage, ...]


@dataclass(frozen=True)
class DamageResult:
    """How reading a damaged file ended."""

    target: Target
    how: str
    """"read", "refused" (by a clear error), or "fell": another error, or a limit passed."""
    error: str
    number: int
    """Place in the run."""

    def __str__(self) -> str:
        return f"{self.number}: {self.target.kind}, {self.target.file.name}: {self.how}, {self.error!a}"


# --- what is damaged ------------------------------------------------------------------------------------------------

TRAIN_FILE = """name = "x"
model = "m.safetensors"
preset = "style"
steps = 5
seed = 1

[data]
folder = "pictures"
captions = "fixed"
text = "a cat"
repeats = 3
resolution = { size = 512, crop = "bucket" }

[lora]
rank = 16

[options]
learning_rate = 1e-4
sample_steps = 20
sample_prompt = "a cat"

[place]
loras = "loras"
"""
EXAMPLES = """description = "d"
form = "tags"
negative = "blurry"

[[example]]
idea = "a cat"
positive = "a cat, on a mat"
title = "Cat"
"""
INFOTEXT = ('a cat <lora:soft:0.5>\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, '
            'Size: 512x512, Lora hashes: "a: b", Civitai resources: [{"type":"lora","modelName":"x","weight":1}]')


def write_targets(folder: Path) -> list[Target]:
    """Write a valid file of every kind below `folder`."""
    import torch
    from kit.checkpoints import write_sd1
    from kit.damage import (
        damage_bytes,
        damage_dtypes,
        damage_header,
        damage_json,
        damage_lines,
        damage_names,
        damage_picture,
        damage_toml,
    )
    from kit.found_prompts import node, png
    from safetensors.torch import load_file, save_file

    from atelier.convert.folder import to_folder
    from atelier.models.tokenizer import byte_symbols

    weights = (damage_header, damage_names, damage_bytes)
    checkpoint = write_sd1(folder / "m.safetensors", shape="tiny")
    tensors = load_file(checkpoint)
    torch.save({"state_dict": dict(list(tensors.items())[:5]), "epoch": 3}, folder / "p.ckpt")
    targets = [Target("checkpoint", checkpoint, checkpoint, weights),
               Target("pickle", folder / "p.ckpt", folder / "p.ckpt", (damage_bytes,))]

    model = folder / "model"
    to_folder(checkpoint, model)
    symbols = [*byte_symbols(), *(symbol + "</w>" for symbol in byte_symbols()), "ca", "cat</w>", "<|startoftext|>",
               "<|endoftext|>"]
    tokenizer = model / "tokenizer"
    vocabulary = {symbol: number for number, symbol in enumerate(symbols)}
    (tokenizer / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (tokenizer / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n", encoding="utf-8")
    for name in ("unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json"):
        targets += [Target("folder", model / name, model, (damage_json, damage_json, damage_json, damage_bytes))] * 3
    for name in ("vocab.json", "tokenizer_config.json", "special_tokens_map.json"):
        targets.append(Target("folder", tokenizer / name, model, (damage_json, damage_bytes)))
    targets.append(Target("folder", tokenizer / "merges.txt", model, (damage_lines, damage_bytes)))

    shards = folder / "shards"
    shards.mkdir()
    save_file({"a": torch.zeros(2)}, shards / "one.safetensors")
    save_file({"b": torch.zeros(2)}, shards / "two.safetensors")
    index = shards / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 16},
                                 "weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}), encoding="utf-8")
    targets += [Target("index", index, shards, (damage_json, damage_json, damage_bytes))] * 2

    path = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
    pair = {"lora_A.weight": torch.ones(2, 8), "lora_B.weight": torch.ones(8, 2)}
    peft = folder / "peft"
    peft.mkdir()
    layers = {f"base_model.model.{path}.{layer}.{part}": tensor.clone()
              for layer in ("to_q", "to_v") for part, tensor in pair.items()}
    save_file(layers, peft / "adapter_model.safetensors")
    (peft / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "r": 2, "lora_alpha": 4, "alpha_pattern": {r"attn1\.to_q": 2, "to_v": 3, ".*attn.*k": 1},
        "use_rslora": False, "target_modules": ["to_q", "to_v"]}),
        encoding="utf-8")
    targets += [Target("peft", peft / "adapter_config.json", peft, (damage_json, damage_json, damage_bytes))] * 3
    targets.append(Target("peft", peft / "adapter_model.safetensors", peft, weights))
    stem = "lora_unet_" + path.replace(".", "_")
    save_file({f"{stem}_to_q.lora_down.weight": torch.ones(2, 8), f"{stem}_to_q.lora_up.weight": torch.ones(8, 2),
               f"{stem}_to_q.alpha": torch.tensor(2.0), f"{stem}_to_v.lora_down.weight": torch.ones(2, 8).bfloat16(),
               f"{stem}_to_v.lora_up.weight": torch.ones(8, 2).bfloat16()}, folder / "l.safetensors",
              {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 3, "unet.alpha_pattern": {"to_q": 1}})})
    targets += [Target("lora", folder / "l.safetensors", folder / "l.safetensors", (*weights, damage_dtypes))] * 2

    (folder / "t.toml").write_text(TRAIN_FILE, encoding="utf-8")
    (folder / "e.toml").write_text(EXAMPLES, encoding="utf-8")
    toml = (damage_toml, damage_toml, damage_toml, damage_bytes)
    targets += [Target("train file", folder / "t.toml", folder / "t.toml", toml)] * 4
    targets += [Target("example set", folder / "e.toml", folder / "e.toml", toml)] * 2

    graph = {"1": node("CheckpointLoaderSimple", ckpt_name="m.safetensors"),
             "2": node("CLIPTextEncode", text="a cat", clip=["1", 1]),
             "3": node("CLIPTextEncode", text="", clip=["1", 1]),
             "4": node("KSampler", model=["1", 0], positive=["2", 0], negative=["3", 0], seed=5, steps=20, cfg=7.0,
                       sampler_name="euler", scheduler="normal", latent_image=["5", 0]),
             "5": node("EmptyLatentImage", width=64, height=64)}
    invoke = {"positive_prompt": "a cat", "seed": 5, "steps": 20, "loras": [{"model": {"name": "x"}, "weight": 1}]}
    for number, texts in enumerate(({"prompt": json.dumps(graph)}, {"parameters": INFOTEXT},
                                    {"invokeai_metadata": json.dumps(invoke)})):
        picture = png(folder / f"{number}.png", **texts)
        targets += [Target("picture", picture, picture, (damage_picture, damage_picture, damage_bytes))] * 2

    box = {"x": 0, "y": 0, "width": 8, "height": 8}
    cell = {"box": box, "block": 0, "place": 0, "picture": 0, "kind": "unique",
            "origin": {"prompt": "a cat", "seed": 1}}
    (folder / "grid.json").write_text(json.dumps(
        {"version": 1, "width": 8, "height": 8, "seed": None, "cells": [cell, cell]}), encoding="utf-8")
    grid = folder / "grid.json"
    targets += [Target("manifest", grid, grid, (damage_json, damage_json, damage_bytes))] * 2
    return targets


# --- reading --------------------------------------------------------------------------------------------------------

class Reader:
    """A child process that reads files; started again after a file that it did not come back from."""

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue()

    def read(self, kind: str, path: Path) -> tuple[str, str]:
        """How reading ended, and the error."""
        process = self._process or self._start()
        assert process.stdin is not None
        watched = psutil.Process(process.pid)
        cpu, memory = sum(watched.cpu_times()[:2]), watched.memory_info().rss
        process.stdin.write(f"{kind}\t{path}\n")
        process.stdin.flush()
        while True:
            try:
                line = self._lines.get(timeout=0.1)
            except queue.Empty:
                try:
                    spent, held = sum(watched.cpu_times()[:2]) - cpu, watched.memory_info().rss - memory
                except psutil.NoSuchProcess:
                    spent, held = 0.0, 0
                if spent < CPU_SECONDS and held < MEMORY and process.poll() is None:
                    continue
                why = "hang" if spent >= CPU_SECONDS else "memory" if held >= MEMORY else f"exit code {process.poll()}"
                self.close()
                return "fell", why
            result = json.loads(line)
            return result["how"], result["error"]

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> subprocess.Popen[str]:
        self._process = process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(Path(__file__).with_name("damage_readers.py")), str(self._root)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._lines = lines = queue.Queue()

        def forward() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.put(line)

        threading.Thread(target=forward, daemon=True).start()
        if lines.get(timeout=300) != "ready\n":
            raise RuntimeError("the reading process did not start")
        return process


@contextmanager
def reader(root: Path = ROOT) -> Iterator[Reader]:
    """A reader that ends with the block."""
    made = Reader(root)
    try:
        yield made
    finally:
        made.close()


def try_damages(folder: Path, seed: int, count: int, read: Reader, kinds: tuple[str, ...] = (),
                ) -> Iterator[DamageResult]:
    """Damage valid files `count` times, one damage at a time, and read each."""
    rng = random.Random(seed)
    targets = [target for target in write_targets(folder) if not kinds or target.kind in kinds]
    for target in targets:
        how, error = read.read(target.kind, target.read)
        assert how == "read", f"{target.file} is not valid to begin with: {error}"
    for number in range(count):
        target = rng.choice(targets)
        original = target.file.read_bytes()
        target.file.write_bytes(rng.choice(target.damage)(rng, original))
        try:
            yield DamageResult(target, *read.read(target.kind, target.read), number)
        finally:
            target.file.write_bytes(original)


def main() -> None:
    """Try damages from the command line, and print what fell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--root", type=Path, default=ROOT, help="where the package to test lies")
    parser.add_argument("--kinds", nargs="*", default=())
    arguments = parser.parse_args()
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]
    begun, counts = time.monotonic(), {"read": 0, "refused": 0, "fell": 0}
    print(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory() as folder, reader(arguments.root) as read:
        for outcome in try_damages(Path(folder), arguments.seed, arguments.count, read, tuple(arguments.kinds)):
            counts[outcome.how] += 1
            if outcome.how == "fell":
                print(f"{outcome}", flush=True)
    print(f"{arguments.count} tried, {counts} in {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
