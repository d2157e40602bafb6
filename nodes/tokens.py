"""Nodes that show how text encoders read: tokens of a prompt, and whether a word suits as a trigger."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io, ui

from ..atelier.errors import AtelierError
from . import host

if TYPE_CHECKING:
    from ..atelier.explain.tokens import TokenTable

ENCODERS = ("l", "g", "h")
"""The host's names of CLIP-L, OpenCLIP bigG and OpenCLIP H."""

log = logging.getLogger("atelier")


class Tokens(io.ComfyNode):
    """The tokens of a text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierTokens",
            display_name="Tokens",
            category="Atelier/prompts",
            description="Shows how the text encoder cuts a prompt into tokens: how many, with which weights, and what "
                        "lies beyond the 75 that CLIP reads at once.",
            search_aliases=["tokenizer", "token count", "75", "77", "clip", "prompt length"],
            is_output_node=True,
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder of an SD1, SD2 or SDXL model."),
                io.String.Input("text", multiline=True, default="a cat wearing (neon-glasses:1.2)",
                                tooltip="A prompt in ComfyUI's syntax: (words:1.2) gives a weight."),
            ],
            outputs=[
                io.String.Output(display_name="table", tooltip="One line a token: chunk, number, weight, text."),
                io.Int.Output(display_name="count", tooltip="How many tokens the text has."),
                io.String.Output(display_name="beyond", tooltip="What is not among the first 75; empty if all is."),
                io.Image.Output(display_name="picture",
                                tooltip="The tokens as boxes, weights in colour, those beyond 75 struck out."),
            ],
        )

    @classmethod
    def execute(cls, clip: Any, text: str) -> io.NodeOutput:
        """Tokenise and draw; nothing is encoded."""
        from ..atelier.explain.token_picture import draw_tokens

        tables = token_tables(clip, text)
        picture = host.to_image_tensor([draw_tokens(tables[0])])
        table = "\n\n".join(each.table() for each in tables)
        shown = ui.PreviewImage(picture, cls=cls).as_dict()
        return io.NodeOutput(table, len(tables[0].tokens), tables[0].beyond_text, picture,
                             ui={**shown, "text": (table,)})


class CheckTrigger(io.ComfyNode):
    """Whether a word suits as a trigger."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierCheckTrigger",
            display_name="Check Trigger",
            category="Atelier/training",
            description="Tells whether a trigger word is one rare token, several tokens, or a common word whose "
                        "meaning would mix with what you teach; names rare single tokens.",
            search_aliases=["trigger word", "rare token", "dreambooth", "ohwx", "sks"],
            is_output_node=True,
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder of the model you will train."),
                io.String.Input("word", default="ohwx", tooltip="The trigger word, or words."),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="Tokens, rank, embedding norm and verdict."),
                io.String.Output(display_name="verdict", tooltip="one rare token, several tokens, or common."),
                io.String.Output(display_name="suggestions", tooltip="Rare single tokens, with commas."),
            ],
        )

    @classmethod
    def execute(cls, clip: Any, word: str) -> io.NodeOutput:
        """Look the word up in the first CLIP encoder."""
        from ..atelier.explain.trigger import check_trigger

        table = token_tables(clip, _escaped(word))[0]
        ids = [token.id for token in table.tokens if token.id is not None]
        name = table.encoders[0]
        check = check_trigger(word, ids, _tokenizer(clip, name).inv_vocab, _norms(clip, name))
        return io.NodeOutput(check.text(), check.verdict.value, ", ".join(check.suggestions),
                             ui=ui.PreviewText(check.text()))


def token_tables(clip: Any, text: str) -> list[TokenTable]:
    """The tokens of `text` for each CLIP encoder of the host's `clip`; encoders that agree share a table.

    Raises:
        AtelierError: there is no CLIP among the text encoders.
    """
    from ..atelier.explain.tokens import Token, TokenTable

    sections = clip.tokenize(text, return_word_ids=True)
    found: dict[tuple[Token, ...], list[str]] = {}
    for name in (name for name in ENCODERS if name in sections):
        entries = _tokenizer(clip, name).inv_vocab
        tokens = tuple(Token(token if isinstance(token, int) else None,
                             entries[token] if isinstance(token, int) else "embedding</w>", weight, chunk)
                       for chunk, section in enumerate(sections[name]) for token, weight, word in section if word)
        found.setdefault(tokens, []).append(f"clip_{name}")
    if not found:
        raise AtelierError(f"Tokens are shown for CLIP text encoders; this one is {', '.join(sections)}.",
                           "Connect the CLIP of an SD1, SD2 or SDXL model.")
    return [TokenTable(tokens, tuple(names)) for tokens, names in found.items()]


def trigger_warning(trigger: str) -> str:
    """A line for the trainer's report if the trigger is a common word, which is logged too; else nothing."""
    if not trigger.strip():
        return ""
    from ..atelier.explain.trigger import warn_if_common
    from ..atelier.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer()
    text = warn_if_common(trigger, lambda word: tokenizer(word, add_special_tokens=False).input_ids, _entries())
    if text:
        log.warning(text)
    return text


@lru_cache(maxsize=1)
def _entries() -> dict[int, str]:
    from ..atelier.models.tokenizer import load_tokenizer

    return {number: entry for entry, number in load_tokenizer().get_vocab().items()}


def _tokenizer(clip: Any, name: str) -> Any:
    return getattr(clip.tokenizer, name if name.startswith("clip_") else f"clip_{name}")


def _norms(clip: Any, name: str) -> list[float]:
    embeddings = getattr(clip.cond_stage_model, name).transformer.get_input_embeddings().weight
    return embeddings.detach().float().norm(dim=1).tolist()


def _escaped(text: str) -> str:
    """Brackets as letters, so that they give no weights."""
    return text.replace("(", r"\(").replace(")", r"\)")


NODES: list[type[io.ComfyNode]] = [Tokens, CheckTrigger]
