"""Train the demo model's narrow autoencoder (stage `vae` of train_demo_model.py)."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from demo_run import Run, shown, step_generator
from diffusers import AutoencoderKL

from atelier.demo import architecture
from atelier.demo.drawing import PALETTE, SHAPES, distance, draw_array, random_specs

CHANNELS = 16
CROP = 64
BATCH = 16
LATENT_NOISE = 0.07
"""Noise on the latents in training, in parts of their deviation: the decoder learns to tolerate the UNet's errors."""
CARRIER = 3.0
"""Size of the constant channels that keep GroupNorm from dividing a plain area's colour away."""


def train(run: Run, steps: int, lr: float) -> None:
    """Train for `steps` steps from where `run` stands; L1 + MSE + half the gradients' L1."""
    vae = fresh(run.seed).to(run.device)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=1e-3)
    first = run.resume("vae", vae, optimizer)
    pictures = torch.from_numpy(dataset(run.seed))
    held = pictures[:16]
    full_size = int(0.8 * steps)  # from here whole pictures, so that edges and the middle attention fit them
    for step in range(first, steps):
        rng = step_generator(run.seed, step)
        crop = CROP if step < full_size else pictures.shape[1]
        batch = BATCH if step < full_size else BATCH // 4
        chosen = torch.randint(16, len(pictures), (batch,), generator=rng)
        top, left = (int(v) for v in torch.randint(0, pictures.shape[1] - crop + 1, (2,), generator=rng))
        x = to_model(pictures[chosen, top:top + crop, left:left + crop]).to(run.device)
        for group in optimizer.param_groups:
            group["lr"] = lr * min((step + 1) / 50, 0.5 + 0.5 * math.cos(math.pi * step / steps) + 0.01)
        with run.autocast():
            z = vae.quant_conv(vae.encoder(x))[:, :4].float()
            spread = z.std((0, 2, 3), keepdim=True).detach()
            noise = torch.randn(z.shape, generator=rng).to(run.device)
            y = vae.decoder(vae.post_quant_conv(z + LATENT_NOISE * spread * noise)).float()
        loss = F.l1_loss(y, x) + F.mse_loss(y, x) + 0.5 * sum(F.l1_loss(y.diff(dim=d), x.diff(dim=d)) for d in (2, 3))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        run.log("vae", step, steps, loss=loss.item())
        if run.due("vae", step, steps):
            run.save("vae", step + 1, vae, optimizer)
            y = reconstruct(vae, to_model(held).to(run.device))
            run.log_now("vae", step, psnr=psnr(y, to_model(held).to(run.device)))
            shown(torch.cat([to_model(held)[:8], y[:8].cpu()]), run.folder / "vae.png", 8)


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, x: torch.Tensor) -> torch.Tensor:
    """Encode and decode `[B,3,H,W]` in -1..1 without noise."""
    return vae.decoder(vae.post_quant_conv(vae.quant_conv(vae.encoder(x))[:, :4])).clamp(-1, 1)


