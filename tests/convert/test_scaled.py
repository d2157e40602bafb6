"""Scaled float8: what is written is within half a step of the original, and is read again as number times scale."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from kit.checkpoints import write_sd1, write_sd2, write_sdxl
from safetensors.torch import load_file, save_file
from torch import Tensor

from atelier.checkpoint.entry import Entry
from atelier.convert import ConvertOptions, to_checkpoint, to_folder
from atelier.convert.scaled import as_scaled
from atelier.errors import AtelierError
from atelier.lora.bake import merge_of
from atelier.lora.weights import LoraModule
from atelier.models.layout import read_layout
from atelier.models.lazy_tensor import LazyTensor
from atelier.models.open import open_model

PREFIX = "model.diffusion_model."
LAYER = PREFIX + "input_blocks.1.1.transformer_blocks.0.attn1.to_q"
FP8 = ConvertOptions("fp8")
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2


def product(tensors: dict[str, Tensor], layer: str) -> Tensor:
    return tensors[f"{layer}.weight"].double() * tensors[f"{layer}.weight_scale"].double()


def half_step(values: Tensor, scale: Tensor) -> Tensor:
    """Half the distance between neighbours of float8_e4m3fn around values / scale: three bits behind the first, and no
    exponent below -6."""
    exponents = (values.double() / scale.double()).abs().clamp(min=2.0 ** -6).log2().floor()
    return 2 ** (exponents - 4) * scale.double()


@pytest.mark.parametrize("write", [write_sd1, write_sd2, write_sdxl])
def test_matrices_of_transformer_blocks_are_float8_with_a_scale_and_all_else_float16(write, tmp_path: Path) -> None:
    source = write(tmp_path / "model.safetensors", shape="tiny", dtype="float32")
    whole = load_file(source)
    zero = next(name for name in whole if name.endswith("attn2.to_k.weight"))
    save_file(whole | {zero: torch.zeros_like(whole[zero])}, source)
    report = to_checkpoint(source, tmp_path / "fp8.safetensors", FP8)
    before, after = load_file(source), load_file(tmp_path / "fp8.safetensors")
    layers = {name.removesuffix(".weight") for name, tensor in after.items() if tensor.dtype == E4M3}
    assert layers == {name.removesuffix(".weight") for name, tensor in before.items()
                      if ".transformer_blocks." in name and tensor.dim() == 2 and name.startswith(PREFIX)}
    for layer in layers:
        weight, scale = before[f"{layer}.weight"].double(), after[f"{layer}.weight_scale"]
        assert scale.dtype == torch.float32 and scale.shape == ()
        error = (product(after, layer) - weight).abs()
        assert bool((error <= half_step(weight, scale) * (1 + 1e-6)).all()), layer
        if weight.any():
            torch.testing.assert_close(scale.double(), weight.abs().max() / 448)
            assert float(after[f"{layer}.weight"].float().abs().max()) == 448
        del after[f"{layer}.weight"], after[f"{layer}.weight_scale"]
        assert json.loads(bytes(after.pop(f"{layer}.comfy_quant"))) == {
            "format": "float8_e4m3fn", "full_precision_matrix_mult": True}
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name].half() if before[name].is_floating_point() else before[name]), name
    assert report.dtype == "float8_e4m3fn" and f"{len(layers)} matrices" in report.text()
    assert report.bytes == (tmp_path / "fp8.safetensors").stat().st_size


def test_a_written_file_is_opened_as_number_times_scale_and_written_again_alike(tmp_path: Path) -> None:
    source = write_sdxl(tmp_path / "model.safetensors", shape="tiny")
    first = tmp_path / "fp8.safetensors"
    to_checkpoint(source, first, FP8)
    stored = load_file(first)
    assert open_model(first).dtype == "float16"
    to_checkpoint(first, tmp_path / "plain.safetensors")
    plain, whole = load_file(tmp_path / "plain.safetensors"), load_file(source)
    assert plain.keys() == {name for name in whole if not name.endswith("position_ids")}
    for name, tensor in plain.items():
        scaled = stored[name].dtype == E4M3
        expected = product(stored, name.removesuffix(".weight")).half() if scaled else stored[name]
        assert tensor.dtype == torch.float16 and torch.equal(tensor, expected), name
    to_folder(first, tmp_path / "folder")
    unet = load_file(tmp_path / "folder/unet/diffusion_pytorch_model.safetensors")
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    layer = PREFIX + "input_blocks.3.1.transformer_blocks.0.attn1.to_q"
    assert torch.equal(unet[f"{name}.weight"], product(stored, layer).half())
    to_checkpoint(tmp_path / "folder", tmp_path / "again.safetensors", FP8)
    again = load_file(tmp_path / "again.safetensors")
    numbers = [name for name, tensor in again.items() if tensor.dtype == E4M3]
    assert numbers and all(torch.equal(again[name].float(), stored[name].float()) for name in numbers)


def test_a_matrix_is_read_for_its_scale_once() -> None:
    reads: list[int] = []

    def read() -> Tensor:
        reads.append(1)
        return torch.randn(16, 16)

    scaled = as_scaled({"a.weight": LazyTensor.of(Entry("F32", (16, 16), read))}, ["a.weight"])
    scaled["a.weight"].read(), scaled["a.weight_scale"].read(), scaled["a.weight"].read()
    assert len(reads) == 1 + 2


@pytest.mark.parametrize("form", ["texts", "metadata", "old"])
@pytest.mark.parametrize("kind", [E4M3, E5M2])
def test_files_of_other_programs_are_read(form: str, kind: torch.dtype, tmp_path: Path) -> None:
    """The three forms that ComfyUI reads; what is beside them is bfloat16."""
    source = write_sd1(tmp_path / "model.safetensors", shape="tiny", dtype="bfloat16")
    tensors, table = load_file(source), {}
    whole = tensors[f"{LAYER}.weight"].clone()
    tensors[f"{LAYER}.weight"] = (whole.float() / 0.01).to(kind)
    scale, text = torch.tensor(0.01), {"format": str(kind).removeprefix("torch.")}
    if form == "old":
        tensors |= {f"{LAYER}.scale_weight": scale.reshape(1), f"{LAYER}.scale_input": torch.ones(1),
                    f"{PREFIX}scaled_fp8": torch.zeros(2, dtype=kind)}
    else:
        tensors |= {f"{LAYER}.weight_scale": scale, f"{LAYER}.input_scale": torch.ones(())}
    if form == "texts":
        tensors[f"{LAYER}.comfy_quant"] = torch.tensor(list(json.dumps(text).encode()), dtype=torch.uint8)
    if form == "metadata":
        table = {"_quantization_metadata": json.dumps({"layers": {LAYER: text}})}
    save_file(tensors, source, metadata=table)
    report = to_checkpoint(source, tmp_path / "out.safetensors")
    out = load_file(tmp_path / "out.safetensors")
    assert torch.equal(out[f"{LAYER}.weight"], (tensors[f"{LAYER}.weight"].float() * 0.01).bfloat16())
    assert not any("scale" in name for name in report.dropped)
    assert not any("scale" in name or "quant" in name for name in out if PREFIX in name)
    assert b"_quantization_metadata" not in (tmp_path / "out.safetensors").read_bytes()


def quant(text: object) -> Tensor:
    return torch.tensor(list(json.dumps(text).encode()), dtype=torch.uint8)


REFUSED = {
    "format 'nvfp4'": {".comfy_quant": quant({"format": "nvfp4"}), ".weight_scale": torch.ones(())},
    "format 'None'": {".comfy_quant": quant([]), ".weight_scale": torch.ones(())},
    "has none": {".comfy_quant": quant({"format": "float8_e4m3fn"})},
    r"float32 of shape \[32\]": {".comfy_quant": quant({"format": "float8_e4m3fn"}), ".weight_scale": torch.ones(32)},
    "no such weight": {".comfy_quant": quant({"format": "float8_e5m2"}), ".weight_scale": torch.ones(())},
    "not valid JSON": {".comfy_quant": torch.tensor([123], dtype=torch.uint8)},
    "not known here.*weight_scale'": {".weight_scale": torch.ones(())},
    "not known here.*pre_quant_scale": {".comfy_quant": quant({"format": "float8_e4m3fn"}),
                                        ".weight_scale": torch.ones(()), ".pre_quant_scale": torch.ones(32)},
}


@pytest.fixture(scope="module")
def tensors_with_float8(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    tensors = load_file(write_sd1(tmp_path_factory.mktemp("fp8") / "model.safetensors", shape="tiny"))
    return tensors | {f"{LAYER}.weight": tensors[f"{LAYER}.weight"].to(E4M3)}


@pytest.mark.parametrize("said", REFUSED)
def test_what_is_not_understood_is_refused(said: str, tensors_with_float8: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(tensors_with_float8 | {LAYER + ending: tensor for ending, tensor in REFUSED[said].items()}, path)
    with pytest.raises(AtelierError, match=said):
        read_layout(path)


def test_products_beyond_float16_are_refused(tensors_with_float8: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(tensors_with_float8 | {f"{LAYER}.comfy_quant": quant({"format": "float8_e4m3fn"}),
                                     f"{LAYER}.weight_scale": torch.tensor(1e9)}, path)
    with pytest.raises(AtelierError, match="beyond float16"):
        to_checkpoint(path, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("number", [float("inf"), -float("inf"), float("nan")])
def test_a_matrix_that_is_not_finite_is_named_and_nothing_is_written(number: float, tmp_path: Path) -> None:
    """A scale of infinity would make every number of the layer 0."""
    source = write_sd1(tmp_path / "model.safetensors", shape="tiny")
    tensors = load_file(source)
    tensors[f"{LAYER}.weight"][0, 0] = number
    save_file(tensors, source)
    with pytest.raises(AtelierError, match=rf"'{LAYER}\.weight' holds numbers that are not finite"):
        to_checkpoint(source, tmp_path / "out.safetensors", FP8)
    assert list(tmp_path.iterdir()) == [source]


def test_a_folder_of_float8_is_refused(tmp_path: Path) -> None:
    source = write_sd1(tmp_path / "model.safetensors", shape="tiny")
    with pytest.raises(AtelierError, match="folder cannot hold fp8"):
        to_folder(source, tmp_path / "folder", FP8)
    assert not (tmp_path / "folder").exists()


def test_a_merged_lora_is_added_before_rounding_and_what_is_lost_is_said(tmp_path: Path) -> None:
    source = write_sd1(tmp_path / "model.safetensors", shape="tiny", dtype="float32")
    before = load_file(source)[f"{LAYER}.weight"].double()
    stream = torch.Generator().manual_seed(0)
    module = LoraModule(torch.randn(4, 32, generator=stream) / 32, torch.randn(32, 4, generator=stream) * 0.1, 4.0)
    weights = {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": module}
    out = tmp_path / "fp8.safetensors"
    report = to_checkpoint(source, out, FP8, merge=merge_of(weights, read_layout(source)))
    delta = module.up.double() @ module.down.double()
    after = load_file(out)
    numbers = ((before + delta) / ((before + delta).abs().max() / 448)).to(E4M3).float()
    assert (after[f"{LAYER}.weight"].float() != numbers).float().mean() < 0.01
    lost = (product(after, LAYER) - before - delta).norm() / delta.norm()
    assert lost > 0.05 and f"Rounding to float8_e4m3fn loses {lost:.0%} of what the LoRA changes" in report.text()
