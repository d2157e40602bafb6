"""What only a real graphics card can show: `make card` runs this file, nothing else does.

Models of full size have random weights, which are made on the card.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from kit.loras import published_unet
from kit.training import MemorySet, denoiser_of, tiny_unet
from kit.training_loop import QUIET, loop_in, request, same
from torch import Tensor, nn

from atelier.dataset.cache import EncodedSet
from atelier.device_memory import free_cache
from atelier.errors import AtelierError
from atelier.train.request.request import TrainRequest
from atelier.train.trainer import Trainer
from atelier.train.unet_memory_plan import checkpoint_unet, place_unet, plan_unet

pytestmark = pytest.mark.gpu
CARD = torch.device("cuda")
GIB = 1024**3


class FullSizeSet(MemorySet):
    """Pictures in memory whose captions fit a published UNet."""

    width, pooled = 768, 0

    def text(self, index: int, variant: int) -> dict[str, Tensor]:
        found = {"embeds": torch.randn(77, self.width, generator=torch.Generator().manual_seed(index))}
        return found | ({"pooled": torch.zeros(self.pooled)} if self.pooled else {})

    def empty_text(self) -> dict[str, Tensor]:
        return self.text(0, 0)

    @staticmethod
    def sized(family: str, count: int, side: int) -> FullSizeSet:
        found = FullSizeSet(MemorySet.of(count, size=side).items)
        if family == "sdxl":
            found.width, found.pooled = 2048, 1280
        return found


def full_size(family: str, dtype: torch.dtype) -> Any:
    """A published UNet with random weights, on the card."""
    torch.manual_seed(0)
    unet: Any = nn.Module.to(published_unet(family), dtype).to_empty(device=CARD)
    for name, weight in unet.named_parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
        else:
            nn.init.constant_(weight, float(name.endswith("weight")))
    return unet


def trainer_of(unet: Any, dtype: torch.dtype, data: MemorySet, wanted: TrainRequest) -> Trainer:
    return Trainer(denoiser_of(unet, CARD, dtype), cast("EncodedSet", data), wanted)


def steps(trainer: Trainer, count: int, first: int = 0) -> list[Tensor]:
    scale, losses = trainer.initial_loss_scale, []
    for step in range(first, first + count):
        result = trainer.train_step(step, scale)
        scale = result.loss_scale
        losses.append(result.loss)
    return losses


def twenty_steps_without_waiting(trainer: Trainer) -> None:
    """Those after the first eight, in which PyTorch raises where the host waits for the card."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = steps(trainer, 20, first=8)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.stack(losses).isfinite().all()


@pytest.fixture(autouse=True)
def _card_given_back(real_card: None) -> Iterator[None]:
    yield
    free_cache(CARD)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_twenty_steps_pass_under_the_synchronisation_check(dtype: torch.dtype) -> None:
    unet, data = tiny_unet().to(CARD, dtype), MemorySet.of(6)
    trainer = trainer_of(unet, dtype, data, request(dict(rank=4), QUIET, steps=40))
    steps(trainer, 8)
    twenty_steps_without_waiting(trainer)


@pytest.mark.parametrize(("family", "side", "options"), [
    ("sd1", 64, dict(gradient_checkpointing="off")), ("sd1", 64, dict(gradient_checkpointing="on")),
    ("sd1", 64, dict(gradient_checkpointing="off", kind="dora")),
    ("sdxl", 128, dict(gradient_checkpointing="on"))], ids=str)
def test_the_peak_is_what_was_counted(family: str, side: int, options: dict[str, Any]) -> None:
    """Counted with 15 % on top of what a step allocates anew: never too little, and at most a quarter too much."""
    data, wanted = FullSizeSet.sized(family, 2, side), request(dict(rank=16), QUIET | options, batch_size=1, steps=4)
    config = published_unet(family).config
    plan = plan_unet(config, cast("EncodedSet", data), wanted, torch.bfloat16, torch.cuda.mem_get_info()[0])
    if not plan.fits:
        pytest.skip(f"they need {(plan.need or 0) / GIB:.1f} GiB of a card that has {(plan.free or 0) / GIB:.1f} free")
    unet = full_size(family, torch.bfloat16)
    place_unet(unet, plan, CARD)
    trainer = trainer_of(unet, torch.bfloat16, data, wanted)
    torch.cuda.reset_peak_memory_stats()
    steps(trainer, 3)
    peak = torch.cuda.max_memory_allocated()
    assert plan.need is not None and 0.8 * plan.need < peak < plan.need, f"{peak / GIB:.2f} of {plan.need / GIB:.2f}"


def test_a_card_that_is_too_small_keeps_what_was_learnt(tmp_path: Path) -> None:
    wanted = request(dict(rank=16), QUIET, batch_size=1, steps=6)
    unet, data = full_size("sd1", torch.bfloat16), FullSizeSet.sized("sd1", 4, 64)
    loop = _loop(tmp_path, unet, data, wanted)
    plain, total = loop.trainer.train_step, torch.cuda.mem_get_info()[1]

    def step(number: int, scale: Any, plain: Any = plain) -> Any:
        if number == 3:
            free_cache(CARD)
            torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 64 * 2**20) / total)
        return plain(number, scale)

    loop.trainer.train_step = step
    with pytest.raises(AtelierError, match="Memory ran out at step 4 "):
        loop.run()
    torch.cuda.set_per_process_memory_fraction(1.0)
    assert loop.folder.last.exists() and loop.folder.state.exists()
    del loop, plain, step, unet
    free_cache(CARD)
    resumed = _loop(tmp_path, full_size("sd1", torch.bfloat16), data, wanted)
    assert resumed.run().began_step == 3


