"""Export Training: what Train LoRA would do, in a folder for the shell."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from kit.checkpoints import write_sd1
from kit.pack import node_classes, pack_module
from kit.pictures import write_pictures

from atelier.shell.train_file import read_train_file

pytestmark = pytest.mark.host


def test_the_shell_reads_what_the_node_was_asked_for(pack: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
                                                     ) -> None:
    monkeypatch.setattr(pack_module(pack, "nodes.host.folders").folder_paths, "get_output_directory",
                        lambda: str(tmp_path / "output"))
    folder: Any = pack_module(pack, "atelier.dataset.folder")
    resolution = pack_module(pack, "atelier.dataset.types").Resolution(64)
    data = folder.read_folder(write_pictures(tmp_path / "in", [(64, 64)]), folder.FolderOptions(resolution=resolution))
    model = pack_module(pack, "atelier.models.open").open_model(write_sd1(tmp_path / "tiny.safetensors", "tiny"))
    node: Any = node_classes(pack)["AtelierExportTraining"]
    written, report = node.execute(
        model=model, training_set=data, name="animals/fox", preset="style", length=7, unit="steps", seed=3,
        lora_config={"rank": 5}, options={"learning_rate": 2e-4}, sample_prompt="none").result
    assert Path(written) == tmp_path / "output" / "training" / "animals" / "fox"
    assert str(model.path) in report
    read = read_train_file(Path(written) / "train.toml")
    assert (read.name, read.request.steps, read.request.seed, read.request.lora.rank) == ("animals/fox", 7, 3, 5)
    assert read.request.optimizer.learning_rate == 2e-4 and not read.request.samples.sample_prompt
    style = pack_module(pack, "atelier.train.request.presets").build_request("style")
    assert read.request.optimizer.schedule == style.optimizer.schedule, "the rest is the preset's"


def test_what_comes_of_loaders_cannot_be_exported(pack: ModuleType, tmp_path: Path) -> None:
    node: Any = node_classes(pack)["AtelierExportTraining"]
    folder: Any = pack_module(pack, "atelier.dataset.folder")
    data = folder.read_folder(write_pictures(tmp_path / "in", [(64, 64)]))
    with pytest.raises(Exception, match="comes from Loaded Model"):
        node.execute(model=object(), training_set=data, name="fox", preset="style", length=0, unit="steps", seed=0)
