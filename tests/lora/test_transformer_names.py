"""LoRAs of diffusion transformers by diffusers' names, against diffusers' own conversion of published files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.loaders import lora_conversion_utils as theirs
from safetensors.torch import load_file

from atelier.errors import AtelierError
from atelier.lora.convert import convert_lora
from atelier.lora.file import save_lora
from atelier.lora.weights import LoraModule, LoraWeights

D, RANK = 48, 2


def lora(**shapes: tuple[int, int]) -> LoraWeights:
    """Random adapters: by layer name, outputs and inputs."""
    stream = torch.Generator().manual_seed(0)
    return {f"diffusion_model.{name}": LoraModule(torch.randn(RANK, inputs, generator=stream),
                                                  torch.randn(outputs, RANK, generator=stream), float(RANK))
            for name, (outputs, inputs) in shapes.items()}


FLUX2 = {"double_blocks.0.img_attn.qkv": (3 * D, D), "double_blocks.0.txt_attn.qkv": (3 * D, D),
         "double_blocks.0.img_attn.proj": (D, D), "double_blocks.0.txt_attn.proj": (D, D),
         "double_blocks.0.img_mlp.0": (6 * D, D), "double_blocks.0.txt_mlp.2": (D, 3 * D),
         "single_blocks.1.linear1": (9 * D, D), "single_blocks.1.linear2": (D, 4 * D)}
LUMINA = {f"{block}.0.{layer}": shape for block in ("layers", "noise_refiner") for layer, shape in (
    ("attention.qkv", (3840, 2304)), ("attention.out", (2304, 2304)), ("feed_forward.w1", (9216, 2304)),
    ("feed_forward.w2", (2304, 9216)), ("feed_forward.w3", (9216, 2304)), ("adaLN_modulation.1", (9216, 1024)))}
KREA2 = {f"{block}.{layer}": (D, D) for block in ("blocks.3", "txtfusion.refiner_blocks.0") for layer in (
    "attn.wq", "attn.wk", "attn.wv", "attn.wo", "attn.gate", "mlp.gate", "mlp.up", "mlp.down")}
ANIMA = {f"blocks.0.{layer}": (D, D) for layer in (
    "self_attn.q_proj", "self_attn.output_proj", "cross_attn.v_proj", "cross_attn.output_proj", "mlp.layer1",
    "mlp.layer2", "adaln_modulation_self_attn.1", "adaln_modulation_mlp.2")}
QWEN = {f"transformer_blocks.7.{layer}": (D, D) for layer in (
    "attn.to_q", "attn.add_k_proj", "attn.to_out.0", "attn.to_add_out", "img_mlp.net.0.proj", "txt_mod.1")}


@pytest.mark.parametrize(("shapes", "convert"), [
    (FLUX2, theirs._convert_non_diffusers_flux2_lora_to_diffusers),
    (LUMINA, theirs._convert_non_diffusers_lumina2_lora_to_diffusers),
    (KREA2, theirs._convert_non_diffusers_krea2_lora_to_diffusers),
    (ANIMA, theirs._convert_non_diffusers_anima_lora_to_diffusers),
    (QWEN, theirs._convert_non_diffusers_qwen_lora_to_diffusers),
], ids=["flux2", "lumina2", "krea2", "anima", "qwen"])
def test_names_and_parts_are_those_of_diffusers_own_conversion(tmp_path: Path, shapes: dict[str, tuple[int, int]],
                                                               convert: object) -> None:
    source = save_lora(tmp_path / "lora.safetensors", lora(**shapes))
    report = convert_lora(source, tmp_path / "diffusers.safetensors", "diffusers")
    assert report.matched == report.total == 3 * len(shapes)
    found = load_file(tmp_path / "diffusers.safetensors")
    published = {key: tensor for key, tensor in load_file(source).items() if not key.endswith(".alpha")}
    expected = convert(published)
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in found.items())


def test_chromas_layers_are_those_of_diffusers_class(tmp_path: Path) -> None:
    from diffusers import ChromaTransformer2DModel

    shapes = {"double_blocks.0.img_attn.qkv": (3 * D, D), "double_blocks.0.txt_attn.proj": (D, D),
              "double_blocks.0.txt_mlp.0": (4 * D, D), "single_blocks.0.linear1": (7 * D, D),
              "single_blocks.0.linear2": (D, 5 * D), "distilled_guidance_layer.layers.0.in_layer": (32, 32)}
    state = load_file(save_lora(tmp_path / "lora.safetensors", lora(**shapes), format="diffusers"))
    other = ChromaTransformer2DModel(
        in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=3,
        joint_attention_dim=32, axes_dims_rope=(4, 6, 6), approximator_num_channels=64, approximator_hidden_dim=32,
        approximator_layers=1)
    other.load_lora_adapter(dict(state), prefix="transformer")
    loaded = [name for name, _ in other.named_parameters() if ".lora_" in name]
    assert len(loaded) == len(state) == 2 * (3 + 1 + 1 + 4 + 1 + 1)


def test_the_parts_of_a_dora_have_their_own_magnitudes(tmp_path: Path) -> None:
    (name, module), = lora(**{"layers.0.attention.qkv": (3 * D, D)}).items()
    dora = LoraModule(module.down, module.up, module.alpha, torch.arange(3.0 * D))
    state = load_file(save_lora(tmp_path / "dora.safetensors", {name: dora}, format="diffusers"))
    found = [state[f"transformer.layers.0.attention.{part}.lora_magnitude_vector"] for part in ("to_q", "to_k", "to_v")]
    assert torch.equal(torch.cat(found), torch.arange(3.0 * D))


@pytest.mark.parametrize(("shapes", "base", "said"), [
    ({"double_stream_blocks.0.block.attn1.to_q": (D, D)}, "", "not known here.*Keep kohya's form.*Z-Image"),
    (QWEN, "lens", r"\(lens\) are not known here"),
    ({"double_blocks.0.img_mlp.0": (5 * D, D)}, "", "not known here"),
])
def test_what_diffusers_has_no_known_names_for_is_refused(tmp_path: Path, shapes: dict[str, tuple[int, int]], base: str,
                                                          said: str) -> None:
    header = {"ss_base_model_version": base} if base else {}
    source = save_lora(tmp_path / "lora.safetensors", lora(**shapes), metadata=header)
    with pytest.raises(AtelierError, match=said):
        convert_lora(source, tmp_path / "other.safetensors", "diffusers")
    with pytest.raises(AtelierError, match="no names here in PEFT's format"):
        convert_lora(source, tmp_path / "other", "peft")
    assert not list(tmp_path.glob("other*"))
