"""An `openai` package that is missing, too old or broken is named before anything is asked."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from atelier.errors import AtelierError
from atelier.prompts.client import ChatClient
from atelier.prompts.endpoints import LanguageModel
from atelier.prompts.openai_package import LEAST_VERSION
from atelier.prompts.request import PromptRequest
from atelier.prompts.write import write

HELLO = [{"role": "user", "content": "hello"}]


def chat() -> ChatClient:
    """With a server that nobody runs."""
    return ChatClient(llm=LanguageModel(base_url="http://127.0.0.1:9/v1", model="m"))


@pytest.mark.parametrize("old", [{"__version__": "0.28.1", "ChatCompletion": object},
                                 {"__version__": "1.6.1", "AsyncOpenAI": object, "APIStatusError": Exception}])
def test_an_old_package_is_named_with_the_way_to_a_newer_one(monkeypatch: pytest.MonkeyPatch, old: dict[str, object]
                                                             ) -> None:
    monkeypatch.setitem(sys.modules, "openai", SimpleNamespace(**old))
    wanted = (rf"in version {old['__version__']}; .* 1\.50 or newer\. "
              r'Update it with: pip install -U "openai>=1\.50"')
    with pytest.raises(AtelierError, match=wanted):
        chat().ask(HELLO, 0)
    written = write(PromptRequest(idea="a cat"), chat(), fall_back=True)
    assert written.positive.startswith("a cat, ") and "1.50 or newer" in written.source


def test_a_package_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for broken in ("import no_such_package_at_all", "None.nothing"):
        folder = tmp_path / broken[:4]
        folder.mkdir()
        (folder / "openai.py").write_text(broken, encoding="utf-8")
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(sys.modules, "openai", raising=False)
        with pytest.raises(AtelierError, match=r"cannot be imported: .*\. Update it with: pip install"):
            chat().ask(HELLO, 0)


def test_a_package_that_is_not_there_is_named_with_the_way_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)  # importing it ends as if it were not there
    with pytest.raises(AtelierError, match=r"Writing prompts with a language model needs.*openai"):
        chat().ask(HELLO, 0)


def test_a_broken_package_whose_version_nobody_knows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", unknown)
    monkeypatch.setitem(sys.modules, "openai", SimpleNamespace())
    with pytest.raises(AtelierError, match="'openai' is there in version unknown; a language model needs"):
        chat().ask(HELLO, 0)


def test_the_oldest_version_is_the_one_that_is_installed_by_default() -> None:
    lines = (Path(__file__).parents[2] / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert f"openai>={LEAST_VERSION}" in lines
