"""Read the configurations of a diffusers folder, and check them against the weights beside them.

The shapes of the weights say what the configuration must be, so a configuration that says otherwise is found before
anything is built: a single number in it may ask for a billion layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from reprlib import repr as short
from typing import Any

from ..errors import AtelierError
from ..json_files import read_json_object
from .expected_shapes import check_whole
from .keymap import Shape

_DO = "Download or copy the folder again, or choose the model as a single file."
Check = tuple[Callable[[Any], bool], str]
"""Whether a value can be, and what it should be, as the end of "… is no …"."""


def _is_whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _is_number(value: Any, least: float, most: float) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and least <= value <= most


def _whole(least: int, most: int) -> Check:
    return lambda value: _is_whole(value, least, most), f"whole number from {least} to {most}"


def _wholes(least: int, most: int, depth: int = 1) -> Check:
    """A whole number, or a list of one for each level; of lists in turn, where `depth` is 2."""
    def accepts(value: Any, left: int) -> bool:
        if isinstance(value, list):
            return left > 0 and 0 < len(value) <= 64 and all(accepts(each, left - 1) for each in value)
        return _is_whole(value, least, most)

    return lambda value: accepts(value, depth), f"whole number from {least} to {most}, nor a list of such"


def _number(least: float, most: float) -> Check:
    return lambda value: _is_number(value, least, most), f"number from {least:g} to {most:g}"


def _one_of(*names: str) -> Check:
    return lambda value: isinstance(value, str) and value in names, f"one of {', '.join(names)}"


def _list_of(*names: str) -> Check:
    return (lambda value: isinstance(value, list) and 0 < len(value) <= 64 and all(
        isinstance(each, str) and each in names for each in value)), f"list of {', '.join(names)}"


_FLAG: Check = (lambda value: isinstance(value, bool)), "true or false"
_FLAGS: Check = (lambda value: isinstance(value, bool) or (isinstance(value, list) and len(value) <= 64 and all(
    isinstance(each, bool) for each in value))), "true or false, nor a list of such"
_WIDTHS: Check = (lambda value: isinstance(value, list) and 0 < len(value) <= 64 and all(
    _is_whole(each, 1, 2**20) for each in value)), "list of whole numbers"
_ACTIVATION = _one_of("silu", "swish", "mish", "gelu", "relu")
_SAMPLE_SIZE = _wholes(1, 2**16)

_UNET: dict[str, Check] = {
    "in_channels": _whole(1, 4096), "out_channels": _whole(1, 4096), "block_out_channels": _WIDTHS,
    "layers_per_block": _wholes(1, 64), "transformer_layers_per_block": _wholes(0, 64, 2),
    "reverse_transformer_layers_per_block": _wholes(0, 64, 2),
    "down_block_types": _list_of("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": _list_of("CrossAttnUpBlock2D", "UpBlock2D"),
    "mid_block_type": _one_of("UNetMidBlock2DCrossAttn", "UNetMidBlock2D"),
    "cross_attention_dim": _wholes(1, 2**20), "use_linear_projection": _FLAG, "only_cross_attention": _FLAGS,
    "mid_block_only_cross_attention": _FLAG, "num_class_embeds": _whole(1, 2**20),
    "projection_class_embeddings_input_dim": _whole(1, 2**20),
    # These leave no trace in the shapes.
    "sample_size": _SAMPLE_SIZE, "attention_head_dim": _wholes(1, 2**16), "num_attention_heads": _wholes(1, 2**16),
    "upcast_attention": _FLAG, "addition_time_embed_dim": _whole(2, 2**16), "norm_num_groups": _whole(1, 2**16),
    "norm_eps": _number(0, 1), "act_fn": _ACTIVATION, "flip_sin_to_cos": _FLAG, "freq_shift": _number(-10, 10),
    "center_input_sample": _FLAG, "downsample_padding": _whole(0, 8), "mid_block_scale_factor": _number(1e-6, 1e6),
    "dropout": _number(0, 1), "dual_cross_attention": _FLAG, "conv_in_kernel": _whole(1, 15),
    "conv_out_kernel": _whole(1, 15), "resnet_out_scale_factor": _number(1e-6, 1e6), "resnet_skip_time_act": _FLAG,
    "class_embeddings_concat": _FLAG, "addition_embed_type": _one_of("text_time"),
    "addition_embed_type_num_heads": _whole(1, 2**16), "resnet_time_scale_shift": _one_of("default"),
    "attention_type": _one_of("default"), "time_embedding_type": _one_of("positional"),
}
_VAE: dict[str, Check] = {
    "in_channels": _whole(1, 4096), "out_channels": _whole(1, 4096), "latent_channels": _whole(1, 4096),
    "block_out_channels": _WIDTHS, "layers_per_block": _whole(1, 64),
    "down_block_types": _list_of("DownEncoderBlock2D"), "up_block_types": _list_of("UpDecoderBlock2D"),
    "use_quant_conv": _FLAG, "use_post_quant_conv": _FLAG, "mid_block_add_attention": _FLAG,
    "sample_size": _SAMPLE_SIZE, "scaling_factor": _number(1e-6, 1e6), "shift_factor": _number(-1e6, 1e6),
    "force_upcast": _FLAG, "norm_num_groups": _whole(1, 2**16), "act_fn": _ACTIVATION,
}
_TEXT: dict[str, Check] = {
    "hidden_size": _whole(1, 2**20), "intermediate_size": _whole(1, 2**20), "num_hidden_layers": _whole(1, 256),
    "vocab_size": _whole(1, 2**24), "max_position_embeddings": _whole(1, 2**20), "projection_dim": _whole(1, 2**20),
    "num_attention_heads": _whole(1, 2**16), "layer_norm_eps": _number(0, 1),
    "hidden_act": _one_of("quick_gelu", "gelu", "gelu_new", "gelu_fast", "relu", "silu"),
    "attention_dropout": _number(0, 1), "dropout": _number(0, 1), "initializer_factor": _number(0, 1e6),
    "initializer_range": _number(0, 1e6), "bos_token_id": _whole(-1, 2**24), "eos_token_id": _whole(-1, 2**24),
    "pad_token_id": _whole(-1, 2**24),
}
_SCHEDULER: dict[str, Check] = {
    "num_train_timesteps": _whole(1, 100_000), "beta_start": _number(0, 1), "beta_end": _number(0, 1),
    "beta_schedule": _one_of("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"),
    "timestep_spacing": _one_of("leading", "trailing", "linspace"), "steps_offset": _whole(-1000, 100_000),
    "prediction_type": _one_of("epsilon", "v_prediction", "sample"), "rescale_betas_zero_snr": _FLAG,
    "trained_betas": (lambda value: isinstance(value, list) and 0 < len(value) <= 100_000 and all(
        _is_number(each, 0, 1) for each in value), "list of numbers from 0 to 1"),
    "clip_sample": _FLAG, "clip_sample_range": _number(0, 1e6), "set_alpha_to_one": _FLAG, "skip_prk_steps": _FLAG,
    "thresholding": _FLAG, "dynamic_thresholding_ratio": _number(0, 1), "sample_max_value": _number(0, 1e6),
    "use_karras_sigmas": _FLAG, "use_exponential_sigmas": _FLAG, "use_beta_sigmas": _FLAG,
    "solver_order": _whole(1, 3), "lower_order_final": _FLAG, "euler_at_final": _FLAG, "use_lu_lambdas": _FLAG,
    "interpolation_type": _one_of("linear", "log_linear"), "timestep_type": _one_of("discrete", "continuous"),
    "final_sigmas_type": _one_of("zero", "sigma_min"),
    "algorithm_type": _one_of("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++"),
    "solver_type": _one_of("midpoint", "heun", "bh1", "bh2", "logrho"), "sigma_min": _number(0, 1e6),
    "sigma_max": _number(0, 1e6),
    "_class_name": (lambda value: isinstance(value, str) and value.isidentifier(), "name of a class"),
}
_WRITTEN_BY_DIFFUSERS: dict[str, Check] = {
    "_use_default_values": (lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
                            "list of names")}
TEXT_FIELDS = frozenset(_TEXT)
"""Fields that build a text encoder; what else transformers knows describes other uses of it."""
_LOOSE = ("mid_block_type",)
"""Fields of the shapes whose null means something; elsewhere it means that nothing is stated."""
_BY_SHAPES: dict[str, tuple[str, ...]] = {
    "unet": tuple(_UNET)[:15],
    "vae": tuple(_VAE)[:10],
    "text": tuple(_TEXT)[:6],
}
"""Fields that the shapes of the weights decide."""


def read_component_config(file: Path, folder: str, shapes: Mapping[str, Shape],
                          derived: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a component: what `file` states, else what was derived from its shapes.

    Args:
        file: `config.json` of the component; it need not exist.
        folder: The component's folder: "unet", "vae", "text_encoder" or "text_encoder_2".
        shapes: Shapes of the component's tensors by diffusers name.
        derived: The configuration that fits them.

    Raises:
        AtelierError: the file is damaged, or states what no such component can be or what the weights contradict; the
            message names file, field and value.
    """
    if not file.is_file():
        return dict(derived)
    stated = read_json_object(file, _DO)
    kind = folder if folder in ("unet", "vae") else "text"
    _check_fields(file, stated, {"unet": _UNET, "vae": _VAE, "text": _TEXT}[kind])
    decided = {name: stated[name] for name in _BY_SHAPES[kind]
               if name in stated and (stated[name] is not None or name in _LOOSE)}
    if not _fits(folder, shapes, {**derived, **decided}):
        wrong = next((name for name, value in decided.items() if not _fits(folder, shapes, {**derived, name: value})),
                     next(iter(decided)))
        raise AtelierError(f"{file}: {wrong} is {short(stated[wrong])}, but the weights beside it are of a model with "
                           f"{short(derived.get(wrong))}.", _DO)
    return {**derived, **{name: value for name, value in stated.items()
                          if value is not None or name in _LOOSE or name not in derived}}


