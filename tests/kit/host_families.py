"""Small random models of the host's own classes, with a file behind each, and stand-ins for CLIP and VAE."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import torch
from kit.host_other_families import OTHERS, more_conditions
from kit.pack import pack_module
from safetensors.torch import load_file, save_file
from torch import Tensor

FLUX = {"hidden_size": 64, "num_heads": 4, "depth": 2, "depth_single_blocks": 2, "axes_dim": [4, 6, 6],
        "context_in_dim": 64, "vec_in_dim": 32, "in_channels": 16, "out_channels": 16, "patch_size": 2,
        "mlp_ratio": 4.0, "theta": 10000, "qkv_bias": True, "guidance_embed": True, "txt_ids_dims": []}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "flux": ("Flux", FLUX),
    "flux2": ("Flux2", {"hidden_size": 64, "num_heads": 4, "depth": 2, "depth_single_blocks": 2,
                        "axes_dim": [4, 4, 4, 4], "context_in_dim": 64, "vec_in_dim": None, "in_channels": 128,
                        "out_channels": 128, "patch_size": 1, "mlp_ratio": 3.0, "theta": 2000, "qkv_bias": False,
                        "guidance_embed": False, "txt_ids_dims": [3], "global_modulation": True, "mlp_silu_act": True,
                        "ops_bias": False, "default_ref_method": "index", "ref_index_scale": 10.0}),
    "chroma": ("Chroma", {"hidden_size": 64, "num_heads": 4, "depth": 2, "depth_single_blocks": 2,
                          "axes_dim": [4, 6, 6], "context_in_dim": 64, "vec_in_dim": None, "in_channels": 64,
                          "out_channels": 64, "patch_size": 2, "mlp_ratio": 4.0, "theta": 10000, "qkv_bias": True,
                          "in_dim": 64, "out_dim": 64, "hidden_dim": 64, "n_layers": 2, "txt_ids_dims": []}),
    "z-image": ("ZImage", {"patch_size": 2, "in_channels": 16, "dim": 256, "n_layers": 2, "n_refiner_layers": 1,
                           "n_heads": 16, "n_kv_heads": 16, "cap_feat_dim": 64, "axes_dims": [4, 6, 6],
                           "axes_lens": [64, 64, 64], "rope_theta": 256.0, "qk_norm": True, "multiple_of": 2,
                           "ffn_dim_multiplier": 8 / 3, "z_image_modulation": True, "time_scale": 1000.0,
                           "pad_tokens_multiple": 32}),
    "qwen-image": ("QwenImage", {"patch_size": 2, "in_channels": 64, "out_channels": 16, "num_layers": 2,
                                 "attention_head_dim": 16, "num_attention_heads": 4, "joint_attention_dim": 64,
                                 "axes_dims_rope": (4, 6, 6)}),
    "anima": ("Anima", {"max_img_h": 64, "max_img_w": 64, "max_frames": 4, "in_channels": 16, "out_channels": 16,
                        "patch_spatial": 2, "patch_temporal": 1, "concat_padding_mask": True, "model_channels": 64,
                        "num_blocks": 2, "num_heads": 4, "crossattn_emb_channels": 64, "pos_emb_cls": "rope3d",
                        "pos_emb_learnable": True, "pos_emb_interpolation": "crop", "use_adaln_lora": True,
                        "adaln_lora_dim": 16}),
    "krea2": ("Krea2", {"features": 64, "tdim": 32, "txtdim": 64, "heads": 4, "kvheads": 2, "multiplier": 1,
                        "layers": 2, "patch": 2, "channels": 16, "txtlayers": 1, "txtheads": 4, "txtkvheads": 4}),
    "sd3": ("SD3", {"patch_size": 2, "in_channels": 16, "depth": 2, "input_size": None, "adm_in_channels": 32,
                    "pos_embed_scaling_factor": None, "pos_embed_max_size": 16, "num_patches": 256, "qk_norm": "rms",
                    "context_embedder_config": {"target": "torch.nn.Linear",
                                                "params": {"in_features": 64, "out_features": 128}}}),
}
"""Class of the host's `supported_models` and its `unet_config`, by the family's name."""

_LARGER = {"large flux": ("Flux", {**FLUX, "hidden_size": 256, "num_heads": 16, "depth": 5, "depth_single_blocks": 0})}
"""For measurements of memory; no family of its own."""

TEXT_WIDTH, POOLED_WIDTH = 64, 32


@dataclass(frozen=True)
class FakeClip:
    """Gives each caption its own random embedding, as long as it has words, and a pooled vector."""

    patcher: Any
    width: int = TEXT_WIDTH
    layer_idx: None = None
    cond_stage_model: Any = field(default_factory=lambda: SimpleNamespace())
    encoded: list[str] = field(default_factory=list)
    family: str = ""

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens(self, text: str, return_pooled: bool, return_dict: bool) -> dict[str, Any]:
        assert return_pooled and return_dict
        self.encoded.append(text)
        stream = torch.Generator().manual_seed(sum(text.encode()))
        words = max(1, len(text.split()))
        found = {"cond": torch.randn(1, words, self.width, generator=stream),
                 "pooled_output": torch.randn(1, POOLED_WIDTH, generator=stream)}
        return found | more_conditions(self.family, found, stream)

    def encode_from_tokens_scheduled(self, text: str) -> list[Any]:
        found = self.encode_from_tokens(text, True, True)
        return [[found.pop("cond"), found]]


@dataclass(frozen=True)
class FakeVae:
    """Averages blocks of 8 pixels, and repeats the three colours over the latent's channels."""

    patcher: Any
    latent_channels: int = 16
    dimensions: int = 2
    first_stage_model: Any = field(default_factory=lambda: SimpleNamespace())

    def encode(self, pixels: Tensor) -> Tensor:
        assert len(pixels) == 1
        small = torch.nn.functional.avg_pool2d(pixels.permute(0, 3, 1, 2) * 2 - 1, 8)
        latents = small.repeat(1, -(-self.latent_channels // 3), 1, 1)[:, :self.latent_channels]
        return latents.unsqueeze(2) if self.dimensions == 3 else latents

    def decode(self, latents: Tensor) -> Tensor:
        colours = latents.flatten(2, -3)[:, :3].squeeze(2) if latents.dim() == 5 else latents[:, :3]
        return (torch.nn.functional.interpolate(colours.float(), scale_factor=8) / 2 + 0.5).permute(0, 2, 3, 1)


def settled_flux(folder: Path) -> Any:
    """A small Flux that at first hands the noisy latent on nearly as it is, so that what is missing can be learnt."""
    small_model("flux", folder)
    path = folder / "flux.safetensors"
    weights = {name: tensor * 0.5 if tensor.dim() > 1 else torch.full_like(tensor, float("bias" not in name))
               for name, tensor in load_file(path).items()}
    turned, _ = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)))
    weights |= {"img_in.weight": turned.contiguous(), "final_layer.linear.weight": turned.T.contiguous()}
    save_file(weights, path)
    return _load("flux", str(path), str(torch.float32))


