"""The wide networks compute the same as the narrow ones, as run by diffusers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from atelier.demo import architecture, asset, widen
from atelier.demo.seeded import uniform
from atelier.models.keymap import KeyTable
from atelier.models.unet_keys import UNetLayout, unet_table
from atelier.models.vae_keys import vae_table


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """Randomise every weight: new norms hold ones and zeros, which hide mistakes."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn_like(weight)
    return model.eval().requires_grad_(False)


def fill(wide: torch.nn.Module, narrow: torch.nn.Module, table: KeyTable, widened) -> torch.nn.Module:
    """Load `wide` with the widened weights of `narrow`, through the LDM names that the rules use."""
    state = {}
    for name, weight in narrow.state_dict().items():
        match = table.match_diffusers(name)
        array = weight.numpy().reshape(match.original_shape(tuple(weight.shape)))
        state[name] = torch.from_numpy(widened(match.original, array)).reshape(wide.state_dict()[name].shape)
    wide.load_state_dict(state)
    return wide.eval().requires_grad_(False)


def test_a_doubled_unet_predicts_the_same() -> None:
    narrow = shaken(UNet2DConditionModel(**architecture.unet(160)))
    names = narrow.state_dict().keys()
    wide = fill(UNet2DConditionModel(**architecture.unet(320)), narrow,
                unet_table(UNetLayout.from_diffusers(names)), widen.double_unet)
    x, text, t = torch.randn(2, 4, 16, 16), torch.randn(2, 77, 768), torch.tensor([20, 900])
    torch.testing.assert_close(wide(x, t, text).sample, narrow(x, t, text).sample, atol=2e-4, rtol=1e-4)


def test_a_padded_vae_encodes_and_decodes_the_same() -> None:
    narrow = shaken(AutoencoderKL(**architecture.vae(16)))
    wide = fill(AutoencoderKL(**architecture.vae(128)), narrow, vae_table(narrow.state_dict().keys()), widen.pad_vae)
    x, z = torch.randn(1, 3, 32, 32), torch.randn(1, 4, 4, 4)
    torch.testing.assert_close(wide.encode(x).latent_dist.parameters, narrow.encode(x).latent_dist.parameters,
                               atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(wide.decode(z).sample, narrow.decode(z).sample, atol=2e-4, rtol=1e-4)


def test_one_byte_a_number_errs_by_half_a_step_at_most() -> None:
    weight = np.random.default_rng(0).normal(size=(6, 5, 3, 3)).astype(np.float32)
    weight[2] = 0
    stored, scale = asset.quantise(weight)
    error = np.abs(stored * scale.reshape(-1, 1, 1, 1) - weight).reshape(6, -1).max(axis=1)
    assert stored.dtype == np.int8
    assert (error <= 0.5001 * scale).all()
    assert not stored[2].any()


@pytest.mark.parametrize(("name", "shape"), [("a", (1000, 1001)), ("b", (7,))])
def test_seeded_numbers_are_keyed_by_name_and_have_the_deviation_asked_for(name: str, shape: tuple[int, ...]) -> None:
    numbers = uniform(name, shape, 0.5)
    assert numbers.shape == shape and numbers.dtype == np.float16
    assert np.array_equal(numbers, uniform(name, shape, 0.5))
    assert not np.array_equal(numbers, uniform(name + "'", shape, 0.5))
    assert np.abs(numbers).max() <= np.float16(0.5 * 3**0.5)
    if numbers.size > 1000:
        assert abs(numbers.astype(np.float64).std() - 0.5) < 0.002 and abs(numbers.astype(np.float64).mean()) < 0.002
