"""Change the code at random, one place at a time, and see whether the tests notice.

    python tools/mutate.py --count 300                  # prints its seed, each change and what noticed it
    python tools/mutate.py --count 20 --seed 7 atelier/train

Each change is tried in a copy of the repository, so the working tree stays as it is. Of Python files the tests that
import the changed module run first, then two that hold for the whole pack, then all of its package's; of scripts of
the editor, those of tests/js. What they let live is shown to the checks of style and types, and a node or a script
at last to the tests in the host and the browser that name it: all that `make test` runs, without what can hardly
notice. A change that means the same as before cannot be noticed: whoever reads the list has to judge. See
docs/decisions/0017.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import os
import random
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("atelier", "nodes", "web/js")
SLOW = ("tests/e2e", "tests/demo", "tests/benchmarks")
"""Asked last or, the other two, not at all: they take minutes."""
WHOLE = ("tests/repository/test_reference.py", "tests/pictures/test_drawn.py")
"""Asked of every change of Python: what they hold is declared or drawn all over the pack."""
SECONDS = 900
"""Longest time for the tests of one change, also on a busy machine; one that never ends is noticed, and said."""

SWAPPED = {
    ast.Eq: "!=", ast.NotEq: "==", ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">",
    ast.In: "not in", ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is",
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "/",
    ast.Mod: "*", ast.Pow: "*", ast.BitOr: "&", ast.BitAnd: "|", ast.And: "or", ast.Or: "and",
}
_OPERATOR = re.compile(rb"\bnot\s+in\b|\bis\s+not\b|==|!=|<=|>=|//|\*\*|[<>+\-*/%|&]|\b(?:in|is|and|or)\b")
SCRIPT = ((r"===", "!=="), (r"!==", "==="), (r" < ", " <= "), (r" > ", " >= "), (r" <= ", " < "), (r" >= ", " > "),
          (r" && ", " || "), (r" \|\| ", " && "), (r" \+ ", " - "), (r" - ", " + "), (r"\btrue\b", "false"),
          (r"\bfalse\b", "true"), (r"\bif \((?!!)", "if (!"), (r"\?\?", "||"), (r"\b1\b", "2"))


@dataclass(frozen=True)
class Change:
    """One place of a file, and what stands there instead."""

    file: Path
    """Relative to the repository."""
    begin: int
    end: int
    """Byte offsets in the file's UTF-8 text."""
    new: str

    def apply(self, data: bytes) -> bytes:
        """The file's bytes with the change."""
        return data[:self.begin] + self.new.encode() + data[self.end:]

    def text(self, data: bytes) -> str:
        """For a person: place, before, after."""
        line = data[:self.begin].count(b"\n") + 1
        old = " ".join(data[self.begin:self.end].decode().split())
        return f"{self.file}:{line}: {old[:100]}  ->  {self.new[:100] or 'nothing'}"


# --- what can be changed --------------------------------------------------------------------------------------------

