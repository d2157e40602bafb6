"""Every name of every layer, both ways, over the published models."""

from __future__ import annotations

import pytest
from kit.checkpoints import FULL_SD1, FULL_SD2, FULL_SDXL
from kit.ldm_shapes import unet_shapes
from kit.loras import layers, published_unet, tiny_models

from atelier.lora.names import from_comfy, from_kohya, known_layer, to_kohya

CHECKPOINTS = {"sd1": FULL_SD1, "sd2": FULL_SD2, "sdxl": FULL_SDXL}


@pytest.mark.parametrize("family", CHECKPOINTS)
@pytest.mark.parametrize("two", [False, True])
def test_kohya_names_invert(family: str, two: bool) -> None:
    names = [*layers("unet", published_unet(family)), *layers("text_encoder", tiny_models("sdxl")["text_encoder"])]
    if two:
        names += layers("text_encoder_2", tiny_models("sdxl")["text_encoder_2"])
    keys = [to_kohya(name, two_text_encoders=two) for name in names]
    assert len(set(keys)) == len(names) > 200
    assert [from_kohya(key) for key in keys] == names
    assert not any("." in key for key in keys)


@pytest.mark.parametrize("family", CHECKPOINTS)
def test_checkpoints_names_lead_to_the_layers_of_diffusers(family: str) -> None:
    """A wrong block would have another shape, or would be hit twice."""
    wanted = {name: tuple(layer.weight.shape) for name, layer in layers("unet", published_unet(family)).items()}
    found = {}
    for name, shape in unet_shapes(CHECKPOINTS[family].unet):
        if len(shape) > 1:
            path = name.removesuffix(".weight")
            layer = from_kohya("lora_unet_" + path.replace(".", "_"))
            assert layer == from_comfy("diffusion_model." + path)
            assert layer is not None and layer not in found
            found[layer] = shape
    assert found == wanted


def test_text_encoders_have_one_name_whatever_the_program() -> None:
    path = "text_model.encoder.layers.11.self_attn.q_proj"
    for prefix, number in (("lora_te_", ""), ("lora_te1_", ""), ("lora_te2_", "_2")):
        assert from_kohya(prefix + path.replace(".", "_")) == f"text_encoder{number}.{path}"
    assert from_comfy(f"text_encoders.clip_g.transformer.{path}") == f"text_encoder_2.{path}"
    # As newer transformers names it.
    assert known_layer("text_encoder", "encoder.layers.11.self_attn.q_proj") == f"text_encoder.{path}"


@pytest.mark.parametrize("key", [
    "lora_unet_double_blocks_0_img_attn_proj", "lora_unet_single_blocks_3_linear1",  # Flux
    "lora_unet_joint_blocks_0_x_block_attn_qkv", "lora_te3_encoder_block_0_layer_0_SelfAttention_k",  # SD3
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn3_to_q", "lora_transformer_blocks_0_attn_to_k"])
def test_other_models_layers_are_not_taken_for_ours(key: str) -> None:
    assert from_kohya(key) is None
