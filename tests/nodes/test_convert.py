"""Converted models in the host: where their folders go, how they are found again, and what they predict there."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from kit.checkpoints import write_sd1, write_sdxl
from kit.pack import pack_module
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.host


@pytest.mark.parametrize("name", ["a/b/c.safetensors", "a\\b\\c.safetensors"])
def test_a_checkpoint_in_folders_of_folders_is_found_again(name: str, nodes: dict[str, Any], models: Path) -> None:
    """Also where the graph was saved on Windows."""
    write_sd1(models / "checkpoints" / "a" / "b" / "c.safetensors", "tiny")
    model, _ = nodes["AtelierConvertCheckpoint"].execute(name, "keep", "auto").result
    assert model.path == models / "diffusers" / "a" / "b" / "c"
    listed = nodes["AtelierOpenModel"].GET_SCHEMA().inputs[0].options
    assert listed[-1] == "diffusers: a/b/c"
    assert nodes["AtelierOpenModel"].execute(listed[-1], "auto").result[0].path == model.path


def test_a_number_goes_behind_a_folders_whole_name(pack: ModuleType, models: Path) -> None:
    find_or_reserve = pack_module(pack, "nodes.made").find_or_reserve
    (models / "diffusers" / "sd-v1.5").mkdir()
    (models / "checkpoints" / "sd-v1.5.safetensors").touch()
    assert find_or_reserve(models / "diffusers" / "sd-v1.5", "request").path.name == "sd-v1.5-2"
    assert (find_or_reserve(models / "checkpoints" / "sd-v1.5.safetensors", "request").path.name
            == "sd-v1.5-2.safetensors")


def test_the_host_reads_both_forms_of_the_projection(pack: ModuleType, tmp_path: Path) -> None:
    from comfy.utils import clip_text_transformers_convert

    prefix = "conditioner.embedders.1.model."
    source = write_sdxl(tmp_path / "m.safetensors", "tiny")
    state = load_file(source)
    linear = state.pop(f"{prefix}text_projection").t().contiguous()
    save_file(state | {f"{prefix}text_projection.weight": linear}, source)
    pack_module(pack, "atelier.convert.single_file").to_checkpoint(source, tmp_path / "out.safetensors")
    for path in (source, tmp_path / "out.safetensors"):
        found = clip_text_transformers_convert(load_file(path), prefix, "clip.")
        assert torch.equal(found["clip.text_projection.weight"], linear)


class Patcher:
    """What the host's ModelPatcher is to `ModelSamplingDiscrete`."""

    def __init__(self, kind: Any, config: Any) -> None:
        self.model = SimpleNamespace(model_type=kind, model_config=config)
        self.patches: dict[str, Any] = {}

    def clone(self) -> Patcher:
        return self

    def add_object_patch(self, name: str, value: Any) -> None:
        self.patches[name] = value


def loaded(pack: ModuleType, folder: Path, family: str, monkeypatch: pytest.MonkeyPatch) -> Patcher:
    """What Load for Sampling makes of a folder, whose kind the host's own rule reads off the tensors it is given."""
    import comfy.sd
    from comfy import supported_models

    def guess(state: dict[str, Any], embedding_directory: Any = None) -> tuple[Any, ...]:
        config = getattr(supported_models, family)({"in_channels": 4})
        return Patcher(config.model_type(state, "model.diffusion_model."), config), "clip", "vae"

    monkeypatch.setattr(comfy.sd, "load_state_dict_guess_config", guess)
    model = pack_module(pack, "atelier.models.open").open_model(folder)
    return pack_module(pack, "nodes.weights").load_model(model)[0]


def test_the_host_samples_a_folder_as_it_samples_the_file(pack: ModuleType, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """A noise schedule with zero terminal SNR stays one."""
    from comfy.model_base import ModelType

    to_folder = pack_module(pack, "atelier.convert.folder").to_folder
    for zero_snr in (True, False):
        source = write_sdxl(tmp_path / "xl.safetensors", "tiny", v_prediction=True, zero_snr=zero_snr)
        to_folder(source, tmp_path / "xl")
        patcher = loaded(pack, tmp_path / "xl", "SDXL", monkeypatch)
        assert patcher.model.model_type == ModelType.V_PREDICTION and not patcher.patches
        assert patcher.model.model_config.sampling_settings.get("zsnr", False) == zero_snr


def test_where_the_host_knows_no_marker_it_is_told(pack: ModuleType, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    from comfy.model_sampling import V_PREDICTION

    folder = tmp_path / "folder"
    pack_module(pack, "atelier.convert.folder").to_folder(write_sd1(tmp_path / "m.safetensors", "tiny"), folder)
    place = folder / "scheduler" / "scheduler_config.json"
    written = json.loads(place.read_text())
    for zero_snr in (True, False):
        place.write_text(json.dumps(written | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": zero_snr}))
        sampling = loaded(pack, folder, "SD15", monkeypatch).patches["model_sampling"]
        assert sampling.zsnr == zero_snr and isinstance(sampling, V_PREDICTION)
