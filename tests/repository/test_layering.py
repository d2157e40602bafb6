"""The rules of docs/decisions/0001: stages in order, no circles, the host only where it belongs, one idea a file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
STAGES = [("__version__", "errors", "limits", "json_files", "toml_files", "fields", "temp_paths", "files", "progress",
           "device_memory", "prompt_lines"), ("checkpoint",),
          ("pictures",), ("models",), ("convert",), ("lora",), ("dataset",), ("sampling",), ("score",), ("train",),
          ("generate", "prior"), ("prompts",), ("captions",), ("grid",), ("compare",), ("explain",), ("faces",),
          ("demo",), ("shell", "__main__")]
ORDER = {name: place for place, names in enumerate(STAGES) for name in names}
HOST = {"comfy", "comfy_api", "comfy_api_nodes", "comfy_execution", "comfy_extras", "execution", "folder_paths",
        "latent_preview", "node_helpers", "nodes", "server", "app"}
HOST_ROOM = ROOT / "nodes" / "host"
"""The only folder whose files may import more of the host than its node API."""
NODE_API = {"comfy_api"}
LONGEST = 400
"""Lines of a file."""
POSITIONS = 5
"""Most fields of a dataclass that may be given by position."""

LIBRARY = sorted((ROOT / "atelier").rglob("*.py"))
NODES = sorted((ROOT / "nodes").rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Each import of a file as (dots, dotted name in parts): `from ..a.b import c` gives (2, ("a", "b", "c"))."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield 0, tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = tuple(node.module.split(".")) if node.module else ()
            for alias in node.names:
                yield node.level, (*base, alias.name)


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def stage(parts: tuple[str, ...]) -> str:
    """First part of a name below `atelier`: the stage it belongs to."""
    return parts[0].removesuffix(".py") if parts else "__init__"


def test_files_were_found() -> None:
    assert len(LIBRARY) > 10
    assert len(NODES) > 3


@pytest.mark.parametrize("path", LIBRARY, ids=named)
def test_a_stage_imports_only_earlier_stages(path: Path) -> None:
    inside = path.relative_to(ROOT / "atelier").parts
    own = stage(inside)
    if own == "__init__":
        assert not list(imports(path)), "the package itself imports nothing"
        return
    assert own in ORDER, f"{own} has no place in the order of stages"
    for dots, parts in imports(path):
        if dots == 0:
            assert parts[0] != "atelier", "the library imports itself relatively"
            continue
        # One dot is the file's own folder; each further one a folder up.
        folder = inside[:-1]
        target = stage((*folder[:len(folder) - dots + 1], *parts))
        assert dots <= len(folder) + 1, "an import leaves the library"
        assert ORDER[target] <= ORDER[own], f"{own} stands before {target}"


def imported_files(path: Path) -> set[Path]:
    """The files of the repository that `path` imports, also for type checkers alone."""
    targets = set()
    for dots, parts in imports(path):
        if dots:
            base = path.parents[dots - 1]
            # The last part is a module or a name in one.
            tried = [base.joinpath(*parts[:end]) for end in (len(parts), len(parts) - 1)]
            files = [file for stem in tried for file in (stem.with_suffix(".py"), stem / "__init__.py")
                     if file.is_file()]
            targets.update(files[:1])
    return targets - {path}


def circles(graph: dict[Path, set[Path]]) -> list[set[Path]]:
    """Groups of two and more files that reach each other (Tarjan's strongly connected components)."""
    number: dict[Path, int] = {}
    lowest: dict[Path, int] = {}
    stack: list[Path] = []
    groups: list[set[Path]] = []

    def visit(file: Path) -> None:
        number[file] = lowest[file] = len(number)
        stack.append(file)
        for target in sorted(graph[file]):
            if target not in number:
                visit(target)
            if target in stack:
                lowest[file] = min(lowest[file], lowest[target])
        if lowest[file] == number[file]:
            group = set(stack[stack.index(file):])
            del stack[stack.index(file):]
            groups.append(group)

    for file in sorted(graph):
        if file not in number:
            visit(file)
    return [group for group in groups if len(group) > 1]


def test_no_files_import_each_other() -> None:
    files = [*LIBRARY, *NODES]
    graph = {path: imported_files(path) & set(files) for path in files}
    assert sum(map(len, graph.values())) > 2 * len(files), "imports were not resolved"
    assert [sorted(map(named, group)) for group in circles(graph)] == []


def test_circles_of_any_length_are_found() -> None:
    a, b, c, d = map(Path, "abcd")
    assert circles({a: {b}, b: {c}, c: {a, d}, d: set()}) == [{a, b, c}]
    assert circles({a: {b, c}, b: {d}, c: {d}, d: set()}) == []


def many_positions(source: str) -> list[str]:
    """Dataclasses with more fields than `POSITIONS` whose constructor takes them by position."""
    classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    found = []
    for node in classes:
        decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
        count = sum(isinstance(item, ast.AnnAssign) and "ClassVar" not in ast.unparse(item.annotation)
                    for item in node.body)
        if count > POSITIONS and any(re.match(r"(dataclasses\.)?dataclass\b(?!.*kw_only=True)", d) for d in decorators):
            found.append(node.name)
    return found


@pytest.mark.parametrize("path", LIBRARY + NODES, ids=named)
def test_large_dataclasses_are_built_by_keyword(path: Path) -> None:
    assert many_positions(path.read_text(encoding="utf-8")) == []


def test_a_large_positional_dataclass_is_found() -> None:
    fields = "\n".join(f"    field{number}: int" for number in range(POSITIONS + 1))
    assert many_positions(f"@dataclass(frozen=True)\nclass A:\n{fields}") == ["A"]
    assert many_positions(f"@dataclass(frozen=True, kw_only=True)\nclass A:\n{fields}") == []


@pytest.mark.parametrize("path", LIBRARY, ids=named)
def test_the_library_knows_no_host(path: Path) -> None:
    assert not {parts[0] for dots, parts in imports(path) if dots == 0} & HOST


@pytest.mark.parametrize("path", NODES, ids=named)
def test_nodes_meet_the_host_through_one_door(path: Path) -> None:
    names = {parts for dots, parts in imports(path) if dots == 0}
    assert all(parts[0] != "atelier" for parts in names), "inside the pack only relative imports work"
    if HOST_ROOM not in path.parents:
        assert {parts[0] for parts in names} & HOST <= NODE_API, "only nodes/host/ meets the host"


def test_a_file_that_holds_a_node_bears_its_name() -> None:
    def name(node_id: str) -> str:
        words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]+", node_id.removeprefix("Atelier"))
        return "_".join(words).lower()

    ids = {path: re.findall(r'node_id="(\w+)"', path.read_text(encoding="utf-8")) for path in NODES}
    assert sum(map(len, ids.values())) > 25
    assert not {named(path): held for path, held in ids.items() if held and [path.stem] != [*map(name, held)]}


def test_the_root_imports_nothing_when_loaded() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    assert not [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]


@pytest.mark.parametrize("path", [p for p in LIBRARY + NODES if "shell" not in p.parts], ids=named)
def test_nothing_prints(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


@pytest.mark.parametrize("path", LIBRARY + NODES, ids=named)
def test_a_file_is_one_idea(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST
