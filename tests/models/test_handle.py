"""The handle holds what one reading of a model says: layout, noise schedule, latent scale."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.checkpoints import WRITERS, write_bare_unet, write_sd1, write_sd2, write_sdxl
from safetensors.torch import load_file, save_file

from atelier.convert import to_folder
from atelier.errors import AtelierError
from atelier.models import handle
from atelier.models.families import FAMILIES
from atelier.models.handle import DiffusersModel
from atelier.models.load import load_unet, load_vae
from atelier.models.open import open_model
from atelier.progress import Progress


def folder_of(source: Path, name: str = "folder") -> Path:
    to_folder(source, source.parent / name)
    return source.parent / name


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_zero_terminal_snr_marker_changes_the_schedule_alone(tmp_path: Path) -> None:
    plain = open_model(write_sdxl(tmp_path / "plain.safetensors", shape="tiny", v_prediction=True))
    marked = open_model(write_sdxl(tmp_path / "marked.safetensors", shape="tiny", v_prediction=True, zero_snr=True))
    assert marked.fingerprint == plain.fingerprint
    assert marked.noise_schedule != plain.noise_schedule
    assert marked.noise_schedule.digest != plain.noise_schedule.digest
    assert marked.noise_schedule.as_config()["rescale_betas_zero_snr"] is True
    assert not plain.noise_schedule.as_config().get("rescale_betas_zero_snr")


@pytest.mark.parametrize("change", [{"beta_end": 0.013}, {"beta_schedule": "linear"}, {"num_train_timesteps": 900},
                                    {"trained_betas": [0.1] * 1000}, {"rescale_betas_zero_snr": True},
                                    {"prediction_type": "v_prediction"}], ids=lambda change: next(iter(change)))
def test_a_folders_scheduler_decides_the_digest(change: dict, tmp_path: Path) -> None:
    folder = folder_of(write_sd1(tmp_path / "model.safetensors", shape="tiny"))
    before = open_model(folder)
    edit_json(folder / "scheduler/scheduler_config.json", **change)
    after = open_model(folder)
    assert after.fingerprint == before.fingerprint
    assert after.noise_schedule.digest != before.noise_schedule.digest
    assert after.noise_schedule.as_config() == {**before.noise_schedule.as_config(), **change}


def test_sampling_settings_and_defaults_leave_the_digest(tmp_path: Path) -> None:
    """The spacing of timesteps does not change what is trained, and a default that is written out is no change."""
    folder = folder_of(write_sd1(tmp_path / "model.safetensors", shape="tiny"))
    before = open_model(folder)
    edit_json(folder / "scheduler/scheduler_config.json", timestep_spacing="trailing", rescale_betas_zero_snr=False)
    after = open_model(folder)
    assert after.noise_schedule != before.noise_schedule
    assert after.noise_schedule.digest == before.noise_schedule.digest


def test_the_chosen_prediction_type_is_in_the_schedule(tmp_path: Path) -> None:
    source = write_sd2(tmp_path / "model.safetensors", shape="tiny")
    epsilon, velocity = (open_model(source, prediction_type=kind) for kind in ("epsilon", "v_prediction"))
    assert velocity.noise_schedule.as_config()["prediction_type"] == "v_prediction"
    assert velocity.noise_schedule.digest != epsilon.noise_schedule.digest


def test_a_returned_config_is_a_copy(tmp_path: Path) -> None:
    schedule = open_model(write_sd1(tmp_path / "model.safetensors", shape="tiny")).noise_schedule
    schedule.as_config()["beta_end"] = 1.0
    assert schedule.as_config()["beta_end"] == 0.012


@pytest.mark.parametrize("family", WRITERS)
def test_file_and_folder_agree(family: str, tmp_path: Path) -> None:
    source = WRITERS[family](tmp_path / "model.safetensors", shape="tiny")
    file, folder = open_model(source), open_model(folder_of(source))
    assert file.noise_schedule == folder.noise_schedule
    assert (file.latent_scale, file.latent_shift) == (folder.latent_scale, folder.latent_shift)
    assert (file.latent_scale, file.latent_shift) == (FAMILIES[family].latent_scale, 0.0)


def test_the_vaes_configuration_gives_scale_and_shift(tmp_path: Path) -> None:
    folder = folder_of(write_sd1(tmp_path / "model.safetensors", shape="tiny"))
    edit_json(folder / "vae/config.json", scaling_factor=0.5, shift_factor=0.25)
    model = open_model(folder)
    assert (model.latent_scale, model.latent_shift) == (0.5, 0.25)
    assert load_vae(model).config["scaling_factor"] == 0.5


def test_a_model_without_vae_opens(tmp_path: Path) -> None:
    model = open_model(write_bare_unet(tmp_path / "unet.safetensors"))
    assert (model.latent_scale, model.latent_shift) == (FAMILIES["sdxl"].latent_scale, 0.0)


@pytest.mark.parametrize("ending", ["safetensors", "ckpt", "folder"])
def test_handles_are_values(ending: str, tmp_path: Path) -> None:
    source = write_sdxl(tmp_path / f"model.{ending.replace('folder', 'safetensors')}", shape="tiny")
    path = folder_of(source) if ending == "folder" else source
    model = open_model(path)
    assert model == open_model(path) and hash(model) == hash(open_model(path))
    copy: DiffusersModel = pickle.loads(pickle.dumps(model))
    assert copy == model and hash(copy) == hash(model)
    assert torch.equal(load_unet(copy).conv_in.weight, load_unet(model).conv_in.weight)
    assert len(repr(model)) < 2000, "a layout of thousands of tensors is not shown"


def test_the_header_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_model(write_sd1(tmp_path / "model.safetensors", shape="tiny"))

    def refuse(path: Path) -> None:
        raise AssertionError(f"{path} is read again")

    monkeypatch.setattr(handle, "read_layout", refuse)
    load_unet(model)
    load_vae(model)


def test_a_pickle_is_not_kept_in_memory(tmp_path: Path) -> None:
    model = open_model(write_sd1(tmp_path / "model.ckpt", shape="tiny"))
    assert model.opened_layout is None and model.layout.family.key == "sd1"


def test_a_replaced_file_is_read_again(tmp_path: Path) -> None:
    """Its tensors may lie elsewhere."""
    model = open_model(write_sd1(tmp_path / "model.safetensors", shape="tiny"))
    tensors = load_file(model.path)
    save_file({"a": torch.zeros(1000), **tensors}, model.path)
    assert torch.equal(load_unet(model, dtype=torch.float16).conv_in.weight,
                       tensors["model.diffusion_model.input_blocks.0.0.weight"])
    model.path.unlink()
    with pytest.raises(AtelierError, match="cannot be read"):
        load_unet(model)


def test_changed_weights_in_a_folder_of_pickles_change_the_fingerprint(tmp_path: Path) -> None:
    folder = folder_of(write_sd1(tmp_path / "model.safetensors", shape="tiny"))
    for part, name in (("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"),
                       ("text_encoder", "model")):
        weights = folder / part / f"{name}.safetensors"
        stem = "pytorch_model" if part == "text_encoder" else name
        torch.save(load_file(weights), folder / part / f"{stem}.bin")
        weights.unlink()
    before = open_model(folder).fingerprint
    file = folder / "unet/diffusion_pytorch_model.bin"
    state = torch.load(file)
    torch.save({**state, "conv_in.bias": state["conv_in.bias"] + 1}, file)
    assert open_model(folder).fingerprint != before


def test_a_path_that_does_not_exist_and_a_prediction_that_is_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(AtelierError, match=r"absent\.safetensors does not exist"):
        open_model(tmp_path / "absent.safetensors")
    path = write_sd1(tmp_path / "model.safetensors", shape="tiny")
    with pytest.raises(AtelierError, match=r"prediction_type is 'eps'.*auto, epsilon or v_prediction"):
        open_model(path, prediction_type="eps")


def test_a_file_cut_short_while_it_is_read_is_no_model(tmp_path: Path) -> None:
    """Its fingerprint would be one of half a file, and stay known as that of the whole."""
    path = write_sd1(tmp_path / "model.safetensors", shape="tiny")

    class Cuts(Progress):
        def phase(self, name: str, total: int) -> None:
            os.truncate(path, path.stat().st_size - 1000)

    with pytest.raises(AtelierError, match=r"model\.safetensors became shorter while it was read"):
        open_model(path, progress=Cuts())
