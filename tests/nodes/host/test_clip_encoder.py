"""Weighted prompts on the host's own CLIP, compared with compel on the same weights in transformers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from compel import Compel, ReturnedEmbeddingsType
from kit.pack import node_classes, pack_module
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from atelier.models.tokenizer import load_tokenizer

pytestmark = pytest.mark.host

LAYERS = 3
PROMPTS = ["a cat", "a cat++ on (the mat)1.3", "a (red cat)0.4 on the mat--, night", r"(a \(b\))++ c: d",
           '("a cat-", "a dog+").blend(1, 0.8)', '("a cat", "a (dog)0.5").and(1, 0.6)']


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="module")
def _clear_cache() -> Iterator[None]:
    yield
    host_clip.cache_clear()  # The host's objects must be freed before its modules are.


@cache
def text_model(name: str) -> Any:
    """A small random text encoder of transformers."""
    torch.manual_seed(len(name))
    config = CLIPTextConfig(vocab_size=49408, hidden_size=32, intermediate_size=64, num_hidden_layers=LAYERS,
                            num_attention_heads=2, projection_dim=32, bos_token_id=49406, eos_token_id=49407,
                            hidden_act="quick_gelu" if name == "l" else "gelu")
    model = (CLIPTextModel if name == "l" else CLIPTextModelWithProjection)(config).eval()
    for key, tensor in model.named_parameters():
        if tensor.ndim >= 2:
            tensor.data = torch.randn(tensor.shape) * (0.5 if "embedding" in key else tensor.shape[-1] ** -0.5)
    return model


@cache
def host_clip(family: str) -> Any:
    """The host's `CLIP` of a family with those weights."""
    import comfy.sd
    from comfy import sd1_clip, sdxl_clip
    from comfy.text_encoders import sd2_clip

    kind = {"sd1": (sd1_clip.SD1ClipModel, sd1_clip.SD1Tokenizer),
            "sd2": (sd2_clip.SD2ClipModel, sd2_clip.SD2Tokenizer),
            "sdxl": (sdxl_clip.SDXLClipModel, sdxl_clip.SDXLTokenizer)}[family]
    small = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": LAYERS}
    options = {f"clip_{name}_model_config": {**small, "hidden_act": "quick_gelu" if name == "l" else "gelu"}
               for name in "lgh"}
    target = SimpleNamespace(params={}, clip=kind[0], tokenizer=kind[1])
    clip = comfy.sd.CLIP(target, model_options={**options, "dtype": torch.float32}, disable_dynamic=True)
    for name in {"sd1": "l", "sd2": "h", "sdxl": "lg"}[family]:
        state = text_model(name).state_dict()
        state = {key if key.startswith("text_") else f"text_model.{key}": tensor for key, tensor in state.items()}
        inner = getattr(clip.cond_stage_model, f"clip_{name}").transformer
        missing, unexpected = inner.load_state_dict(state, strict=False)
        assert not unexpected and set(missing) <= {"text_projection.weight"}
        if missing:
            inner.text_projection.weight.data = torch.eye(32)
    return clip


def compel_embeddings(text: str, family: str) -> torch.Tensor:
    kind = {"sd1": ReturnedEmbeddingsType.LAST_HIDDEN_STATES_NORMALIZED,
            "sd2": ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NORMALIZED,
            "sdxl": ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED}[family]
    parts = []
    for name in {"sd1": "l", "sd2": "h", "sdxl": "lg"}[family]:
        compel = Compel(load_tokenizer("<|endoftext|>" if name == "l" else "!"), text_model(name),
                        truncate_long_prompts=False, returned_embeddings_type=kind)
        parts.append(compel(text))
    return torch.cat(parts, dim=-1)


