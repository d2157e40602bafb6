"""Adapters of every kind change weights as the host's own code and LyCORIS have them change."""

from __future__ import annotations

import logging
from types import ModuleType
from typing import Any

import pytest
import torch
from kit.pack import pack_module
from kit.training import tiny_unet
from torch import Tensor

pytestmark = pytest.mark.host

LAYER = "unet.mid_block.attentions.0.proj_in"
KEY = "lora_unet_mid_block_attentions_0_proj_in"


def by_host(state: dict[str, Tensor], weights: dict[str, Tensor], strength: float = 1.0) -> dict[str, Tensor]:
    """What the host makes of weights, by their layers' names in the file; it must complain of nothing."""
    import comfy.lora

    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    try:
        patches = comfy.lora.load_lora(state, {name: f"{name}.weight" for name in weights})
        made = {name: comfy.lora.calculate_weight([(strength, patches[f"{name}.weight"], 1.0, None, None)],
                                                  weight.clone(), name) for name, weight in weights.items()}
    finally:
        logging.getLogger().removeHandler(handler)
    assert not said
    return made


@pytest.mark.parametrize("changes", [
    dict(kind="loha"), dict(kind="lokr"), dict(kind="lokr", lokr_factor=4), dict(kind="lokr", rank=64),
    dict(kind="oft"), dict(kind="oft", rank=64)], ids=str)
def test_the_host_changes_a_weight_as_peft_did(pack: ModuleType, changes: dict[str, Any]) -> None:
    lora = pack_module(pack, "atelier.train.request.lora")
    config = lora.LoraConfig(**{"rank": 4, "alpha": 2.0, "targets": "attention_ff_conv", **changes})
    unet = tiny_unet()
    adapters = pack_module(pack, "atelier.train.adapters").Adapters({"unet": unet}, config, 0)
    stream = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for master in adapters.masters:
            master.copy_(torch.randn(master.shape, generator=stream) * 0.3)
    state = pack_module(pack, "atelier.lora.formats").kohya_state(adapters.weights())
    layers = {path: layer for path, layer in unet.named_modules() if hasattr(layer, "get_delta_weight")}
    names = {f"lora_unet_{path.replace('.', '_')}": path for path in layers}
    weights = {name: layers[path].base_layer.weight.detach().clone() for name, path in names.items()}
    assert any(weight.dim() == 4 for weight in weights.values())
    for name, found in by_host(state, weights).items():
        layer: Any = layers[names[name]]
        layer.merge()
        merged = layer.base_layer.weight.detach()
        assert (merged - weights[name]).abs().max() > 1e-3, name
        torch.testing.assert_close(found, merged, rtol=1e-5, atol=1e-6, msg=name)


def random(*shape: int) -> Tensor:
    return torch.randn(shape) * 0.8


def loha(out: int, inner: int) -> dict[str, Tensor]:
    return {f"{KEY}.hada_{name}": random(*shape) for name, shape in (
        ("w1_a", (out, 2)), ("w1_b", (2, inner)), ("w2_a", (out, 2)), ("w2_b", (2, inner)))}


