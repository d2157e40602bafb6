"""The memory estimate against what a real step's autograd saves, and what is decided by it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from kit.loras import published_unet
from kit.training import MemorySet, tiny_unet
from kit.training_loop import request

from atelier.train.adapters import Adapters
from atelier.train.memory_plan import HEADROOM, plan_memory
from atelier.train.request.device import DeviceConfig
from atelier.train.request.lora import LoraConfig
from atelier.train.unet_memory import count_unet
from atelier.train.unet_memory_plan import (
    checkpoint_unet,
    free_memory,
    graphs_obstacle,
    place_unet,
    plan_unet,
    whole_memory,
)

CPU = torch.device("cpu")


Storages = dict[int, torch.Tensor]


def adapted(lora: LoraConfig) -> Any:
    unet = tiny_unet()
    Adapters({"unet": unet}, lora, seed=0).train(True)
    return unet


def saved(unet: torch.nn.Module, run: Callable[[], Any]) -> Storages:
    """What autograd holds after a real forward pass, by address, the model's parameters left out."""
    own = {p.data_ptr() for p in unet.parameters()}
    held: Storages = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return {address: tensor for address, tensor in held.items() if address not in own}


def size_of(storages: Storages) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())


def forward(unet: torch.nn.Module, batch: int, size: int, *, backward: bool = False) -> None:
    out = unet(torch.randn(batch, 4, size, size), torch.tensor([5] * batch), torch.randn(batch, 77, 32))[0]
    assert out.requires_grad
    if backward:
        out.square().mean().backward()


@pytest.mark.parametrize(("kind", "targets", "batch", "size"), [
    ("lora", "attention", 1, 32), ("lora", "attention", 3, 16), ("lora", "attention_ff_conv", 1, 32),
    ("lora", "attention_ff_conv", 3, 16), ("loha", "attention_ff_conv", 1, 32), ("lokr", "attention_ff_conv", 1, 32),
    ("oft", "attention_ff_conv", 1, 32)])
def test_the_count_is_what_a_real_step_saves(kind: str, targets: str, batch: int, size: int) -> None:
    lora = LoraConfig(rank=4, kind=kind, targets=targets)
    unet = adapted(lora)
    estimate = count_unet(tiny_unet().config, lora, dtype=torch.float32, batch=batch, height=size, width=size)
    assert estimate.kept == pytest.approx(size_of(saved(unet, lambda: forward(unet, batch, size))), rel=0.1)


def test_checkpointing_keeps_the_blocks_inputs_and_redoes_one_block_at_a_time() -> None:
    lora = LoraConfig(rank=4)
    count = count_unet(tiny_unet().config, lora, dtype=torch.float32, batch=2, height=32, width=32)
    unet = adapted(lora)
    unet.enable_gradient_checkpointing()
    given: list[tuple[torch.nn.Module, tuple[Any, ...]]] = []
    hooks = [block.register_forward_pre_hook(lambda block, arguments: given.append((block, arguments)))
             for block in unet.modules() if isinstance(block, ResnetBlock2D | BasicTransformerBlock)]
    between = saved(unet, lambda: forward(unet, 2, 32))
    for hook in hooks:
        hook.remove()
    inputs = [value for _, arguments in given for value in arguments if isinstance(value, torch.Tensor)]
    between |= {value.untyped_storage().data_ptr(): value for value in inputs}
    redone = [size_of(saved(unet, lambda b=block, a=arguments: b(*a))) for block, arguments in given]
    assert count.kept_with_checkpointing == pytest.approx(size_of(between) + max(redone), rel=0.1)
    assert max(redone) > 0.2 * count.kept_with_checkpointing, "the largest block must matter here"
    assert count.kept_with_checkpointing < 0.7 * count.kept


def test_weights_and_adapters_are_counted_from_the_shapes() -> None:
    unet = tiny_unet()
    weights = sum(p.numel() for p in unet.parameters())
    trained = Adapters({"unet": unet}, LoraConfig(rank=8), seed=0)
    count = sum(p.numel() for p in trained.parameters)
    full = count_unet(tiny_unet().config, LoraConfig(rank=8), dtype=torch.float32, batch=1, height=8, width=8)
    half = count_unet(tiny_unet().config, LoraConfig(rank=8), dtype=torch.bfloat16, batch=1, height=8, width=8)
    assert (full.weights, half.weights) == (4 * weights, 2 * weights)
    # float32: weight, gradient, two moments. bfloat16: besides, a weight and a gradient of two bytes.
    assert (full.adapters, half.adapters) == (16 * count, 20 * count)
    assert half.kept < 0.6 * full.kept


def test_auto_switches_on_when_the_budget_is_small() -> None:
    unet, data = tiny_unet(), MemorySet.of(2, size=32)
    need = plan_memory(count_unet(unet.config, LoraConfig(), dtype=torch.float32, batch=1, height=32, width=32),
                       DeviceConfig(gradient_checkpointing="off"), None).need
    assert need

    def checkpointed(free: int | None, **options: Any) -> bool:
        return plan_unet(unet.config, data, request(steps=1, **options), torch.float32, free).checkpointing

    assert checkpointed(need - 1)
    assert not checkpointed(need + 1)
    assert checkpointed(need + 1, batch_size=2)
    assert not checkpointed(None), "a CPU does not tell what is free"
    for choice, answer in (("on", True), ("off", False)):
        assert checkpointed(need, gradient_checkpointing=choice) is answer


