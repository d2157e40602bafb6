"""`atelier generate`: generate pictures with a model and an optional LoRA."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .output import add_device, add_json, show
from .progress import ShellProgress


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("generate", help="draw pictures with a model")
    parser.add_argument("model", type=Path, metavar="MODEL", help="checkpoint or diffusers folder")
    parser.add_argument("--prompt", action="append", required=True, help="may be given several times")
    parser.add_argument("--negative", default="")
    parser.add_argument("--seed", type=int, default=0, help="of the first picture; each further one takes the next")
    parser.add_argument("--count", type=int, default=1, help="pictures of each prompt (default: 1)")
    parser.add_argument("--steps", type=int, help="left out: what suits the model")
    parser.add_argument("--cfg", type=float, help="left out: what suits the model")
    parser.add_argument("--sampler", help="left out: what suits the model")
    parser.add_argument("--width", type=int, help="left out: what suits the model")
    parser.add_argument("--height", type=int, help="left out: what suits the model")
    parser.add_argument("--lora", type=Path, help="a LoRA file")
    parser.add_argument("--strength", type=float, default=1.0, help="of the LoRA (default: 1)")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto")
    parser.add_argument("--prediction-type", default="auto", help="auto, epsilon or v_prediction")
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="folder (default: pictures)")
    add_device(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Generate every prompt with its seeds and save each picture under its prompt."""
    from ..errors import AtelierError
    from ..generate import GenerateRequest, generate
    from ..grid.saving import free_stem, safe_name
    from ..models.inspect import inspect
    from ..models.open import open_model
    from ..sampling import SamplingOptions, recommended
    from ..train.devices import pick_device, pick_dtype

    if arguments.count < 1:
        raise AtelierError(f"--count is {arguments.count}.", "Choose at least 1.")
    device = pick_device(arguments.device)
    base = recommended(inspect(arguments.model).advice)
    chosen = {name: getattr(arguments, name) for name in ("width", "height", "steps", "cfg", "sampler")
              if getattr(arguments, name) is not None}
    options = SamplingOptions(**{**vars(base), **chosen})
    prompts = tuple(prompt for prompt in arguments.prompt for _ in range(arguments.count))
    seeds = tuple(arguments.seed + i for _ in arguments.prompt for i in range(arguments.count))
    request = GenerateRequest(
        prompts=prompts, seeds=seeds, negative=arguments.negative, options=options, lora=arguments.lora,
        strength=arguments.strength)
    progress = ShellProgress()
    model = open_model(arguments.model, prediction_type=arguments.prediction_type, progress=progress)
    dtype = pick_dtype(arguments.precision, device, sampling=True)
    pictures = generate(model, request, device=device, dtype=dtype, progress=progress)
    progress.close()
    saved = []
    for picture in pictures:
        stem = free_stem(arguments.out, safe_name(f"{picture.prompt[:80]} {picture.seed}"))
        saved.append(picture.save(arguments.out / f"{stem}.png"))
    show(arguments, "\n".join(map(str, saved)),
         [{"file": path, "prompt": picture.prompt, "seed": picture.seed, **picture.settings}
          for path, picture in zip(saved, pictures, strict=True)])
