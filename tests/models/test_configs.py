"""Configurations derived from shapes make diffusers and transformers build exactly the tensors of the real
architectures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from kit.checkpoints import (
    REFINER_SHAPES,
    SD1_SHAPES,
    SD2_SHAPES,
    SDXL_SHAPES,
    TINY_UNET,
    TINY_VAE,
    X4_SHAPES,
    Shape,
)
from kit.ldm_shapes import (
    Shapes,
    UNetShape,
    VaeShape,
    clip_shapes,
    open_clip_shapes,
    prefixed,
    unet_shapes,
    vae_shapes,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from atelier.checkpoint.entry import Entry
from atelier.errors import AtelierError
from atelier.models.detect import component_config, family_of_shapes
from atelier.models.expected_shapes import check_whole
from atelier.models.families import FAMILIES, family_of
from atelier.models.keymap import KeyTable
from atelier.models.kinds import kind_of
from atelier.models.lazy_tensor import LazyTensor, to_diffusers, to_original
from atelier.models.stated_config import _SCHEDULER, _TEXT, _UNET, _VAE, _check_fields
from atelier.models.text_keys import clip_table, layer_count, open_clip_table
from atelier.models.unet_keys import UNetLayout, unet_config, unet_table
from atelier.models.vae_keys import vae_table

ALL = {"sd1": SD1_SHAPES, "sd2": SD2_SHAPES, "x4-upscaler": X4_SHAPES, "sdxl": SDXL_SHAPES,
       "sdxl-refiner": REFINER_SHAPES}
CASES = [(family, shape) for family, shapes in ALL.items() for shape in shapes]

Sizes = dict[str, tuple[int, ...]]


def converted(shapes: Shapes, table: Callable[[Sizes], KeyTable], component: str) -> Sizes:
    """Shapes under diffusers names; on the way, the inverse is checked to lead back."""
    original = dict(shapes)
    used = table(original)
    stored = {name: LazyTensor.of(Entry("F16", shape, lambda: torch.zeros(()))) for name, shape in original.items()}
    made = to_diffusers(used, stored, component)
    back = to_original(used, made, component)
    assert {name: tensor.shape for name, tensor in back.items()} == original
    return {name: tensor.shape for name, tensor in made.items()}


def built(make: Callable[[], torch.nn.Module]) -> Sizes:
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in make().state_dict().items()}


@pytest.mark.parametrize(("family", "shape"), CASES)
def test_unet(family: str, shape: str) -> None:
    sizes = converted(unet_shapes(ALL[family][shape].unet), lambda n: unet_table(UNetLayout.from_original(n)), "unet")
    assert family_of_shapes(sizes).key == family
    # The layout read from either side is the same.
    assert UNetLayout.from_diffusers(sizes) == UNetLayout.from_original(dict(unet_shapes(ALL[family][shape].unet)))
    config = component_config("unet", sizes, FAMILIES[family])
    assert built(lambda: UNet2DConditionModel.from_config(config)) == sizes


@pytest.mark.parametrize(("family", "shape"), CASES)
def test_vae(family: str, shape: str) -> None:
    sizes = converted(vae_shapes(ALL[family][shape].vae), vae_table, "vae")
    config = component_config("vae", sizes, FAMILIES[family])
    assert built(lambda: AutoencoderKL.from_config(config)) == sizes


def test_a_vae_without_attention() -> None:
    blocks = dict(down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2)
    sizes = built(lambda: AutoencoderKL(block_out_channels=[32, 64], mid_block_add_attention=False, **blocks))
    config = component_config("vae", sizes, FAMILIES["sd1"])
    assert built(lambda: AutoencoderKL.from_config(config)) == sizes


@pytest.mark.parametrize("shape", SDXL_SHAPES)
def test_text_encoders(shape: str) -> None:
    parts: Shape = SDXL_SHAPES[shape]
    assert parts.text2 is not None
    converted(prefixed("text_model.", clip_shapes(parts.text)), lambda n: clip_table(), "text_encoder")
    sizes = converted(open_clip_shapes(parts.text2), lambda n: open_clip_table(layer_count(n)), "text_encoder_2")
    config = component_config("text_encoder_2", sizes, FAMILIES["sdxl"])
    assert built(lambda: CLIPTextModelWithProjection(CLIPTextConfig(**config))) == sizes


def test_published_configurations() -> None:
    """The values of the published full-size models, as far as tensors depend on them."""
    def config(family: str) -> dict:
        unet = ALL[family]["full"].unet
        return unet_config(converted(unet_shapes(unet), lambda n: unet_table(UNetLayout.from_original(n)), "unet"), 64,
                           False)

    sd1, sd2, xl, refiner, x4 = (config(family) for family in ("sd1", "sd2", "sdxl", "sdxl-refiner", "x4-upscaler"))
    assert sd1["attention_head_dim"] == 8 and sd1["layers_per_block"] == 2 and not sd1["use_linear_projection"]
    assert sd1["down_block_types"] == ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
    assert sd2["attention_head_dim"] == [5, 10, 20, 20] and sd2["cross_attention_dim"] == 1024
    assert xl["block_out_channels"] == [320, 640, 1280] and xl["attention_head_dim"] == [5, 10, 20]
    assert xl["transformer_layers_per_block"] == [1, 2, 10]
    assert xl["projection_class_embeddings_input_dim"] == 2816
    assert refiner["block_out_channels"] == [384, 768, 1536, 1536]
    assert refiner["transformer_layers_per_block"] == [1, 4, 4, 4]
    assert refiner["attention_head_dim"] == [6, 12, 24, 24]
    assert x4["only_cross_attention"] == [False, True, True, False] and x4["num_class_embeds"] == 1000
    assert x4["attention_head_dim"] == 8 and x4["mid_block_only_cross_attention"] is False


@pytest.mark.parametrize(("written", "checks"), [
    (lambda: UNet2DConditionModel().config, _UNET), (lambda: AutoencoderKL().config, _VAE),
    (lambda: CLIPTextConfig().to_dict(), _TEXT), (lambda: DDIMScheduler().config, _SCHEDULER)])
def test_what_the_libraries_write_by_themselves_is_taken(written: Callable[[], dict], checks: dict, tmp_path: Path
                                                         ) -> None:
    """A folder states each library's defaults, also of what no such model has."""
    with torch.device("meta"):
        values = json.loads(json.dumps(dict(written()), default=str))
    _check_fields(tmp_path / "config.json", values, checks)
    assert len(values.keys() & checks) > 10


