"""Train the demo's small CLIP on pictures of its world, plain and in pencil, and write the asset that ships.

    python tools/train_demo_clip.py --work DIR

The state is kept in DIR and resumed; equal seed, device and number of steps give equal weights.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from demo_run import Run, step_generator  # noqa: E402
from PIL import Image  # noqa: E402
from transformers import CLIPConfig, CLIPModel  # noqa: E402

from atelier.demo import asset, clip, drawing  # noqa: E402
from atelier.models.tokenizer import load_tokenizer  # noqa: E402
from atelier.progress import Progress  # noqa: E402
from atelier.score.preprocess import MEAN, STD  # noqa: E402

BATCH = 128
PICTURES = 6000
SHORT = 24
"""Tokens kept of a caption, all of them: the text tower looks back only, so what follows the end does not count."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the state and the log")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--fp32", action="store_true", help="no bf16: slower, for processors without it")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    run = Run(args.work, args.seed, args.device, bf16=not args.fp32)
    model = train(run, args.steps, args.lr)
    weights = {name: tensor.numpy() for name, tensor in model.cpu().state_dict().items()
               if name != clip.TOKENS and not name.endswith("position_ids")}
    asset.write(clip.ASSET, weights)
    clip.DIGEST.write_text(clip.write(args.work / "clip-expanded.safetensors", Progress()) + "\n", encoding="ascii")
    run.log_now("clip-export", args.steps, megabytes=clip.ASSET.stat().st_size / 1e6)


def train(run: Run, steps: int, lr: float) -> CLIPModel:
    """Train with the symmetric contrastive loss of Radford et al. 2021; equal captions in a batch are not negatives."""
    torch.manual_seed(run.seed)
    model: Any = CLIPModel(CLIPConfig(**clip.CONFIG)).to(run.device)
    table = model.text_model.embeddings.token_embedding.weight
    table.data = torch.from_numpy(clip.token_embeddings()).float().to(run.device)
    table.requires_grad_(False)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr, betas=(0.9, 0.98), weight_decay=0.05)
    first = run.resume("clip", model, optimizer)
    pictures, captions, words = data(drawing.random_specs(PICTURES, run.seed + 11))
    held = data(drawing.random_specs(400, run.seed + 12, held_out=True), phrasings=1)
    for step in range(first, steps):
        rng = step_generator(run.seed, step)
        chosen = torch.randint(len(pictures), (BATCH,), generator=rng)
        said = captions[chosen, torch.randint(drawing.PHRASINGS, (BATCH,), generator=rng)]
        x = prepared(pictures[chosen])
        # Sampled pictures are less clean than drawn ones.
        x = x + 0.15 * torch.rand(BATCH, 1, 1, 1, generator=rng) * torch.randn(x.shape, generator=rng)
        for group in optimizer.param_groups:
            group["lr"] = lr * min((step + 1) / 50, max(steps - step, 1) / (0.5 * steps), 1.0)
        with run.autocast():
            image = model.get_image_features(x.to(run.device))
            text = model.get_text_features(words[said].to(run.device))
        scores = cosines(image, text) * model.logit_scale.exp()
        same = (said[:, None] == said[None]) & ~torch.eye(BATCH, dtype=torch.bool)
        scores = scores.masked_fill(same.to(run.device), float("-inf"))
        target = torch.arange(BATCH, device=run.device)
        loss = (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        model.logit_scale.data.clamp_(max=4.6052)
        run.log("clip", step, steps, loss=loss.item())
        if run.due("clip", step, steps):
            run.save("clip", step + 1, model, optimizer)
            run.log_now("clip", step, **{f"first_of_{n}": ranked_first(run, model, held, n) for n in (8, 100)})
    return model


@torch.no_grad()
def ranked_first(run: Run, model: Any, held: tuple[torch.Tensor, torch.Tensor, torch.Tensor], of: int) -> float:
    """Share of held-out plain pictures whose own caption scores best in its group of `of`."""
    pictures, captions, words = (part.to(run.device) for part in held)
    plain = torch.arange(len(pictures)) % 3 != 2
    image = model.get_image_features(prepared(pictures[plain]))
    scores = cosines(image, model.get_text_features(words[captions[plain, 0]]))
    hits = [scores[i:i + of, i:i + of].argmax(1) == torch.arange(min(of, len(scores) - i), device=run.device)
            for i in range(0, len(scores), of)]
    return float(torch.cat(hits).float().mean())


def cosines(image: Any, text: Any) -> torch.Tensor:
    """Cosine of every picture with every caption; transformers 5 wraps features in an output object."""
    image, text = (getattr(part, "pooler_output", part).float() for part in (image, text))
    return F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T


def data(specs: list[drawing.Spec], phrasings: int = drawing.PHRASINGS
         ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw `specs`, every third in pencil.

    Returns:
        Pictures uint8 `[N,64,64,3]`, numbers of their captions `[N,phrasings]`, and the captions' tokens `[M,SHORT]`.
    """
    index: dict[str, int] = {}
    pictures, captions = [], []
    for i, spec in enumerate(specs):
        pencil = i % 3 == 2
        picture = drawing.draw(spec, "pencil" if pencil else "plain")
        pictures.append(np.asarray(picture.resize((clip.SIDE, clip.SIDE), Image.Resampling.BICUBIC)))
        say = drawing.pencil_caption if pencil else drawing.caption
        captions.append([index.setdefault(say(spec, p), len(index)) for p in range(phrasings)])
    tokens: Any = load_tokenizer()(list(index), padding="max_length", return_tensors="pt")
    assert (tokens.input_ids[:, SHORT - 1:] == clip.CONFIG["text_config"]["pad_token_id"]).all()
    return torch.from_numpy(np.stack(pictures)), torch.tensor(captions), tokens.input_ids[:, :SHORT]


def prepared(pictures: torch.Tensor) -> torch.Tensor:
    """Normalise uint8 `[B,64,64,3]` to what the vision tower takes, `[B,3,64,64]`."""
    mean, std = (torch.tensor(v, device=pictures.device)[:, None, None] for v in (MEAN, STD))
    return (pictures.permute(0, 3, 1, 2).float() / 255 - mean) / std


if __name__ == "__main__":
    main()
