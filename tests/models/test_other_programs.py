"""Checkpoints as other programs write them: with other names, with more, and with less than a whole model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kit.checkpoints import write_sd1, write_sdxl
from safetensors.torch import load_file, save_file

from atelier.convert.folder import to_folder
from atelier.convert.single_file import to_checkpoint
from atelier.models.inspect import inspect
from atelier.models.load import load_unet, load_vae
from atelier.models.open import open_model

UNET = "model.diffusion_model."
RENAMED: dict[str, Callable[[str], str]] = {
    "training in parallel": lambda name: name.replace("model.", "model.module.", 1),
    "a compiled unet": lambda name: name.replace(UNET, f"{UNET}_orig_mod."),
    "everything wrapped": lambda name: f"module._orig_mod.{name}",
    "the unet alone": lambda name: name.removeprefix("model.") if name.startswith(UNET) else "",
    "the vae's attention under diffusers' names": lambda name: (
        name.replace(".q.", ".to_q.").replace(".k.", ".to_k.").replace(".v.", ".to_v.").replace(
            ".proj_out.", ".to_out.0.")
        if ".mid.attn_1." in name else name),
}


@pytest.mark.parametrize("case", RENAMED)
def test_other_names_lead_to_the_same_weights(case: str, tmp_path: Path) -> None:
    path = write_sd1(tmp_path / "model.safetensors", shape="tiny")
    unet, vae = load_unet(open_model(path)).state_dict(), load_vae(open_model(path)).state_dict()
    tensors, rename = load_file(path), RENAMED[case]
    renamed = {new: value for name, value in tensors.items() if (new := rename(name))}
    assert renamed.keys() != tensors.keys()
    save_file(renamed, tmp_path / "other.safetensors")
    model = open_model(tmp_path / "other.safetensors")
    got = load_unet(model).state_dict()
    assert all(torch.equal(got[name], value) for name, value in unet.items())
    if case != "the unet alone":
        got = load_vae(model).state_dict()
        assert all(torch.equal(got[name], value) for name, value in vae.items())


def without(path: Path, *prefixes: str) -> Path:
    save_file({name: value for name, value in load_file(path).items() if not name.startswith(prefixes)}, path)
    return path


@pytest.mark.parametrize(("prefixes", "words"), [
    (("first_stage_model.",), "VAE"), (("conditioner.embedders.1.",), "text encoder (CLIP-G)"),
    (("first_stage_model.", "conditioner."), "VAE, text encoder (CLIP-L), text encoder (CLIP-G)"),
])
def test_what_a_model_lacks_is_said_everywhere(prefixes: tuple[str, ...], words: str, tmp_path: Path) -> None:
    path = without(write_sdxl(tmp_path / "model.safetensors", shape="tiny"), *prefixes)
    texts = [inspect(path).text(), to_folder(path, tmp_path / "folder").text(),
             to_checkpoint(path, tmp_path / "copy.safetensors").text(), inspect(tmp_path / "folder").text()]
    assert [words in text for text in texts] == [True] * 4, texts
    whole = write_sdxl(tmp_path / "whole.safetensors", shape="tiny")
    assert words not in inspect(whole).text()


def test_more_tokens_than_clips_are_cut_with_a_note(tmp_path: Path) -> None:
    """The host builds the text encoder for 49 408 tokens, and no tokenizer of its own knows the others."""
    name = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
    path = write_sd1(tmp_path / "model.safetensors", shape="tiny")
    tensors = load_file(path)
    table = torch.randn(49408 + 2, tensors[name].shape[1]).half()
    save_file(tensors | {name: table}, path)
    report = to_checkpoint(path, tmp_path / "cut.safetensors")
    assert "2 tokens of the text_encoder" in report.text()
    assert torch.equal(load_file(tmp_path / "cut.safetensors")[name], table[:49408])
