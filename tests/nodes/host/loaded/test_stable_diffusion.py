"""Stable Diffusion through the host's network and through diffusers': the same losses, gradients and LoRA files."""

from __future__ import annotations

import gc
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from kit.checkpoints import write_sd1, write_sdxl
from kit.pack import pack_module

pytestmark = pytest.mark.host

WRITERS = {"sd1": write_sd1, "sdxl": write_sdxl}
CPU = torch.device("cpu")


@pytest.fixture(params=WRITERS)
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"{request.param}.safetensors"
    WRITERS[request.param](path, shape="small")
    return path


class Side:
    """One implementation, ready to train."""

    def __init__(self, pack: ModuleType, denoiser: Any, request: Any) -> None:
        self.denoiser = denoiser
        self.objective = denoiser.objective(request.loss, request.levels)
        self.adapters = pack_module(pack, "atelier.train.adapters").Adapters(
            denoiser.components, request.lora, 0, layers=denoiser.adapted_layers(request.lora), dtype=denoiser.dtype)

    def fill(self, names: Any) -> None:
        """Give the adapters values that depend on the layer's one name alone."""
        with torch.no_grad():
            for name, master in zip(self.adapters.names, self.adapters.masters, strict=True):
                stem = name.partition(".lora_")[0]
                seed = sum(f"{names.canonical(stem)}{'A' if '.lora_A.' in name else 'B'}".encode())
                stream = torch.Generator().manual_seed(seed)
                master.copy_(torch.randn(master.shape, generator=stream) * 0.05)
            self.adapters.sync_to_model()

    def loss(self, clean: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor, rows: Any) -> torch.Tensor:
        noisy = self.objective.noisy(clean, noise, levels)
        prediction = self.denoiser.predict(self.denoiser.network, noisy, levels, rows, ())
        return self.objective.loss(prediction, self.objective.target(clean, noise, levels), levels,
                                   weights=torch.ones(len(clean)))

    def drift(self, pack: ModuleType, noisy: torch.Tensor, levels: torch.Tensor, rows: Any) -> float:
        """From what the network predicts without adapters."""
        given = pack_module(pack, "atelier.train.batch_loader").ClassBatch(conditions=rows, weights=torch.ones(2))
        noisy = self.objective.noisy(noisy, torch.zeros_like(noisy), levels)
        return pack_module(pack, "atelier.train.preservation").drift(
            self.denoiser, self.denoiser.network, self.objective, self.adapters, given, noisy, levels).item()


def test_both_implementations_train_alike(pack: ModuleType, checkpoint: Path) -> None:
    import comfy.sd

    def module(name: str) -> Any:
        return pack_module(pack, name)

    request = module("atelier.train.request.request").TrainRequest(steps=1).override(
        {"targets": "attention_ff_conv", "rank": 4, "alpha": 4, "min_snr_gamma": 5.0})
    model = module("atelier.models.open").open_model(checkpoint)
    data = SimpleNamespace(items=[], moments=lambda index, flip: (torch.zeros(4, 8, 8),) * 2)
    with torch.inference_mode():
        patcher = comfy.sd.load_checkpoint_guess_config(str(checkpoint), output_vae=False, output_clip=False)[0]
    host = module("nodes.host.loaded.model").HostModel(
        model=patcher, clip=None, vae=None, files=(checkpoint,), weights="w", text="t", pixels="p")
    loaded = host.load(data, request, device=CPU, dtype=torch.float32)
    assert not any("min_snr_gamma" in note for note in loaded.notes), "it is used"
    theirs = loaded.denoiser
    del patcher, host, loaded  # a third of the memory
    gc.collect()
    ours = module("atelier.train.diffusers_trainable").DiffusersTrainable(model).load(
        data, request, device=CPU, dtype=torch.float32).denoiser
    sides = [Side(pack, denoiser, request) for denoiser in (ours, theirs)]
    names = module("atelier.lora.names")
    assert {names.canonical(f"{name}") for name in sides[1].adapters.weights()} == set(sides[0].adapters.weights())
    for side in sides:
        side.fill(names)

    def normal(*shape: int, seed: int) -> torch.Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    width = ours.unet.config["cross_attention_dim"]
    ids = torch.tensor([96.0, 80.0, 0.0, 16.0, 64.0, 64.0])
    rows = [{"embeds": normal(77, width, seed=seed), "time_ids": ids} for seed in (1, 2)]
    if model.family == "sdxl":
        for seed, row in enumerate(rows):
            row["pooled"] = normal(1280, seed=10 + seed)
    host_rows = [{"text.cond": row["embeds"][None], "time_ids": row["time_ids"],
                  **({"text.pooled_output": row["pooled"][None]} if "pooled" in row else {})} for row in rows]
    timesteps = torch.tensor([40, 777])
    sigmas = theirs.sampling.sigmas[timesteps]
    clean, noise = normal(2, 4, 8, 8, seed=3), normal(2, 4, 8, 8, seed=4)
    assert sides[1].objective.fixed_levels(5) == [
        theirs.sampling.sigmas[timestep].item() for timestep in sides[0].objective.fixed_levels(5)]
    losses, gradients, drifts = [], [], []
    for side, levels, given in zip(sides, (timesteps, sigmas), (rows, host_rows), strict=True):
        loss = side.loss(clean, noise, levels, given)
        loss.backward()
        losses.append(loss.item())
        gradients.append({f"{names.canonical(name.partition('.lora_')[0])}{name.partition('.lora_')[2]}": master.grad
                          for name, master in zip(side.adapters.names, side.adapters.masters, strict=True)})
        del loss  # and all that it was computed from, before more is
        drifts.append(side.drift(pack, clean, levels, given))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert drifts[1] == pytest.approx(drifts[0], rel=1e-3) and drifts[0] > 0
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], rtol=1e-3, atol=1e-3 * gradient.abs().max().item()), name
    formats = module("atelier.lora.formats")
    files = [formats.kohya_state(side.adapters.weights()) for side in sides]
    assert files[0].keys() == files[1].keys()
    assert all(torch.equal(tensor, files[1][key]) for key, tensor in files[0].items())
