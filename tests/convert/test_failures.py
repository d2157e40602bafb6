"""When a conversion fails, it says why, leaves nothing behind, and what stood there before stays."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.checkpoints import write_sd1, write_sdxl
from safetensors.torch import load_file, save_file

from atelier.checkpoint import write
from atelier.convert import ConvertOptions, to_checkpoint, to_folder
from atelier.errors import AtelierError
from atelier.progress import Interrupted, Progress

ROOT = Path(__file__).resolve().parent.parent.parent


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where results go: a model of each form is there already."""
    source = write_sd1(tmp_path / "old.safetensors", shape="tiny", seed=1)
    out = tmp_path / "out"
    to_folder(source, out / "folder")
    to_checkpoint(source, out / "file.safetensors")
    return out


def assert_fails(source: Path, place: Path, message: str) -> None:
    """Both conversions of `source` fail with this message and leave everything as it was."""
    before = snapshot(place)
    with pytest.raises(AtelierError, match=message):
        to_folder(source, place / "folder")
    with pytest.raises(AtelierError, match=message):
        to_checkpoint(source, place / "file.safetensors")
    assert snapshot(place) == before


def changed(source: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    tensors = load_file(source)
    change(tensors)
    save_file(tensors, source)
    return source


def test_truncated_file(tmp_path: Path, place: Path) -> None:
    source = write_sd1(tmp_path / "model.safetensors", shape="tiny")
    os.truncate(source, source.stat().st_size - 1000)
    assert_fails(source, place, "cut short")
    os.truncate(source, 500)
    assert_fails(source, place, "cut short")


def test_not_a_model(tmp_path: Path, place: Path) -> None:
    (tmp_path / "notes.safetensors").write_text("these are my notes, not a model")
    assert_fails(tmp_path / "notes.safetensors", place, "not a safetensors file")
    save_file({"lora_unet_down.lora_up.weight": torch.zeros(2, 2)}, tmp_path / "lora.safetensors")
    assert_fails(tmp_path / "lora.safetensors", place, "looks like a LoRA")
    save_file({"decoder.conv_in.weight": torch.zeros(2, 2)}, tmp_path / "vae.safetensors")
    assert_fails(tmp_path / "vae.safetensors", place, "looks like a VAE")
    for name in ("double_blocks.0.img_attn.proj.weight", "model.diffusion_model.joint_blocks.0.x_block.attn.qkv"):
        save_file({name: torch.zeros(2, 2)}, tmp_path / "transformer.safetensors")
        assert_fails(tmp_path / "transformer.safetensors", place, "looks like a transformer model such as Flux or SD3")
    save_file({"some.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    assert_fails(tmp_path / "other.safetensors", place, r"it has no UNet\. Choose")
    assert_fails(tmp_path / "absent.safetensors", place, "cannot be read")
    (tmp_path / "empty").mkdir()
    assert_fails(tmp_path / "empty", place, "not a diffusers folder")


WRONG_SHAPES = {
    "input channels": ("model.diffusion_model.input_blocks.0.0.weight", (32, 5, 3, 3), "5 input channels"),
    "a width": ("model.diffusion_model.input_blocks.1.0.out_layers.3.weight", (32, 16, 3, 3), "calls for"),
    "a vector": ("cond_stage_model.transformer.text_model.encoder.layers.1.layer_norm2.bias", (31,), "calls for"),
    "an attention that is no matrix": ("first_stage_model.encoder.mid.attn_1.q.weight", (32, 32, 3, 3), "cannot have"),
}


@pytest.mark.parametrize(("name", "shape", "message"), WRONG_SHAPES.values(), ids=WRONG_SHAPES.keys())
def test_wrong_shapes(name: str, shape: tuple[int, ...], message: str, tmp_path: Path, place: Path) -> None:
    source = write_sd1(tmp_path / "model.safetensors", shape="tiny")
    assert_fails(changed(source, lambda tensors: tensors.update({name: torch.zeros(shape)})), place, message)


def test_unknown_and_missing_parts(tmp_path: Path, place: Path) -> None:
    source = write_sd1(tmp_path / "model.safetensors", shape="tiny")
    extra = "model.diffusion_model.control.0.weight"
    assert_fails(changed(source, lambda tensors: tensors.update({extra: torch.zeros(2)})), place, r"control\.0")
    source = write_sd1(tmp_path / "model.safetensors", shape="tiny")
    token = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
    assert_fails(changed(source, lambda tensors: tensors.pop(token)), place, "token_embedding")
    for lost in ("model.diffusion_model.output_blocks.1.1.conv.weight", "first_stage_model.decoder.mid.attn_1.k.bias",
                 "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_v.weight"):
        source = write_sd1(tmp_path / "model.safetensors", shape="tiny")
        assert_fails(changed(source, lambda tensors, lost=lost: tensors.pop(lost)), place, "lacks its tensor")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_disk_full_or_broken_in_the_middle(number: int, tmp_path: Path, place: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_sd1(tmp_path / "model.safetensors", shape="tiny")
    calls = []

    def fails(*args: Any) -> int:
        calls.append(args)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(write, "_copy", fails)
    assert_fails(source, place, "disk is full" if number == errno.ENOSPC else "Input/output error")
    assert len(calls) == 2


def test_no_room_is_noticed_before_the_work(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_sd1(tmp_path / "model.safetensors", shape="tiny")
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    assert_fails(source, place, "has 0 MB free")


def test_a_real_write_error(tmp_path: Path, place: Path) -> None:
    """The kernel itself refuses to let the file grow."""
    source = write_sd1(tmp_path / "model.safetensors", shape="tiny")
    before = snapshot(place)
    # Python's own start ignores the signal that would come with the error.
    script = ("import resource, sys; from pathlib import Path; from atelier.convert import to_folder\n"
              "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
              "to_folder(Path(sys.argv[1]), Path(sys.argv[2]))")
    done = subprocess.run([sys.executable, "-c", script, str(source), str(place / "folder")], cwd=ROOT, check=False,
                          capture_output=True, text=True)
    assert done.returncode == 1 and "File too large" in done.stderr
    assert snapshot(place) == before


def test_interrupted(tmp_path: Path, place: Path) -> None:
    class Stop(Progress):
        def check(self) -> None:
            raise Interrupted

    source = write_sd1(tmp_path / "model.safetensors", shape="tiny")
    before = snapshot(place)
    for convert, target in ((to_folder, "folder"), (to_checkpoint, "file.safetensors")):
        with pytest.raises(Interrupted):
            convert(source, place / target, None, Stop())
    assert snapshot(place) == before


def test_a_folder_that_is_a_link_is_replaced_where_it_lies(tmp_path: Path) -> None:
    """The link stays a link, and nothing is left beside it."""
    source = write_sd1(tmp_path / "model.safetensors", shape="tiny")
    (tmp_path / "big disk").mkdir()
    to_folder(source, tmp_path / "big disk" / "model")
    (tmp_path / "big disk" / "model" / "unet" / "config.json").unlink()
    (tmp_path / "link").symlink_to(tmp_path / "big disk" / "model", target_is_directory=True)
    to_folder(source, tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "big disk" / "model" / "unet" / "config.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big disk", "link", "model.safetensors"]
    assert [path.name for path in (tmp_path / "big disk").iterdir()] == ["model"]


def test_a_destination_below_a_file_is_explained(tmp_path: Path) -> None:
    source = write_sd1(tmp_path / "model.safetensors", shape="tiny")
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(AtelierError, match="could not be written"):
        to_folder(source, tmp_path / "note.txt" / "folder")
    with pytest.raises(AtelierError, match="could not be written"):
        to_checkpoint(source, tmp_path / "note.txt" / "file.safetensors")
    with pytest.raises(AtelierError, match="cannot be read"):
        to_folder(tmp_path / "note.txt" / "x", tmp_path / "folder")


@pytest.mark.parametrize("spelling", ["sub/../{}", "link to {}"])
def test_no_spelling_of_the_source_is_a_destination(spelling: str, tmp_path: Path) -> None:
    """Another way to the same place is the same place: what is read is never replaced."""
    models, name = tmp_path / "models", spelling.format
    source = write_sd1(models / "model.safetensors", shape="tiny")
    to_folder(source, models / "folder")
    (models / "folder" / "safety.txt").write_text("mine")
    (models / "sub").mkdir()
    for real in ("model.safetensors", "folder"):
        (models / f"link to {real}").symlink_to(models / real)
    before = snapshot(tmp_path)
    with pytest.raises(AtelierError, match="overlaps with its source"):
        to_folder(models / "folder", models / name("folder"))
    with pytest.raises(AtelierError, match="overlaps with its source"):
        to_folder(models / "folder", models / name("folder") / "below")
    with pytest.raises(AtelierError, match="overlaps with its source"):
        to_folder(models / name("folder"), models / "folder")
    with pytest.raises(AtelierError, match="overlaps with its source"):
        to_checkpoint(source, models / name("model.safetensors"), ConvertOptions(precision="bf16"))
    weights = "unet/diffusion_pytorch_model.safetensors"
    with pytest.raises(AtelierError, match="overlaps with its source"):
        to_checkpoint(models / "folder", models / name("folder") / weights)
    assert snapshot(tmp_path) == before


def test_another_case_of_the_source_on_a_disk_that_knows_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a disk is played: the system says that names which differ in case alone are one file."""
    source = write_sd1(tmp_path / "model.safetensors", shape="tiny")
    to_folder(source, tmp_path / "folder")
    exists, same = Path.exists, Path.samefile
    monkeypatch.setattr(Path, "exists", lambda path, **_: exists(path) or exists(Path(str(path).lower())))
    monkeypatch.setattr(Path, "samefile", lambda path, other: str(path).lower() == str(other).lower()
                        or (exists(path) and exists(Path(other)) and same(path, other)))
    with pytest.raises(AtelierError, match="overlaps with its source"):
        to_checkpoint(source, tmp_path / "MODEL.safetensors")
    with pytest.raises(AtelierError, match="overlaps with its source"):
        to_folder(tmp_path / "folder", tmp_path / "Folder")


def test_destinations_that_would_destroy_something(tmp_path: Path) -> None:
    source = write_sd1(tmp_path / "models" / "model.safetensors", shape="tiny")
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "picture.png").write_bytes(b"precious")
    before = snapshot(tmp_path)
    for destination in (tmp_path / "holiday", tmp_path / "models", source):
        with pytest.raises(AtelierError):
            to_folder(source, destination)
    for destination in (source, tmp_path / "holiday", tmp_path / "out.ckpt"):
        with pytest.raises(AtelierError):
            to_checkpoint(source, destination)
    assert snapshot(tmp_path) == before


def test_numbers_too_large_for_half_precision(tmp_path: Path, place: Path) -> None:
    source = write_sd1(tmp_path / "model.safetensors", shape="tiny", dtype="float32")
    name = "model.diffusion_model.out.2.bias"
    changed(source, lambda tensors: tensors[name].fill_(70000.0))
    before = snapshot(place)
    with pytest.raises(AtelierError, match="float16"):
        to_folder(source, place / "folder", ConvertOptions(precision="fp16"))
    assert snapshot(place) == before
    to_folder(source, place / "folder", ConvertOptions(precision="bf16"))


def test_options_name_their_fields() -> None:
    with pytest.raises(AtelierError, match=r"precision is 'int4'.*keep, fp16, bf16, fp32"):
        ConvertOptions(precision="int4")
    with pytest.raises(AtelierError, match=r"prediction_type is 'eps'"):
        ConvertOptions(prediction_type="eps")


def test_a_component_that_is_missing_is_named(tmp_path: Path) -> None:
    """A folder of what there is, no index that promises a pipeline, and a report that says so."""
    source = write_sdxl(tmp_path / "model.safetensors", shape="tiny")
    changed(source, lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("first_stage")])
    report = to_folder(source, tmp_path / "folder")
    assert "The source has no VAE" in report.text() and not (tmp_path / "folder" / "model_index.json").exists()
    config = json.loads((tmp_path / "folder" / "unet" / "config.json").read_text())
    assert config["_class_name"] == "UNet2DConditionModel"


@pytest.mark.parametrize("ending", [".ckpt", ".pt", ".bin", ".SAFETENSORS"])
def test_no_folder_gets_the_name_of_a_file(ending: str, tmp_path: Path) -> None:
    source = write_sd1(tmp_path / "model.safetensors", shape="tiny")
    with pytest.raises(AtelierError, match="ending of a file"):
        to_folder(source, tmp_path / f"other{ending}")
    assert list(tmp_path.iterdir()) == [source]


def test_a_file_in_a_folders_place_is_told_and_stays_and_so_is_a_folder_in_a_files(tmp_path: Path) -> None:
    source = write_sd1(tmp_path / "model.safetensors", shape="tiny")
    (tmp_path / "notes").write_text("precious", encoding="utf-8")
    (tmp_path / "folder.safetensors").mkdir()
    before = snapshot(tmp_path)
    with pytest.raises(AtelierError, match=r"notes is a file\. Choose a folder"):
        to_folder(source, tmp_path / "notes")
    with pytest.raises(AtelierError, match=r"folder\.safetensors is a folder\."):
        to_checkpoint(source, tmp_path / "folder.safetensors")
    assert snapshot(tmp_path) == before and not list((tmp_path / "folder.safetensors").iterdir())


def test_an_empty_folder_is_written_to(tmp_path: Path) -> None:
    source = write_sd1(tmp_path / "model.safetensors", shape="tiny")
    (tmp_path / "folder").mkdir()
    to_folder(source, tmp_path / "folder")
    assert (tmp_path / "folder" / "model_index.json").is_file()
