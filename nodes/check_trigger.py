"""Check Trigger: whether a word suits as a trigger."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .clip_tokens import host_tokenizer, token_tables


class CheckTrigger(io.ComfyNode):
    """Checks whether a word suits as a trigger."""

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
        """Tokenize the word for the first CLIP encoder, and rate its tokens."""
        from ..atelier.explain.trigger import check_trigger

        table = token_tables(clip, _escape(word))[0]
        ids = [token.id for token in table.tokens if token.id is not None]
        name = table.encoders[0]
        result = check_trigger(word, ids, host_tokenizer(clip, name).inv_vocab, _embedding_norms(clip, name))
        return io.NodeOutput(result.text(), result.verdict.value, ", ".join(result.suggestions),
                             ui=ui.PreviewText(result.text()))


def _embedding_norms(clip: Any, name: str) -> list[float]:
    embeddings = getattr(clip.cond_stage_model, name).transformer.get_input_embeddings().weight
    return embeddings.detach().float().norm(dim=1).tolist()


def _escape(text: str) -> str:
    """Escape brackets, which would set weights."""
    return text.replace("(", r"\(").replace(")", r"\)")
