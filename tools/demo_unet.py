"""Train the demo model's narrow UNet (stage `unet` of train_demo_model.py)."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import demo_vae
import numpy as np
import torch
from demo_run import Run, shown, step_generator
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor

from atelier.demo import architecture
from atelier.demo.drawing import PHRASINGS, POSITIONS, caption, draw_array, held_out_prompts, random_specs
from atelier.demo.seeded import text_encoder_shapes, text_encoder_tensor
from atelier.models.tokenizer import load_tokenizer

CHANNELS = 160
BATCH = 16
PICTURES = 10000
EMPTY = 0.1
"""Share of captions dropped, for classifier-free guidance."""
MAX_WEIGHT = 80.0
NOISE_OFFSET = 0.15
"""Noise gets a mean of its own in each channel, this large. On 16 × 16 latents plain noise has a mean of about 0.06, as
much as a background leaves of itself at the noisiest step, and the model would believe it instead of the words."""
EMA = 0.005
"""Share of the current weights in each step's running average, which is what ships."""


def train(run: Run, steps: int, lr: float, positions: Collection[str] = tuple(POSITIONS)) -> None:
    """Train for `steps` steps from where `run` stands, with the rate falling to 0 over the last fifth.

    Only pictures with their shape at one of `positions` are shown: fewer places are learnt in less time.
    """
    cached = cache(run, positions)
    torch.manual_seed(run.seed)
    unet = prepared(UNet2DConditionModel(**architecture.unet(CHANNELS))).to(run.device)
    ema = prepared(UNet2DConditionModel(**architecture.unet(CHANNELS))).to(run.device).requires_grad_(False)
    ema.load_state_dict(unet.state_dict())
    optimizer = torch.optim.AdamW(unet.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    first = run.resume("unet", unet, optimizer, ema)
    signal = DDIMScheduler(**architecture.SCHEDULER).alphas_cumprod.to(run.device)
    latents, table, text = cached["latents"], cached["table"], cached["text"]
    vae = demo_vae.normalised(run)
    for step in range(first, steps):
        rng = step_generator(run.seed, step)
        chosen = torch.randint(len(latents), (BATCH,), generator=rng)
        phrasing = torch.randint(PHRASINGS, (BATCH,), generator=rng)
        words = table[chosen, phrasing]
        words[torch.rand(BATCH, generator=rng) < EMPTY] = 0
        # Spread over the batch, so that every step sees all noise levels, and more often the noisy half: there shapes
        # and colours are decided, while next to a clean picture hardly anything can be learnt.
        t = (1000 * ((torch.arange(BATCH) + torch.rand(BATCH, generator=rng)) / BATCH) ** 0.7).long()
        noise = torch.randn(BATCH, *latents.shape[1:], generator=rng)
        noise += NOISE_OFFSET * torch.randn(BATCH, noise.shape[1], 1, 1, generator=rng)
        mine = slice(run.rank, None, run.workers)
        x, words, t, noise = (v[mine].to(run.device) for v in (latents[chosen].float(), text[words].float(), t, noise))
        for group in optimizer.param_groups:
            group["lr"] = lr * min((step + 1) / 100, 1.0, max(steps - step, 1) / (0.2 * steps))
        loss = weighted_loss(run, unet, signal, x, words, t, noise).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        run.average(unet)
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        torch._foreach_lerp_(list(ema.parameters()), list(unet.parameters()), EMA)
        run.log("unet", step, steps, loss=loss.item())
        if run.due("unet", step, steps):
            run.save("unet", step + 1, unet, optimizer, ema)
        if run.rank == 0 and ((step + 1) % 1000 == 0 or step + 1 == steps):
            run.log_now("unet", step, held_out_loss=held_out_loss(run, ema, signal, cached))
            pictures = sample(run, ema, vae, cached["held_text"][:16], cached["text"][:1])
            shown(pictures, run.folder / f"unet-{step + 1}.png", 8)


def weighted_loss(run: Run, unet: UNet2DConditionModel, signal: torch.Tensor, x: torch.Tensor, words: torch.Tensor,
                  t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Squared error of the noise, per picture, times (SNR + 1) / SNR, at most `MAX_WEIGHT`.

    The plain error hardly counts very noisy steps, where colours are chosen; this weight makes it v-prediction's.
    """
    a = signal[t][:, None, None, None]
    with run.autocast():
        predicted = unet(a.sqrt() * x + (1 - a).sqrt() * noise, t, words, return_dict=False)[0].float()
    return (predicted - noise).square().mean((1, 2, 3)) * (1 / signal[t]).clamp(max=MAX_WEIGHT)


@torch.no_grad()
def held_out_loss(run: Run, unet: UNet2DConditionModel, signal: torch.Tensor, cached: dict[str, torch.Tensor]) -> float:
    """Loss on pictures of held-out triples with fixed noise."""
    rng = torch.Generator().manual_seed(1)
    x, words = cached["held_latents"].float().to(run.device), cached["held_text"].float().to(run.device)
    t = (torch.arange(len(x)) + 0.5) * 1000 / len(x)
    noise = torch.randn(x.shape, generator=rng).to(run.device)
    return float(weighted_loss(run, unet, signal, x, words, t.long().to(run.device), noise).mean())


@torch.no_grad()
def sample(run: Run, unet: UNet2DConditionModel, vae: AutoencoderKL, text: torch.Tensor, empty: torch.Tensor,
           steps: int = 20, guidance: float = 4.0) -> torch.Tensor:
    """Draw a picture for each text `[N,77,768]` by DDIM from fixed noise; `[N,3,128,128]` in -1..1."""
    # "Trailing" starts at the noisiest step; any other start would turn the noise's mean into a background.
    scheduler = DDIMScheduler(**architecture.SCHEDULER, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    x = torch.randn(len(text), 4, 16, 16, generator=torch.Generator().manual_seed(5)).to(run.device)
    words = torch.cat([empty.expand(len(text), -1, -1), text]).float().to(run.device)
    for t in scheduler.timesteps:
        with run.autocast():
            without, with_text = unet(torch.cat([x, x]), t, words, return_dict=False)[0].float().chunk(2)
        x = scheduler.step(without + guidance * (with_text - without), t, x).prev_sample
    return vae.decode(x / architecture.LATENT_SCALE).sample.clamp(-1, 1).cpu()


def prepared(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Use plain attention: on a CPU the fused kernel's backward takes 40 % of a step at these sizes."""
    unet.set_attn_processor(AttnProcessor())
    return unet


@torch.no_grad()
def cache(run: Run, positions: Collection[str]) -> dict[str, torch.Tensor]:
    """Encode captions, and `PICTURES` pictures with their shape at one of `positions`, once.

    Gives `text` `[captions,77,768]` (the first is the empty one), `table` `[pictures, PHRASINGS]` of indices into it,
    `latents` `[pictures,4,16,16]`, and `held_text` and `held_latents` for 128 held-out specs; all fp16 but the table.
    """
    path = run.folder / "cache.pt"
    if path.exists():
        return torch.load(path, weights_only=True)
    drawn = random_specs(PICTURES * len(POSITIONS), run.seed + 1)
    specs, held = [spec for spec in drawn if spec.position in positions][:PICTURES], held_out_prompts(128)
    index: dict[str, int] = {"": 0}
    # The second phrasing for a few only: it means the same as the first, and encoding captions is slow.
    table = [[index.setdefault(caption(spec, p if p != 1 or i % 20 == 0 else 0), len(index)) for p in range(PHRASINGS)]
             for i, spec in enumerate(specs)]
    run.log_now("cache", 0, captions=len(index))
    encode = text_encoder(run)
    text, held_text = encode(list(index)), encode([words for _, words in held])
    run.log_now("cache", 1, captions=len(index))
    vae = demo_vae.normalised(run)

    def latents(specs: list) -> torch.Tensor:
        parts = []
        for i in range(0, len(specs), 32):
            x = demo_vae.to_model(torch.from_numpy(np.stack([draw_array(s) for s in specs[i:i + 32]]))).to(run.device)
            with run.autocast():
                parts.append((vae.encode(x).latent_dist.mean.float() * architecture.LATENT_SCALE).half().cpu())
        return torch.cat(parts)

    result = {"text": text, "table": torch.tensor(table), "held_text": held_text, "latents": latents(specs),
              "held_latents": latents([spec for spec, _ in held])}
    run.log_now("cache", 2, pictures=len(specs), mean=result["latents"].float().mean().item(),
                deviation=result["latents"].float().std().item())
    torch.save(result, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)
    return result


def text_encoder(run: Run):
    """Build the seeded text encoder; return a function from captions to fp16 states `[N,77,768]`."""
    from transformers import CLIPTextConfig, CLIPTextModel
    model = CLIPTextModel(CLIPTextConfig(**architecture.TEXT)).eval()
    weights = {name: torch.from_numpy(text_encoder_tensor(name, shape)).float()
               for name, shape in text_encoder_shapes().items()}
    own = set(model.state_dict())
    model.load_state_dict({k if k in own else k.removeprefix("text_model."): v for k, v in weights.items()})
    model.to(run.device)
    tokenizer = load_tokenizer()

    def encode(captions: list[str]) -> torch.Tensor:
        parts = []
        for i in range(0, len(captions), 64):
            with run.autocast():
                ids = tokenizer(captions[i:i + 64], padding="max_length", return_tensors="pt").input_ids
                parts.append(model(ids.to(run.device)).last_hidden_state.half().cpu())
        return torch.cat(parts)
    return encode


def load(folder: Path) -> UNet2DConditionModel:
    """Load the averaged weights of a run's narrow UNet."""
    unet = UNet2DConditionModel(**architecture.unet(CHANNELS))
    unet.load_state_dict(torch.load(folder / "unet.pt", weights_only=True)["ema"])
    return unet.eval().requires_grad_(False)
