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
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
class Outcome:
    """How reading a damaged file ended."""

    target: Target
    how: str
    """"read", "refused" (by a clear error), or "fell": another error, or a limit passed."""
    error: str
    number: int
    """Place in the run."""


# --- damage ---------------------------------------------------------------------------------------------------------

def damage_bytes(rng: random.Random, data: bytes) -> bytes:
    """Change, remove, insert or repeat some bytes, mostly near the beginning, where the structure is."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        end = len(content) if rng.random() < 0.3 else min(len(content), 400)
        at, length = rng.randrange(end + 1), rng.choice((1, 1, 4, 60))
        what = rng.randrange(6)
        if what == 0:
            content[at:at + 1] = bytes([rng.randrange(256)])
        elif what == 1:
            del content[at:at + length]
        elif what == 2:
            content[at:at] = rng.choice((b"\xff\xfe", b"\0", b'"', b"[" * 5000, b"{", b"\xed\xa0\xbd", b"9" * 5000, b"}"))
        elif what == 3:
            content[at:at] = content[at:at + length] * rng.choice((1, 3, 500))
        elif what == 4:
            del content[at:]
        else:
            content[at:at + length] = rng.randbytes(length)
    return bytes(content)


def hostile_value(rng: random.Random) -> Any:
    """A JSON value that no field expects; those that JSON's writer refuses are marked as `_raw`."""
    return rng.choice((
        None, True, False, -1, 0, 1, 2, 3, 1.5, 10**9, 10**18, 2**63, 2**64, -10**9, "", "x", "None", "\0", "\ud83d", "../x",
        "x" * 100_000, [], {}, [[]], [None], ["x"], [1, 2, 3, 4], [10**9] * 4, {"a": 1}, {"content": 5}, [1] * 3000,
        _raw("9" * 5000), _raw("9" * 30), _raw("1e999"), _raw("-1e999"), _raw("NaN"), _raw("1e-999"),
        _raw("[" * 500 + "]" * 500), _raw("[" * 50_000 + "]" * 50_000), _raw('{"a":' * 5000 + "1" + "}" * 5000),
        "FooBlock2D", "CrossAttnUpBlock2D", "(a+)+$", "((a*)*)*b", "a{1,999999999}", "(" * 90 + ")" * 90))


def _raw(text: str) -> str:
    return f"\ue000{text}\ue000"


def dumps(value: Any) -> str:
    """JSON with what `_raw` marked put in as it is."""
    return json.dumps(value).replace('"\\ue000', "").replace('\\ue000"', "")


def change_json(rng: random.Random, value: Any) -> Any:
    """The same value with one or two of its parts changed, removed, renamed or repeated."""
    for _ in range(rng.choice((1, 1, 1, 2))):
        places: list[tuple[Any, Any]] = []
        waiting = [value]
        while waiting:
            held = waiting.pop()
            if isinstance(held, dict | list):
                keys = list(held) if isinstance(held, dict) else list(range(len(held)))
                places += [(held, key) for key in keys]
                waiting += [held[key] for key in keys]
        if not places or rng.random() < 0.03:
            return hostile_value(rng)
        held, key = rng.choice(places)
        what = rng.random()
        if what < 0.7:
            held[key] = hostile_value(rng)
        elif what < 0.8:
            del held[key]
        elif isinstance(held, dict):
            name = rng.choice(("", "x", "\0", "\ud83d", "a" * 300, "9" * 5000, str(key) + "_", "(a|a)*b", "(a+)+$"))
            held[name] = held.pop(key)
        else:
            held[key:key] = [held[key]] * rng.choice((1, 2000))
    return value


def damage_json(rng: random.Random, data: bytes) -> bytes:
    """Change values of a JSON file."""
    return dumps(change_json(rng, json.loads(data))).encode()


