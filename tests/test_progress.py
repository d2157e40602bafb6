"""Long work tells its steps to the end: the bar of a node that works neither stands still nor stops half way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from kit.checkpoints import write_sd1
from kit.loras import layers, random_lora, tiny_models
from kit.pictures import write_pictures
from kit.progress_rules import phases_of

from atelier.convert.folder import to_folder
from atelier.convert.single_file import to_checkpoint
from atelier.dataset.faults import find_faults
from atelier.dataset.folder import FolderOptions, read_folder
from atelier.dataset.portable import SET_FILE, read_portable, write_portable
from atelier.dataset.types import Resolution
from atelier.generate import GenerateRequest, generate
from atelier.grid.fillers import draw_fillers
from atelier.lora.combine import combine_loras
from atelier.lora.convert import convert_lora
from atelier.lora.extract import extract_lora
from atelier.lora.file import load_lora, save_lora
from atelier.lora.resize import resize_lora
from atelier.models.open import open_model
from atelier.progress import Progress
from atelier.sampling import SamplingOptions

OPTIONS = FolderOptions(resolution=Resolution(64))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sd1(tmp_path_factory.mktemp("progress") / "model.safetensors", shape="tiny")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "pictures", [(64, 64), (80, 64), (64, 90)])


def lora(folder: Path, seed: int = 0) -> Path:
    found = {name: layer for name, layer in layers("unet", tiny_models("sd1")["unet"]).items() if "attn" in name}
    return save_lora(folder / f"{seed}.safetensors", random_lora(found, seed=seed))


def loha(folder: Path) -> Path:
    unet = peft.get_peft_model(tiny_models("sd1")["unet"], peft.LoHaConfig(
        r=2, target_modules=["to_q", "to_k"], init_weights=False))
    unet.save_pretrained(folder)
    return folder


def told(work: Callable[[Progress], object]) -> list[tuple[str, int]]:
    """Name and total of each phase, of which each must be complete."""
    progress = Progress()
    work(progress)
    phases = phases_of(progress)
    assert all(phase.done == phase.total for phase in phases), phases
    return [(phase.name, phase.total) for phase in phases]


def test_tools_for_loras(model: Path, tmp_path: Path) -> None:
    one, two, out = lora(tmp_path), lora(tmp_path, 1), tmp_path / "out.safetensors"
    (phase,) = told(lambda progress: resize_lora(one, out, rank=2, progress=progress))
    assert phase == ("resizing", len(load_lora(one)))
    (phase,) = told(lambda progress: combine_loras([(one, 1), (two, 1)], out, progress=progress))
    assert phase == ("merging", len(load_lora(one)))
    other = write_sd1(tmp_path / "other.safetensors", shape="tiny", seed=1)
    (name, total), *rest = told(lambda progress: extract_lora(other, model, out, rank=2, progress=progress))
    assert name == "extracting" and total > 50 and not rest
    (name, total), *rest = told(lambda progress: convert_lora(loha(tmp_path / "loha"), out, "diffusers",
                                                              progress=progress))
    assert name == "converting" and total > 10 and not rest


def test_models(model: Path, tmp_path: Path) -> None:
    copied = tmp_path / "model.safetensors"
    copied.write_bytes(model.read_bytes())
    assert [name for name, _ in told(lambda progress: open_model(copied, progress=progress))] == ["reading"]
    assert [name for name, _ in told(lambda progress: to_folder(model, tmp_path / "folder", None, progress))
            ] == ["converting"]
    assert [name for name, _ in told(lambda progress: to_checkpoint(tmp_path / "folder", tmp_path / "one.safetensors",
                                                                     None, progress))] == ["converting"]


def test_training_sets(pictures: Path, tmp_path: Path) -> None:
    assert told(lambda progress: read_folder(pictures, OPTIONS, progress)) == [("reading", 3)]
    data = read_folder(pictures, OPTIONS)
    (tmp_path / "taken").mkdir()
    assert told(lambda progress: write_portable(data, tmp_path / "taken", progress)) == [("copying", 3)]
    assert told(lambda progress: read_portable(tmp_path / "taken" / SET_FILE, progress)) == [("reading", 3)]
    assert told(lambda progress: find_faults(data, progress)) == [("checking pictures", 3)]


def test_pictures(model: Path, pictures: Path) -> None:
    files = sorted(pictures.glob("*.png"))
    assert told(lambda progress: draw_fillers(files, 3, 0, progress=progress)) == [("reading", 3)]
    request = GenerateRequest(prompts=("a cat", "a dog"), seeds=(1, 2),
                              options=SamplingOptions(64, 64, steps=2))
    opened = open_model(model)
    assert told(lambda progress: generate(opened, request, device=torch.device("cpu"), dtype=torch.float32,
                                          progress=progress)) == [("generating", 4)]
