"""A LoRA that is merged on the way to a file arrives whole, whatever type the model was stored in."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from kit.checkpoints import write_sd1, write_sd2
from safetensors.torch import load_file, save_file

from atelier.convert import ConversionReport, ConvertOptions, to_checkpoint
from atelier.errors import AtelierError
from atelier.lora.bake import merge_of
from atelier.lora.file import parse_lora
from atelier.lora.weights import LoraModule, LoraWeights
from atelier.models.layout import read_layout

UNET = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
WRITTEN = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def stored_as(dtype: torch.dtype, path: Path) -> Path:
    tensors = load_file(write_sd1(path, shape="tiny", dtype="float32"))
    save_file({name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()},
              path)
    return path


def adapter(out: int, inner: int, size: float) -> LoraModule:
    """A delta about `size` times as large as the weights, with alpha / r = 1/2."""
    stream = torch.Generator().manual_seed(0)
    return LoraModule(torch.randn(4, inner, generator=stream) / inner,
                      torch.randn(out, 4, generator=stream) * size, 2.0)


def merge(source: Path, precision: str,
          weights: LoraWeights) -> tuple[dict[str, torch.Tensor], ConversionReport]:
    out = source.with_name(f"{source.stem}-{precision}.safetensors")
    report = to_checkpoint(source, out, ConvertOptions(precision), merge=merge_of(weights, read_layout(source)))
    return load_file(out), report


@pytest.mark.parametrize("precision", WRITTEN)
@pytest.mark.parametrize("stored", [torch.float8_e4m3fn, torch.bfloat16, torch.float16])
def test_the_sum_is_rounded_once_to_the_written_type(stored: torch.dtype, precision: str, tmp_path: Path) -> None:
    source = stored_as(stored, tmp_path / "model.safetensors")
    before = load_file(source)
    module = adapter(*before[UNET].shape, size=0.05)
    after, _ = merge(source, precision, {LAYER: module})
    exact = before[UNET].double() + module.up.double() @ module.down.double() / 2
    assert after[UNET].dtype == WRITTEN[precision]
    nearest = exact.to(WRITTEN[precision])
    # A sum in float32 lies at most at the next number of the type, and there only if it is halfway.
    assert (after[UNET] != nearest).float().mean() < 0.01
    torch.testing.assert_close(after[UNET].double(), nearest.double(), rtol=2 ** -7, atol=1e-6)
    assert all(torch.equal(after[name].float(), before[name].to(WRITTEN[precision]).float())
               for name in before.keys() & after.keys() if name != UNET and before[name].is_floating_point())


def test_matrices_that_are_stored_as_one_may_be_merged_in_part(tmp_path: Path) -> None:
    """OpenCLIP keeps query, key and value in one matrix; the LoRA has an adapter for the query alone."""
    source = write_sd2(tmp_path / "model.safetensors", shape="tiny", dtype="bfloat16")
    name = "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight"
    before = load_file(source)[name].double()
    module = adapter(32, 32, size=0.05)
    after, _ = merge(source, "fp32", {"text_encoder.text_model.encoder.layers.0.self_attn.q_proj": module})
    before[:32] += module.up.double() @ module.down.double() / 2
    torch.testing.assert_close(after[name].double(), before, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("stored", "said"), [(torch.float8_e4m3fn, "float8_e4m3fn"), (torch.bfloat16, "bfloat16"),
                                              (torch.float16, ""), (torch.float32, "")])
def test_what_a_kept_type_rounds_away_is_said(stored: torch.dtype, said: str, tmp_path: Path) -> None:
    source = stored_as(stored, tmp_path / "model.safetensors")
    before = load_file(source)[UNET].double()
    module = adapter(*before.shape, size=0.05)
    after, report = merge(source, "keep", {LAYER: module})
    delta = module.up.double() @ module.down.double() / 2
    lost = (after[UNET].double() - before - delta).norm() / delta.norm()
    assert (lost > 0.05) == bool(said)
    assert (f"Rounding to {said} loses {lost:.0%} of what the LoRA changes" in report.text()) == bool(said)
    assert ("Rounding" in report.text()) == bool(said)


def test_a_rotation_of_inputs_is_merged_and_nothing_else_changes(tmp_path: Path) -> None:
    """OFTv2: W' = W · Rᵀ; the layer is turned, not added to."""
    source = stored_as(torch.float32, tmp_path / "model.safetensors")
    before = load_file(source)
    inner = before[UNET].shape[1]
    vectors = torch.randn(inner // 4, 6, generator=torch.Generator().manual_seed(0)) * 0.05
    key = "lora_unet_" + LAYER.removeprefix("unet.").replace(".", "_")
    rotated = parse_lora({f"{key}.oft_R.weight": vectors}, "a").weights
    after, _ = merge(source, "fp32", rotated)
    changed = (after[UNET] - before[UNET]).norm() / before[UNET].norm()
    assert changed > 0.05
    # A rotation keeps the length of every row.
    torch.testing.assert_close(after[UNET].norm(dim=1), before[UNET].norm(dim=1), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(after[UNET], rotated[LAYER].applied(before[UNET]), rtol=1e-5, atol=1e-6)
    assert all(torch.equal(after[name], before[name]) for name in before.keys() & after.keys() if name != UNET)


def test_a_merge_that_changes_a_shape_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    """The header is written before the numbers, so a file with other ones would be damaged."""
    source = stored_as(torch.float32, tmp_path / "model.safetensors")
    layer, kind = LAYER.removeprefix("unet."), list(load_file(source)[UNET].shape)
    with pytest.raises(AtelierError, match=re.escape(f"'{layer}.weight' the shape {[math.prod(kind)]}, not {kind}")):
        to_checkpoint(source, tmp_path / "out.safetensors",
                      merge=lambda component, name: torch.flatten if name == f"{layer}.weight" else None)
    assert list(tmp_path.iterdir()) == [source]
