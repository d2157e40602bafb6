"""Recording steps does not change the result of any of the host's samplers, tried with a very small UNet."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler
from kit.pack import pack_module

pytestmark = pytest.mark.host

UNET = {"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1],
        "channel_mult": [1], "transformer_depth": [1], "transformer_depth_output": [1, 1],
        "transformer_depth_middle": -1, "context_dim": 32, "num_heads": 4, "use_spatial_transformer": True,
        "legacy": False, "use_linear_in_transformer": False, "adm_in_channels": None, "use_temporal_attention": False,
        "dtype": torch.float32}

CFG, LATENT = 4.0, 0.18215
"""The guidance scale, and the factor from the host's latents to those of unit variance."""
OWN_STEPS = ("dpm_fast", "dpm_adaptive")
"""Samplers that choose their own noise levels."""
_SCHEDULE = EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
NOISE_LEVELS = ((1 - _SCHEDULE.alphas_cumprod) / _SCHEDULE.alphas_cumprod).sqrt().numpy()
"""The sigma of each timestep of Stable Diffusion."""


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
    text = [[[torch.randn(1, 7, 32, generator=numbers) * 30, {}]] for _ in range(2)]
    cpu = torch.device("cpu")
    guider = comfy.samplers.CFGGuider(comfy.model_patcher.ModelPatcher(model.eval(), cpu, cpu))
    guider.set_conds(*text)
    guider.set_cfg(CFG)
    return guider


@dataclass(frozen=True)
class UNetOutput:
    """Output of the UNet for a recorded step's noisy latent, in the model's scale, without the host's sampling code."""

    noisy: torch.Tensor
    """The latent with noise of standard deviation sigma."""
    conditional: torch.Tensor
    unconditional: torch.Tensor
    timestep: int

    @property
    def guided(self) -> torch.Tensor:
        return self.unconditional + CFG * (self.conditional - self.unconditional)


def by_hand(guider: Any, step: Any) -> UNetOutput:
    """Classifier-free guidance as Ho and Salimans write it, with the noise levels of diffusers."""
    timestep = int(np.abs(np.log(NOISE_LEVELS) - math.log(step.sigma)).argmin())
    model_input = step.noisy * LATENT  # of variance 1
    unet = guider.model_patcher.model.diffusion_model
    with torch.inference_mode():
        conditional, unconditional = (
            unet(model_input, torch.tensor([float(timestep)]), context=guider.original_conds[kind][0]["cross_attn"])
            for kind in ("positive", "negative"))
    return UNetOutput(model_input * math.sqrt(step.sigma ** 2 + 1), conditional, unconditional, timestep)


def assert_close(actual: torch.Tensor, expected: torch.Tensor, name: str) -> None:
    size = float(expected.abs().max())
    torch.testing.assert_close(actual, expected, atol=1e-2 * size, rtol=0, msg=lambda text: f"{name}: {text}")


@pytest.mark.parametrize(("scheduler", "timesteps"), [("normal", [999, 666, 333, 0]), ("simple", [999, 749, 499, 249]),
                                                      ("sgm_uniform", [999, 749, 500, 250])])
def test_the_steps_labels_are_those_of_scheduler_and_model(pack: ModuleType, guider: Any, scheduler: str,
                                                              timesteps: list[int]) -> None:
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import Noise_RandomNoise

    class Vae:
        def decode(self, latent: torch.Tensor) -> torch.Tensor:
            return torch.full((1, 64, 64, 3), 0.5)

    sigmas = comfy.samplers.calculate_sigmas(guider.model_patcher.get_model_object("model_sampling"), scheduler, 4)
    _, _, recorded = pack_module(pack, "nodes.host.step_recorder").sample(
        Noise_RandomNoise(3), guider, comfy.samplers.sampler_object("euler"), sigmas,
        {"samples": torch.zeros(1, 4, 8, 8)}, range(100))
    steps, _ = pack_module(pack, "nodes.denoising_steps")._decode(Vae(), recorded, ("prediction", "noisy", "guidance"))
    assert [step.number for step in steps] == [1, 2, 3, 4]
    assert [step.timestep for step in steps] == timesteps
    levels = [float(NOISE_LEVELS[time]) for time in timesteps]
    assert [step.sigma for step in steps] == pytest.approx(levels, rel=2e-3)
    assert [step.labels[1] for step in steps] == [f"σ {level:.3g} · t {time}" for level, time in
                                                  zip([float(sigma) for sigma in sigmas[:4]], timesteps, strict=True)]
    for step, latent in zip(steps, recorded, strict=True):
        output = by_hand(guider, latent)
        expected = (output.conditional - output.unconditional)[0].square().sum(dim=0).sqrt().numpy()
        # Two predictions are subtracted and divided by sigma; a small sigma amplifies their rounding errors.
        last_bit = np.spacing(latent.prediction.abs().max().item() * LATENT, dtype=np.float32)
        np.testing.assert_allclose(step.guidance, expected, rtol=0,
                                   atol=1e-4 * expected.max() + 2 * last_bit / step.sigma)


