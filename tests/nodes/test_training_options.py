"""LoRA Config, Training Options and Train LoRA: what a widget shows is what happens, over the preset and in order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from kit.pack import node_classes, pack_module

pytestmark = pytest.mark.host

NODES = ("AtelierLoraConfig", "AtelierTrainingOptions")
BEFORE = json.loads((Path(__file__).parents[1] / "data" / "training_widgets_0.1.json").read_text(encoding="utf-8"))
"""Widgets of these nodes in the order of the first release, with their defaults, which graphs saved then hold."""


def widgets(pack: ModuleType, node_id: str) -> dict[str, Any]:
    return {widget.id: widget for widget in node_classes(pack)[node_id].GET_SCHEMA().inputs}


def defaults(pack: ModuleType, node_id: str) -> dict[str, Any]:
    return {name: widget.default for name, widget in widgets(pack, node_id).items()}


def handed_on(pack: ModuleType, node_id: str, values: Mapping[str, Any]) -> dict[str, Any]:
    node: Any = node_classes(pack)[node_id]
    return node.execute(**values).args[0]


def request(pack: ModuleType, preset: str, *overrides: Mapping[str, Any]) -> Any:
    return pack_module(pack, "atelier.train.request.presets").build_request(preset, *overrides)


def presets(pack: ModuleType) -> list[str]:
    return list(pack_module(pack, "atelier.train.request.presets").PRESETS)


IN_FILES_ALONE = {"blocks_to_swap", "optimizer_args", "lora_plus_ratio", "schedule_cycles", "schedule_power",
                  "loss", "huber_c", "huber_schedule", "min_timestep", "max_timestep", "rank_dropout",
                  "target_pattern", "rank_pattern", "lokr_factor", "init_weights", "preservation_class",
                  "preservation_weight", "inpaint_masks", "cuda_graphs", "init_lora"}
"""Options of the shell's TOML that a graph has no widget for; the last one reads a file by its path."""


def test_every_option_has_a_widget(pack: ModuleType) -> None:
    known = pack_module(pack, "atelier.train.request.request")
    shown = {known.RENAMED.get(name, name) for node in NODES for name in widgets(pack, node)}
    assert shown == set(known.FIELDS) - {"epochs", "steps", "seed"} - IN_FILES_ALONE


@pytest.mark.parametrize("node_id", NODES)
def test_untouched_nodes_change_nothing_of_any_preset(pack: ModuleType, node_id: str) -> None:
    for preset in presets(pack):
        assert request(pack, preset, handed_on(pack, node_id, defaults(pack, node_id))) == request(pack, preset)
        assert request(pack, preset, handed_on(pack, node_id, {})) == request(pack, preset), "a graph of the API"


@pytest.mark.parametrize("node_id", NODES)
def test_what_a_widget_shows_is_what_happens(pack: ModuleType, node_id: str) -> None:
    """A default that is not "as preset" is the value of every preset."""
    known = pack_module(pack, "atelier.train.request.request")
    for name, shown in defaults(pack, node_id).items():
        field = known.RENAMED.get(name, name)
        values = {preset: getattr(getattr(request(pack, preset), known.FIELDS[field]), field)
                  for preset in presets(pack)}
        if shown not in (-1, "", "as preset"):
            assert set(values.values()) == {shown}, name
        elif name not in ("sample_negative", "sample_seeds"):
            assert len(set(values.values())) > 1, name


def test_one_changed_widget_overrides_that_value_alone(pack: ModuleType) -> None:
    for preset in presets(pack):
        untouched = request(pack, preset)
        values = {**defaults(pack, "AtelierTrainingOptions"), "sample_prompt": "a cat"}
        changed = request(pack, preset, handed_on(pack, "AtelierTrainingOptions", values))
        assert changed == untouched.override({"sample_prompt": "a cat"})


def test_a_switched_off_option_overrides_too(pack: ModuleType) -> None:
    values = {**defaults(pack, "AtelierTrainingOptions"), "min_snr_gamma": 0.0, "caption_dropout": 0.0}
    changed = request(pack, "style", handed_on(pack, "AtelierTrainingOptions", values))
    assert (changed.loss.min_snr_gamma, changed.captions.caption_dropout, changed.loss.noise_offset) == (0, 0, 0.03)


@pytest.mark.parametrize("node_id", NODES)
def test_graphs_of_the_first_release_mean_what_they_showed(pack: ModuleType, node_id: str) -> None:
    """Widgets are saved by their order, and every one of them with its value."""
    before = BEFORE[node_id]
    assert list(widgets(pack, node_id))[:len(before)] == list(before)
    for preset in presets(pack):
        built = request(pack, preset, handed_on(pack, node_id, before))
        known = pack_module(pack, "atelier.train.request.request")
        for name, value in before.items():
            field = known.RENAMED.get(name, name)
            # An empty sample prompt could not be told from one that was never written.
            if name != "sample_prompt":
                assert getattr(getattr(built, known.FIELDS[field]), field) == value, (preset, name)


def test_values_between_off_and_as_preset_are_refused(pack: ModuleType) -> None:
    error = pack_module(pack, "atelier.errors").AtelierError
    with pytest.raises(error, match=r"min_snr_gamma is -0\.5"):
        request(pack, "style", handed_on(pack, "AtelierTrainingOptions", {"min_snr_gamma": -0.5}))
    with pytest.raises(error, match="monitor and patience"):
        request(pack, "style", handed_on(pack, "AtelierTrainingOptions", {"monitor": "off"}))


def test_train_lora_overrides_its_option_nodes(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Preset, then LoRA Config and Training Options, then the widgets of Train LoRA; and as the shell has it."""
    module = pack_module(pack, "nodes.training_request")
    built: list[Any] = []

    class Stop(Exception):
        pass

    def keep(*values: Any) -> Any:
        built.append(module.__dict__["original"](*values))
        raise Stop

    module.__dict__["original"] = module.build_request
    monkeypatch.setattr(module, "build_request", keep)
    node: Any = node_classes(pack)["AtelierTrainLora"]
    config, options = {"rank": 4}, {"sample_prompt": "of the options", "learning_rate": 3e-4}
    cases: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
        ({}, []), ({"lora_config": config}, [config]), ({"options": options}, [options]),
        ({"lora_config": config, "options": options, "sample_prompt": "my own"},
         [config, options, {"sample_prompt": "my own"}])]
    for preset in presets(pack):
        for given, overrides in cases:
            with pytest.raises(Stop):
                node.execute(model=None, training_set=None, name="x", preset=preset, length=7, unit="epochs", seed=5,
                             **given)
            assert built.pop() == module.__dict__["original"](preset, *overrides, {"epochs": 7, "seed": 5})


def test_the_clip_model_is_handed_on_as_its_path(pack: ModuleType, clip_score_model: str, tmp_path: Path) -> None:
    """The trainer knows no names of the host's."""
    path = handed_on(pack, "AtelierTrainingOptions", {"score_model": clip_score_model})["score_model"]
    assert Path(path) == tmp_path / "clip_score" / clip_score_model
    assert handed_on(pack, "AtelierTrainingOptions", {"score_model": "none"}).get("score_model") in (None, "none")
    with pytest.raises(pack_module(pack, "atelier.errors").AtelierError, match="gone"):
        handed_on(pack, "AtelierTrainingOptions", {"score_model": "gone"})
