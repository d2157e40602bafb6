"""Write docs/reference: every input of every node, key of a training file and option of a command.

    python tools/reference.py

For those who queue graphs over the API, write training files or scripts. The pages are made of what the code declares;
a test keeps them equal, so that no default changes unseen.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference"
IN_COLUMNS = {"tooltip", "default", "min", "max", "step", "options", "multiselect"}
"""What has a column of its own or stands on the help pages; the rest of a socket's entry are notes."""


def pages() -> dict[str, str]:
    """The pages that need no ComfyUI, by file name."""
    return {"training.md": training(), "commands.md": commands()}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def code(value: object) -> str:
    """A value as TOML and JSON write it; nothing for None."""
    from atelier.toml_files import toml_value

    return "" if value is None else f"`{toml_value(str(value) if isinstance(value, Path) else value)}`"


# --- nodes ----------------------------------------------------------------------------------------------------------

def nodes(classes: Mapping[str, Any], left_out: Collection[str]) -> str:
    """The page of the nodes, from their classes by id.

    Args:
        classes: Node classes of a ComfyUI that has no models.
        left_out: Choices that are that ComfyUI's, such as its samplers.
    """
    schemas = sorted((node.GET_SCHEMA() for node in classes.values()), key=lambda schema: schema.display_name)
    return "\n".join(["# Nodes\n", "What a graph in API format may hold: `class_type`, inputs with their defaults and "
                      "ranges, outputs in their order. What they mean stands on the nodes' help pages.\n",
                      *(_node(schema, left_out) for schema in schemas)])


def _node(schema: Any, left_out: Collection[str]) -> str:
    parts = [f"## {schema.display_name}\n", f"`{schema.node_id}`, in *{schema.category}*"
             + (", an output node" if schema.is_output_node else "") + ".\n"]
    rows = [row for socket in schema.inputs for row in _inputs(socket, left_out)]
    if rows:
        parts.append(table(("input", "type", "default", "range or choices", "notes"), rows))
    outputs = [f"`{output.display_name or output.id}` {output.io_type}" + (" (list)" if output.is_output_list else "")
               for output in schema.outputs]
    if outputs:
        parts.append(f"Outputs: {', '.join(outputs)}.\n")
    return "\n".join(parts)


def _inputs(socket: Any, left_out: Collection[str], prefix: str = "") -> Iterator[tuple[str, ...]]:
    """Rows of an input, and of those that a choice of it brings along."""
    entry, kind, name = socket.as_dict(), socket.get_io_type(), prefix + socket.id
    default = entry.get("default")
    options = [option["key"] if isinstance(option, dict) else getattr(option, "value", option)
               for option in entry.get("options") or ()]
    choices = [str(option) for option in options if option not in left_out]
    if kind == "COMBO" and len(choices) in (0, *range(len(options))):
        choices.append("what ComfyUI has")
    bounds = [f"{entry[end]:,}".replace(",", " ") for end in ("min", "max") if end in entry]
    span = " to ".join(bounds) + (f", in steps of {entry['step']}" if "step" in entry else "")
    notes = [key.replace("_", " ") if value is True else f"{key.replace('_', ' ')} {code(value)}"
             for key, value in sorted(entry.items())
             if key not in IN_COLUMNS and value is not False and not isinstance(value, dict)]
    yield (f"`{name}`", kind, code(default), ", ".join(choices) or span, ", ".join(notes))
    for option in getattr(socket, "options", None) or ():
        for inner in getattr(option, "inputs", ()):
            yield from _inputs(inner, left_out, f"{name}.")


# --- training files -------------------------------------------------------------------------------------------------