def test_a_step_that_does_not_fit_is_done_with_checkpointing(tmp_path: Path) -> None:
    wanted = request(dict(rank=16), QUIET, batch_size=1, steps=2)
    unet, data = full_size("sd1", torch.bfloat16), FullSizeSet.sized("sd1", 4, 64)
    loop = _loop(tmp_path, unet, data, wanted, save_memory=unet.enable_gradient_checkpointing)
    room = int(0.45 * GIB)  # a step takes about 0.75 GiB anew, with checkpointing 0.2
    torch.cuda.set_per_process_memory_fraction(
        (torch.cuda.memory_reserved() + room) / torch.cuda.mem_get_info()[1])
    loop.run()
    assert loop.memory_saved


def _loop(folder: Path, unet: Any, data: MemorySet, wanted: TrainRequest, **more: Any) -> Any:
    from atelier.progress import Progress
    from atelier.train.loop import Loop
    from atelier.train.run_folder import RunFolder

    return Loop(trainer_of(unet, torch.bfloat16, data, wanted), RunFolder(folder), Progress(),
                metadata=lambda step: {"step": str(step)}, **more)


@pytest.mark.parametrize("optimizer", ["adamw8bit", "paged_adamw8bit"])
def test_an_eight_bit_optimiser_learns_and_resumes(tmp_path: Path, optimizer: str) -> None:
    pytest.importorskip("bitsandbytes", reason="they need bitsandbytes")
    # From 4096 numbers on, states have eight bits.
    wanted = request(dict(rank=128), QUIET | dict(optimizer=optimizer), steps=6)
    whole = loop_in(tmp_path / "whole", wanted)
    whole.run()
    states = whole.trainer.optimizer.state.values()
    assert any(tensor.dtype == torch.uint8 for state in states for tensor in state.values() if torch.is_tensor(tensor))
    cut = loop_in(tmp_path / "cut", wanted.override(dict(steps=3)))
    cut.run()
    resumed = loop_in(tmp_path / "cut", wanted)
    assert resumed.run().began_step == 3
    assert same(whole.folder.last, resumed.folder.last)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_replayed_steps_are_plain_ones(dtype: torch.dtype, checkpointing: bool) -> None:
    """To the last bit: the plugin has sums in a fixed order."""
    found = []
    for choice in ("off", "on"):
        unet = tiny_unet().to(CARD, dtype)
        wanted = request(dict(rank=4), QUIET | dict(gradient_accumulation=2), cuda_graphs=choice, steps=12)
        if checkpointing:
            checkpoint_unet(unet, wanted.lora)
        trainer = trainer_of(unet, dtype, MemorySet.of(5, size=32), wanted)
        losses = torch.stack(steps(trainer, 12)).tolist()
        found.append((losses, [master.detach().cpu() for master in trainer.adapters.masters]))
        assert trainer.captured.notes == [] and bool(trainer.captured.shapes) == (choice == "on")
    (losses, weights), (others, replayed) = found
    assert losses == others
    assert all(torch.equal(one, other) for one, other in zip(weights, replayed, strict=True))


def test_replayed_steps_of_a_whole_model_wait_for_nothing_and_stay_within_the_plan() -> None:
    data, wanted = FullSizeSet.sized("sd1", 2, 64), request(dict(rank=16), QUIET, batch_size=1, steps=40,
                                                             cuda_graphs="on")
    plan = plan_unet(published_unet("sd1").config, cast("EncodedSet", data), wanted, torch.bfloat16,
                     torch.cuda.mem_get_info()[0])
    if not plan.has_room_for_graphs:
        pytest.skip("they need a card with room for what a step allocates twice")
    unet = full_size("sd1", torch.bfloat16)
    place_unet(unet, plan, CARD, wanted.lora)
    trainer = trainer_of(unet, torch.bfloat16, data, wanted)
    torch.cuda.reset_peak_memory_stats()
    steps(trainer, 8)
    assert trainer.captured.shapes == 1, trainer.captured.notes
    assert plan.need is not None and torch.cuda.max_memory_reserved() < 1.1 * (plan.need + plan.graphs)
    twenty_steps_without_waiting(trainer)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_compiled_steps_have_the_losses_of_plain_ones(dtype: torch.dtype) -> None:
    found = []
    for choice in ("off", "on"):
        torch._dynamo.reset()
        unet = tiny_unet().to(CARD, dtype)
        trainer = trainer_of(unet, dtype, MemorySet.of(4, size=32),
                             request(dict(rank=4), QUIET, compile=choice, steps=8))
        found.append(torch.stack(steps(trainer, 8)).tolist())
        assert trainer.unet.compiled is (choice == "on"), "it fell back"
    assert found[1] == pytest.approx(found[0], rel=0.02)
