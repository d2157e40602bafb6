"""Train the demo's small Stable Diffusion model, on a CPU (slowly) or one GPU, and write the asset that ships.

    python tools/train_demo_model.py vae    --work DIR     autoencoder
    python tools/train_demo_model.py unet   --work DIR     text states and latents are cached first
    python tools/train_demo_model.py export --work DIR     writes atelier/demo/model.safetensors

Each stage keeps its state in DIR and goes on from there when started again; equal seed, device and step counts give
equal weights. `docs/demo-model.md` tells which counts the shipped model was made with.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("vae", "unet", "export"))
    parser.add_argument("--work", type=Path, required=True, help="folder for caches, states, samples and the log")
    parser.add_argument("--steps", type=int, help="default: 2200 for vae, 5000 for unet")
    parser.add_argument("--lr", type=float, help="default: 2e-3 for vae, 1e-3 for unet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--workers", type=int, default=1, help="unet only: processes that share each batch")
    parser.add_argument("--rank", type=int, default=0, help="which of the workers to be, 0 first; start each yourself")
    parser.add_argument("--centred", action="store_true", help="unet only: show centred shapes only")
    parser.add_argument("--fp32", action="store_true", help="no bf16: slower, for processors without it")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)

    import demo_export
    import demo_unet
    import demo_vae
    from demo_run import Run

    from atelier.demo.drawing import LEARNT_POSITIONS, POSITIONS
    run = Run(args.work, args.seed, args.device, bf16=not args.fp32, workers=args.workers, rank=args.rank)
    if args.stage == "vae":
        demo_vae.train(run, args.steps or 2200, args.lr or 2e-3)
    elif args.stage == "unet":
        positions = LEARNT_POSITIONS if args.centred else tuple(POSITIONS)
        demo_unet.train(run, args.steps or 5000, args.lr or 1e-3, positions)
    else:
        demo_export.export(run)


if __name__ == "__main__":
    main()