def damage_header(rng: random.Random, data: bytes) -> bytes:
    """Change values in the header of a safetensors file, whose length stays right."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = dumps(change_json(rng, json.loads(data[8:end]))).encode()
    return len(header).to_bytes(8, "little") + header + data[end:]


def damage_names(rng: random.Random, data: bytes) -> bytes:
    """Change shapes and names in the header of a safetensors file so that the bytes still fit."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    names = [name for name in header if name != "__metadata__"]
    for name in rng.sample(names, min(len(names), rng.choice((1, 1, 3)))):
        entry = header.pop(name)
        if rng.random() < 0.5:
            shape, count = entry["shape"], 1
            for side in shape:
                count *= side
            entry["shape"] = rng.choice(([count], [1, count], [count, 1, 1, 1], [*shape, 1], shape[::-1], [1] * 60 + [count],
                                         [1, 1, 1, 1, count]))
        else:
            digits = "".join("9" * rng.choice((1, 9, 30, 5000)) if c.isdigit() else c for c in name)
            name = rng.choice((digits, name + ".weight", name.rpartition(".")[0], "x" + name, name[:-1], "", "\ud83d"))
        header[name] = entry
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[end:]


def damage_lines(rng: random.Random, data: bytes) -> bytes:
    """Change lines of a text file: repeated, removed, exchanged, of another kind."""
    lines = data.decode().split("\n")
    at = rng.randrange(len(lines))
    what = rng.randrange(5)
    if what == 0:
        lines[at:at + 1] = [lines[at]] * rng.choice((2, 5000))
    elif what == 1:
        del lines[at]
    elif what == 2:
        lines[at] = rng.choice(("", " ", "a", "a b c", "\0", "x" * 100_000, "a " * 1000, "\u2028 a", "zzz qqq"))
    elif what == 3:
        lines[at] = lines[at][::-1]
    else:
        lines[at], lines[0] = lines[0], lines[at]
    return "\n".join(lines).encode(errors="surrogatepass")


def damage_toml(rng: random.Random, data: bytes) -> bytes:
    """Give a key another value, or add a line that asks for much."""
    lines = data.decode().split("\n")
    values = ("9" * 5000, "0x" + "f" * 5000, "0b" + "1" * 70, "1e999", "nan", "-1", "0", "1_000_000_000", "9" * 30, "true", '""',
              '"\\u0000"', "[]", "{}", "[" * 3000 + "]" * 3000, "[" * 300 + "]" * 300, "{a=" * 500 + "1" + "}" * 500,
              "2020-13-41", "1979-05-27", "'" + "x" * 5000 + "'", "[1, 2]", '["a"]', "{ a = 1 }", '"""' + '\\"""' * 3000,
              "[" + "[],", "inf", '"~nobody/x"', '"\\ud83d"', "1e5")
    at = rng.choice([place for place, line in enumerate(lines) if " = " in line])
    key = lines[at].split(" = ")[0]
    what = rng.random()
    if what < 0.7:
        lines[at] = f"{key} = {rng.choice(values)}"
    elif what < 0.8:
        lines[at] = ".".join([key] * rng.choice((2, 17, 20_000))) + " = 1"
    elif what < 0.9:
        lines.insert(at, rng.choice(("[" + ".".join("a" * 9000) + "]", "[data]", "[[lora]]", "a.b.c = 1\na.b = 2", "x" * 9000, "]",
                                     lines[at])))
    else:
        del lines[at]
    return "\n".join(lines).encode()


def damage_picture(rng: random.Random, data: bytes) -> bytes:
    """Change the texts of a PNG file, and give each chunk its right checksum."""
    from atelier.pictures.png import SIGNATURE

    found, place = [], len(SIGNATURE)
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        found.append((kind, data[place + 8:place + 8 + length]))
        place += 12 + length
    at = rng.choice([n for n, (kind, _) in enumerate(found) if kind in (b"tEXt", b"iTXt", b"zTXt")])
    kind, body = found[at]
    keyword, _, content = body.partition(b"\0")
    if content[:1] == b"{" and rng.random() < 0.8:
        links = {"a": {"class_type": "X", "inputs": {f"i{n}": ["a", 0] for n in range(200_000)}}}
        graph = change_json(rng, json.loads(content))
        if rng.random() < 0.1 and isinstance(graph, dict):
            graph |= links
        content = dumps(graph).encode()
    else:
        content = rng.choice((damage_bytes(rng, content), content + b", a: {" * 100_000, b"Steps: " * 200_000,
                              b"<lora:" * 100_000, b"\n" * 300_000 + content))
    found[at] = rng.choice((kind, kind, b"zTXt", b"iTXt")), keyword + b"\0" + content
    import zlib

    return SIGNATURE + b"".join(struct.pack(">I", len(b)) + k + b + zlib.crc32(k + b).to_bytes(4, "big") for k, b in found)


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
INFOTEXT = ('a cat <lora:soft:0.5>\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x512, '
            'Lora hashes: "a: b", Civitai resources: [{"type":"lora","modelName":"x","weight":1}]')