def test_recording_changes_no_samplers_result(pack: ModuleType, guider: Any) -> None:
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import Noise_RandomNoise, SamplerCustomAdvanced

    recorder: Any = pack_module(pack, "nodes.host.step_recorder")
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
        if name not in OWN_STEPS:
            assert [step.sigma for step in steps] == [float(sigma) for sigma in sigmas[:4]], name
        for step in steps:
            # However often a solver calls the model in a step, the recorded values come from one call.
            output = by_hand(guider, step)
            assert_close(step.guidance, output.conditional - output.unconditional, name)
            assert_close(step.prediction, (output.noisy - step.sigma * output.guided) / LATENT, name)
            assert step.timestep == pytest.approx(output.timestep), name
        assert all(before.sigma >= after.sigma for before, after in itertools.pairwise(steps)), name
        pictures[name] = ours["samples"]
    assert not torch.equal(pictures["euler"], pictures["heun"])
    assert all(torch.isfinite(latent).all() for latent in pictures.values())


def test_a_latent_of_several_parts_is_refused(pack: ModuleType, guider: Any) -> None:
    from comfy.nested_tensor import NestedTensor

    nested = NestedTensor([torch.zeros(1, 4, 8, 8), torch.zeros(1, 2, 8)])
    with pytest.raises(pack_module(pack, "atelier.errors").AtelierError, match=r"several parts .*a latent of pictures"):
        pack_module(pack, "nodes.host.step_recorder").sample(None, guider, None, torch.ones(3), {"samples": nested}, ())


def euler(pack: ModuleType, guider: Any, record: Any) -> list[Any]:
    """The recorded steps of four."""
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import Noise_RandomNoise

    sigmas = comfy.samplers.calculate_sigmas(guider.model_patcher.get_model_object("model_sampling"), "normal", 4)
    return pack_module(pack, "nodes.host.step_recorder").sample(
        Noise_RandomNoise(3), guider, comfy.samplers.sampler_object("euler"), sigmas,
        {"samples": torch.zeros(1, 4, 8, 8)}, record)[2]


def test_only_the_steps_asked_for_are_recorded(pack: ModuleType, guider: Any) -> None:
    every = euler(pack, guider, range(4))
    some = euler(pack, guider, (0, 2))
    assert [step.index for step in some] == [0, 2]
    assert all(torch.equal(step.prediction, every[step.index].prediction) for step in some)


def test_without_guidance_there_is_none_to_show(pack: ModuleType, guider: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """At cfg 1 the host passes zeros for what it did not compute."""
    monkeypatch.setattr(guider, "cfg", 1.0)
    assert [step.guidance for step in euler(pack, guider, range(4))] == [None] * 4


def test_a_schedule_without_steps_is_refused(pack: ModuleType, guider: Any) -> None:
    from kit.pack import node_classes

    node: Any = node_classes(pack)["AtelierDenoisingSteps"]
    for sigmas in (torch.zeros(0), torch.ones(1)):
        with pytest.raises(pack_module(pack, "atelier.errors").AtelierError, match="There are no steps"):
            node.execute(noise=None, guider=guider, sampler=None, sigmas=sigmas, latent_image=None, vae=None, every=1,
                         rows="all", cell=64, milliseconds=100, animation="")


class FlatVae:
    """Decodes each latent to a small grey picture, and counts."""

    decoded = 0

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        assert len(latent) == 1
        self.decoded += 1
        return torch.full((1, 8, 8, 3), 0.5)


@pytest.mark.parametrize(("rows", "pictures"), [("prediction", 1), ("prediction and noisy", 2), ("all", 2)])
@pytest.mark.parametrize("animation", ["", "steps of/one"])
def test_the_strip_has_the_rows_that_are_asked_for(pack: ModuleType, guider: Any, monkeypatch: pytest.MonkeyPatch,
                                                   rows: str, pictures: int, animation: str) -> None:
    import comfy.samplers
    import folder_paths
    from comfy_extras.nodes_custom_sampler import Noise_RandomNoise
    from kit.pack import node_classes

    drawn: list[Any] = []
    library = pack_module(pack, "atelier.explain.denoising")
    plain = library.draw_strip
    monkeypatch.setattr(library, "draw_strip", lambda steps, *given, **named: (drawn.extend(steps),
                                                                               plain(steps, *given, **named))[1])
    sigmas = comfy.samplers.calculate_sigmas(guider.model_patcher.get_model_object("model_sampling"), "normal", 4)
    node: Any = node_classes(pack)["AtelierDenoisingSteps"]
    vae = FlatVae()
    done = node.execute(noise=Noise_RandomNoise(3), guider=guider, sampler=comfy.samplers.sampler_object("euler"),
                        sigmas=sigmas, latent_image={"samples": torch.zeros(2, 4, 8, 8)}, vae=vae, every=1, rows=rows,
                        cell=64, milliseconds=100, animation=animation)
    assert vae.decoded == 4 * pictures + 1, "each step, and the result"
    assert [step.number for step in drawn] == [1, 2, 3, 4]
    assert all((step.guidance is not None) is (rows == "all") for step in drawn)
    assert all((step.noisy is not None) is (pictures == 2) for step in drawn)
    assert done.result[0]["samples"].shape[0] == 2 and done.result[3].shape[0] == 5
    if animation:
        saved = done.ui["images"][-1]
        assert done.ui["animated"] == (False, True) and saved["subfolder"] == "steps of"
        assert (Path(folder_paths.get_output_directory()) / "steps of" / saved["filename"]).is_file()
    else:
        assert len(done.ui["images"]) == 1
