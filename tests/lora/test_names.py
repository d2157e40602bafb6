"""Every name of every layer, both ways, over the published models."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

import pytest
from kit.checkpoints import FULL_SD1, FULL_SD2, FULL_SDXL
from kit.ldm_shapes import unet_shapes
from kit.loras import layers, published_unet, tiny_models

from atelier.lora.keys import whole_adapters
from atelier.lora.names import from_kohya, known_layer, to_kohya


def layer_of(stem: str) -> str | None:
    """The layer that an adapter's keys belong to."""
    return next(iter(whole_adapters([f"{stem}.lora_up.weight", f"{stem}.lora_down.weight"], "unet")), None)


CHECKPOINTS = {"sd1": FULL_SD1, "sd2": FULL_SD2, "sdxl": FULL_SDXL}


@pytest.mark.parametrize("family", CHECKPOINTS)
def test_kohya_names_invert(family: str) -> None:
    names = [*layers("unet", published_unet(family)), *layers("text_encoder", tiny_models("sdxl")["text_encoder"])]
    if family == "sdxl":
        names += layers("text_encoder_2", tiny_models("sdxl")["text_encoder_2"])
    keys = [to_kohya(name, sdxl=family == "sdxl") for name in names]
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
            assert layer == layer_of("diffusion_model." + path)
            assert layer is not None and layer not in found
            found[layer] = shape
    assert found == wanted


def test_sdxls_layers_are_written_as_sd_scripts_writes_them() -> None:
    """sd-scripts' own SDXL network joins the checkpoint's module path with underscores: A1111 knows no other names."""
    wanted = {"lora_unet_" + name.removesuffix(".weight").replace(".", "_")
              for name, shape in unet_shapes(FULL_SDXL.unet) if len(shape) > 1}
    written = {to_kohya(name, sdxl=True) for name in layers("unet", published_unet("sdxl"))}
    assert written == wanted
    for name, key in (
            ("unet.down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_out.0",
             "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_out_0"),
            ("unet.up_blocks.1.upsamplers.0.conv", "lora_unet_output_blocks_5_2_conv"),
            ("unet.down_blocks.0.resnets.0.time_emb_proj", "lora_unet_input_blocks_1_0_emb_layers_1"),
            ("text_encoder.text_model.encoder.layers.0.mlp.fc1", "lora_te1_text_model_encoder_layers_0_mlp_fc1"),
            ("text_encoder_2.text_model.encoder.layers.9.mlp.fc1", "lora_te2_text_model_encoder_layers_9_mlp_fc1")):
        assert to_kohya(name, sdxl=True) == key


@pytest.mark.host
@pytest.mark.parametrize("family", CHECKPOINTS)
def test_the_host_knows_every_key_by_the_layer_it_means(family: str, pack: ModuleType) -> None:
    from comfy.lora import model_lora_keys_clip, model_lora_keys_unet  # pyright: ignore[reportMissingImports]

    shapes = dict(unet_shapes(CHECKPOINTS[family].unet))
    config = {"num_res_blocks": [2] * 4, "channel_mult": (1, 2, 4, 4), "transformer_depth": [1] * 6 + [0] * 2,
              "transformer_depth_output": [1] * 9 + [0] * 3, "transformer_depth_middle": 1}
    if family == "sdxl":
        config = {"num_res_blocks": [2] * 3, "channel_mult": (1, 2, 4), "transformer_depth": [0, 0, 2, 2, 10, 10],
                  "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "transformer_depth_middle": 10}
    model = SimpleNamespace(state_dict=lambda: dict.fromkeys(f"diffusion_model.{name}" for name in shapes),
                            model_config=SimpleNamespace(unet_config=config))
    known = model_lora_keys_unet(model, {})
    for name, layer in layers("unet", published_unet(family)).items():
        key = to_kohya(name, sdxl=family == "sdxl")
        assert shapes[known[key].removeprefix("diffusion_model.")] == tuple(layer.weight.shape), key
    encoders = {"sd1": ["clip_l"], "sd2": ["clip_h"], "sdxl": ["clip_l", "clip_g"]}[family]
    linear = [f"text_model.encoder.layers.{n}.{part}" for n in range(2)
              for part in ("self_attn.q_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")]
    clip = SimpleNamespace(state_dict=lambda: {f"{encoder}.transformer.{path}.weight": None
                                               for encoder in encoders for path in linear})
    known = model_lora_keys_clip(clip, {})
    for number, encoder in enumerate(encoders):
        for path in linear:
            key = to_kohya(f"text_encoder{'_2' * number}.{path}", sdxl=family == "sdxl")
            assert known[key] == f"{encoder}.transformer.{path}.weight"


def test_text_encoders_have_one_name_whatever_the_program() -> None:
    path = "text_model.encoder.layers.11.self_attn.q_proj"
    for prefix, number in (("lora_te_", ""), ("lora_te1_", ""), ("lora_te2_", "_2")):
        assert from_kohya(prefix + path.replace(".", "_")) == f"text_encoder{number}.{path}"
    assert layer_of(f"text_encoders.clip_g.transformer.{path}") == f"text_encoder_2.{path}"
    # As newer transformers names it.
    assert known_layer("text_encoder", "encoder.layers.11.self_attn.q_proj") == f"text_encoder.{path}"


@pytest.mark.parametrize("key", [
    "lora_unet_double_blocks_0_img_attn_proj", "lora_unet_single_blocks_3_linear1",  # Flux
    "lora_unet_joint_blocks_0_x_block_attn_qkv", "lora_te3_encoder_block_0_layer_0_SelfAttention_k",  # SD3
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn3_to_q", "lora_transformer_blocks_0_attn_to_k"])
def test_other_models_layers_are_not_taken_for_ours(key: str) -> None:
    assert from_kohya(key) is None