def write_targets(folder: Path) -> list[Target]:
    """Write a valid file of every kind below `folder`."""
    import torch
    from kit.checkpoints import write_sd1
    from kit.found_prompts import node, png
    from safetensors.torch import load_file, save_file

    from atelier.checkpoint.entry import Entry  # noqa: F401 (the package must be importable before anything is written)
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
    (tokenizer / "vocab.json").write_text(json.dumps({symbol: n for n, symbol in enumerate(symbols)}), encoding="utf-8")
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
    layers = {f"base_model.model.{path}.{layer}.{part}": t.clone() for layer in ("to_q", "to_v") for part, t in pair.items()}
    save_file(layers, peft / "adapter_model.safetensors")
    (peft / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "r": 2, "lora_alpha": 4, "alpha_pattern": {r"attn1\.to_q": 2, "to_v": 3, ".*attn.*to_k": 1},
        "use_rslora": False, "target_modules": ["to_q", "to_v"]}), encoding="utf-8")
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
             "2": node("CLIPTextEncode", text="a cat", clip=["1", 1]), "3": node("CLIPTextEncode", text="", clip=["1", 1]),
             "4": node("KSampler", model=["1", 0], positive=["2", 0], negative=["3", 0], seed=5, steps=20, cfg=7.0,
                       sampler_name="euler", scheduler="normal", latent_image=["5", 0]),
             "5": node("EmptyLatentImage", width=64, height=64)}
    invoke = {"positive_prompt": "a cat", "seed": 5, "steps": 20, "loras": [{"model": {"name": "x"}, "weight": 1}]}
    for number, texts in enumerate(({"prompt": json.dumps(graph)}, {"parameters": INFOTEXT},
                                    {"invokeai_metadata": json.dumps(invoke)})):
        picture = png(folder / f"{number}.png", **texts)
        targets += [Target("picture", picture, picture, (damage_picture, damage_picture, damage_bytes))] * 2

    box = {"x": 0, "y": 0, "width": 8, "height": 8}
    cell = {"box": box, "block": 0, "place": 0, "picture": 0, "kind": "unique", "origin": {"prompt": "a cat", "seed": 1}}
    (folder / "grid.json").write_text(json.dumps(
        {"version": 1, "width": 8, "height": 8, "seed": None, "cells": [cell, cell]}), encoding="utf-8")
    targets += [Target("manifest", folder / "grid.json", folder / "grid.json", (damage_json, damage_json, damage_bytes))] * 2
    return targets


def damage_dtypes(rng: random.Random, data: bytes) -> bytes:
    """Say that a tensor's bytes are numbers of another type, with a shape that fits them."""
    sizes = {"F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1, "F16": 2, "BF16": 2, "I16": 2, "I32": 4, "F64": 8,
             "F8_E8M0": 1, "C64": 8, "U64": 8}
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    entry = header[rng.choice([name for name in header if name != "__metadata__"])]
    dtype = rng.choice(list(sizes))
    begin, stop = entry["data_offsets"]
    rows = entry["shape"][0] if entry["shape"] else 1
    entry["dtype"], entry["shape"] = dtype, [rows, (stop - begin) // rows // sizes[dtype]]
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[end:]


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


def try_damages(folder: Path, seed: int, count: int, read: Reader, kinds: tuple[str, ...] = ()) -> Iterator[Outcome]:
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
            yield Outcome(target, *read.read(target.kind, target.read), number)
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
                print(f"{outcome.number} {outcome.target.kind} {outcome.target.file.name}: {outcome.error}", flush=True)
    print(f"{arguments.count} tried, {counts} in {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
