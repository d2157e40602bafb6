"""The host's networks against diffusers' classes with the same weights: the same velocity, so the same target."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from kit.host_families import CONFIGS, Opened, open_small
from safetensors.torch import load_file

pytestmark = pytest.mark.host


def outputs(opened: Opened, noisy: torch.Tensor, sigma: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """What the network gives in training for "a red fox", and the conditions that it was given."""
    denoiser = opened.denoiser(opened.request())
    found: list[torch.Tensor] = []
    denoiser.network.register_forward_hook(lambda module, given, output: found.append(output))
    rows = opened.rows("a red fox")
    with torch.no_grad():
        denoiser.predict(denoiser.network, noisy, sigma, rows, ())
    return found[0], rows[0]


def diffusers_weights(names: dict[str, Any], state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The host's tensors under diffusers' names, by the host's own table; fused ones in their parts."""
    found = {}
    for name, place in names.items():
        key, part_of, *change = place if isinstance(place, tuple) else (place, None)
        if key in state:
            part = state[key] if part_of is None else state[key].narrow(*part_of)
            found[name] = change[0](part) if change else part
    return found


def load(other: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Every tensor of diffusers' model must come from the host's file."""
    missing, _ = other.load_state_dict(weights, strict=False)
    assert not missing, missing


def packed(latents: torch.Tensor) -> torch.Tensor:
    """[1, C, H, W] as patches of 2 × 2 with all channels, [1, H·W/4, 4·C], as diffusers' pipelines pack them."""
    _, channels, height, width = latents.shape
    patches = latents.reshape(1, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(1, height * width // 4, channels * 4)


def unpacked(patches: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The way back."""
    channels = patches.shape[-1] // 4
    latents = patches.reshape(1, height // 2, width // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return latents.reshape(1, channels, height, width)


def test_flux_with_its_fused_layers_is_diffusers_flux(pack: ModuleType, tmp_path: Path) -> None:
    import comfy.utils
    from diffusers import FluxTransformer2DModel

    opened = open_small(pack, "flux", tmp_path)
    config = CONFIGS["flux"][1]
    other = FluxTransformer2DModel(
        patch_size=1, in_channels=64, num_layers=config["depth"], num_single_layers=config["depth_single_blocks"],
        attention_head_dim=16, num_attention_heads=4, joint_attention_dim=config["context_in_dim"],
        pooled_projection_dim=config["vec_in_dim"], guidance_embeds=True, axes_dims_rope=tuple(config["axes_dim"]))
    load(other, diffusers_weights(comfy.utils.flux_to_diffusers(config), load_file(opened.host.files[0])))
    noisy, sigma = torch.randn(1, *opened.latents, generator=torch.Generator().manual_seed(1)), torch.tensor([0.6])
    velocity, row = outputs(opened, noisy, sigma)
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    places = torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3).float()
    text = row["text.cond"]
    with torch.no_grad():
        expected = other(hidden_states=packed(noisy), encoder_hidden_states=text,
                         pooled_projections=row["text.pooled_output"], timestep=sigma, img_ids=places,
                         txt_ids=torch.zeros(text.shape[1], 3), guidance=torch.tensor([3.5]), return_dict=False)[0]
    assert torch.allclose(velocity, unpacked(expected, 8, 8), atol=2e-4)


def test_z_image_with_its_negated_output_is_diffusers_z_image(pack: ModuleType, tmp_path: Path) -> None:
    import comfy.utils
    from diffusers import ZImageTransformer2DModel
    from diffusers.models.transformers.transformer_z_image import TimestepEmbedder

    opened = open_small(pack, "z-image", tmp_path)
    config = CONFIGS["z-image"][1]
    own = ("dim", "n_layers", "n_refiner_layers", "n_heads", "n_kv_heads", "cap_feat_dim", "axes_dims", "axes_lens",
           "rope_theta", "qk_norm")
    other = ZImageTransformer2DModel(**{name: config[name] for name in own}, t_scale=config["time_scale"])
    other.t_embedder = TimestepEmbedder(256, mid_size=256)  # as wide as the model; diffusers takes 1024 for granted
    load(other, diffusers_weights(comfy.utils.z_image_to_diffusers(config), load_file(opened.host.files[0])))
    noisy, sigma = torch.randn(1, *opened.latents, generator=torch.Generator().manual_seed(1)), torch.tensor([0.6])
    velocity, row = outputs(opened, noisy, sigma)
    with torch.no_grad():
        (expected,) = other([noisy[0].unsqueeze(1)], 1 - sigma, [row["text.cond"][0]], return_dict=False)[0]
    # ZImagePipeline takes the negative for the velocity.
    assert torch.allclose(velocity, -expected.squeeze(1).unsqueeze(0), atol=2e-4)


def test_qwen_image_is_diffusers_qwen_image(pack: ModuleType, tmp_path: Path) -> None:
    from diffusers import QwenImageTransformer2DModel

    opened = open_small(pack, "qwen-image", tmp_path)
    other = QwenImageTransformer2DModel(**CONFIGS["qwen-image"][1])
    load(other, load_file(opened.host.files[0]))
    noisy, sigma = torch.randn(1, *opened.latents, generator=torch.Generator().manual_seed(1)), torch.tensor([0.6])
    velocity, row = outputs(opened, noisy, sigma)
    *_, height, width = opened.latents
    text = row["text.cond"]
    with torch.no_grad():
        expected = other(hidden_states=packed(noisy.squeeze(2)), encoder_hidden_states=text, timestep=sigma,
                         encoder_hidden_states_mask=torch.ones(text.shape[:2], dtype=torch.long),
                         img_shapes=[[(1, height // 2, width // 2)]], return_dict=False)[0]
    assert torch.allclose(velocity, unpacked(expected, height, width).unsqueeze(2), atol=2e-4)
