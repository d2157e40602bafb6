"""Record what other people's workflows rely on: ids, inputs, outputs, their types and order, and the values of widgets.

    python tools/record_nodes.py [--url http://127.0.0.1:8188] [--changed ID …]

New nodes are added to tests/data/object_info.json and tests/data/widgets.json. A recorded node must stay as it is, or
every saved workflow that holds it breaks: give a changed one a new id and offer the host's NodeReplace for the old, or,
where old workflows really keep working (an optional input at the end), name it with --changed. Without --url a ComfyUI
is started.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "tests" / "data" / "object_info.json"
WIDGETS = ROOT / "tests" / "data" / "widgets.json"
PREFIX = "Atelier"
FACTS = ("default", "min", "max", "step", "arrow_step", "multiline", "control_after_generate", "forceInput", "advanced")


def shape(info: dict[str, Any]) -> dict[str, Any]:
    """What a saved workflow relies on in one node, from the host's `/object_info`. Choices of a list are left out:
    many are the files of a machine."""
    def kind(spec: list[Any]) -> str:
        return "COMBO" if isinstance(spec[0], list) else spec[0]

    return {
        "inputs": {part: [[name, kind(info["input"][part][name])] for name in names]
                   for part, names in info["input_order"].items() if part != "hidden"},
        "outputs": [list(pair) for pair in zip(info["output_name"], info["output"], strict=True)],
        "lists": info["output_is_list"],
        "is_output": info["output_node"],
    }


def shapes(nodes: dict[str, Any]) -> dict[str, Any]:
    """The shape of every node of the pack, by id."""
    return {name: shape(nodes[name]) for name in sorted(nodes) if name.startswith(PREFIX)}


def widgets(nodes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What each widget gives and takes, and whether it is shown at first, by "node.widget".

    A workflow that leaves a widget out gets its default, and one that was saved with a value that is no longer taken
    is refused.
    """
    found = {f"{node}.{name}": {fact: spec[1][fact] for fact in FACTS if spec[1].get(fact) is not None}
             for node, info in sorted(nodes.items()) if node.startswith(PREFIX)
             for part, inputs in info["input"].items() if part != "hidden"
             for name, spec in inputs.items() if len(spec) > 1}
    return json.loads(json.dumps({name: facts for name, facts in found.items() if facts}))


def recorded_widgets() -> dict[str, dict[str, Any]]:
    """The record of the widgets."""
    return json.loads(WIDGETS.read_text(encoding="utf-8")) if WIDGETS.is_file() else {}


def recorded() -> dict[str, Any]:
    """The record."""
    return from_text(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}


def text_of(record: dict[str, Any]) -> str:
    """The file's content: one line an input, so that a change is easy to see."""
    def lines(items: list[Any]) -> str:
        return "[" + ",".join(f"\n      {json.dumps(item)}" for item in items) + ("\n    ]" if items else "]")

    nodes = [f'  {json.dumps(name)}: {{\n'
             + "".join(f'    {json.dumps(part)}: {lines(items)},\n' for part, items in node["inputs"].items())
             + f'    "outputs": {lines(node["outputs"])},\n'
             + f'    "lists": {json.dumps(node["lists"])},\n    "is_output": {json.dumps(node["is_output"])}\n  }}'
             for name, node in sorted(record.items())]
    return "{\n" + ",\n".join(nodes) + "\n}\n"


def from_text(text: str) -> dict[str, Any]:
    """The inverse of `text_of`."""
    return {name: {"inputs": {part: node.pop(part) for part in ("required", "optional") if part in node}, **node}
            for name, node in json.loads(text).items()}


def main() -> int:
    """Update the record."""
    parser = argparse.ArgumentParser(description="Record ids, inputs and outputs of all nodes.")
    parser.add_argument("--url", help="a running ComfyUI with the pack; without it one is started")
    parser.add_argument("--changed", nargs="+", default=[], metavar="ID", help="recorded nodes that may differ now")
    arguments = parser.parse_args()
    if arguments.url:
        with urllib.request.urlopen(f"{arguments.url}/object_info") as answer:
            nodes = json.loads(answer.read())
    else:
        sys.path += [str(ROOT / "tests"), str(ROOT)]
        from kit.host import Host

        with tempfile.TemporaryDirectory() as folder, Host(Path(folder)) as host:
            nodes = host.get_json("/object_info")
    now, before = shapes(nodes), recorded()
    values = widgets(nodes)
    broken = {name for name, node in before.items() if now.get(name) != node}
    broken |= {name.partition(".")[0] for name, facts in recorded_widgets().items() if values.get(name) != facts}
    broken -= set(arguments.changed)
    if broken:
        print(f"These recorded nodes changed or are gone: {', '.join(sorted(broken))}.\n{__doc__}", file=sys.stderr)
        return 1
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(text_of(now), encoding="utf-8", newline="\n")
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(facts)}" for name, facts in values.items())
    WIDGETS.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8", newline="\n")
    print(f"{RECORD}: {len(now)} nodes, {len(now.keys() - before.keys())} new")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
