"""LoRA training side by side: Atelier, the steps of diffusers' and kohya's scripts, and ComfyUI's own node.

    python benchmarks/train.py [--family sd1|sdxl] [--size smallest|small|full] [--pixels 512] [--batch 1]
                               [--dtype bf16] [--json]

Same random weights, pictures, captions, rank, batch and dtype. Every measurement is a process of its own; engines take
turns within a round, so that other load on the machine affects all equally, and ratios are medians over the rounds.
ComfyUI's node is measured where a ComfyUI is found; it trains every layer, since it has no choice of layers.
Exits with 1 if Atelier is slower than the diffusers-style loop: by the best round of each, since other programs can
only slow one down, and on a processor by the seconds that it worked for each. The peak is that of the timed steps.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT), str(ROOT / "tests"), str(ROOT / "tools")]

SHAPES = {"smallest": "tiny", "small": "small", "full": "full"}
"""The host does not know the smallest for a Stable Diffusion model, so its own node is left out there."""
PIXELS = {"smallest": 64, "small": 128, "full": 512}
FAMILIES = {"sd1": "SD1.x", "sdxl": "SDXL"}
CORE = {"core TrainLoraNode": False, "core, bypass": True}


@dataclass
class Row:
    """One engine's measurements."""

    engine: str
    samples_per_s: list[float] = field(default_factory=list)
    samples_per_worked_s: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    steps: int = 0


