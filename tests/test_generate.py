"""What pictures are drawn with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.checkpoints import write_sd1

from atelier import generate as drawing
from atelier.errors import AtelierError
from atelier.generate import GenerateRequest, generate
from atelier.lora.file import save_lora
from atelier.lora.weights import LoraModule
from atelier.models.open import open_model
from atelier.progress import Progress
from atelier.sampling import SamplingOptions


@pytest.mark.parametrize(("dtype", "of_vae"), [
    (torch.float16, torch.float32),  # in float16 the VAE of SDXL, and that of some fine-tunes, overflows: black
    (torch.bfloat16, torch.bfloat16), (torch.float32, torch.float32)])
def test_a_vae_decodes_in_a_type_that_does_not_overflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                       dtype: torch.dtype, of_vae: torch.dtype) -> None:
    loaded: list[Any] = []

    def load_vae(model: Any, **options: Any) -> Any:
        loaded.append(options["dtype"])
        return original(model, **options)

    original = drawing.load_vae
    monkeypatch.setattr(drawing, "load_vae", load_vae)
    model = open_model(write_sd1(tmp_path / "model.safetensors", shape="tiny"))
    picture, = generate(model, GenerateRequest(prompts=("a cat",), seeds=(1,), options=SamplingOptions(
        width=64, height=64, steps=1)), device=torch.device("cpu"), dtype=dtype, progress=Progress())
    assert loaded == [of_vae]
    assert picture.image.size == (64, 64)


@pytest.mark.parametrize(("values", "message"), [
    ({"prompts": ()}, "There are 0 prompts and 1 seeds"), ({"seeds": (1, 2)}, "There are 1 prompts and 2 seeds"),
    ({"prompts": (), "seeds": ()}, "There are 0 prompts and 0 seeds"), ({"batch_size": 0}, "batch_size is 0"),
    ({"seeds": (2**64,)}, f"seed is {2**64}"), ({"seeds": (-2**63 - 1,)}, "seed is -"),
    ({"strength": math.nan}, "strength is nan"), ({"strength": math.inf}, "strength is inf"),
    ({"prompts": ("a\0",)}, "The prompt"), ({"negative": "a\0"}, "The negative prompt")])
def test_what_cannot_be_drawn_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(AtelierError, match=message):
        GenerateRequest(**{"prompts": ("a cat",), "seeds": (1,), **values})


def test_the_outermost_seeds_are_taken() -> None:
    GenerateRequest(prompts=("a", "b"), seeds=(2**64 - 1, -2**63), strength=-1.0)


def test_a_lora_of_another_network_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    layer = "diffusion_model.double_blocks.0.img_attn.proj"
    lora = save_lora(tmp_path / "flux.safetensors", {layer: LoraModule(torch.ones(2, 4), torch.ones(4, 2), 2.0)})
    unread: Any = None
    with pytest.raises(AtelierError, match=rf"flux\.safetensors is a LoRA of a network .* \(first layer: {layer}\)"):
        generate(unread, GenerateRequest(prompts=("a cat",), seeds=(1,), lora=lora), device=torch.device("cpu"),
                 dtype=torch.float32, progress=Progress())