UNUSUAL = {
    "levels of unequal length": UNetShape(channels=32, mult=(1, 2, 2), res_blocks=1, depths=(0, 1, 3), middle_depth=3),
    "no middle block": UNetShape(channels=32, mult=(1, 2), res_blocks=3, depths=(1, 1), middle_depth=None),
    "four levels": UNetShape(channels=32, mult=(1, 1, 2, 2), res_blocks=1, depths=(1, 0, 2, 0), middle_depth=1),
}


@pytest.mark.parametrize("shape", UNUSUAL.values(), ids=UNUSUAL.keys())
def test_reduced_variants(shape: UNetShape) -> None:
    sizes = converted(unet_shapes(shape), lambda n: unet_table(UNetLayout.from_original(n)), "unet")
    config = unet_config(sizes, 64, False)
    check_whole("unet", sizes, config)
    assert built(lambda: UNet2DConditionModel.from_config(config)) == sizes


@pytest.mark.parametrize("damage", ["missing", "smaller"])
def test_queries_keys_and_values_that_do_not_fit_are_refused(damage: str) -> None:
    """They are one tensor in a single file."""
    original = dict(open_clip_shapes(SD2_SHAPES["small"].text))
    table = open_clip_table(layer_count(original))
    whole = {name: LazyTensor.of(Entry("F16", shape, lambda: torch.zeros(()))) for name, shape in original.items()}
    made = to_diffusers(table, whole, "text_encoder")
    key = next(name for name in made if name.endswith("k_proj.weight"))
    made = {name: tensor for name, tensor in made.items() if name != key} | (
        {} if damage == "missing" else {key: LazyTensor.of(Entry("F16", (2, 2), lambda: torch.zeros(2, 2)))})
    with pytest.raises(AtelierError, match=rf"{re.escape(key)}.* do not fit together"):
        to_original(table, made, "text_encoder")


def unet_sizes(shape: UNetShape) -> Sizes:
    return converted(unet_shapes(shape), lambda n: unet_table(UNetLayout.from_original(n)), "unet")


def without(sizes: Sizes, part: str) -> Sizes:
    return {name: size for name, size in sizes.items() if part not in name}


def test_depths_that_diffusers_cannot_build() -> None:
    shape = UNetShape(channels=32, mult=(1, 2), res_blocks=1, depths=(1, 2), middle_depth=5)
    sizes = converted(unet_shapes(shape), lambda n: unet_table(UNetLayout.from_original(n)), "unet")
    with pytest.raises(AtelierError, match="middle block is 5"):
        unet_config(sizes, 64, False)


