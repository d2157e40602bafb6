"""The archive that the registry would get works in ComfyUI, without the rest of the repository."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator

import pytest
from kit.graphs import Graph
from kit.host import Host

from tools.archive import write
from tools.comfyui import PACK, ROOT

pytestmark = [pytest.mark.host, pytest.mark.slow,
              pytest.mark.skipif(not (ROOT / ".git").exists(), reason="what is published is what Git tracks")]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """With the archive unpacked in the place of the pack."""
    base = tmp_path_factory.mktemp("published")
    for name in ("models", "input", "output", "user"):
        (base / name).mkdir()
    with zipfile.ZipFile(write(base / "archive.zip")) as archive:
        archive.extractall(base / "custom_nodes" / PACK)
    with Host(base, install=False) as running:
        yield running


def test_it_offers_every_node_text_page_and_template(host: Host) -> None:
    assert "Cannot import" not in host.log()
    english = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    offered = host.get_json("/object_info")
    assert {name for name in offered if offered[name]["python_module"].endswith(PACK)} == english.keys()
    texts = host.get_json("/i18n")
    assert all(english.keys() <= texts[path.name]["nodeDefs"].keys() for path in (ROOT / "locales").iterdir())
    for path in (ROOT / "web").rglob("*.*"):
        assert host.get(f"/extensions/{PACK}/{path.relative_to(ROOT / 'web').as_posix()}") == path.read_bytes()
    assert len(host.get_json("/workflow_templates")[PACK]) == len(list((ROOT / "workflows").glob("*.json")))


def test_it_runs(host: Host) -> None:
    done = host.queue(Graph(**{
        "1": ("AtelierPromptList", {"text": "a cat\na dog"}),
        "2": ("PreviewAny", {"source": ["1", 0]}),
    }).fill(host))
    assert done.status == "success", done.error
    assert "a dog" in done.text("2")
