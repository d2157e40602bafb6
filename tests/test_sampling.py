"""The denoising loop: where its noise comes from."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from kit.device import chosen_device
from kit.training import WIDTH, scheduler_config, tiny_unet

from atelier.errors import AtelierError
from atelier.models.text import TextBatch
from atelier.progress import Interrupted, Progress
from atelier.sampling import MAX_SIDE, MAX_STEPS, SAMPLERS, SamplingOptions, sample

pytestmark = pytest.mark.gpu

STEPS = 3


def draw(sampler: str, seeds: list[int], global_seed: int = 0) -> torch.Tensor:
    texts = TextBatch(torch.zeros(len(seeds), 77, WIDTH), None)
    torch.manual_seed(global_seed)
    unet, options = tiny_unet().to(chosen_device()), SamplingOptions(64, 64, STEPS, 1.0, sampler)
    return sample(unet, scheduler_config(), texts, texts, seeds, options, Progress()).cpu()


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral"])
def test_noise_depends_on_each_pictures_seed_alone(sampler: str) -> None:
    both, swapped = draw(sampler, [1, 2], 0), draw(sampler, [2, 1], 99)
    torch.testing.assert_close(both, swapped.flip(0), rtol=0, atol=1e-5)
    torch.manual_seed(5)
    untouched = torch.rand(3)
    draw(sampler, [1], 5)
    assert torch.equal(torch.rand(3), untouched), "the global stream was read"


def test_ancestral_noise_goes_on_in_the_stream_of_the_seed() -> None:
    """By hand: first the latents, then the noise of each step, all from one generator."""
    scheduler: Any = diffusers.EulerAncestralDiscreteScheduler.from_config(scheduler_config())
    scheduler.set_timesteps(STEPS)
    stream = torch.Generator().manual_seed(7)
    latents = torch.randn(1, 4, 8, 8, generator=stream) * scheduler.init_noise_sigma
    unet, text = tiny_unet(), torch.zeros(1, 77, WIDTH)
    with torch.no_grad():
        for t in scheduler.timesteps:
            prediction = unet(scheduler.scale_model_input(latents, t), t, text).sample
            latents = scheduler.step(prediction, t, latents, generator=stream).prev_sample
    torch.testing.assert_close(draw("euler_ancestral", [7]), latents, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_step_is_told(sampler: str) -> None:
    texts, told = TextBatch(torch.zeros(1, 77, WIDTH), None), []
    sample(tiny_unet(), scheduler_config(), texts, texts, [1], SamplingOptions(64, 64, STEPS, 1.0, sampler), Progress(),
           told.append)
    assert told == [1, 2, 3]


def test_an_interrupt_ends_a_picture_within_a_step() -> None:
    class Stop(Progress):
        def check(self) -> None:
            if told:
                raise Interrupted

    texts, told = TextBatch(torch.zeros(1, 77, WIDTH), None), []
    options = SamplingOptions(64, 64, STEPS, 1.0)
    with pytest.raises(Interrupted):
        sample(tiny_unet(), scheduler_config(), texts, texts, [1], options, Stop(), told.append)
    assert told == [1]


@pytest.mark.parametrize(("given", "said"), [
    ({"width": 56}, "width is 56"), ({"height": 68}, "height is 68"), ({"width": MAX_SIDE + 8}, f"is {MAX_SIDE + 8}"),
    ({"steps": 0}, "steps is 0"), ({"steps": MAX_STEPS + 1}, f"steps is {MAX_STEPS + 1}"),
    ({"cfg": float("nan")}, "cfg is nan"), ({"cfg": float("inf")}, "cfg is inf"),
    ({"sampler": "euler_b"}, "no sampler 'euler_b'.*euler_ancestral"),
])
def test_an_option_out_of_range_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(AtelierError, match=said):
        SamplingOptions(**given)
    SamplingOptions(64, MAX_SIDE, 1, -1.0)
    SamplingOptions(MAX_SIDE, 64, MAX_STEPS, 0.0)