def test_an_upward_path_of_another_depth_is_kept() -> None:
    """diffusers mirrors the downward one where nothing else is stated."""
    sizes = unet_sizes(replace(TINY_UNET, depths=(1, 1)))
    shallow = "up_blocks.1.attentions.{}.transformer_blocks.{}."
    deeper = {name.replace(shallow.format(i, 0), shallow.format(i, 1)): size for i in range(2)
              for name, size in sizes.items() if name.startswith(shallow.format(i, 0))}
    config = unet_config(sizes | deeper, 64, False)
    assert config["reverse_transformer_layers_per_block"] == [1, 2]
    assert built(lambda: UNet2DConditionModel.from_config(config)) == sizes | deeper
    assert "reverse_transformer_layers_per_block" not in unet_config(sizes, 64, False)


@pytest.mark.parametrize(("lost", "said"), [
    ("conv_in.weight", "no residual blocks or no ends"), ("conv_out.weight", "no residual blocks or no ends"),
    ("down_blocks", "no residual blocks or no ends"), ("attentions", "takes no text"),
    ("up_blocks.1.attentions.0", "some layers of up_blocks.1 have attention"),
])
def test_a_unet_that_lacks_a_part_of_every_unet_is_refused(lost: str, said: str) -> None:
    sizes = unet_sizes(TINY_UNET)
    assert unet_config(sizes, 64, False)["cross_attention_dim"] == 32
    with pytest.raises(AtelierError, match=said):
        unet_config(without(sizes, lost), 64, False)


@pytest.mark.parametrize(("shape", "lost", "said"), [
    (TINY_VAE, "encoder.", "not a KL autoencoder"), (TINY_VAE, "decoder.", "not a KL autoencoder"),
    (replace(TINY_VAE, decoder=64), "nothing", "decoder is 64 channels wide, its encoder 32"),
])
def test_a_vae_of_one_half_or_of_two_that_differ_is_refused(shape: VaeShape, lost: str, said: str) -> None:
    sizes = converted(vae_shapes(shape), vae_table, "vae")
    with pytest.raises(AtelierError, match=said):
        component_config("vae", {name: size for name, size in sizes.items() if not name.startswith(lost)},
                         FAMILIES["sd1"])


@pytest.mark.parametrize("lost", ["quant_conv", "post_quant_conv"])
def test_a_vae_without_its_quantising_layers(lost: str) -> None:
    sizes = converted(vae_shapes(TINY_VAE), vae_table, "vae")
    sizes = {name: size for name, size in sizes.items() if not name.startswith(f"{lost}.")}
    config = component_config("vae", sizes, FAMILIES["sd1"])
    assert built(lambda: AutoencoderKL.from_config(config)) == sizes


@pytest.mark.parametrize(("name", "size", "said"), [
    ("conv_in.extra", (32,), "'conv_in.extra' that its architecture has no place for"),
    ("conv_in.bias", (32, 1), r"'conv_in.bias' has the shape \[32, 1\], which it cannot have"),
    ("conv_norm_out.weight", (32, 1), r"'conv_norm_out.weight' has the shape \[32, 1\], which"),
    ("conv_in.weight", (32,), r"'conv_in.weight' has the shape \[32\], which"),
    ("conv_in.weight", (32, 4, 3, 3, 1), r"has the shape \[32, 4, 3, 3, 1\], which"),
    ("conv_in.weight", (32, 4, 3, 0), r"has the shape \[32, 4, 3, 0\], which"),
])
def test_a_tensor_that_no_unet_has_is_named(name: str, size: tuple[int, ...], said: str) -> None:
    with pytest.raises(AtelierError, match=said):
        component_config("unet", unet_sizes(TINY_UNET) | {name: size}, FAMILIES["sd1"])


@pytest.mark.parametrize("convert", [to_diffusers, to_original])
def test_a_tensor_that_no_table_names_is_refused_in_either_direction(convert: Callable[..., object]) -> None:
    """Left out, it would be lost in the file that is written."""
    unknown = {"encoder.other.weight": LazyTensor.of(Entry("F16", (2, 2), lambda: torch.zeros(2, 2)))}
    with pytest.raises(AtelierError, match=r"vae.*'encoder\.other\.weight'|'encoder\.other\.weight'.*vae"):
        convert(vae_table(unknown), unknown, "vae")


def test_a_family_that_is_none_is_named_with_those_there_are() -> None:
    for ask in (lambda: family_of("sd9"), lambda: kind_of("sd9", "epsilon")):
        with pytest.raises(AtelierError, match=r"'sd9' is no model family.*sd1, .*sdxl-refiner"):
            ask()
    assert family_of("sd1") is FAMILIES["sd1"]
