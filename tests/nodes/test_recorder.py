"""Looking on changes nothing, whatever the sampler: all that the host has, with a UNet small enough to try them all."""

from __future__ import annotations

import itertools
from types import ModuleType
from typing import Any

import pytest
import torch
from kit.pack import pack_module

pytestmark = pytest.mark.host

UNET = {"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1],
        "channel_mult": [1], "transformer_depth": [1], "transformer_depth_output": [1, 1],
        "transformer_depth_middle": -1, "context_dim": 32, "num_heads": 4, "use_spatial_transformer": True,
        "legacy": False, "use_linear_in_transformer": False, "adm_in_channels": None, "use_temporal_attention": False,
        "dtype": torch.float32}


@pytest.fixture(scope="module")
def guider(pack: ModuleType) -> Any:
    """Guidance over a Stable Diffusion 1.x model with a very small random UNet."""
    import comfy.model_patcher
    import comfy.samplers
    import comfy.supported_models

    config: Any = comfy.supported_models.SD15(UNET)
    model = config.get_model({})
    numbers = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=numbers) * 0.1
    text = [[[torch.randn(1, 7, 32, generator=numbers), {}]] for _ in range(2)]
    cpu = torch.device("cpu")
    made = comfy.samplers.CFGGuider(comfy.model_patcher.ModelPatcher(model.eval(), cpu, cpu))
    made.set_conds(*text)
    made.set_cfg(4.0)
    return made


def test_every_sampler_of_the_host_gives_its_own_picture(pack: ModuleType, guider: Any) -> None:
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import Noise_RandomNoise, SamplerCustomAdvanced

    recorder: Any = pack_module(pack, "nodes.recorder")
    sigmas = comfy.samplers.calculate_sigmas(guider.model_patcher.get_model_object("model_sampling"), "normal", 4)
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    assert len(comfy.samplers.SAMPLER_NAMES) > 30
    pictures = {}
    for name in comfy.samplers.SAMPLER_NAMES:
        sampler = comfy.samplers.sampler_object(name)
        theirs = SamplerCustomAdvanced.execute(Noise_RandomNoise(3), guider, sampler, sigmas, latent).result
        ours, denoised, steps = recorder.sample(Noise_RandomNoise(3), guider, sampler, sigmas, latent, range(100))
        assert torch.equal(ours["samples"], theirs[0]["samples"]), name
        assert torch.equal(denoised["samples"], theirs[1]["samples"]), name
        assert [step.index for step in steps] == sorted({step.index for step in steps}), name
        assert steps and all(step.guidance is not None and step.guidance.abs().max() > 0 for step in steps), name
        assert steps[0].sigma == pytest.approx(float(sigmas[0])), name
        assert all(before.sigma >= after.sigma for before, after in itertools.pairwise(steps)), name
        pictures[name] = ours["samples"]
    assert not torch.equal(pictures["euler"], pictures["heun"])
    assert all(torch.isfinite(latent).all() for latent in pictures.values())