def training() -> str:
    """The page of the keys of training files and of the presets."""
    from atelier.dataset.folder import FolderOptions
    from atelier.dataset.types import Resolution
    from atelier.prior.options import PriorOptions
    from atelier.shell.train_file import KEYS, PLACES
    from atelier.train.request.presets import PRESETS
    from atelier.train.request.request import FIELDS, LENGTH, PARTS, TrainRequest

    default = TrainRequest(steps=1)
    values = {name: getattr(getattr(default, part) if part else default, name) for name, part in FIELDS.items()}
    changed = {name: [getattr(getattr(preset, part) if part else preset, name) for preset in PRESETS.values()]
               for name, part in FIELDS.items()}
    lora = set(_defaults(PARTS["lora"]))
    parts = ["# Training files\n",
             "Keys of the TOML that `python -m atelier train` takes, with the value that each has where neither the "
             "file nor its preset says another. `python -m atelier train --help` prints a file to copy.\n"]
    keys, places = (", ".join(f"`{key}`" for key in found) for found in (KEYS, PLACES))
    parts.append(f"Before the first table: {keys}. `name` and `model` must be given, and one of `preset`, `epochs` and "
                 "`steps` says how long it trains; without, the preset is "
                 f"{code(next(iter(PRESETS)))}. In [place], folders: {places}.\n")
    for title, names in (("[lora]", sorted(lora)), ("[options]", sorted(set(FIELDS) - lora - {*LENGTH, "seed"}))):
        parts += [f"## {title}\n", table(("key", "default"), ((f"`{name}`", code(values[name])) for name in names))]
    for title, kind in (("[data]", FolderOptions), ("resolution in [data]", Resolution), ("[prior]", PriorOptions)):
        source = {"folder": "must be given", "set": "an exported training set, in place of all others"}
        found = _defaults(kind) | (source if kind is FolderOptions else {})
        rows = ((f"`{name}`", value) for name, value in sorted(found.items()))
        parts += [f"## {title}\n", table(("key", "default"), rows)]
    parts += ["## Presets\n", "Where a preset differs from the defaults above:\n",
              table(("preset", "values"), ((name, ", ".join(
                  f"`{key}` {code(column[number])}" for key, column in sorted(changed.items())
                  if column[number] != (0 if key in LENGTH else values[key])))
                  for number, name in enumerate(PRESETS)))]
    return "\n".join(parts)


def _defaults(kind: type) -> dict[str, str]:
    return {field.name: _default(field) for field in fields(kind)}


def _default(field: Field[Any]) -> str:
    if field.default is not MISSING:
        return code(field.default)
    if field.default_factory is MISSING:
        return "must be given"
    made = field.default_factory()
    return "as below" if hasattr(made, "__dataclass_fields__") else code(made)


# --- commands -------------------------------------------------------------------------------------------------------

def commands() -> str:
    """The page of the command line."""
    from atelier.shell.main import command_parser

    parts = ["# Commands\n", "`python -m atelier VERB …`. Names in capitals stand for what you give.\n"]
    for name, parser in _verbs(command_parser()):
        rows = [(_spelling(action), "" if action.required or action.nargs == 0 else code(action.default),
                 ", ".join(map(str, action.choices or ())) + (" (needed)" if action.required else ""),
                 " ".join((action.help or "").split()).replace("%%", "%"))
                for action in parser._actions if not isinstance(action, argparse._HelpAction)]
        parts += [f"## {name}\n", table(("option", "default", "choices", "meaning"), rows)]
    return "\n".join(parts)


def _verbs(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def _spelling(action: argparse.Action) -> str:
    names = ", ".join(action.option_strings)
    value = "" if action.nargs == 0 else str(action.metavar or action.dest.upper())
    more = " …" if action.nargs in ("*", "+") else ""
    return f"`{f'{names} {value}'.strip()}{more}`"


def main() -> int:
    """Write the pages."""
    sys.path += [str(ROOT / "tests"), str(ROOT)]
    from kit.pack import host_samplers, load_pack, node_classes

    with tempfile.TemporaryDirectory() as folder:
        found = pages() | {"nodes.md": nodes(node_classes(load_pack(Path(folder))), host_samplers())}
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in found.items():
        (FOLDER / name).write_text(text, encoding="utf-8", newline="\n")
        print(FOLDER / name)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
