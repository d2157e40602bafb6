"""What a person reads when a model, a key or a package is missing: what it is, and what to do."""

from __future__ import annotations

import json
import sys
import urllib.error
from pathlib import Path
from typing import Any

import pytest
from kit.absent_package import PACKAGE
from kit.checkpoints import write_sd1
from kit.graphs import Graph
from kit.host import Host
from kit.pictures import write_pictures

pytestmark = pytest.mark.host

GONE = "gone.safetensors"


def test_a_missing_model_is_said_before_the_run(host: Host, checkpoint: str) -> None:
    file = f"There is no file '{GONE}' in the {{}} folders. Choose another one, or put it there and press R"
    graph = Graph(
        convert=("AtelierConvertCheckpoint", {"checkpoint": GONE}),
        image=("EmptyImage", {"width": 64, "height": 64}),
        score=("AtelierCLIPScore", {"images": ["image", 0], "text": "a cat", "model": GONE}),
        lora=("AtelierConvertLora", {"lora": GONE, "form": "kohya"}),
        peft=("AtelierConvertLora", {"lora": "PEFT: ../../input", "form": "kohya"}),
        compared=("AtelierModelToCompare", {"checkpoint": checkpoint, "lora": GONE}),
        compare=("AtelierCompareModels", {"models": ["compared", 0], "score_model": GONE}),
        show=("PreviewAny", {"source": ["compare", 2]}),
        opened=("AtelierOpenModel", {"model": "diffusers: ../input"}),
        export=("AtelierExportCheckpoint", {"model": ["opened", 0], "name": "never"}),
    ).fill(host)
    clip = f"There is no CLIP model '{GONE}' in models/clip_score. Choose another"
    names = {"convert": file.format("checkpoints"), "lora": file.format("loras"), "compared": file.format("loras"),
             "peft": "There is no PEFT folder '../../input' in the loras folders. Choose another",
             "score": clip, "compare": clip,
             "opened": "There is no diffusers model '../input' in the diffusers folders. Choose another"}
    said = refusals(host, graph)
    assert said.keys() == names.keys()
    for node, text in names.items():
        assert text in said[node], said[node]


def refusals(host: Host, graph: dict[str, Any]) -> dict[str, str]:
    """What the host says of each node before it runs anything."""
    try:
        answer = host.post("/prompt", {"prompt": graph, "client_id": "asks"})
    except urllib.error.HTTPError as error:
        answer = json.loads(error.read())
    assert "prompt_id" not in answer, "the host runs it"
    return {node: " ".join(each["details"] for each in found["errors"])
            for node, found in answer["node_errors"].items()}


@pytest.mark.parametrize("name", ["../checkpoints/{}", "/{}", "sub/../{}", "", None, 3])
def test_a_name_leads_to_no_file_that_is_not_listed(host: Host, checkpoint: str, name: Any) -> None:
    typed = name.format(checkpoint) if isinstance(name, str) else name
    done = host.queue(Graph(convert=("AtelierConvertCheckpoint", {"checkpoint": typed})).fill(host))
    assert done.status in ("rejected", "error")
    assert f"There is no file {typed!r} in the checkpoints folders" in done.error, done.error
    assert not list((host.base / "models").glob("small*"))


def test_a_missing_key_is_named_with_the_places_for_it(host: Host) -> None:
    file = host.base / "user" / "atelier" / "credentials.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('[FORGOTTEN_KEY]\nbase_urls = ["http://127.0.0.1:9/v1"]\n', encoding="utf-8")
    file.chmod(0o600)
    graph = Graph(llm=("AtelierLLM", {"endpoint": "custom", "base_url": "http://127.0.0.1:9/v1", "model": "any",
                                      "credential": "FORGOTTEN_KEY"}),
                  write=("AtelierWritePrompt", {"llm": ["llm", 0], "seed": 4242}))
    failed = host.queue(graph.fill(host))
    assert failed.status == "error"
    assert "The credential FORGOTTEN_KEY has no key. Set the environment variable FORGOTTEN_KEY" in failed.error
    assert "credentials.toml" in failed.error


