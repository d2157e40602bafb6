"""Loading the pack as the host does: list of nodes, schemas, and cost."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest
from kit.pack import node_classes

from tools import comfyui

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.host


def test_every_node_class_is_in_the_list(pack: ModuleType) -> None:
    node_ids = {text.value
               for path in (ROOT / "nodes").glob("*.py") for call in ast.walk(ast.parse(path.read_text("utf-8")))
               if isinstance(call, ast.Call) and ast.unparse(call.func) == "io.Schema"
               for keyword in call.keywords if keyword.arg == "node_id"
               for text in [keyword.value] if isinstance(text, ast.Constant)}
    assert node_ids
    assert set(node_classes(pack)) == node_ids


def test_every_widget_and_socket_has_a_tooltip(pack: ModuleType) -> None:
    for name, node in node_classes(pack).items():
        schema = node.GET_SCHEMA()  # pyright: ignore[reportAttributeAccessIssue]
        assert name.startswith("Atelier")
        assert schema.display_name
        assert schema.description
        assert schema.category.startswith("Atelier/"), name
        for socket in [*schema.inputs, *schema.outputs]:
            assert socket.tooltip, f"{name}: {socket.id or socket.display_name} has no tooltip"
            assert socket.tooltip.endswith("."), f"{name}: {socket.id or socket.display_name}"
            # Where a seed says nothing, the editor adds a widget, and the values of a saved graph move by one.
            stated = getattr(socket, "control_after_generate", None) is not None
            assert stated or socket.id != "seed", f"{name}: say whether the seed changes after each run"
        assert all(output.display_name for output in schema.outputs), name
        # The editor suggests an output of any type for every socket that a person pulls at.
        assert schema.is_dev_only or "*" not in [output.io_type for output in schema.outputs], name


def test_loading_is_cheap_and_imports_nothing_heavy(tmp_path: Path) -> None:
    """Once the host's own modules are loaded, as at its start, loading the pack imports only the pack itself."""
    code = textwrap.dedent("""
        import json, sys
        from pathlib import Path
        sys.path += [sys.argv[1], sys.argv[2]]
        from kit.pack import use_host_modules, load_pack, node_classes
        base = Path(sys.argv[3])
        use_host_modules(base)
        # What the host has imported by the time it loads custom nodes.
        import comfy_api.latest, nodes, server
        before = set(sys.modules)
        load_pack(base)
        for name in [name for name in sys.modules if "ComfyUI-Atelier" in name]:
            del sys.modules[name]
        instructions = 0
        def count(frame, event, argument):
            global instructions
            frame.f_trace_opcodes = True
            instructions += event == "opcode"
            return count
        sys.settrace(count)
        classes = node_classes(load_pack(base))
        sys.settrace(None)
        print("RESULT", json.dumps({"instructions": instructions, "nodes": len(classes),
                                    "new": sorted(set(sys.modules) - before)}))
    """)
    command = [sys.executable, "-W", "ignore", "-c", code, str(ROOT / "tests"), str(ROOT), str(tmp_path)]
    # The first load writes the bytecode cache; the second is measured, as at a user's second start.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(tmp_path / "compiled")
    run = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=comfyui.find(), env=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    result = json.loads(run.stdout.split("RESULT ")[1])
    imported = [name for name in result["new"]
               if "ComfyUI-Atelier" not in name and name.split(".")[0] not in sys.stdlib_module_names]
    assert not imported, f"loading the pack imports {imported}"
    assert result["nodes"]
    # At 23 000 bytecode instructions a node, loading took 50 ms. The count does not depend on the machine's load.
    assert result["instructions"] < 40_000 * result["nodes"], result