def encode(pack: ModuleType, clip: Any, text: str) -> tuple[torch.Tensor, dict[str, Any]]:
    node: Any = node_classes(pack)["AtelierWeightedPrompt"]
    with torch.inference_mode():
        ((embeds, extra),) = node.execute(text=text, clip=clip)[0]
    return embeds.cpu(), extra


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("text", PROMPTS)
def test_embeddings_equal_those_of_compel(pack: ModuleType, family: str, text: str) -> None:
    actual, expected = encode(pack, host_clip(family), text)[0], compel_embeddings(text, family)
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_without_weights_the_result_is_that_of_cliptextencode(pack: ModuleType, family: str) -> None:
    import nodes

    clip, text = host_clip(family), ", ".join(f"thing number{index}" for index in range(25))
    embeds, extra = encode(pack, clip, text)
    ((own, own_extra),) = nodes.CLIPTextEncode().encode(clip, text)[0]
    torch.testing.assert_close(embeds, own, atol=1e-6, rtol=0)
    torch.testing.assert_close(extra["pooled_output"], own_extra["pooled_output"], atol=1e-6, rtol=0)
    assert embeds.shape[1] == 2 * 77


def test_weights_above_one_act_like_the_hosts(pack: ModuleType) -> None:
    import nodes

    clip = host_clip("sd1")
    ((own, _),) = nodes.CLIPTextEncode().encode(clip, "a (red cat:1.3) on the (mat:1.21)")[0]
    torch.testing.assert_close(encode(pack, clip, "a (red cat)1.3 on the mat++")[0], own, atol=1e-5, rtol=1e-5)


def test_an_embedding_of_two_lengths_is_refused(pack: ModuleType) -> None:
    """Of the other family, or damaged: a weight could not be told apart by token in both encoders."""
    sections = {name: [[(49406, 1.0), *[(7, 2.0)] * length, *[(49407, 1.0)] * (76 - length)]]
                for name, length in (("l", 1), ("g", 2))}
    encoder = pack_module(pack, "nodes.host.clip_encoder").ClipEncoder(SimpleNamespace(tokenize=lambda text: sections))
    with pytest.raises(pack_module(pack, "atelier.errors").AtelierError, match=r"embedding.*different length"):
        encoder.tokenize(["embedding:two"])


def test_weights_in_the_second_chunk_do_not_change_the_first(pack: ModuleType) -> None:
    clip, start = host_clip("sdxl"), ", ".join(f"thing number{index}" for index in range(25))
    plain, light = (encode(pack, clip, f"{start} {end}")[0] for end in ("(the last)1.0", "(the last)0.3"))
    assert plain.shape == light.shape == (1, 2 * 77, 64)
    torch.testing.assert_close(plain[:, :77], light[:, :77], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(plain[:, 77:], light[:, 77:], atol=1e-2)


def test_clip_skip_is_kept(pack: ModuleType) -> None:
    clip = host_clip("sd1").clone()
    clip.clip_layer(-2)
    assert not torch.allclose(encode(pack, clip, "a cat-")[0], encode(pack, host_clip("sd1"), "a cat-")[0], atol=1e-3)


def test_encoding_leaves_no_hook_in_the_text_encoder(pack: ModuleType) -> None:
    clip = host_clip("sd1")
    before = encode(pack, clip, "a cat on a mat")[0]
    encode(pack, clip, "a cat-- on (a mat)0.1")
    assert torch.equal(encode(pack, clip, "a cat on a mat")[0], before)
    assert not clip.cond_stage_model.clip_l.transformer._forward_pre_hooks


def test_tokens_are_counted_as_the_host_does(pack: ModuleType) -> None:
    count = pack_module(pack, "nodes.host.clip_encoder").token_counter(host_clip("sdxl"))
    tokenizer = load_tokenizer()
    for text in ("a cat", "(odd) \\(brackets\\), neon-glasses: 8k", ""):
        assert count(text) == len(tokenizer(text).input_ids) - 2


def test_other_text_encoders_raise_an_error(pack: ModuleType) -> None:
    t5 = SimpleNamespace(tokenize=lambda text: {"t5xxl": [[(1, 2.0)]]})
    with pytest.raises(pack_module(pack, "atelier.errors").AtelierError, match="need a CLIP text encoder"):
        encode(pack, t5, "a cat")
