"""What a LoRA is not extracted from: values out of range, models built differently or with broken numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from kit.checkpoints import write_sd1
from safetensors.torch import load_file, save_file
from torch import Tensor

from atelier.errors import AtelierError
from atelier.lora.extract import extract_lora
from atelier.lora.file import load_lora

LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
STORED = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
"""Its name in a checkpoint."""
TEXT = "cond_stage_model.transformer.text_model."


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sd1(tmp_path_factory.mktemp("base") / "base.safetensors", "tiny", dtype="float32")


def with_tensors(state: dict[str, Tensor], path: Path, **tensors: Tensor) -> Path:
    save_file({**state, **tensors}, path)
    return path


@pytest.mark.parametrize(("values", "said"), [
    ({"rank": 0}, "rank is 0"), ({"rank": -1}, "rank is -1"), ({"share": 0.0}, r"share is 0\.0"),
    ({"share": 1.5}, r"share is 1\.5"), ({"share": float("nan")}, "share is nan")])
def test_values_out_of_range_are_refused_before_anything_is_read(values: dict[str, Any], said: str, tmp_path: Path
                                                                 ) -> None:
    with pytest.raises(AtelierError, match=said):
        extract_lora(tmp_path / "gone.safetensors", tmp_path / "b.safetensors", tmp_path / "c.safetensors", **values)


def test_models_of_one_family_that_are_built_differently_are_told_apart(base: Path, tmp_path: Path) -> None:
    words, state = f"{TEXT}embeddings.token_embedding.weight", load_file(base)
    rows, width = state[words].shape
    more = with_tensors(state, tmp_path / "more.safetensors",
                        **{words: torch.cat([state[words], torch.ones(2, width)])})
    with pytest.raises(AtelierError, match=rf"more\.safetensors and base\.safetensors are built differently: "
                       rf"text_encoder\S+token_embedding\.weight is \[{rows + 2}, {width}\] in one and "
                       rf"\[{rows}, {width}\] in the other"):
        extract_lora(more, base, tmp_path / "lora.safetensors")
    assert not (tmp_path / "lora.safetensors").exists()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_layer_with_a_broken_number_in_either_model_is_named(number: float, base: Path, tmp_path: Path) -> None:
    state = load_file(base)
    tensor = state[STORED].clone()
    tensor[0, 0] = number
    broken = with_tensors(state, tmp_path / "broken.safetensors", **{STORED: tensor})
    for pair in ((broken, base), (base, broken)):
        with pytest.raises(AtelierError, match=rf"{LAYER} holds NaN or infinite values"):
            extract_lora(*pair, tmp_path / "lora.safetensors")
    assert not (tmp_path / "lora.safetensors").exists()


def test_layers_of_one_model_alone_are_passed_by(base: Path, tmp_path: Path) -> None:
    """As with Stable Diffusion 2, whose last layer of the text encoder is in some files and not in others."""
    state = load_file(base)
    last = f"{TEXT}encoder.layers." + max(key.split("encoder.layers.")[1].split(".")[0] for key in state
                                          if key.startswith(f"{TEXT}encoder.layers."))
    tuned = with_tensors(state, tmp_path / "tuned.safetensors",
                         **{key: state[key] + 1 for key in (STORED, f"{last}.mlp.fc1.weight")})
    short = with_tensors({key: tensor for key, tensor in state.items() if not key.startswith(f"{last}.")},
                         tmp_path / "short.safetensors")
    whole = extract_lora(tuned, base, tmp_path / "lora.safetensors", rank=1, share=1.0)
    assert whole.layers == {"unet": 1, "text_encoder": 1} and whole.ranks == "1"
    report = extract_lora(tuned, short, tmp_path / "lora.safetensors", rank=1)
    assert report.layers == {"unet": 1} and load_lora(tmp_path / "lora.safetensors").keys() == {LAYER}
