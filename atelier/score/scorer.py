"""Compute CLIP scores, encoding each picture and each distinct text once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from ..errors import AtelierError
from ..progress import Progress
from .crop import ClipCrop
from .definitions import Definition
from .preprocess import CLIP_LEVELS, pixel_values
from .result import Score, Scores
from .tokens import TokenizedText, Tokenizer, tokenize

if TYPE_CHECKING:
    from transformers import CLIPModel

    from .aesthetic import AestheticHead
    from .picture_model import PictureModel

_TEXTS_AT_ONCE = 64


class ClipScorer:
    """Compares pictures with texts and with each other, by one CLIP model.

    Args:
        model: transformers' `CLIPModel`, on the device and in the precision to use; cosines are always float32.
        tokenizer: The model's own.
        name: Name of the model in results.
        crop: How pictures are made square.
        chunk: Pictures per batch; fewer need less memory.
        note: Settings that were assumed about the model; repeated in results.
    """

    def __init__(self, model: CLIPModel, tokenizer: Tokenizer, name: str, *, crop: ClipCrop = ClipCrop.CENTER,
                 chunk: int = 16, note: str = "") -> None:
        if chunk < 1:
            raise AtelierError(f"chunk is {chunk}.", "Choose at least 1.")
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.crop, self.chunk, self.note = crop, chunk, note
        self._texts: dict[str, torch.Tensor] = {}
        self.levels = CLIP_LEVELS

    def score(self, pictures: Sequence[Image.Image], texts: str | Sequence[str], *,
              definition: Definition = Definition.COSINE, prefix: str = "", style: str = "",
              references: Sequence[Image.Image] = (), likeness_by: PictureModel | None = None,
              aesthetic: AestheticHead | None = None, progress: Progress | None = None) -> Scores:
        """Score every picture against its text.

        Args:
            pictures: Of any sizes.
            texts: One for all pictures, or one for each.
            prefix: Put before every text, "A photo depicts " in Hessel et al. Not before the style text.
            style: A second text that all pictures are compared with.
            references: Pictures that all pictures are compared with.
            likeness_by: A model of pictures alone that compares them with the references; None: this model.
            aesthetic: Also predicts how much people like each picture.

        Raises:
            AtelierError: no pictures, an empty text, another number of texts than of pictures, or an embedding that
                is not finite.
        """
        progress = progress or Progress()
        pairs = [prefix + text for text in _one_text_each(texts, len(pictures))]
        tokens = {text: self.tokens(text) for text in dict.fromkeys(pairs)}
        own = [] if likeness_by else references
        progress.phase("encoding", len(pictures) + len(own))
        images = self.encode_pictures([*pictures, *own], progress)
        images, reference = images[:len(pictures)], images[len(pictures):]
        likes = aesthetic(images) if aesthetic else None
        words = self.encode_texts(pairs)
        cosines = _cosine(images, words)
        styles = _cosine(images, self.encode_texts([style])) if style else None
        likeness = (images @ reference.T).mean(dim=1) if len(reference) else None
        if likeness_by and len(references):
            likeness = likeness_by.likeness(pictures, references, progress)
        items = tuple(
            Score(picture=i, text=text, cosine=cosines[i].item(), value=definition(cosines[i].item()),
                  tokens=tokens[text].used, cut=tokens[text].cut,
                  style=definition(styles[i].item()) if styles is not None else None,
                  likeness=definition(likeness[i].item()) if likeness is not None else None,
                  aesthetic=likes[i] if likes is not None else None)
            for i, text in enumerate(pairs))
        return Scores(items=items, model=self.name, definition=definition, crop=self.crop, style_text=style,
                      note=self.note, likeness_by=likeness_by.name if likeness_by and len(references) else "",
                      aesthetic_by=aesthetic.name if aesthetic else "")

    def tokens(self, text: str) -> TokenizedText:
        """Tokenize `text` for the model.

        Raises:
            AtelierError: the text is empty, or the tokenizer does not belong to the model.
        """
        embeddings = self.model.text_model.embeddings
        tokens = tokenize(self.tokenizer, text, embeddings.position_embedding.num_embeddings)
        vocabulary = embeddings.token_embedding.num_embeddings
        if max(tokens.ids) >= vocabulary:
            raise AtelierError(f"The tokenizer of {self.name} makes token {max(tokens.ids)}, and the model knows "
                               f"{vocabulary}.", "Put the model's own tokenizer files into its folder.")
        return tokens

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit embeddings of texts, float32 `[len(texts), projection]` on CPU. Each distinct text is encoded once."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        for start in range(0, len(new), _TEXTS_AT_ONCE):
            batch = new[start:start + _TEXTS_AT_ONCE]
            features = features_of(self.model.get_text_features(input_ids=self._padded(batch).to(self._device)))
            self._texts.update(zip(batch, self._unit(features, "texts"), strict=True))
        return torch.stack([self._texts[text] for text in texts])

    @torch.inference_mode()
    def encode_pictures(self, pictures: Sequence[Image.Image], progress: Progress | None = None) -> torch.Tensor:
        """Unit embeddings of pictures, float32 `[len(pictures), projection]` on CPU.

        Raises:
            AtelierError: there are no pictures.
        """
        if not pictures:
            raise AtelierError("There are no pictures to score.", "Connect at least one.")
        vision: Any = self.model.config.vision_config
        done = []
        for start in range(0, len(pictures), self.chunk):
            if progress:
                progress.check()
            pixels = pixel_values(pictures[start:start + self.chunk], vision.image_size, self.crop, self.levels)
            pixels = pixels.to(self._device, self.model.dtype)
            done.append(self._unit(features_of(self.model.get_image_features(pixel_values=pixels)), "pictures"))
            if progress:
                progress.advance(min(start + self.chunk, len(pictures)))
        return torch.cat(done)

    def _padded(self, texts: Sequence[str]) -> torch.Tensor:
        """Token ids, `[len(texts), longest]`."""
        ids = [self.tokens(text).ids for text in texts]
        longest = max(map(len, ids))
        # Pad with the end token: the first one is pooled, and attention is causal.
        return torch.tensor([[*row, *([row[-1]] * (longest - len(row)))] for row in ids])

    def _unit(self, features: torch.Tensor, what: str) -> torch.Tensor:
        """`features` of `what` at length one, float32 on CPU.

        Raises:
            AtelierError: an embedding is not finite or zero.
        """
        features = features.to("cpu", torch.float32)
        unit = features / features.norm(dim=-1, keepdim=True)
        wrong = int((~unit.isfinite()).any(dim=-1).sum())
        if wrong:
            raise AtelierError(f"{self.name} computed no numbers for {wrong} of {len(unit)} {what}: its weights are "
                               "damaged, or too large for the type it computes in.",
                               "Download the model again, or choose another one.")
        return unit

    @property
    def _device(self) -> torch.device:
        return self.model.device


def features_of(output: Any) -> torch.Tensor:
    """The projected embeddings: transformers 4 returns them, transformers 5 wraps them."""
    return output if isinstance(output, torch.Tensor) else output.pooler_output


def _cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum(dim=-1)


def _one_text_each(texts: str | Sequence[str], count: int) -> list[str]:
    listed = [texts] if isinstance(texts, str) else list(texts)
    if len(listed) == 1:
        return listed * count
    if len(listed) != count:
        raise AtelierError(f"There are {count} pictures and {len(listed)} texts.",
                           "Give one text for all pictures, or one for each.")
    return listed