def states() -> dict[str, tuple[dict[str, Tensor], tuple[int, ...]]]:
    """Files of one layer of each kind, and the shape of its weight."""
    core = {f"{KEY}.hada_{name}": random(*shape) for name, shape in (
        ("w1_a", (2, 8)), ("w1_b", (2, 6)), ("t1", (2, 2, 3, 3)), ("w2_a", (2, 8)), ("w2_b", (2, 6)),
        ("t2", (2, 2, 3, 3)))}
    alpha = {f"{KEY}.alpha": torch.tensor(3.0)}
    free = {f"{KEY}.alpha": torch.tensor(0.0)}
    return {
        "LoCon": ({f"{KEY}.lora_up.weight": random(8, 2, 1, 1), f"{KEY}.lora_down.weight": random(2, 6, 3, 3), **alpha},
                  (8, 6, 3, 3)),
        "Tucker": ({f"{KEY}.lora_up.weight": random(8, 2, 1, 1), f"{KEY}.lora_down.weight": random(2, 6, 1, 1),
                    f"{KEY}.lora_mid.weight": random(2, 2, 3, 3), **alpha}, (8, 6, 3, 3)),
        "LoHa": ({**loha(8, 6), **alpha}, (8, 6)), "LoHa without alpha": (loha(8, 6), (8, 6)),
        "LoHa of a convolution": ({**loha(8, 54), **alpha}, (8, 6, 3, 3)),
        "LoHa with a core": ({**core, **alpha}, (8, 6, 3, 3)),
        "LoHa with DoRA by input": ({**loha(8, 6), **alpha, f"{KEY}.dora_scale": torch.rand(1, 6) + 0.5}, (8, 6)),
        "LoKr whole": ({f"{KEY}.lokr_w1": random(2, 3), f"{KEY}.lokr_w2": random(4, 2), **alpha}, (8, 6)),
        "LoKr in parts": ({f"{KEY}.lokr_w1_a": random(2, 1), f"{KEY}.lokr_w1_b": random(1, 3),
                           f"{KEY}.lokr_w2_a": random(4, 2), f"{KEY}.lokr_w2_b": random(2, 2), **alpha}, (8, 6)),
        "LoKr, the first in parts": ({f"{KEY}.lokr_w1_a": random(2, 1), f"{KEY}.lokr_w1_b": random(1, 3),
                                      f"{KEY}.lokr_w2": random(4, 2), **alpha}, (8, 6)),
        "LoKr of a convolution": ({f"{KEY}.lokr_w1": random(2, 3), f"{KEY}.lokr_w2": random(4, 2, 3, 3), **alpha},
                                  (8, 6, 3, 3)),
        "LoKr with a core": ({f"{KEY}.lokr_w1": random(2, 3), f"{KEY}.lokr_w2_a": random(2, 4),
                              f"{KEY}.lokr_w2_b": random(2, 2), f"{KEY}.lokr_t2": random(2, 2, 3, 3), **alpha},
                             (8, 6, 3, 3)),
        "OFT": ({f"{KEY}.oft_blocks": random(2, 4, 4)}, (8, 6)),
        "OFT of a convolution": ({f"{KEY}.oft_blocks": random(4, 2, 2), **free}, (8, 6, 3, 3)),
        "BOFT": ({f"{KEY}.oft_blocks": random(2, 2, 4, 4), **free}, (8, 6)),
        "BOFT of a convolution, rescaled": ({f"{KEY}.oft_blocks": random(1, 2, 4, 4), **free,
                                             f"{KEY}.rescale": torch.rand(8, 1, 1, 1)}, (8, 6, 3, 3)),
        "GLoRA": ({f"{KEY}.a1.weight": random(6, 2), f"{KEY}.a2.weight": random(2, 6), f"{KEY}.b1.weight": random(8, 2),
                   f"{KEY}.b2.weight": random(2, 6), **alpha}, (8, 6)),
        "GLoRA of the first order": ({f"{KEY}.a1.weight": random(2, 6), f"{KEY}.a2.weight": random(6, 2),
                                      f"{KEY}.b1.weight": random(2, 6), f"{KEY}.b2.weight": random(8, 2), **alpha},
                                     (8, 6)),
        "GLoRA of a convolution": ({f"{KEY}.a1.weight": random(6, 2, 1, 1), f"{KEY}.a2.weight": random(2, 6, 1, 1),
                                    f"{KEY}.b1.weight": random(8, 2, 1, 1), f"{KEY}.b2.weight": random(2, 6, 3, 3)},
                                   (8, 6, 3, 3)),
        "whole difference": ({f"{KEY}.diff": random(8, 6, 3, 3)}, (8, 6, 3, 3)),
        "norm": ({f"{KEY}.w_norm": random(8)}, (8,)), "whole weight": ({f"{KEY}.set_weight": random(8, 6)}, (8, 6)),
    }


