"""Read Prompt: its outputs for the host's own nodes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from kit.pack import node_classes
from PIL import Image
from PIL.PngImagePlugin import PngInfo

pytestmark = pytest.mark.host


@pytest.fixture
def read(pack: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A function that runs the node on a picture with this infotext; there is one checkpoint and one LoRA."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path))
    for kind, name in (("checkpoints", "deli/Deliberate_v2.safetensors"), ("loras", "neon.safetensors")):
        file = tmp_path / kind / name
        file.parent.mkdir(parents=True)
        file.touch()
        monkeypatch.setitem(folder_paths.folder_names_and_paths, kind, ([str(tmp_path / kind)], {".safetensors"}))
        monkeypatch.delitem(folder_paths.filename_list_cache, kind, raising=False)

    def run(text: str, workflow: str = "", graph: dict[str, Any] | None = None) -> Any:
        info = PngInfo()
        if graph:
            info.add_text("prompt", json.dumps(graph))
        if workflow:
            info.add_text("workflow", workflow, zip=True)
        info.add_text("parameters", text)
        Image.new("RGB", (64, 48)).save(tmp_path / "a.png", pnginfo=info)
        node = node_classes(pack)["AtelierReadPrompt"]
        assert node.validate_inputs(image="a.png") is True  # pyright: ignore[reportAttributeAccessIssue]
        return node.execute(image="a.png").result  # pyright: ignore[reportAttributeAccessIssue]
    yield run
    for kind in ("checkpoints", "loras"):  # the host's cached listings of folders that are deleted now
        folder_paths.filename_list_cache.pop(kind, None)


def test_every_stated_setting_is_output(read: Any) -> None:
    *values, report, lora, strength = read(
        "a cat <lora:gone:0.9> <lora:Neon:0.5> <lora:neon:0.1>\nNegative prompt: dog\nSteps: 9, Sampler: Euler a, "
        "Schedule type: Karras, CFG scale: 3.5, Seed: 42, Size: 512x768, Model hash: ab12, Model: deliberate_V2")
    assert values == ["a cat", "dog", "euler_ancestral", "karras", 9, 3.5, 42, 512, 768,
                      str(Path("deli") / "Deliberate_v2.safetensors")]
    assert "LoRA: Neon at 0.5, here as neon.safetensors" in report and "LoRA: gone at 0.9, not on this" in report
    assert "size: 512 × 768" in report
    assert (lora, strength) == ("neon.safetensors", 0.5), "the first one that exists"


def test_missing_settings_get_defaults_that_the_report_names(read: Any) -> None:
    values = read("a cat\nSteps: 9, Sampler: Restart, Seed: 1, Model: other")
    assert values[2:9] == ("euler", "normal", 9, 7.0, 1, 64, 48)
    assert type(values[9]).__name__ == "ExecutionBlocker"
    assert "sampler: euler (instead of Restart, unknown here)" in values[10]
    assert "size:" not in values[10]
    assert "cfg: 7.0 (not said)" in values[10] and "no checkpoint of that name" in values[10]
    for text in ("", " <lora:gone:0.9>"):
        *_, lora, strength = read(f"a cat{text}\nSteps: 9, Seed: 1")
        assert type(lora).__name__ == "ExecutionBlocker" and strength == 0.0


def test_what_the_picture_does_not_say_is_in_the_report(read: Any) -> None:
    *_, report, _, _ = read("", graph={
        "1": {"class_type": "KSampler", "inputs": {
            "seed": 4, "steps": ["2", 0], "positive": ["2", 0], "negative": ["3", 0]}},
        "2": {"class_type": "AtelierWritePrompt", "inputs": {}}, "3": {"class_type": "X", "inputs": {"text": "fog"}}})
    assert "seed: 4" in report and "steps: 20 (not said)" in report and "Negative: fog" in report
    assert "not read: positive: Write Prompt makes it while the graph runs." in report


def test_a_long_workflow_before_the_prompt_is_read(read: Any) -> None:
    values = read("a cat\nSteps: 9, Seed: 1", workflow="x" * 3_000_000)
    assert values[0] == "a cat" and values[7:9] == (64, 48)


def test_sampler_names_are_the_hosts(pack: ModuleType) -> None:
    import comfy.samplers

    from atelier.pictures.metadata import samplers

    assert {*samplers._SAMPLERS.values(), *samplers._INVOKE.values()} <= set(comfy.samplers.SAMPLER_NAMES)
    assert set(samplers._SCHEDULERS.values()) <= set(comfy.samplers.SCHEDULER_NAMES)
