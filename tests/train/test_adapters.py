"""Adapters change nothing at first, train alone, and mean W' = W + ΔW."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from kit.training import MemorySet, denoiser, tiny_unet
from kit.training_loop import request, train_steps

from atelier.errors import AtelierError
from atelier.lora.merge import merge_into
from atelier.lora.weights import select
from atelier.train.adapters import Adapters, put_adapters
from atelier.train.blocks import layers_of
from atelier.train.request.lora import TARGETS, LoraConfig
from atelier.train.trainer import Trainer


def _run(unet: torch.nn.Module) -> torch.Tensor:
    stream = torch.Generator().manual_seed(5)
    return unet(torch.randn(2, 4, 8, 8, generator=stream), torch.tensor([10, 700]),
                torch.randn(2, 77, 32, generator=stream), return_dict=False)[0]


def _frozen(unet: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name.replace(".base_layer", ""): p.detach().clone() for name, p in unet.named_parameters()
            if "lora_" not in name}


def _trained(config: LoraConfig, steps: int = 4, dtype: torch.dtype = torch.float32) -> Trainer:
    options = request(learning_rate=1e-2, batch_size=2, monitor="off", patience=0, steps=steps)
    trainer = Trainer(denoiser(dtype=dtype), MemorySet.of(4), replace(options, lora=config))
    train_steps(trainer, steps)
    trainer.adapters.train(False)
    return trainer


@pytest.mark.parametrize(("kind", "targets"), [
    *(("lora", targets) for targets in TARGETS), ("loha", "attention_ff_conv"), ("lokr", "attention_ff_conv"),
    ("oft", "attention_ff_conv")])
def test_an_untrained_adapter_changes_nothing(kind: str, targets: str) -> None:
    unet = tiny_unet()
    before = _run(unet)
    adapters = Adapters({"unet": unet}, LoraConfig(rank=4, kind=kind, targets=targets), seed=0)
    assert adapters.masters and not adapters.trained()
    torch.testing.assert_close(_run(unet), before, rtol=0, atol=0)


@pytest.mark.parametrize(("kind", "rslora", "targets"), [
    ("lora", False, "attention"), ("lora", True, "attention_ff_conv"), ("dora", False, "attention_ff"),
    ("loha", False, "attention_ff_conv"), ("lokr", False, "attention_ff_conv"), ("oft", False, "attention_ff_conv")])
def test_merging_the_weights_gives_the_adapted_output(kind: str, rslora: bool, targets: str) -> None:
    config = LoraConfig(rank=4, alpha=8, kind=kind, rslora=rslora, targets=targets)
    trainer = _trained(config)
    merged = tiny_unet()
    plain = _run(merged)
    merge_into(merged, select(trainer.adapters.weights(), "unet"))
    with torch.no_grad():
        adapted = _run(trainer.denoiser.unet)
    assert (adapted - plain).abs().max() > 1e-3 and trainer.adapters.trained()
    torch.testing.assert_close(_run(merged), adapted, rtol=1e-4, atol=1e-5)


def test_frozen_weights_stay_bit_equal() -> None:
    before, after = _frozen(tiny_unet()), _frozen(_trained(LoraConfig(rank=4)).denoiser.unet)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_strength_zero_merges_nothing_and_half_merges_half() -> None:
    weights = select(_trained(LoraConfig(rank=4)).adapters.weights(), "unet")
    unet, half = tiny_unet(), tiny_unet()
    assert merge_into(unet, weights, 0.0) == 0
    assert all(torch.equal(a, b) for a, b in zip(unet.parameters(), tiny_unet().parameters(), strict=True))
    merge_into(half, weights, 0.5)
    name = next(iter(weights))
    expected = unet.get_submodule(name).weight + 0.5 * weights[name].delta()
    torch.testing.assert_close(half.get_submodule(name).weight, expected)


def test_the_start_depends_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = Adapters({"unet": tiny_unet()}, LoraConfig(rank=4), seed=3)
    torch.manual_seed(2)
    second = Adapters({"unet": tiny_unet()}, LoraConfig(rank=4), seed=3)
    other = Adapters({"unet": tiny_unet()}, LoraConfig(rank=4), seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first.masters, second.masters, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.masters, other.masters, strict=True))


def test_low_precision_keeps_float32_masters() -> None:
    trainer = _trained(LoraConfig(rank=4), dtype=torch.bfloat16)
    assert all(p.dtype == torch.bfloat16 for p in trainer.adapters.parameters)
    assert all(m.dtype == torch.float32 for m in trainer.adapters.masters)
    assert all(torch.equal(p, m.bfloat16())
               for p, m in zip(trainer.adapters.parameters, trainer.adapters.masters, strict=True))


def test_a_model_without_the_wanted_layers_is_refused() -> None:
    with pytest.raises(AtelierError, match="attention"):
        Adapters({"unet": torch.nn.Sequential(torch.nn.Linear(2, 2))}, LoraConfig(), seed=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_an_untrained_dora_changes_no_weight_in_the_file(dtype: torch.dtype) -> None:
    plain = tiny_unet().to(dtype)  # a convolution's magnitude has another shape than a linear layer's
    config = LoraConfig(rank=4, kind="dora", targets="attention_ff_conv")
    weights = select(Adapters({"unet": tiny_unet().to(dtype)}, config, seed=0).weights(), "unet")
    assert any(module.down.dim() == 4 for module in weights.values())
    for name, module in weights.items():
        weight = plain.get_submodule(name).weight.float()
        torch.testing.assert_close(module.applied(weight), weight, rtol=1e-5, atol=1e-7, msg=name)


def test_doras_magnitude_is_pefts_in_float32() -> None:
    config = LoraConfig(rank=4, kind="dora", targets="attention_ff_conv")
    unet = tiny_unet()
    put = put_adapters("unet", unet, config, TARGETS[config.targets], torch.float32)
    found = {name: p.detach().clone() for name, p in put if "magnitude" in name}
    adapters = Adapters({"unet": tiny_unet()}, config, seed=0)
    masters = dict(zip(adapters.names, adapters.masters, strict=True))
    assert found
    for name, magnitude in found.items():
        torch.testing.assert_close(masters[f"unet.{name}"], magnitude)


def test_single_layers_have_a_rank_and_alpha_of_their_own() -> None:
    config = LoraConfig(rank=4, alpha=2, target_pattern=r".*\.attn[12]\.to_(q|k)",
                        rank_pattern=r"attn2\..* = 6; to_k = 3:9")
    weights = Adapters({"unet": tiny_unet()}, config, seed=0).weights()
    assert weights and {name.rsplit(".", 1)[1] for name in weights} == {"to_q", "to_k"}
    for name, module in weights.items():
        expected = (6, 3.0) if ".attn2." in name else (3, 9.0) if name.endswith("to_k") else (4, 2.0)
        assert (module.rank, module.alpha) == expected, name


def test_layers_with_their_own_rank_change_the_output_as_their_file_says() -> None:
    config = LoraConfig(rank=4, alpha=2, rank_pattern="to_k = 3:9", rslora=True)
    trainer = _trained(config)
    merged = tiny_unet()
    merge_into(merged, select(trainer.adapters.weights(), "unet"))
    with torch.no_grad():
        adapted = _run(trainer.denoiser.unet)
    torch.testing.assert_close(_run(merged), adapted, rtol=1e-4, atol=1e-5)


def test_rank_dropout_leaves_out_whole_ranks_for_each_picture_in_training_alone() -> None:
    config = LoraConfig(rank=8, rank_dropout=0.5, targets="attention_ff_conv")
    unet = tiny_unet()
    Adapters({"unet": unet}, config, seed=0)
    layers = [m for name, m in unet.named_modules() if name.endswith("lora_A.default")]
    for layer, shape in ((next(m for m in layers if isinstance(m, torch.nn.Linear)), (5, 7)),
                         (next(m for m in layers if isinstance(m, torch.nn.Conv2d)), (5, 4, 4))):
        width = layer.weight.shape[1]
        sample = torch.randn(5, width, 4, 4) if len(shape) == 3 else torch.randn(*shape, width)
        layer.train(False)
        whole = layer(sample)
        layer.train(True)
        torch.manual_seed(0)
        found = layer(sample)
        ratio = (found / whole).movedim(-1, 1) if len(shape) == 2 else found / whole
        flat = ratio.flatten(2)
        assert torch.equal(flat, flat[..., :1].expand_as(flat)) or torch.allclose(flat, flat[..., :1].expand_as(flat))
        assert {round(value, 3) for value in flat[..., 0].flatten().tolist()} == {0.0, 2.0}
        assert not torch.equal(flat[0], flat[1])


class Block(torch.nn.Module):
    """Of layers by their roles, as diffusion networks name them."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("attn1", "attn2", "cross_attn", "ff"):
            setattr(self, name, torch.nn.ModuleDict({"to_q": torch.nn.Linear(2, 2)}))
        self.modulation, self.conv = torch.nn.Linear(2, 2), torch.nn.Conv2d(2, 2, 1)


@pytest.mark.parametrize(("targets", "found"), [
    ("attention", ["attn1", "attn2", "cross_attn"]), ("cross_attention", ["attn2", "cross_attn"]),
    ("attention_ff", ["attn1", "attn2", "cross_attn", "ff"]),
    ("attention_ff_conv", ["attn1", "attn2", "cross_attn", "ff", "conv"]),
    ("all_linear", ["attn1", "attn2", "cross_attn", "ff", "modulation"])])
def test_targets_mean_the_layers_of_a_block_by_their_role(targets: str, found: list[str]) -> None:
    network = torch.nn.ModuleDict({"blocks": torch.nn.ModuleList([Block()]), "head": torch.nn.Linear(2, 2)})
    paths = layers_of(network, targets)
    assert [path.removeprefix("blocks.0.").removesuffix(".to_q") for path in paths] == found