class Places(ast.NodeVisitor):
    """Collects the changes of a Python file. Texts, annotations and messages are left alone."""

    def __init__(self, file: Path, data: bytes) -> None:
        self.file, self.data, self.found = file, data, []
        starts = [0]
        for line in data.split(b"\n"):
            starts.append(starts[-1] + len(line) + 1)
        self.starts = starts
        self.visit(ast.parse(data))

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Offsets of a node."""
        return (self.starts[node.lineno - 1] + node.col_offset, self.starts[node.end_lineno - 1] + node.end_col_offset)

    def add(self, begin: int, end: int, new: str) -> None:
        """Note a change."""
        self.found.append(Change(self.file, begin, end, new))

    def between(self, left: ast.AST, right: ast.AST, new: str) -> None:
        """Exchange the operator between two operands, whatever brackets and lines stand around it."""
        begin, end = self.span(left)[1], self.span(right)[0]
        match = _OPERATOR.search(self.data, begin, end)
        if match:
            self.add(match.start(), match.end(), new)

    def visit_Compare(self, node: ast.Compare) -> None:
        """Another comparison."""
        operands = [node.left, *node.comparators]
        for operator, left, right in zip(node.ops, operands, operands[1:], strict=False):
            self.between(left, right, SWAPPED[type(operator)])
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """Another operation; joined texts stay."""
        texts = [side for side in (node.left, node.right) if isinstance(side, ast.JoinedStr | ast.Constant)
                 and not isinstance(getattr(side, "value", 0.0), int | float)]
        if type(node.op) in SWAPPED and not texts:
            self.between(node.left, node.right, SWAPPED[type(node.op)])
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """and for or."""
        for left, right in zip(node.values, node.values[1:], strict=False):
            self.between(left, right, SWAPPED[type(node.op)])
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        """Without its not or minus."""
        begin, _ = self.span(node)
        self.add(begin, begin + (3 if isinstance(node.op, ast.Not) else 1), "")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Another number or switch."""
        begin, end = self.span(node)
        if isinstance(node.value, bool):
            self.add(begin, end, str(not node.value))
        elif isinstance(node.value, int):
            self.add(begin, end, str(node.value + 1))
        elif isinstance(node.value, float):
            self.add(begin, end, repr(node.value * 2 + 1e-3))

    def visit_If(self, node: ast.If) -> None:
        """Always or never."""
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self.add(*self.span(node.test), "True")
            self.add(*self.span(node.test), "False")
            self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        """Nothing comes back."""
        if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
            self.add(*self.span(node.value), "None")
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        """A call is left out; but not docstrings, and no line of the log."""
        source = self.data[slice(*self.span(node))]
        if isinstance(node.value, ast.Call) and not re.match(rb"_?log\.|print", source):
            self.add(*self.span(node), "pass")
            self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """Nothing is added."""
        self.add(*self.span(node), "pass")
        self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        """No error; its words stay."""
        self.add(*self.span(node), "pass")

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Without decorators."""
        for statement in node.body:
            self.visit(statement)

    def visit_Assign(self, node: ast.Assign) -> None:
        """The value; but no constant such as a limit, of which one more or less means nothing."""
        if not (len(node.targets) == 1 and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper()):
            self.visit(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """The value alone."""
        if node.value is not None:
            self.visit(node.value)

    def visit_arguments(self, node: ast.arguments) -> None:
        """The defaults alone."""
        for default in (*node.defaults, *filter(None, node.kw_defaults)):
            self.visit(default)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Without decorators and annotations."""
        self.visit(node.args)
        for statement in node.body:
            self.visit(statement)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        """As any function."""
        self.visit_FunctionDef(node)  # type: ignore[arg-type]


def changes_of(root: Path, folders: list[str]) -> list[Change]:
    """Every change of the files below these folders."""
    found: list[Change] = []
    for folder in folders:
        path = root / folder
        for file in sorted(path.rglob("*") if path.is_dir() else [path]):
            if file.is_relative_to(root / "atelier/demo"):  # its tests are among the slow ones
                continue
            data, name = file.read_bytes() if file.is_file() else b"", file.relative_to(root)
            if file.suffix == ".py":
                found += Places(name, data).found
            elif file.suffix == ".js":
                plain = re.sub(rb"/\*.*?\*/|//[^\n]*", lambda match: b" " * len(match[0]), data, flags=re.DOTALL)
                for old, new in SCRIPT:
                    found += [Change(name, match.start(), match.end(), new)
                              for match in re.finditer(old.encode(), plain)]
    return found


# --- who notices ----------------------------------------------------------------------------------------------------

def tests_for(root: Path, file: Path) -> list[list[str]]:
    """Groups of test files, nearest first."""
    if file.suffix == ".js":
        return [[str(path.relative_to(root)) for path in sorted((root / "tests/js").glob("*.test.mjs"))]]
    module = ".".join(file.with_suffix("").parts).removesuffix(".__init__")
    tests = [path for path in sorted((root / "tests").rglob("test_*.py"))
             if not str(path.relative_to(root)).startswith(SLOW)]
    names = rf"{re.escape(module)}\b|{re.escape(module.rpartition('.')[0])} import [^\n]*\b{file.stem}\b"
    named = [path for path in tests if re.search(names, path.read_text(encoding="utf-8"))
             or path.stem == f"test_{file.stem}"]
    home = root / "tests" / ("nodes" if file.parts[0] == "nodes" else "") / Path(*file.parts[1:-1])
    while not home.is_dir():  # of a package whose tests are with those of the package around it
        home = home.parent
    near = [path for path in tests if path.is_relative_to(home) and path not in named and home != root / "tests"]
    # Nodes reach the parts for the host in many ways.
    of_pack = [path for path in tests if file.parts[0] == "nodes" and path.is_relative_to(root / "tests/nodes")
               and path not in {*named, *near}]
    first, *others = ([str(path.relative_to(root)) for path in group] for group in (named, near, of_pack))
    return [group for group in (first, [*WHOLE], *others) if group]


