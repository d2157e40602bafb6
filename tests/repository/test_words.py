"""Names that were given up do not come back: one thing has one name, in code, tests and documents alike."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = ("atelier", "nodes", "tests", "tools", "benchmarks", "docs", "web", ".github")
SUFFIXES = {".py", ".md", ".js", ".mjs", ".ts", ".css", ".toml", ".yml"}

OLD_NAMES = {
    # Modules that moved, as paths or dotted names.
    r"convert[./](anatomy|detect|expected|keys|places|prediction|recipe|text|tokenizer|unet|vae)": "atelier/models/",
    r"dataset[./](images|found)": "atelier/pictures/",
    r"score[./]label|study[./]\w+|atelier[./]study": "atelier/pictures/labels, compare/, explain/",
    r"atelier[./](room|unfinished|families)|room\.py|unfinished\.py": "device_memory, temp_paths, models/families",
    r"lora[./]forms|shell[./]monitor": "lora/formats, shell/progress",
    r"train[./](captions|compiled|config|encoding|inputs|keeper|order|pace|packed|place|publish)": "atelier/train/",
    r"train[./](stopping|store|validation)": "atelier/train/early_stopping, run_folder",
    r"nodes[./](monitor|measuring|weights|recorder|clip_encoder|training_monitor)|nodes/host\.py": "nodes/host/",
    r"nodes[./](sessions|coalesce|routes)": "nodes/panel/",
    r"nodes[./](found|options|example_set|made|checks|numbers|lists)": "a node's file bears the node's name",
    # Names that mean nothing to somebody who knows diffusers, PEFT or kohya.
    r"whole_file|whole_folder": "atomic_file, atomic_folder",
    r"(Shell|Host|Training)?Monitor": "Progress",
    r"Keeper|note_good|save_good|go_on\(": "CheckpointWriter.resume, mark_finite, save_last_finite",
    r"_look|LOOK_STEPS|(s|S)topper\.look|class Stopper": "EarlyStopping.update, MIN_VALIDATION_INTERVAL",
    r"class Pace|[Pp]ace\.reach|in_words": "StepRate.update, format_rate",
    r"Workplace|LoraShelf|RunStore|(?<!\.)Outcome": "RunPaths, LoraOutput, RunFolder, RunResult",
    r"class (Order|Use|Inputs)|InputSource": "BucketSampler, SampleUse, TrainBatch, BatchLoader",
    r"MaybeCompiled|collect_gradients|trainer\.publish": "CompiledUNet, accumulate_gradients, sync_to_model",
    r"FORMS|class Form|keys\.Form|fields\.Form|LoRA form": "format, lora/formats, keymap.Relation, PromptStyle",
    r"Anatomy|read_anatomy|class Recipe|TextPlace": "ModelLayout, LazyTensor, TextPrefix",
    r"sizing\.place|class Place|grid\.Place|entry\.place": "sizing.fit, grid.Cell, Entry.source",
    r"Contestant|class (Shot|Standing)|def paired|import paired":
        "ComparedModel, ComparisonImage, Ranking, significance",
    r"Coalescer|coalesce\(|class Made|place_for|def verdict\(check": "Throttle, CachedResult.find_or_reserve, check",
    r"(def |numbers\.)arrows|\*\*arrows\(|def (singles|only)\b|lists\.(singles|only)": "arrow_step, split, single",
    r"training_room|host\.nothing|def nothing": "exclusive_device, blocked_output",
    r"load_counting|class Told|story import .*tell|story\.tell": "load_tokenizers, StoryResult, run_story",
}
"""Each with what is called so now. Ordinary English words stand here only as the definitions they were."""

LIBRARY_ONLY = {r"form: str|form=\w": "format (the widget of saved graphs is still called form)"}

ALLOWED: dict[str, set[str]] = {}
"""Files that read what older releases wrote, with the patterns that they need."""


def texts() -> dict[str, str]:
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")
             if path.suffix in SUFFIXES and not {"node_modules", "__pycache__"} & set(path.parts)]
    paths += [path for path in ROOT.glob("*.*") if path.suffix in {*SUFFIXES, ".py"} and path.name != "CHANGELOG.md"]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths
            if path != Path(__file__).resolve()}


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    found = texts()
    assert {"atelier/errors.py", "README.md", "docs/glossary.md", "tests/conftest.py"} <= found.keys()
    return found


def places(pattern: str, files: dict[str, str]) -> list[str]:
    # Not inside a longer name; what ends in a bracket or letters after `=` needs no boundary behind it.
    whole = re.compile(rf"(?<!\w)(?:{pattern})(?!\w)")
    return [f"{name}:{number}: {line.strip()}" for name, text in files.items() if pattern not in ALLOWED.get(name, ())
            for number, line in enumerate(text.splitlines(), 1) if whole.search(line)]


@pytest.mark.parametrize("pattern", OLD_NAMES)
def test_an_old_name_is_gone(pattern: str, files: dict[str, str]) -> None:
    found = places(pattern, files)
    assert not found, f"now: {OLD_NAMES[pattern]}\n" + "\n".join(found)


@pytest.mark.parametrize("pattern", LIBRARY_ONLY)
def test_an_old_name_is_gone_from_the_library(pattern: str, files: dict[str, str]) -> None:
    found = places(pattern, {name: text for name, text in files.items() if name.startswith("atelier/")})
    assert not found, f"now: {LIBRARY_ONLY[pattern]}\n" + "\n".join(found)


def test_the_search_finds_an_old_name() -> None:
    assert places(r"whole_file|go_on\(", {"a.py": "with whole_file(path):\n    keeper.go_on()"})
    assert not places("whole_file", {"a.py": "a_whole_file = whole_files"})


def test_a_class_name_has_one_meaning() -> None:
    defined: dict[str, list[str]] = defaultdict(list)
    for path in [*(ROOT / "atelier").rglob("*.py"), *(ROOT / "nodes").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                defined[node.name].append(path.relative_to(ROOT).as_posix())
    assert not {name: paths for name, paths in defined.items() if len(paths) > 1}
