"""The repeated blocks of a network, and the layers in them by their role, whatever family it belongs to.

Diffusion transformers and UNets alike keep their blocks in lists (`double_blocks.0`, `layers.3`, `input_blocks.4`), and
name what is in a block by its role. So both are found without a table of families.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

from ..errors import AtelierError

_SIDE = re.compile(r"ada\w*|\w*mod\w*|\w*norm\w*|\w*embed\w*|\w*router", re.IGNORECASE)
"""Layers of a block that neither attend nor feed forward: they make scales and shifts, or choose experts."""
_TEXT = re.compile(r"(\w*\.)*\w*adapter\.[\w.]*", re.IGNORECASE)
"""Blocks that only translate the text encoder's output: they are left as they are, as peers leave them."""
_ATTENTION = re.compile(r"(\w*_)?attn\d?|attention\d?|linear[12]", re.IGNORECASE)
"""Flux' single blocks have attention and feed-forward in one layer, `linear1`, and its counterpart `linear2`."""
_CROSS = re.compile(r"(\w*_)?attn2|cross_attn\w*", re.IGNORECASE)
_FORWARD = re.compile(r"(\w*_)?(mlp\w*|ff\w*|feed_forward\w*)|linear[12]", re.IGNORECASE)


def blocks(network: nn.Module) -> dict[str, nn.Module]:
    """The outermost members of a network's module lists, by path, in the order of the network."""
    return dict(_blocks(network, ""))


def _blocks(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        inner = f"{path}.{name}" if path else name
        if isinstance(module, nn.ModuleList):
            yield inner, child
        else:
            yield from _blocks(child, inner)


_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def layers_of(network: nn.Module, targets: str, pattern: str = "") -> list[str]:
    """The paths of the linear (and convolution) layers in the blocks of a network that `targets` means, or of all its
    layers whose path `pattern` matches.

    Args:
        network: Any diffusion network.
        targets: "attention", "cross_attention", "attention_ff" (with feed-forward), "attention_ff_conv" (every layer
            of a block that is no modulation, convolutions too) or "all_linear" (every linear layer of a block).
        pattern: A regular expression in the place of targets; empty: none.

    Raises:
        AtelierError: there is no such layer.
    """
    found = [path for path, layer in network.named_modules()
             if pattern and isinstance(layer, (nn.Linear, *_CONVOLUTIONS)) and re.fullmatch(pattern, path)]
    for path, block in blocks(network).items():
        if pattern or _TEXT.fullmatch(path):
            continue
        for name, layer in block.named_modules():
            kind = nn.Linear if targets != "attention_ff_conv" else (nn.Linear, *_CONVOLUTIONS)
            if isinstance(layer, kind) and _meant(name.split("."), targets):
                found.append(f"{path}.{name}" if name else path)
    if not found:
        raise AtelierError(f"No layer of this model matches the targets {pattern or targets!r}.",
                           "Choose other targets, such as attention or all_linear.")
    return found


def _meant(parts: list[str], targets: str) -> bool:
    if targets == "all_linear":
        return True
    if any(_SIDE.fullmatch(part) for part in parts):
        return False
    if targets == "attention_ff_conv":
        return True
    if targets == "cross_attention":
        return any(_CROSS.fullmatch(part) for part in parts)
    wanted = (_ATTENTION, _FORWARD) if targets == "attention_ff" else (_ATTENTION,)
    return any(pattern.fullmatch(part) for part in parts for pattern in wanted)
