"""What the README names exists, and what exists is named."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_node_is_in_the_table() -> None:
    written = {name for path in (ROOT / "nodes").glob("*.py")
               for name in re.findall(r'node_id="(Atelier\w+)"', path.read_text(encoding="utf-8"))}
    named = set(re.findall(r"`(Atelier\w+)`", README))
    assert written
    assert named == written


def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_make_target_and_verb_that_is_shown_exists() -> None:
    from atelier.shell.main import _parser

    targets = re.findall(r"^    make (\w+)", README, re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    helped = _parser().format_help()
    verbs = re.findall(r"python -m atelier ([\w-]+)", README)
    assert verbs
    assert all(re.search(rf"^\s+{verb}\b", helped, re.MULTILINE) for verb in verbs)


def test_contributing_names_what_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"`(?:python )?((?:[\w.-]+/)+[\w.-]*)`", text)) | set(re.findall(r"\]\(([^)#]+)\)", text))
    created = {path for path in paths if path.startswith((".venv/", ".comfyui/"))}
    assert len(paths - created) > 20
    assert [path for path in sorted(paths - created) if not (ROOT / path).exists()] == []
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in re.findall(r"make (\w+)", text))
