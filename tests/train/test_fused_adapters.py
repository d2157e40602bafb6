"""LoRA layers as one function: PEFT's numbers and gradients, and no layer that computes otherwise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kit.training import tiny_unet
from torch import nn

from atelier.train.adapters import Adapters
from atelier.train.fused_adapters import LoraLinear, drop_divisions, fuse_adapters
from atelier.train.request.lora import LoraConfig


def adapted(lora: LoraConfig) -> tuple[Any, Adapters]:
    unet = tiny_unet()
    adapters = Adapters({"unet": unet}, lora, seed=0)
    adapters.train(True)
    stream = torch.Generator().manual_seed(1)
    adapters.load([master + 0.05 * torch.randn(master.shape, generator=stream) for master in adapters.masters])
    return unet, adapters


def computed(unet: Any, adapters: Adapters) -> list[torch.Tensor]:
    adapters.drop_gradients()
    stream = torch.Generator().manual_seed(2)
    latents, text = torch.randn(2, 4, 8, 8, generator=stream), torch.randn(2, 77, 32, generator=stream)
    out = unet(latents, torch.tensor([5, 800]), text)[0]
    out.square().mean().backward()
    return [out.detach(), *(master.grad.clone() for master in adapters.masters if master.grad is not None)]


@pytest.mark.parametrize(("alpha", "checkpointing"), [(4, False), (9, False), (9, True)])
def test_the_numbers_and_gradients_are_pefts(alpha: float, checkpointing: bool) -> None:
    unet, adapters = adapted(LoraConfig(rank=4, alpha=alpha, targets="attention_ff"))
    if checkpointing:
        unet.enable_gradient_checkpointing()
    expected = computed(unet, adapters)
    assert fuse_adapters(unet) == len(adapters.masters) // 2 > 20
    drop_divisions(unet)
    found = computed(unet, adapters)
    assert len(found) == len(expected) == len(adapters.masters) + 1
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
def test_the_gradients_are_those_of_differences(bias: bool) -> None:
    torch.manual_seed(0)
    x, a, b = (torch.randn(size, dtype=torch.double, requires_grad=True) for size in ((2, 3, 5), (2, 5), (4, 2)))
    weight, shift = torch.randn(4, 5, dtype=torch.double), torch.randn(4, dtype=torch.double) if bias else None
    assert torch.autograd.gradcheck(lambda x, a, b: LoraLinear.apply(x, weight, shift, a, b, 0.7), (x, a, b))


@pytest.mark.parametrize("options", [dict(kind="dora"), dict(dropout=0.1), dict(rank_dropout=0.1)], ids=str)
def test_what_computes_otherwise_is_left_as_it_is(options: dict[str, Any]) -> None:
    unet, _ = adapted(LoraConfig(rank=4, **options))
    assert fuse_adapters(unet) == 0


def test_other_base_layers_and_other_types_are_left_as_they_are() -> None:
    class Quantised(nn.Linear):
        pass

    network = nn.ModuleDict({"own": Quantised(8, 8), "wide": nn.Linear(8, 8), "same": nn.Linear(8, 8)})
    Adapters({"network": network}, LoraConfig(rank=2), 0, layers={"network": "own|wide|same"})
    network["wide"].base_layer.double()
    assert fuse_adapters(network) == 1
    x = torch.randn(3, 8)
    with torch.no_grad():
        network["same"].lora_B["default"].weight.fill_(0.5)
    changed = network["same"](x)
    network["same"].enable_adapters(False)
    plain = network["same"].base_layer
    assert torch.equal(network["same"](x), plain(x)) and not torch.equal(changed, plain(x))


def test_a_division_that_changes_something_stays() -> None:
    unet = tiny_unet()
    block = next(module for name, module in unet.named_modules() if name.endswith("resnets.0"))
    inputs = torch.randn(1, 32, 8, 8), torch.randn(1, 128)
    block.output_scale_factor = 2.0
    with torch.no_grad():
        expected = block(*inputs)
        drop_divisions(unet)
        assert torch.equal(block(*inputs), expected)


def test_a_division_that_is_dropped_is_still_by_the_number_one() -> None:
    unet = tiny_unet()
    block = next(module for name, module in unet.named_modules() if name.endswith("resnets.0"))
    drop_divisions(unet)
    drop_divisions(unet)  # as after another arrangement
    one, x = block.output_scale_factor, torch.ones(2)
    assert x / one is x
    assert one == 1 and one != 2 and float(one) == 1.0 and repr(one) == "1.0" and {1.0: "found"}[one] == "found"