def test_a_missing_package_is_named_with_its_installation(host: Host, checkpoint: str) -> None:
    folder: Path = host.base / "input" / "missing package"
    write_pictures(folder, [(64, 64)] * 3)
    graph = Graph(
        opened=("AtelierOpenModel", {"model": checkpoint}),
        data=("AtelierImageFolder", {"folder": folder.name, "captions": "sidecar", "resolution": 64}),
        options=("AtelierTrainingOptions", {"optimizer": "prodigy", "monitor": "off", "patience": 0}),
        train=("AtelierTrainLora", {"model": ["opened", 0], "training_set": ["data", 0], "options": ["options", 0],
                                    "name": "no package", "length": 2}))
    failed = host.queue(graph.fill(host))
    assert failed.status == "error"
    assert f"The optimizer Prodigy needs the Python package {PACKAGE!r}, which is not installed" in failed.error
    assert f"pip install {PACKAGE}" in failed.error


def test_a_hostile_graph_reaches_nothing(host: Host, tmp_path: Path) -> None:
    """Folders and addresses beyond those of the server's owner: refused before the run, and in it where a link gives
    the value, which the host does not validate."""
    write_pictures(tmp_path / "private", [(64, 64)])
    private, port = str(tmp_path / "private"), "http://10.0.0.1/v1"
    for kind, widget in (("AtelierImageFolder", "folder"), ("AtelierFillerImages", "folder"),
                         ("AtelierHubDataset", "dataset")):
        for value in (private, f"../../../../../../../../..{private}"):
            graph = Graph(read=(kind, {widget: value}), show=("PreviewAny", {"source": ["read", 0]}))
            typed = host.queue(graph.fill(host))
            assert typed.status == "rejected" and "A graph may not read" in typed.error, (kind, typed.error)
        linked = host.queue(Graph(text=("PrimitiveString", {"value": private}), read=(kind, {widget: ["text", 0]}),
                                  show=("PreviewAny", {"source": ["read", 0]})).fill(host))
        assert linked.status == "error" and "A graph may not read" in linked.error, (kind, linked.error)
        assert "allowed.toml: folders = [" in linked.error
    model = {"endpoint": "custom", "model": "any", "credential": "none"}
    typed = host.queue(Graph(llm=("AtelierLLM", {**model, "base_url": port}),
                             write=("AtelierWritePrompt", {"llm": ["llm", 0]})).fill(host))
    assert typed.status == "rejected" and "A graph may not send requests to" in typed.error, typed.error
    linked = host.queue(Graph(text=("PrimitiveString", {"value": port}),
                              llm=("AtelierLLM", {**model, "base_url": ["text", 0]}),
                              write=("AtelierWritePrompt", {"llm": ["llm", 0]})).fill(host))
    assert linked.status == "error" and "A graph may not send requests to" in linked.error, linked.error


HIDE = """
import importlib.machinery

plain = importlib.machinery.PathFinder.find_spec

def find_spec(cls, name, path=None, target=None):
    return None if name == "diffusers" else plain(name, path, target)

importlib.machinery.PathFinder.find_spec = classmethod(find_spec)
"""


@pytest.mark.slow
def test_without_a_package_the_pack_loads_and_says_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever copied the folder and forgot `pip install`."""
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "sitecustomize.py").write_text(HIDE, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hidden"))
    command = f'"{sys.executable}" -m pip install -r "'
    with Host(tmp_path / "base") as host:
        log = host.log()
        assert "Atelier needs diffusers" in log and command in log
        write_sd1(host.base / "models" / "checkpoints" / "tiny.safetensors", "tiny")
        write_pictures(host.base / "input" / "cats", [(64, 64)])
        done = host.queue(Graph(
            model=("AtelierOpenModel", {"model": "tiny.safetensors"}),
            pictures=("AtelierImageFolder", {"folder": "cats", "resolution": 64}),
            train=("AtelierTrainLora", {"model": ["model", 0], "training_set": ["pictures", 0], "name": "never",
                                        "preset": "quick look", "length": 1}),
            show=("PreviewAny", {"source": ["train", 4]})).fill(host))
        assert done.status == "error"
        assert "'diffusers' is not installed" in done.error and command in done.error
        failed, = done.kinds("execution_error")
        assert failed["exception_type"] == "atelier.AtelierError"