def psnr(y: torch.Tensor, x: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in -1..1."""
    return float(10 * torch.log10(4 / F.mse_loss(y, x)))


@torch.no_grad()
def normalised(run: Run) -> AutoencoderKL:
    """Load a run's autoencoder with the latents' mean and deviation folded into its two 1×1 convolutions.

    Latents times the scaling factor then have mean 0 and deviation 1 in each channel.
    """
    vae = AutoencoderKL(**architecture.vae(CHANNELS)).eval().requires_grad_(False).to(run.device)
    vae.load_state_dict(torch.load(run.folder / "vae.pt", weights_only=True)["model"])
    x = to_model(torch.from_numpy(np.stack([draw_array(s) for s in random_specs(256, run.seed + 7)]))).to(run.device)
    z = torch.cat([vae.quant_conv(vae.encoder(part))[:, :4] for part in x.split(32)])
    mean, std = z.mean((0, 2, 3)), z.std((0, 2, 3))
    scale = 1 / (std * architecture.LATENT_SCALE)
    quant, post = vae.quant_conv, vae.post_quant_conv
    quant.weight[:4] *= scale[:, None, None, None]
    quant.bias[:4] = (quant.bias[:4] - mean) * scale
    # Log-variance of the posterior: so small that drawing from it and taking its mean are the same picture.
    quant.weight[4:], quant.bias[4:] = 0, -20
    post.bias += (post.weight[:, :, 0, 0] * mean).sum(1)
    post.weight /= scale[None, :, None, None]
    return vae


def to_model(pictures: torch.Tensor) -> torch.Tensor:
    """Turn uint8 `[B,H,W,3]` into float `[B,3,H,W]` in -1..1."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def dataset(seed: int, count: int = 5000) -> np.ndarray:
    """Draw uint8 `[count,128,128,3]`: plain, a quarter in pencil, a tenth of other content for LoRAs' sake."""
    pictures = []
    for i, spec in enumerate(random_specs(count, seed)):
        kind = i % 20
        pictures.append(anything(spec.seed) if kind < 2 else draw_array(spec, "pencil" if kind < 7 else "plain"))
    return np.stack(pictures)


def anything(seed: int, size: int = 128) -> np.ndarray:
    """Draw a colour gradient with six shapes of random colour, position and size, and some stripes."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    y, x = np.mgrid[0:size, 0:size] / size
    ramp = (x * rng.uniform(-1, 1) + y * rng.uniform(-1, 1))[..., None] % 1
    rgb = rng.uniform(0, 255, 3) * (1 - ramp) + rng.uniform(0, 255, 3) * ramp
    for i in range(6):
        cx, cy, r = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.05, 0.3)
        cover = np.clip(0.5 - size * distance(SHAPES[rng.integers(len(SHAPES))], x - cx, y - cy, r), 0, 1)
        if i == 5:
            cover *= (np.sin((x * rng.uniform(-1, 1) + y) * rng.uniform(60, 250)) > 0)
        color = rng.uniform(0, 255, 3) if i % 2 else np.array(list(PALETTE.values())[rng.integers(len(PALETTE))])
        rgb = rgb + cover[..., None] * (color - rgb)
    return np.clip(rgb, 0, 255).astype(np.uint8)


@torch.no_grad()
def fresh(seed: int) -> AutoencoderKL:
    """Start from weights that work already: a block-average encoder and a nearest-neighbour decoder.

    Three colour channels travel as pairs c and -c, since silu(x) - silu(-x) = x lets them pass the last activation
    unchanged, next to constant channels ±`CARRIER` that dominate the variance of their norm group. Residual branches
    and attention start silent. Everything else starts at random and learns what the averages miss.
    """
    torch.manual_seed(seed)
    vae = AutoencoderKL(**architecture.vae(CHANNELS))
    for name, module in vae.named_modules():
        if name.endswith(("conv2", "to_out.0")):
            torch.nn.init.zeros_(module.weight), torch.nn.init.zeros_(module.bias)
        elif name.endswith("conv_shortcut"):
            _carry(module, 0, 1, 1.0)
        elif "downsamplers" in name and name.endswith("conv"):
            _carry(module, 0, 2, 0.25)
        elif "upsamplers" in name and name.endswith("conv"):
            _carry(module, 1, 2, 1.0)
    for stem in (vae.encoder.conv_in, vae.decoder.conv_in):
        stem.weight[:12] = 0
        stem.bias[:12] = 0
        for g in range(3):
            stem.weight[4 * g, g, 1, 1], stem.weight[4 * g + 1, g, 1, 1] = 1, -1
            stem.bias[4 * g + 2], stem.bias[4 * g + 3] = CARRIER, -CARRIER
    # The norm before divides by about the root of the carriers' mean square; undo it.
    for head, per_group in ((vae.encoder.conv_out, 16), (vae.decoder.conv_out, 4)):
        head.weight *= 0.1
        head.bias.zero_()
        pairs = 3 if per_group == 16 else 1
        for g in range(3):
            head.weight[g] = 0
            gain = CARRIER * math.sqrt(2 * pairs / per_group)
            head.weight[g, 4 * g, 1, 1], head.weight[g, 4 * g + 1, 1, 1] = gain, -gain
    for conv in (vae.quant_conv, vae.post_quant_conv):
        conv.weight[:, :, 0, 0] = torch.eye(conv.weight.shape[0])
        conv.bias.zero_()
    return vae


def _carry(conv: torch.nn.Conv2d, start: int, stop: int, value: float) -> None:
    """Pass the first twelve channels on: the taps `start:stop` of each get `value`, all others none."""
    conv.weight[:12] = 0
    conv.bias[:12] = 0
    for i in range(12):
        conv.weight[i, i, start:stop, start:stop] = value