def small_model(family: str, folder: Path, *, dtype: torch.dtype = torch.float32) -> Any:
    """A `ModelPatcher` of a small model of a family (a key of `CONFIGS`), which its file rebuilds."""
    path = folder / f"{family}.safetensors"
    model = _build(family)
    torch.manual_seed(0)
    weights = dict(model.diffusion_model.named_parameters())
    # SD 3 leaves its position embeddings, which are no parameter, as the memory was.
    weights |= {name: buffer for name, buffer in model.diffusion_model.named_buffers() if name == "pos_embed"}
    for name, parameter in sorted(weights.items()):
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
        else:
            torch.nn.init.normal_(parameter, mean=0.0 if "bias" in name else 0.5, std=0.1)
    save_file({name: tensor.to(dtype).contiguous() for name, tensor in model.diffusion_model.state_dict().items()},
              path)
    return _load(family, str(path), str(dtype))


def _build(family: str) -> Any:
    import comfy.ldm.anima.model as anima
    import comfy.supported_models

    kind, config = (CONFIGS | OTHERS | _LARGER)[family]
    chosen = getattr(comfy.supported_models, kind)
    made = chosen({**{key: value for key, value in chosen.unet_config.items() if key == "image_model"}, **config})
    made.unet_config.update(config)  # some classes put widths of their own over what is given
    made.set_inference_dtype(torch.float32, None)
    adapter = partial(anima.LLMAdapter, source_dim=TEXT_WIDTH, target_dim=TEXT_WIDTH, model_dim=TEXT_WIDTH,
                      num_layers=1, num_heads=4)
    with mock.patch.object(anima, "LLMAdapter", adapter):
        return made.get_model({}, "")


def _load(family: str, path: str, dtype: str, disable_dynamic: bool = False) -> Any:
    import comfy.model_patcher

    model = _build(family)
    weights = load_file(path)
    model.diffusion_model.load_state_dict(weights)
    stored = getattr(torch, dtype.removeprefix("torch."))
    if stored != torch.float32:
        for module in model.diffusion_model.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.data = module.weight.data.to(stored)
                module.comfy_cast_weights = True
    patcher = comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))
    patcher.cached_patcher_init = (partial(_load), (family, path, dtype))
    return patcher