def test_graphs_are_tried_where_what_a_step_allocates_fits_twice() -> None:
    unet, data, wanted = tiny_unet(), MemorySet.of(2, size=32), request(steps=1, gradient_checkpointing="off")
    count = count_unet(unet.config, wanted.lora, dtype=torch.float32, batch=wanted.optimizer.batch_size, height=32,
                       width=32)
    twice = int(count.weights + 1.25 * count.adapters + 2 * count.kept * HEADROOM)

    def obstacle(free: int | None, **options: Any) -> str:
        asked = wanted.override(options)
        return graphs_obstacle(plan_unet(unet.config, data, asked, torch.float32, free), asked.device)

    assert "no room" in obstacle(twice - 8) and not obstacle(twice + 8)
    assert "no room" in obstacle(None), "nothing is known"
    assert not obstacle(twice - 8, cuda_graphs="on")
    assert "main memory" in obstacle(twice + 8, gradient_checkpointing="on", blocks_to_swap=1, cuda_graphs="on")


@pytest.mark.parametrize(("dropout", "kept"), [(0.0, False), (0.3, True)])
def test_the_state_of_random_numbers_is_kept_only_for_what_draws(dropout: float, kept: bool,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    lora = LoraConfig(rank=4, dropout=dropout)
    unet = tiny_unet()
    checkpoint_unet(unet, lora)
    Adapters({"unet": unet}, lora, seed=0).train(True)
    read: list[bool] = []
    plain = torch.get_rng_state
    monkeypatch.setattr(torch, "get_rng_state", lambda: read.append(True) or plain())
    forward(unet, 1, 8, backward=True)
    assert bool(read) is kept


def test_a_unet_whose_blocks_wait_in_main_memory_trains_alike() -> None:
    gradients, used = [], []
    for number in (0, 5):
        unet, data = tiny_unet(), MemorySet.of(2, size=16)
        wanted = request(steps=1, gradient_checkpointing="on", blocks_to_swap=number)
        plan = plan_unet(unet.config, data, wanted, torch.float32, None)
        assert len(plan.swapped) == number
        place_unet(unet, plan, CPU)
        waiting = [unet.get_submodule(path).norm1.weight for path in plan.swapped]
        for path in plan.swapped:
            module = unet.get_submodule(path)
            module.norm1.register_forward_pre_hook(lambda norm, given: used.append(norm.weight))
        adapters = Adapters({"unet": unet}, LoraConfig(rank=4), seed=0)
        adapters.train(True)
        with torch.no_grad():
            for master in adapters.masters:
                master.add_(0.01)
        torch.manual_seed(0)
        forward(unet, 2, 16, backward=True)
        assert len(used) >= 1.5 * number and not {id(weight) for weight in used} & {id(weight) for weight in waiting}
        gradients.append([parameter.grad for parameter in adapters.parameters])
    plain, swapped = gradients
    assert all(torch.equal(one, other) for one, other in zip(plain, swapped, strict=True))
    assert all(bool(gradient.any()) for gradient in plain)


def test_published_models_are_counted_whole() -> None:
    """Their published numbers of parameters; twice the pictures keep twice as much."""
    sd1, sdxl = dict(published_unet("sd1").config), dict(published_unet("sdxl").config)
    one, two = (count_unet(sd1, LoraConfig(rank=16), dtype=torch.bfloat16, batch=batch, height=64, width=64)
                for batch in (1, 2))
    assert one.weights == 2 * 859_520_964
    assert two.kept == pytest.approx(2 * one.kept, rel=0.02)
    assert count_unet(sdxl, LoraConfig(rank=16), dtype=torch.float16, batch=1, height=16,
                       width=16).weights == 2 * 2_567_463_684


def test_what_is_free_is_asked_of_every_device_that_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    def untold(device: object) -> tuple[int, int]:
        raise RuntimeError("The device does not support querying the available free memory.")

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7_000, 8_000))
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 10_000, raising=False)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 4_000, raising=False)
    monkeypatch.setattr(torch.xpu, "mem_get_info", lambda device: (5_000, 9_000), raising=False)
    assert [free_memory(torch.device(kind)) for kind in ("mps", "xpu", "cuda", "cpu")] == [6_000, 5_000, 7_000, None]
    monkeypatch.setattr(torch.xpu, "get_device_properties", lambda device: SimpleNamespace(total_memory=9_000))
    assert [whole_memory(torch.device(kind)) for kind in ("mps", "xpu", "cuda", "cpu")] == [10_000, 9_000, 8_000, None]
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 11_000)
    assert free_memory(torch.device("mps")) == 0
    monkeypatch.setattr(torch.xpu, "mem_get_info", untold)
    monkeypatch.setattr(torch.xpu, "memory_reserved", lambda device: 1_000)
    assert free_memory(torch.device("xpu")) == 8_000
    monkeypatch.delattr(torch.xpu, "mem_get_info")
    assert free_memory(torch.device("xpu")) == 8_000
