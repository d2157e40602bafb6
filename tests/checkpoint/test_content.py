"""Files that are something else than their ending says, and folders whose files lie in other ways."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from atelier.checkpoint.folder import component_entries
from atelier.checkpoint.source import open_file
from atelier.errors import AtelierError

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"


def test_a_safetensors_file_by_another_name_is_to_be_renamed(tmp_path: Path) -> None:
    save_file({"a": torch.ones(4)}, tmp_path / "model.ckpt")
    with pytest.raises(AtelierError, match=r"Rename it to end in \.safetensors"):
        open_file(tmp_path / "model.ckpt")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_by_another_name_is_to_be_renamed(zipped: bool, tmp_path: Path) -> None:
    torch.save({"a": torch.ones(4)}, tmp_path / "model.safetensors", _use_new_zipfile_serialization=zipped)
    with pytest.raises(AtelierError, match=r"Rename it to end in \.ckpt"):
        open_file(tmp_path / "model.safetensors")


def test_a_pointer_of_git_lfs_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text(POINTER)
    with pytest.raises(AtelierError, match="git lfs pull"):
        open_file(tmp_path / "model.safetensors")
    with pytest.raises(AtelierError, match="git lfs pull"):
        (tmp_path / "model.safetensors").rename(tmp_path / "diffusion_pytorch_model.safetensors")
        component_entries(tmp_path)


def test_the_true_file_beside_a_pointer_is_read(tmp_path: Path) -> None:
    (tmp_path / "diffusion_pytorch_model.safetensors").write_text(POINTER)
    save_file({"a": torch.ones(4).half()}, tmp_path / "diffusion_pytorch_model.fp16.safetensors")
    assert set(component_entries(tmp_path)) == {"a"}


@pytest.mark.parametrize("variant", ["", ".fp16"])
def test_shards_without_an_index_are_read(variant: str, tmp_path: Path) -> None:
    for number, name in ((1, "a"), (2, "b")):
        save_file({name: torch.ones(4)},
                  tmp_path / f"diffusion_pytorch_model{variant}-0000{number}-of-00002.safetensors")
    assert set(component_entries(tmp_path)) == {"a", "b"}
    (tmp_path / f"diffusion_pytorch_model{variant}-00002-of-00002.safetensors").unlink()
    with pytest.raises(AtelierError, match=r"00002-of-00002\.safetensors is missing"):
        component_entries(tmp_path)


def test_a_byte_order_mark_in_an_index_is_passed_by(tmp_path: Path) -> None:
    save_file({"a": torch.ones(4)}, tmp_path / "x.safetensors")
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "x.safetensors"}}), encoding="utf-8-sig")
    assert set(component_entries(tmp_path)) == {"a"}


@pytest.mark.parametrize("name", ["model-one-of-two.safetensors", "model-1-of-.safetensors",
                                  "model-0000001-of-0000001.safetensors"])
def test_a_name_that_only_looks_like_a_shards_is_told(name: str, tmp_path: Path) -> None:
    save_file({"a": torch.ones(4)}, tmp_path / name)
    with pytest.raises(AtelierError, match=rf"{name} is no shard, though its name looks like it"):
        component_entries(tmp_path)
