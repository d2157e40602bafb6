"""The prediction type and noise schedule of a diffusers folder in the host's MODEL."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from kit.checkpoints import write_sd1, write_sdxl
from kit.pack import pack_module

pytestmark = pytest.mark.host


class Patcher:
    """A stand-in for the host's ModelPatcher, as far as `ModelSamplingDiscrete` uses it."""

    def __init__(self, kind: Any, config: Any) -> None:
        self.model = SimpleNamespace(model_type=kind, model_config=config)
        self.patches: dict[str, Any] = {}

    def clone(self) -> Patcher:
        return self

    def add_object_patch(self, name: str, value: Any) -> None:
        self.patches[name] = value


def load(pack: ModuleType, folder: Path, family: str, monkeypatch: pytest.MonkeyPatch) -> Patcher:
    """Load a folder as Load for Sampling does; the host's own rules detect its prediction type from the tensors."""
    import comfy.sd
    from comfy import supported_models

    def guess(state: dict[str, Any], embedding_directory: Any = None) -> tuple[Any, ...]:
        config = getattr(supported_models, family)({"in_channels": 4})
        return Patcher(config.model_type(state, "model.diffusion_model."), config), "clip", "vae"

    monkeypatch.setattr(comfy.sd, "load_state_dict_guess_config", guess)
    model = pack_module(pack, "atelier.models.open").open_model(folder)
    return pack_module(pack, "nodes.host.weights").load_model(model)[0]


def test_a_folder_is_sampled_like_the_file(pack: ModuleType, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero terminal SNR is preserved."""
    from comfy.model_base import ModelType

    to_folder = pack_module(pack, "atelier.convert.folder").to_folder
    for zero_snr in (True, False):
        source = write_sdxl(tmp_path / "xl.safetensors", "tiny", v_prediction=True, zero_snr=zero_snr)
        to_folder(source, tmp_path / "xl")
        patcher = load(pack, tmp_path / "xl", "SDXL", monkeypatch)
        assert patcher.model.model_type == ModelType.V_PREDICTION and not patcher.patches
        assert patcher.model.model_config.sampling_settings.get("zsnr", False) == zero_snr


def test_a_family_without_markers_is_patched(pack: ModuleType, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    from comfy.model_sampling import V_PREDICTION

    folder = tmp_path / "folder"
    pack_module(pack, "atelier.convert.folder").to_folder(write_sd1(tmp_path / "m.safetensors", "tiny"), folder)
    config_file = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(config_file.read_text())
    for zero_snr in (True, False):
        config_file.write_text(json.dumps(config | {"prediction_type": "v_prediction",
                                                    "rescale_betas_zero_snr": zero_snr}))
        sampling = load(pack, folder, "SD15", monkeypatch).patches["model_sampling"]
        assert sampling.zsnr == zero_snr and isinstance(sampling, V_PREDICTION)


def test_more_tokens_than_the_host_knows_are_told_before_loading(pack: ModuleType, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    name = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
    path = write_sd1(tmp_path / "m.safetensors", "tiny")
    tensors = load_file(path)
    width = tensors[name].shape[1]
    save_file(tensors | {name: tensors[name].new_zeros(49408 + 2, width)}, path)
    model = pack_module(pack, "atelier.models.open").open_model(path)
    with pytest.raises(Exception, match=r"text_encoder of .* has more than CLIP's 49408 tokens.*Export Checkpoint"):
        pack_module(pack, "nodes.host.weights").load_model(model)
