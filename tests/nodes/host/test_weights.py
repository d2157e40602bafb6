"""Models in the host's MODEL: the noise schedule of a diffusers folder, files that are none, and LoRAs on top."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
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


@pytest.mark.parametrize(("loaded", "said"), [
    (None, "ComfyUI does not know the kind of model in .*m.safetensors"),
    ((None, "clip", "vae"), r"m\.safetensors has no MODEL\. Load the missing part"),
    (("model", None, None), r"m\.safetensors has no CLIP, VAE\.")])
def test_a_file_without_a_whole_model_is_told(pack: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                              loaded: Any, said: str) -> None:
    """The host hands on None for what it does not find, and other nodes would fail on that."""
    import comfy.sd

    monkeypatch.setattr(comfy.sd, "load_checkpoint_guess_config", lambda path, embedding_directory: loaded)
    model = pack_module(pack, "atelier.models.open").open_model(write_sd1(tmp_path / "m.safetensors", "tiny"))
    with pytest.raises(pack_module(pack, "atelier.errors").AtelierError, match=said):
        pack_module(pack, "nodes.host.weights").load_model(model)


class Target:
    """A stand-in for a MODEL or CLIP that keeps the patches of its clones."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.model = self.cond_stage_model = network
        self.added: list[tuple[set[str], float]] = []

    def clone(self) -> Target:
        return Target(self.model)

    def add_patches(self, patches: dict[str, Any], strength: float) -> None:
        self.added.append(({key if isinstance(key, str) else key[0] for key in patches}, strength))


@pytest.fixture
def lora(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """A LoRA of a layer of a model and one of a text encoder, which the host knows by name."""
    import comfy.lora

    monkeypatch.setattr(comfy.lora, "model_lora_keys_unet", lambda model, keys: {**keys, "lora_unet_a": "unet.weight"})
    monkeypatch.setattr(comfy.lora, "model_lora_keys_clip", lambda model, keys: {**keys, "lora_te_a": "text.weight"})
    return {f"{stem}.lora_{way}.weight": torch.ones(2, 2) for stem in ("lora_unet_a", "lora_te_a")
            for way in ("down", "up")}


def test_a_lora_is_put_on_clones_at_a_strength_for_each(nodes: dict[str, Any], lora: dict[str, torch.Tensor]) -> None:
    node, model, clip = nodes["AtelierApplyLora"], Target(torch.nn.Linear(2, 2)), Target(torch.nn.Linear(2, 2))
    tuned, text = node.execute(model=model, clip=clip, lora=lora, strength_model=0.5, strength_clip=-1.0).result
    assert [(found.added[0][1], found.added[0][0]) for found in (tuned, text)] == [
        (strength, {"unet.weight", "text.weight"}) for strength in (0.5, -1.0)]
    assert not model.added and not clip.added, "what was connected has changed"


def test_at_strength_0_and_without_a_part_nothing_is_cloned(pack: ModuleType, lora: dict[str, torch.Tensor]) -> None:
    """A clone would have the host load the model once more."""
    apply, model = pack_module(pack, "nodes.host.weights").apply_lora, Target(torch.nn.Linear(2, 2))
    same, none = apply(model, None, lora, 0.0, 1.0)
    assert same is model and none is None
    nobody, text = apply(None, model, lora, 1.0, 1.0)
    assert nobody is None and text.added == [({"text.weight"}, 1.0)]


@pytest.mark.parametrize("parts", [("model",), ("clip",), ("model", "clip")])
def test_a_lora_of_another_model_is_refused(pack: ModuleType, lora: dict[str, torch.Tensor], parts: tuple[str, ...]
                                            ) -> None:
    """The host itself would silently apply nothing."""
    model, clip = (Target(torch.nn.Linear(2, 2)) if name in parts else None for name in ("model", "clip"))
    with pytest.raises(pack_module(pack, "atelier.errors").AtelierError,
                       match=r"None of the LoRA's 4 tensors fits this model\. Use a LoRA of the same family"):
        pack_module(pack, "nodes.host.weights").apply_lora(model, clip, {f"other_{key}": value for key, value
                                                                         in lora.items()}, 1.0, 1.0)
