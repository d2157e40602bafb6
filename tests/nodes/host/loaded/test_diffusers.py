"""The host's networks against diffusers' classes with the same weights: the same velocity, so the same target; and
LoRA files in diffusers' form, which do in diffusers what the adapters did here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from kit.host_families import CONFIGS, Opened, open_small
from safetensors.torch import load_file

pytestmark = pytest.mark.host


class Side:
    """The host's network in training: what it gives for "a red fox", without and with a LoRA."""

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self.noisy = torch.randn(1, *opened.latents, generator=torch.Generator().manual_seed(1))
        self.sigma = torch.tensor([0.6])
        self.request = opened.request(targets="all_linear")
        self.denoiser = opened.denoiser(self.request)
        (self.row,) = self.rows = opened.rows("a red fox")
        self.plain = self.velocity()

    def velocity(self) -> torch.Tensor:
        found: list[torch.Tensor] = []
        hook = self.denoiser.network.register_forward_hook(lambda module, given, output: found.append(output))
        with torch.no_grad():
            self.denoiser.predict(self.denoiser.network, self.noisy, self.sigma, self.rows, ())
        hook.remove()
        return found[0]

    def compare(self, other: Any, velocity: Callable[[], torch.Tensor], folder: Path) -> None:
        """Diffusers' network gives the same, and does so with the LoRA in its form."""
        assert torch.allclose(self.plain, velocity(), atol=2e-4)
        adapters = self.opened.adapters(self.denoiser, self.request)
        adapted = self.velocity()
        assert not torch.allclose(adapted, self.plain, atol=1e-2)
        path = self.opened.module("atelier.lora.file").save_lora(folder / "lora.safetensors", adapters.weights(),
                                                                 format="diffusers")
        state = load_file(path)
        assert len(state) >= 2 * len(adapters.weights())
        other.load_lora_adapter(dict(state), prefix="transformer")
        assert sum(".lora_A." in name for name, _ in other.named_parameters()) == len(state) / 2
        assert torch.allclose(adapted, velocity(), atol=1e-3)


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
    side = Side(opened)
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    places = torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3).float()
    text = side.row["text.cond"]

    @torch.no_grad()
    def velocity() -> torch.Tensor:
        return unpacked(other(
            hidden_states=packed(side.noisy), encoder_hidden_states=text, timestep=side.sigma, img_ids=places,
            pooled_projections=side.row["text.pooled_output"], txt_ids=torch.zeros(text.shape[1], 3),
            guidance=torch.tensor([3.5]), return_dict=False)[0], 8, 8)

    side.compare(other, velocity, tmp_path)


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
    side = Side(opened)

    @torch.no_grad()
    def velocity() -> torch.Tensor:
        (found,) = other([side.noisy[0].unsqueeze(1)], 1 - side.sigma, [side.row["text.cond"][0]],
                         return_dict=False)[0]
        return -found.squeeze(1).unsqueeze(0)  # ZImagePipeline takes the negative for the velocity

    side.compare(other, velocity, tmp_path)


def test_qwen_image_is_diffusers_qwen_image(pack: ModuleType, tmp_path: Path) -> None:
    from diffusers import QwenImageTransformer2DModel

    opened = open_small(pack, "qwen-image", tmp_path)
    other = QwenImageTransformer2DModel(**CONFIGS["qwen-image"][1])
    load(other, load_file(opened.host.files[0]))
    side = Side(opened)
    *_, height, width = opened.latents
    text = side.row["text.cond"]

    @torch.no_grad()
    def velocity() -> torch.Tensor:
        found = other(hidden_states=packed(side.noisy.squeeze(2)), encoder_hidden_states=text, timestep=side.sigma,
                      encoder_hidden_states_mask=torch.ones(text.shape[:2], dtype=torch.long),
                      img_shapes=[[(1, height // 2, width // 2)]], return_dict=False)[0]
        return unpacked(found, height, width).unsqueeze(2)

    side.compare(other, velocity, tmp_path)


def test_sd_3_with_its_fused_layers_is_diffusers_sd_3(pack: ModuleType, tmp_path: Path) -> None:
    import comfy.utils
    from diffusers import SD3Transformer2DModel

    opened = open_small(pack, "sd3", tmp_path)
    config = CONFIGS["sd3"][1]
    other = SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=16, num_layers=2, attention_head_dim=64, num_attention_heads=2,
        joint_attention_dim=64, caption_projection_dim=128, pooled_projection_dim=config["adm_in_channels"],
        out_channels=16, pos_embed_max_size=16, qk_norm="rms_norm")
    load(other, diffusers_weights(comfy.utils.mmdit_to_diffusers(config), load_file(opened.host.files[0])))
    side = Side(opened)

    @torch.no_grad()
    def velocity() -> torch.Tensor:
        return other(hidden_states=side.noisy, encoder_hidden_states=side.row["text.cond"],
                     pooled_projections=side.row["text.pooled_output"], timestep=side.sigma * 1000,
                     return_dict=False)[0]

    side.compare(other, velocity, tmp_path)


def test_flux_2_is_diffusers_flux_2(pack: ModuleType, tmp_path: Path) -> None:
    import comfy.utils
    from diffusers import Flux2Transformer2DModel

    opened = open_small(pack, "flux2", tmp_path)
    config = CONFIGS["flux2"][1]
    other = Flux2Transformer2DModel(
        in_channels=128, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=4,
        joint_attention_dim=64, mlp_ratio=3.0, axes_dims_rope=(4, 4, 4, 4), rope_theta=2000, guidance_embeds=False)
    names = comfy.utils.flux_to_diffusers(config)
    names |= {f"{there}.weight": f"{here}.weight" for there, here in (
        ("time_guidance_embed.timestep_embedder.linear_1", "time_in.in_layer"),
        ("time_guidance_embed.timestep_embedder.linear_2", "time_in.out_layer"),
        *((f"{part}.linear", f"{part}.lin") for part in (
            "double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation")))}
    load(other, diffusers_weights(names, load_file(opened.host.files[0])))
    side = Side(opened)
    text = torch.nn.functional.pad(side.row["text.cond"], (0, 0, 512 - side.row["text.cond"].shape[1], 0))
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    zero = torch.zeros_like(rows)
    places = torch.stack([zero, rows, columns, zero], -1).reshape(-1, 4).float()
    words = torch.zeros(text.shape[1], 4)
    words[:, 3] = torch.arange(text.shape[1])

    @torch.no_grad()
    def velocity() -> torch.Tensor:
        found = other(hidden_states=side.noisy.flatten(2).transpose(1, 2), encoder_hidden_states=text, guidance=None,
                      timestep=side.sigma, img_ids=places, txt_ids=words, return_dict=False)[0]
        return found.transpose(1, 2).reshape(side.noisy.shape)

    side.compare(other, velocity, tmp_path)


def test_names_that_diffusers_has_not_are_refused_before_training(pack: ModuleType, tmp_path: Path) -> None:
    opened = open_small(pack, "hidream", tmp_path)
    with pytest.raises(opened.module("atelier.errors").AtelierError, match=r"\(hidream\) are not known here.*Flux\.2"):
        opened.denoiser(opened.request(lora_format="diffusers"))