def measure(args: argparse.Namespace, work: Path) -> list[Row]:
    import comfyui
    import torch
    from kit.checkpoints import WRITERS
    from kit.pictures import write_pictures

    from benchmarks._train_engines import Job

    checkpoint = WRITERS[args.family](work / "model.safetensors", SHAPES[args.size])
    pictures = write_pictures(work / "pictures", [(args.pixels, args.pixels)] * max(8, args.batch))
    host = comfyui.find()
    on_card = ["atelier-graphs", "atelier-compiled"] if torch.cuda.is_available() else []
    engines = args.engines or ["atelier-eager", *on_card, "diffusers-style", "kohya-style",
                               *(CORE if host and args.size != "smallest" else ())]
    rows = {engine: Row(engine) for engine in engines}
    jobs = {engine: Job(engine, str(checkpoint), str(pictures), str(work / "cache"), args.pixels, args.batch,
                        args.dtype, args.warmup, args.steps, args.seconds, str(host or ""), CORE.get(engine, False),
                        args.family)
            for engine in engines}
    for number in range(args.rounds):
        for engine, job in jobs.items():
            began = time.monotonic()
            run = subprocess.run([sys.executable, str(ROOT / "benchmarks" / "_train_engines.py"),
                                  json.dumps(asdict(job))], capture_output=True, text=True, encoding="utf-8", cwd=ROOT)
            if run.returncode:
                raise SystemExit(f"{engine} failed:\n{run.stderr[-3000:]}")
            result = json.loads(run.stdout.splitlines()[-1])
            rows[engine].samples_per_s.append(result["samples_per_s"])
            rows[engine].samples_per_worked_s.append(result["samples_per_worked_s"])
            rows[engine].steps += result["steps"]
            rows[engine].peak_mb = max(rows[engine].peak_mb, result["peak_mb"])
            print(f"round {number + 1}: {engine} {result['samples_per_s']:.3f} samples/s "
                  f"(process {time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
    return list(rows.values())


def model_flops(args: argparse.Namespace, work: Path) -> float:
    """Operations of one sample's forward and backward pass through UNet and adapters, counted without computing."""
    from atelier.models.load import load_unet_config
    from atelier.models.open import open_model

    return flops_of(load_unet_config(open_model(work / "model.safetensors")), args.pixels // 8)


def flops_of(config: Mapping[str, Any], side: int) -> float:
    """The same for latents of that height and width; attention's products are among them."""
    import torch
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from torch.utils.flop_counter import FlopCounterMode

    from atelier.train.adapters import put_adapters
    from atelier.train.request.lora import LoraConfig, layer_pattern

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        unet: Any = UNet2DConditionModel.from_config(dict(config))
        put_adapters("unet", unet, lora := LoraConfig(rank=16), layer_pattern("unet", lora), torch.float32)
        added = None
        if config.get("addition_embed_type") == "text_time":
            pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
            added = {"text_embeds": torch.zeros(1, pooled), "time_ids": torch.zeros(1, 6)}
        unet(torch.zeros(1, 4, side, side), torch.zeros(1), torch.zeros(1, 77, config["cross_attention_dim"]),
             added_cond_kwargs=added, return_dict=False)[0].sum().backward()
    return counter.get_total_flops()


def matmul_ceiling(dtype: str) -> float:
    """Operations per second of a large matrix product on this device: what no training can exceed."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    side = 8192 if device.type == "cuda" else 2048
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    a, b = torch.randn(side, side, device=device, dtype=kind), torch.randn(side, side, device=device, dtype=kind)
    best = float("inf")
    for _ in range(8):
        began = time.perf_counter()
        product = a @ b
        product[0, 0].item()
        best = min(best, time.perf_counter() - began)
    return 2 * side ** 3 / best


def device_name() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=FAMILIES, default="sd1")
    parser.add_argument("--size", choices=SHAPES, default="small")
    parser.add_argument("--pixels", type=int, help="side of the pictures (default: by size)")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="timed in each round at least")
    parser.add_argument("--seconds", type=float, default=4.0, help="timed in each round at least")
    parser.add_argument("--engines", nargs="+", metavar="ENGINE",
                        help="only these, atelier-eager among them; atelier-graphs and -compiled: of a card")
    parser.add_argument("--json", action="store_true", help="end with one line for programs")
    args = parser.parse_args()
    args.pixels = args.pixels or PIXELS[args.size]
    with tempfile.TemporaryDirectory(prefix="atelier-bench-") as folder:
        rows = measure(args, Path(folder))
        flops = model_flops(args, Path(folder))
    ceiling = matmul_ceiling(args.dtype)
    ours = next(row for row in rows if row.engine == "atelier-eager")
    print(f"{FAMILIES[args.family]} {args.size}, {args.pixels} px, batch {args.batch}, {args.dtype}, {device_name()}; "
          f"{flops / 1e9:.0f} GFLOP a sample, matmul {ceiling / 1e9:.0f} GFLOP/s")
    print(f"{'engine':20} {'samples/s':>10} {'s/step':>8} {'ours is':>8} {'peak MB':>8} {'of matmul':>10}")
    printed = []
    for row in rows:
        rate = statistics.median(row.samples_per_s)
        ratio = statistics.median(a / b for a, b in zip(ours.samples_per_s, row.samples_per_s, strict=True))
        best = max(ours.samples_per_worked_s) / max(row.samples_per_worked_s)
        share = rate * flops / ceiling
        printed.append({"engine": row.engine, "samples_per_s": round(rate, 4), "ours_is": round(ratio, 3),
                        "ours_at_best_is": round(best, 3), "peak_mb": round(row.peak_mb), "mfu": round(share, 4),
                        "steps": row.steps})
        print(f"{row.engine:20} {rate:10.3f} {args.batch / rate:8.2f} {ratio:7.2f}x {row.peak_mb:8.0f} {share:10.1%}")
    if args.json:
        print(json.dumps({"device": device_name(), "family": args.family, "size": args.size, "pixels": args.pixels,
                          "batch": args.batch, "dtype": args.dtype, "flops": flops, "matmul": ceiling,
                          "rows": printed}))
    peer = next((row for row in printed if row["engine"] == "diffusers-style"), None)
    if peer is not None and float(peer["ours_at_best_is"]) < 1:
        raise SystemExit("Atelier is slower than the diffusers-style loop.")


if __name__ == "__main__":
    main()
