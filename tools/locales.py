"""Write locales/en from the nodes themselves: the files that translators start from.

    python tools/locales.py

The host merges locales/<language>/nodeDefs.json and main.json into the editor's texts. English repeats what the schemas
say; a test keeps them equal. The texts of the page are not among them: they stand in web/js/messages.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ENGLISH = ROOT / "locales" / "en" / "nodeDefs.json"
NAMES = ENGLISH.with_name("main.json")
SOCKETS = ROOT / "nodes" / "sockets.py"
OF_THE_EDITOR = {"dataset", "model", "sampling", "training"}
"""Categories that the editor has a word for already, which a pack would change for all nodes."""


LABELS = {"llm": "language model"}
"""Inputs that are not called by their ids. Not in the schema: the editor shows a socket's label in every language, in
place of its translation."""


def english(nodes: dict[str, Any]) -> str:
    """The file's content, from the node classes by id."""
    return json.dumps({name: _texts(nodes[name].GET_SCHEMA()) for name in sorted(nodes)}, indent=2,
                      ensure_ascii=False) + "\n"


def english_names(nodes: dict[str, Any]) -> str:
    """The content of main.json: the pack's socket types and categories, by themselves."""
    types = re.findall(r'io\.Custom\("(\w+)"\)', SOCKETS.read_text(encoding="utf-8"))
    categories = {part for node in nodes.values() for part in node.GET_SCHEMA().category.split("/")} - OF_THE_EDITOR
    return json.dumps({"dataTypes": {name: name for name in sorted(types)},
                       "nodeCategories": {name: name for name in sorted(categories)}}, indent=2) + "\n"


def _texts(schema: Any) -> dict[str, Any]:
    return {
        "display_name": schema.display_name, "description": schema.description,
        "inputs": {socket.id: {"name": LABELS.get(socket.id, socket.id.replace("_", " ")), "tooltip": socket.tooltip}
                   for socket in schema.inputs},
        "outputs": {str(index): {"name": socket.display_name, "tooltip": socket.tooltip}
                    for index, socket in enumerate(schema.outputs)},
    }


def main() -> int:
    """Write the files."""
    sys.path += [str(ROOT / "tests"), str(ROOT)]
    from kit.pack import load_pack, node_classes

    with tempfile.TemporaryDirectory() as folder:
        nodes = node_classes(load_pack(Path(folder)))
        for path, content in ((ENGLISH, english(nodes)), (NAMES, english_names(nodes))):
            path.write_text(content, encoding="utf-8", newline="\n")
            print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