def read_scheduler_config(file: Path) -> dict[str, Any]:
    """The configuration of a folder's scheduler; empty where there is none.

    Raises:
        AtelierError: the file is damaged or states what no scheduler can be; the message names file, field and value.
    """
    if not file.is_file():
        return {}
    stated = read_json_object(file, _DO)
    _check_fields(file, stated, _SCHEDULER)
    betas, steps = stated.get("trained_betas"), stated.get("num_train_timesteps")
    if betas and steps and len(betas) != steps:
        raise AtelierError(f"{file}: trained_betas has {len(betas)} numbers, but num_train_timesteps is {steps}.", _DO)
    return stated


def _check_fields(file: Path, stated: Mapping[str, Any], checks: dict[str, Check]) -> None:
    for name, value in stated.items():
        accepts, expected = (checks | _WRITTEN_BY_DIFFUSERS).get(name, (None, ""))
        if value is not None and accepts is not None and not accepts(value):
            raise AtelierError(f"{file}: {name} is {short(value)}, which is no {expected}.", _DO)


def _fits(folder: str, shapes: Mapping[str, Shape], config: Mapping[str, Any]) -> bool:
    try:
        check_whole(folder, shapes, config)
    except (AtelierError, LookupError, TypeError):  # a list for fewer levels than there are
        return False
    return True
