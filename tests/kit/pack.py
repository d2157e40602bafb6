"""Load the pack into this process the way ComfyUI loads a custom node."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from tools import comfyui


def use_host_modules(base: Path) -> None:
    """Make ComfyUI's modules importable in this process, on CPU, with all its folders below `base`."""
    checkout = comfyui.find()
    assert checkout is not None, "mark tests that need ComfyUI with `host`"
    if str(checkout) not in sys.path:
        # First, as in the host's own process; the root stays last.
        sys.path.insert(0, str(checkout))
    from comfy.cli_args import args

    args.cpu = True
    import folder_paths

    for name in ("output", "temp", "input", "user"):
        (base / name).mkdir(parents=True, exist_ok=True)
        getattr(folder_paths, f"set_{name}_directory")(str(base / name))
    for kind in ("checkpoints", "loras", "diffusers"):
        (base / "models" / kind).mkdir(parents=True, exist_ok=True)
        folder_paths.folder_names_and_paths[kind] = ([str(base / "models" / kind)],
                                                     folder_paths.folder_names_and_paths[kind][1])


def load_pack(base: Path) -> ModuleType:
    """Import the pack as `load_custom_node` in the host's nodes.py does, with `base` as ComfyUI's folder."""
    use_host_modules(base)
    path = str(comfyui.install_pack(base))
    name = path.replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, str(Path(path) / "__init__.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def node_classes(module: ModuleType) -> dict[str, type]:
    """Node classes by id, from the entry point, as the host gets them."""
    async def ask() -> list[type]:
        extension = await module.comfy_entrypoint()
        await extension.on_load()
        return await extension.get_node_list()

    return {node.GET_SCHEMA().node_id: node for node in asyncio.run(ask())}  # pyright: ignore[reportAttributeAccessIssue]


def host_samplers() -> set[str]:
    """Names of the samplers and schedulers that this ComfyUI has."""
    from comfy.samplers import KSampler

    return {*KSampler.SAMPLERS, *KSampler.SCHEDULERS}


def pack_module(module: ModuleType, name: str) -> ModuleType:
    """A module of the pack as loaded there: `pack_module(pack, "nodes.host")`."""
    return importlib.import_module(f"{module.__name__}.{name}")