def fake_parts(folder: Path, model: Any, width: int = TEXT_WIDTH, family: str = "") -> tuple[FakeClip, FakeVae]:
    """A CLIP and a VAE for `small_model`, each with a file of its own."""
    def patcher(name: str) -> Any:
        path = folder / f"{name}.safetensors"
        path.write_bytes(name.encode())
        return SimpleNamespace(cached_patcher_init=(None, (str(path),)), model_options={}, patches={}, hook_patches={},
                               weight_wrapper_patches={}, injections={}, wrappers={}, object_patches={})

    latents = model.model.latent_format
    return (FakeClip(patcher("clip"), width, family=family),
            FakeVae(patcher("vae"), latents.latent_channels, latents.latent_dimensions))


@dataclass(frozen=True)
class Opened:
    """A small model, opened as Loaded Model does, in the pack's own modules."""

    pack: ModuleType
    patcher: Any
    clip: FakeClip
    vae: FakeVae
    host: Any
    """The `HostModel`."""

    def module(self, name: str) -> Any:
        """A module of the pack."""
        return pack_module(self.pack, name)

    def request(self, **values: Any) -> Any:
        """A training request with the defaults but for these values."""
        made = self.module("atelier.train.request.request").TrainRequest(steps=1)
        return made.override({"targets": "attention_ff", "rank": 4, "alpha": 4, **values})

    @property
    def latents(self) -> tuple[int, ...]:
        """The shape of one latent of 8 × 8."""
        latents = self.patcher.model.latent_format
        return (latents.latent_channels, *[1] * (latents.latent_dimensions - 2), 8, 8)

    def denoiser(self, request: Any, dtype: torch.dtype = torch.float32) -> Any:
        """The network, built anew for training."""
        return self.host.load(self.encoded(), request, device=torch.device("cpu"), dtype=dtype).denoiser

    def encoded(self) -> Any:
        """Stands for an encoded set of one picture with a caption of six words."""
        (row,) = self.rows("a red fox in the snow")
        ids = row.pop("time_ids")
        return SimpleNamespace(items=[SimpleNamespace(index=0, height=8, width=8, captions=1)],
                               moments=lambda index, flip: (torch.zeros(self.latents),) * 2,
                               text=lambda index, variant: row, time_ids=lambda index: ids)

    def adapters(self, denoiser: Any, request: Any) -> Any:
        """Adapters on the network, of random values."""
        made = self.module("atelier.train.adapters").Adapters(
            denoiser.components, request.lora, 0, layers=denoiser.adapted_layers(request.lora), dtype=denoiser.dtype)
        with torch.no_grad():
            for master, seed in zip(made.masters, range(1000), strict=False):
                master.copy_(torch.randn(master.shape, generator=torch.Generator().manual_seed(seed)) * 0.1)
            made.sync_to_model()
        return made

    def in_host(self, state: dict[str, Tensor], row: Any, noisy: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The host's own prediction of x₀ with a LoRA's file as core's loader applies it, and without."""
        import comfy.sd
        from comfy import model_management

        patched, _ = comfy.sd.load_lora_for_models(self.patcher, None, state, 1.0, 0.0)
        inputs = self.module("nodes.host.loaded.conditions").network_inputs
        with torch.inference_mode():
            model_management.load_models_gpu([patched])
            given = {name: each.cond for name, each in inputs(patched.model, row, noisy, None).items()}
            changed = patched.model.apply_model(noisy, sigma, **given)
            patched.unpatch_model()
            return changed, self.patcher.model.apply_model(noisy, sigma, **given)

    def rows(self, *captions: str) -> list[Any]:
        """Conditions, as the cache gives them."""
        encode = self.module("nodes.host.loaded.conditions").encode_caption
        ids = torch.tensor([64, 64, 0, 0, 64, 64])
        return [{**encode(self.clip, caption), "time_ids": ids} for caption in captions]


def open_small(pack: ModuleType, family: str, folder: Path, dtype: torch.dtype = torch.float32) -> Opened:
    """A small model with its CLIP and VAE, opened for training; "settled flux" is `settled_flux`."""
    with torch.inference_mode():  # as the host's loaders run
        patcher = settled_flux(folder) if family == "settled flux" else small_model(family, folder, dtype=dtype)
    return open_patcher(pack, patcher, folder, family=family)


def open_patcher(pack: ModuleType, patcher: Any, folder: Path, text_width: int = TEXT_WIDTH, family: str = ""
                 ) -> Opened:
    """A model of the host's with stand-ins for its CLIP and VAE, opened for training."""
    clip, vae = fake_parts(folder, patcher, text_width, family)
    progress = pack_module(pack, "atelier.progress").Progress()
    host = pack_module(pack, "nodes.host.loaded.model").open_loaded(patcher, clip, vae, guidance=None,
                                                                    progress=progress)
    return Opened(pack, patcher, clip, vae, host)