def end_to_end(root: Path, file: Path) -> list[str]:
    """Tests in the host that name a node of this file, or those in the browser for one of its scripts."""
    text = (root / file).read_text(encoding="utf-8")
    names = ["Editor("] if file.suffix == ".js" else re.findall(r'node_id="(\w+)"', text)
    found = [path for path in sorted((root / "tests/e2e").glob("test_*.py"))
             if any(name in path.read_text(encoding="utf-8") for name in names)]
    return [str(path.relative_to(root)) for path in found]


def noticed(root: Path, file: Path) -> str:
    """What fails now: "tests", "checks", "host and browser", or nothing."""
    begun = time.monotonic()

    def fails(group: list[str], *which: str) -> bool:
        return bool(_pytest(root, [*group, *which], SECONDS - (time.monotonic() - begun)))

    if file.suffix == ".js":
        tested = any(_command(root, "node", "--test", *group) for group in tests_for(root, file))
        checks = [("tools/check_js.py",)]
    else:
        groups = tests_for(root, file)
        tested = any(fails(group, "-m", which) for which in ("not slow", "slow") for group in groups)
        checks = [("-m", "ruff", "check", str(file)), ("-m", "pyright", "--pythonpath", sys.executable, str(file))]
    if tested:
        return "tests"
    if any(_command(root, sys.executable, *check) for check in checks):
        return "checks"
    slow = end_to_end(root, file)
    return "host and browser" if slow and fails(slow) else ""


def _command(root: Path, *command: str) -> int:
    """Run a command; 0 where it succeeds. What it started ends with it, also a loop that a change made endless."""
    with subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          start_new_session=True) as process:
        try:
            return process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            print(f"not ended after {SECONDS} s: {' '.join(command)}", flush=True)
            return 1
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _pytest(root: Path, arguments: list[str], seconds: float) -> int:
    """Run tests in a copy of this process, which has the large libraries in memory already; 0 where all pass."""
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(root)
        sys.path[:0] = [str(root)]
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        import pytest

        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:faulthandler", *arguments])
        os._exit(int(code) not in (0, 5))
    end, done = time.monotonic() + max(seconds, 1), 0
    try:
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return status
            time.sleep(0.05)
    finally:  # also where this process is told to end
        if not done:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
    print(f"not ended after {SECONDS} s: {' '.join(arguments)}", flush=True)
    return 1


@contextlib.contextmanager
def copy_of(root: Path) -> Iterator[Path]:
    """The repository's files, as they are now, in a folder of their own."""
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / root.name
        names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=root,
                               capture_output=True, check=True).stdout.decode().split("\0")
        for name in filter(None, names):
            if (root / name).is_file():
                (copied / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, copied / name)
        subprocess.run(["git", "init", "-q"], cwd=copied, check=True)
        yield copied


def main() -> int:
    """Try changes from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", default=list(FOLDERS))
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32))
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))  # so that the copy and the tests go
    print(f"seed {arguments.seed}", flush=True)
    sys.dont_write_bytecode = True  # of a changed file, the next process would take it for the plain one's
    for library in ("torch", "numpy", "PIL.Image", "transformers", "diffusers", "peft", "pytest", "hypothesis"):
        __import__(library)
    begun, alive = time.monotonic(), []
    with copy_of(ROOT) as root:
        changes = changes_of(root, arguments.folders)
        chosen = random.Random(arguments.seed).sample(changes, min(arguments.count, len(changes)))
        for number, change in enumerate(chosen, 1):
            data = (root / change.file).read_bytes()
            (root / change.file).write_bytes(change.apply(data))
            since, by = time.monotonic(), noticed(root, change.file)
            if not by:
                alive.append(change)
            print(f"{number}: {change.text(data)}: {by or 'NOT NOTICED'}, {time.monotonic() - since:.0f} s", flush=True)
            (root / change.file).write_bytes(data)
    share = 100 * (1 - len(alive) / max(len(chosen), 1))
    print(f"{len(chosen)} of {len(changes)} tried, {len(alive)} not noticed ({share:.1f} % noticed) in "
          f"{time.monotonic() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
