"""A training step on a card: what makes the host wait, and how much work survives when memory runs out.

`test_card.py` runs this file on the pretend device, whose `card` fixture it needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from kit.training import MemorySet, denoiser, denoiser_of, tiny_unet
from kit.training_loop import QUIET, loop_in, request, same

from atelier.errors import AtelierError
from atelier.train.adapters import Adapters
from atelier.train.batch_loader import BatchLoader
from atelier.train.block_swap import BlockSwap
from atelier.train.bucket_sampler import SampleUse
from atelier.train.foreign_forward import checkpoint_blocks
from atelier.train.loop import Loop
from atelier.train.mkldnn_prepack import prepack_frozen
from atelier.train.request.lora import LoraConfig
from atelier.train.trainer import Trainer
from atelier.train.unet_memory import count_unet
from atelier.train.unet_memory_plan import place_unet, plan_unet
from atelier.train.vae_tiles import decode_in_tiles, decoding_bytes

pytestmark = pytest.mark.gpu
CARD = torch.device("cuda")


@pytest.mark.parametrize(("dtype", "options"), [
    # float16 does what the others do, and scales the loss.
    *((torch.float16, options) for options in (
        {}, dict(gradient_accumulation=2), dict(ema_decay=0.9, min_snr_gamma=5.0, noise_offset=0.1),
        dict(prior_weight=0.5, caption_dropout=0.5), dict(kind="dora"), dict(kind="loha"), dict(kind="lokr"),
        dict(kind="oft"), dict(dropout=0.3))),
    (torch.bfloat16, {}), (torch.float32, {})], ids=str)
def test_the_host_never_waits_for_a_step(card: Any, dtype: torch.dtype, options: dict[str, Any]) -> None:
    config = request(dict(rank=4), QUIET | options, steps=30)
    trainer = Trainer(denoiser(dtype=dtype), MemorySet.of(6, prior=2), config)
    scale = trainer.initial_loss_scale
    for step in range(8):  # every picture has been on the card once
        scale = trainer.train_step(step, scale).loss_scale
    card.reset()
    for step in range(8, 14):
        scale = trainer.train_step(step, scale).loss_scale
    assert card.waits() == {}


def test_inputs_beyond_the_cache_are_copied_without_a_wait(card: Any) -> None:
    loader = BatchLoader(MemorySet.of(2), CARD, torch.float32, prior_weight=1.0, cached_text=True, budget=0)
    card.reset()
    batch = loader((SampleUse(0), SampleUse(1)))
    assert card.waits() == {} and batch.mean.device.type == "cuda"
    assert not any(loader._kept.values())


def test_a_picture_that_does_not_fit_is_decoded_in_tiles(card: Any) -> None:
    torch.manual_seed(0)
    vae: Any = AutoencoderKL(block_out_channels=(32, 64, 64), norm_num_groups=8, layers_per_block=1, latent_channels=4,
                             down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3,
                             mid_block_add_attention=False).to(CARD).eval()
    latents = torch.randn(1, 4, 96, 64, device=CARD)
    with torch.no_grad():
        card.reset()
        before = card.live
        whole = vae.decode(latents)[0]
        needed = card.peak - before
        assert 0.7 * needed < decoding_bytes(vae, 96, 64) < 2 * needed
        assert decode_in_tiles(vae, latents, None) == decode_in_tiles(vae, latents, 2 * needed) == 0
        room = needed // 3
        card.limit(room)
        with pytest.raises(torch.OutOfMemoryError):
            vae.decode(latents)
        assert 16 <= decode_in_tiles(vae, latents, room) < 64
        tiled = vae.decode(latents)[0]
    assert tiled.shape == whole.shape
    middle = slice(4, -4)
    assert (tiled - whole)[..., middle, middle].square().mean() < 0.05 * whole.var()


def test_what_prodigy_reads_is_said(card: Any) -> None:
    trainer = Trainer(denoiser(), MemorySet.of(4), request(dict(rank=2), QUIET | dict(optimizer="prodigy"), steps=9))
    trainer.train_step(0, trainer.initial_loss_scale)
    card.reset()
    trainer.train_step(1, trainer.initial_loss_scale)
    reads = sum(card.waits().values())
    said = int(next(word for word in trainer.notes[0].split() if word.isdigit()))
    assert reads == pytest.approx(said, rel=0.1)


def test_what_dora_holds_more_for_the_backward_pass_is_what_was_counted(card: Any) -> None:
    """More than LoRA: the attention of both, which a real card computes otherwise, falls out of the comparison."""
    held, counted = [], []
    for kind in ("lora", "dora"):
        lora, unet = LoraConfig(rank=4, kind=kind), tiny_unet().to(CARD)
        Adapters({"unet": unet}, lora, 0).train(True)
        given = torch.randn(1, 4, 8, 8, device=CARD), torch.ones(1, device=CARD), torch.randn(1, 77, 32, device=CARD)
        before = card.live
        out = unet(*given)[0]
        held.append(card.live - before)
        counted.append(count_unet(unet.config, lora, dtype=torch.float32, batch=1, height=8, width=8).kept)
        del out
    assert counted[1] - counted[0] == pytest.approx(held[1] - held[0], rel=0.1)
    assert held[1] > held[0] + 50_000


def loop_of(folder: Path, rank: int, **more: Any) -> Loop:
    config = request(dict(rank=rank), QUIET | dict(batch_size=1), steps=12)
    return loop_in(folder, config, data=MemorySet.of(16), **more)


@pytest.mark.parametrize("rank", [64, 512])
@pytest.mark.parametrize("spare", [0.05, 0.3, 0.6, 0.97])
def test_what_was_learnt_is_saved_when_memory_runs_out(tmp_path: Path, card: Any, rank: int, spare: float) -> None:
    """With room for so much of what a step takes; the adapters alone are more than that."""
    loop, peaks = loop_of(tmp_path, rank), []
    plain = loop.trainer.train_step

    def step(number: int, scale: Any) -> Any:
        if number < 4:
            card.reset()
            before = card.live
            result = plain(number, scale)
            peaks.append(card.peak - before)
            return result
        card.limit(int(peaks[-1] * spare))
        return plain(number, scale)

    loop.trainer.train_step = step
    with pytest.raises(AtelierError, match=r"Memory ran out at step 5 ") as caught:
        loop.run()
    assert caught.value.__cause__ is None and caught.value.__context__ is None, "it would hold the failed step"
    card.limit(None)
    reference = loop_in(tmp_path / "other", request(dict(rank=rank), QUIET | dict(batch_size=1), steps=4),
                        data=MemorySet.of(16))
    reference.run()
    assert same(loop.folder.last, reference.folder.last)
    assert loop_of(tmp_path, rank).run().began_step == 4


def test_what_was_learnt_is_saved_when_memory_runs_out_in_a_validation(tmp_path: Path, card: Any) -> None:
    loop = loop_in(tmp_path, request(dict(rank=256), QUIET | dict(monitor="validation", validate_every=2, patience=9),
                                     steps=6), data=MemorySet.of(4, size=32))
    plain = loop.trainer.validate

    def validate(check: Any) -> float:
        card.limit(100_000)
        return plain(check)

    loop.trainer.validate = validate
    with pytest.raises(AtelierError, match="validating after step 2"):
        loop.run()
    assert loop.folder.last.exists() and loop.folder.state.exists()


def test_a_step_that_does_not_fit_is_done_again_with_checkpointing(tmp_path: Path, card: Any) -> None:
    unet, data = tiny_unet(), MemorySet.of(4, size=32)
    loop = loop_in(tmp_path, request(dict(rank=4), QUIET, steps=3), data=data, unet=unet,
                   save_memory=unet.enable_gradient_checkpointing)
    plain, limits = loop.trainer.train_step, []

    def step(number: int, scale: Any) -> Any:
        if not limits:
            card.reset()
            before = card.live
            plain(number, scale)
            limits.append(card.peak - before)
            loop.trainer.drop_step(0)
            loop.trainer.adapters.load(start)
            card.limit(int(limits[0] * 0.8))
        return plain(number, scale)

    start = loop.trainer.adapters.snapshot()
    loop.trainer.train_step = step
    loop.run()
    card.limit(None)
    reference = loop_in(tmp_path / "other", request(dict(rank=4), QUIET, steps=3), data=data)
    reference.run()
    assert loop.memory_saved and loop.state.history.losses == pytest.approx(reference.state.history.losses, rel=1e-5)


def test_what_is_only_kept_is_not_on_the_card(tmp_path: Path, card: Any) -> None:
    """Last finite weights, and the masters while a running average takes their place: no second copy of them there."""
    config = request(dict(rank=64), QUIET | dict(monitor="validation", validate_every=2, ema_decay=0.9, patience=9),
                     steps=4)
    loop = loop_in(tmp_path, config, data=MemorySet.of(2))
    size = sum(master.numel() * 4 for master in loop.trainer.adapters.masters)
    before = card.live
    loop.run()
    # Two moments of AdamW. Inputs and the rest are small.
    assert card.live - before < 2.5 * size
    assert {tensor.device.type for tensor in loop._checkpoints._finite} == {"cpu"}


def test_blocks_that_wait_in_main_memory_train_alike_and_leave_room(card: Any) -> None:
    gradients, resident = [], []
    for number in (0, 100):
        unet, data = tiny_unet(), MemorySet.of(2, size=16)
        config = request(dict(rank=4), QUIET | dict(gradient_checkpointing="on", blocks_to_swap=number), steps=1)
        before = card.live
        place_unet(unet, plan_unet(unet.config, data, config, torch.float32, None), CARD)
        resident.append(card.live - before)
        trainer = Trainer(denoiser_of(unet, CARD, torch.float32), data, config)
        for master in trainer.adapters.masters:
            master.data.add_(0.01)
        trainer.adapters.sync_to_model()
        trainer._accumulate(0, trainer.initial_loss_scale)
        gradients.append([master.grad for master in trainer.adapters.masters])
        waiting = [name for name, weight in unet.named_parameters() if weight.device.type == "cpu"]
        assert bool(waiting) == bool(number)
    plain, swapped = gradients
    assert all(torch.equal(one, other) for one, other in zip(plain, swapped, strict=True))
    assert resident[1] < 0.5 * resident[0]


def test_adapters_are_where_the_network_computes_though_its_first_weights_wait(card: Any) -> None:
    """Networks of diffusion transformers may begin with their blocks."""
    network = torch.nn.Module()
    network.blocks = torch.nn.ModuleList(torch.nn.Linear(1024, 1024) for _ in range(2))
    network.head = torch.nn.Linear(1024, 8)
    swap = BlockSwap(dict(network.blocks.named_children()), CARD)
    with swap.kept_away():
        network.to(CARD)
    assert network.blocks[0].weight.device.type == "cpu"
    adapters = Adapters({"network": network}, LoraConfig(rank=4), 0, layers={"network": r"blocks\.\d+"}, device=CARD)
    assert {parameter.device.type for parameter in adapters.parameters} == {"cuda"}
    prepack_frozen(network)
    checkpoint_blocks(dict(network.blocks.named_children()))
    x = torch.randn(2, 1024, device=CARD)
    for block in network.blocks:
        x = block(x)
    network.head(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in adapters.parameters)


def test_random_numbers_come_from_the_processor_where_a_device_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As DirectML's device, for which torch has none."""
    plain = torch.Generator

    def made(device: Any = "cpu") -> torch.Generator:
        if torch.device(device).type != "cpu":
            raise RuntimeError("Device type PRIVATEUSEONE is not supported for torch.Generator() api.")
        return plain()

    monkeypatch.setattr(torch, "Generator", made)
    trainer = Trainer(denoiser(), MemorySet.of(2), request(dict(rank=2), QUIET, steps=2))
    assert trainer.train_step(0, trainer.initial_loss_scale).loss.isfinite()