def test_every_kind_changes_a_weight_as_in_the_host_and_is_written_as_it_was_read(pack: ModuleType) -> None:
    torch.manual_seed(3)
    file, formats = pack_module(pack, "atelier.lora.file"), pack_module(pack, "atelier.lora.formats")
    for case, (state, shape) in states().items():
        found = file.parse_lora(state, case)
        assert (found.matched, list(found.weights)) == (len(state), [LAYER]), case
        weight = torch.randn(shape)
        (module,) = found.weights.values()
        assert module.fits(shape) and not module.fits((shape[0] + 1, *shape[1:])), case
        changed = module.applied(weight)
        assert (changed - weight).abs().max() > 1e-2, case
        written = formats.kohya_state(found.weights)
        cored = case in ("Tucker", "LoKr with a core")  # the host fails on the latter's core, which is multiplied out
        expected = by_host({name: tensor.clone() for name, tensor in (written if cored else state).items()},
                           {KEY: weight})[KEY]
        torch.testing.assert_close(changed, expected, rtol=1e-5, atol=1e-6, msg=case)
        again = file.parse_lora(written, case).weights[LAYER]
        assert torch.equal(again.applied(weight), changed), case
        if not cored:
            assert all(torch.equal(written[name].flatten(), tensor.flatten()) for name, tensor in state.items()), case


def test_a_changed_bias_is_the_hosts(pack: ModuleType) -> None:
    import comfy.lora

    state = {f"{KEY}.diff_b": random(8)}
    ((name, module),) = pack_module(pack, "atelier.lora.file").parse_lora(state, "a").weights.items()
    assert name == f"{LAYER}.bias"
    patch = comfy.lora.load_lora(state, {KEY: "x.weight"})["x.bias"]
    bias = torch.randn(8)
    expected = comfy.lora.calculate_weight([(0.5, patch, 1.0, None, None)], bias.clone(), "x.bias")
    torch.testing.assert_close(module.applied(bias, 0.5), expected)


def test_apply_lora_adds_what_the_host_does_not_read(pack: ModuleType) -> None:
    """IA3, rotations with rescaled channels, and those of inputs, as other programs compute them (`tests/lora`)."""
    import comfy.lora

    rotated = "lora_unet_mid_block_attentions_0_proj_out"
    turned, inputs = "lora_unet_conv_in", "unet.conv_in"
    state = {f"{KEY}.weight": random(8), f"{KEY}.on_input": torch.tensor(0), f"{rotated}.oft_blocks": random(2, 4, 4),
             f"{rotated}.rescale": torch.rand(8, 1), f"{rotated}.alpha": torch.tensor(0.0),
             f"{turned}.oft_R.weight": random(2, 3), f"{turned}.oft_R.scaled_oft": torch.tensor(True), **{
                 name.replace(KEY, f"{KEY}x"): tensor for name, tensor in loha(8, 6).items()}}
    patches, rest = pack_module(pack, "nodes.host.other_kinds").split(state, {
        KEY: "a.weight", rotated: "b.weight", turned: "c.weight"})
    assert set(patches) == {"a.weight", "b.weight", "c.weight"} and set(rest) == {key for key in state if "hada" in key}
    weights = pack_module(pack, "atelier.lora.formats").read_state(state)
    for place, name in (("a.weight", LAYER), ("b.weight", LAYER.replace("_in", "_out")), ("c.weight", inputs)):
        weight = torch.randn(8, 6)
        # The host makes patches anew like this where it moves them.
        patch = comfy.lora.prefetch_prepared_value(patches[place], [0], None, None, False)
        found = comfy.lora.calculate_weight([(0.5, patch, 1.0, None, None)], weight.clone(), place)
        torch.testing.assert_close(found, weights[name].applied(weight, 0.5))
    assert torch.allclose(weights[LAYER].applied(weight), weight * (1 + state[f"{KEY}.weight"])[:, None])
