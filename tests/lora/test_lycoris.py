"""Adapters that LyCORIS makes and saves change a weight here as they do there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from atelier.lora.file import parse_lora

KEY = "lora_unet_mid_block_resnets_0_conv1"


def layers() -> tuple[nn.Linear, nn.Conv2d]:
    return nn.Linear(12, 8), nn.Conv2d(6, 8, 3, padding=1)


modules = pytest.importorskip("lycoris.modules")

CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "LoCon": (modules.LoConModule, {}), "Tucker": (modules.LoConModule, dict(use_tucker=True)),
    "DoRA by input": (modules.LoConModule, dict(weight_decompose=True, wd_on_out=False)),
    "DoRA by output": (modules.LoConModule, dict(weight_decompose=True, wd_on_out=True)),
    "LoHa": (modules.LohaModule, {}), "LoHa with a core": (modules.LohaModule, dict(use_tucker=True)),
    "LoHa, DoRA by input": (modules.LohaModule, dict(weight_decompose=True, wd_on_out=False)),
    "LoHa, DoRA by output": (modules.LohaModule, dict(weight_decompose=True, wd_on_out=True)),
    "LoKr": (modules.LokrModule, {}), "LoKr in parts": (modules.LokrModule, dict(decompose_both=True, lora_dim=1)),
    "LoKr with a core": (modules.LokrModule, dict(use_tucker=True, lora_dim=1)),
    "OFT": (modules.DiagOFTModule, {}), "OFT, rescaled": (modules.DiagOFTModule, dict(rescaled=True)),
    "OFT, bounded": (modules.DiagOFTModule, dict(constraint=0.05)),
    "BOFT": (modules.ButterflyOFTModule, {}), "BOFT, rescaled": (modules.ButterflyOFTModule, dict(rescaled=True)),
    "BOFT, bounded": (modules.ButterflyOFTModule, dict(constraint=0.05)),
    "GLoRA": (modules.GLoRAModule, {}),
    "IA3 by output": (modules.IA3Module, {}), "IA3 by input": (modules.IA3Module, dict(train_on_input=True)),
}


@pytest.mark.parametrize("case", CASES)
def test_what_lycoris_saves_changes_a_weight_as_there(case: str) -> None:
    kind, options = CASES[case]
    torch.manual_seed(0)
    for layer in layers():
        made = kind("x", layer, 1.0, **{"lora_dim": 2, "alpha": 3, **options})
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(torch.randn(parameter.shape) * 0.3)
        state = {f"{KEY}.{name}": tensor.detach() for name, tensor in made.state_dict().items()}
        found = parse_lora(state, case)
        assert not found.unmatched, (case, found.unmatched)
        (module,) = found.weights.values()
        weight, bias = layer.weight.detach(), layer.bias.detach()
        changed = module.applied(weight)
        sample = torch.randn(3, 12) if weight.dim() == 2 else torch.randn(3, 6, 5, 5)
        with torch.no_grad():
            plain = layer(sample)
            made.apply_to()
            # In a weight that it merges, LyCORIS 4.1 scales LoHa and LoKr twice; it trains with what it computes.
            expected = made.eval()(sample)
        found_out = functional.linear(sample, changed, bias) if weight.dim() == 2 else functional.conv2d(
            sample, changed, bias, padding=1)
        assert (expected - plain).abs().max() > 1e-2, case
        torch.testing.assert_close(found_out, expected, rtol=1e-4, atol=1e-5, msg=case)
