"""Write locales/en/nodeDefs.json from the nodes themselves: the file that translators start from.

    python tools/locales.py

The host merges locales/<language>/nodeDefs.json into the editor's texts. English repeats what the schemas say; a test
keeps the two equal.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ENGLISH = ROOT / "locales" / "en" / "nodeDefs.json"


def english(nodes: dict[str, Any]) -> str:
    """The file's content, from the node classes by id."""
    return json.dumps({name: _texts(nodes[name].GET_SCHEMA()) for name in sorted(nodes)}, indent=2,
                      ensure_ascii=False) + "\n"


def _texts(schema: Any) -> dict[str, Any]:
    return {
        "display_name": schema.display_name, "description": schema.description,
        "inputs": {socket.id: {"name": socket.display_name or socket.id.replace("_", " "), "tooltip": socket.tooltip}
                   for socket in schema.inputs},
        "outputs": {str(index): {"name": socket.display_name, "tooltip": socket.tooltip}
                    for index, socket in enumerate(schema.outputs)},
    }


def main() -> int:
    """Write the file."""
    sys.path += [str(ROOT / "tests"), str(ROOT)]
    from kit.pack import load_pack, node_classes

    with tempfile.TemporaryDirectory() as folder:
        ENGLISH.write_text(english(node_classes(load_pack(Path(folder)))), encoding="utf-8", newline="\n")
    print(ENGLISH)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
