"""The question about one picture, and its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..prompts.client import Message
from ..prompts.picture_part import picture_part, text_part
from ..prompts.structured import Question, Unusable, object_schema, plain_line, text_field
from .request import CaptionRequest, CaptionStyle
from .wording import bare, forbidden_in, tags_without

if TYPE_CHECKING:
    from PIL.Image import Image

LONGEST_CAPTION = 3000
"""Characters."""

_RULES = {
    CaptionStyle.SENTENCE: "Write one or two plain sentences: what kind of picture it is, who or what is seen, pose or "
                           "action, clothes, surroundings, light and view.",
    CaptionStyle.TAGS: "Write comma-separated tags as booru sites use them, in lower case, the most certain and "
                       "important first: number of people (1girl, 2boys, no humans), hair, eyes, clothes, pose and "
                       "expression, objects, background, view and framing, medium. At most 30 tags, no sentence.",
    CaptionStyle.SHORT: "Write one phrase of at most twelve words that names the subject and the setting.",
    CaptionStyle.OWN: "",
}


def question(picture: Image, request: CaptionRequest) -> Question[str]:
    """What the model is asked about `picture` (mode RGB); the answer's value is a description without forbidden words,
    and still without the trigger word in front."""
    return Question(_messages(picture, request), object_schema({"caption": {"type": "string"}}),
                    lambda answer: _checked(text_field(answer, "caption", LONGEST_CAPTION), request), name="caption",
                    read_plain=lambda text: _plain(text, request))


def _messages(picture: Image, request: CaptionRequest) -> list[Message]:
    rules = ["You describe pictures, to train a text-to-image model with them. Say only what is seen in the picture, "
             "and guess nothing.", _RULES[request.style], request.instruction.strip()]
    if request.trigger:
        rules.append(f"Do not write the word {request.trigger!r}: it is added later, and stands for what all pictures "
                     "have in common. Describe what differs from picture to picture.")
    if request.forbidden:
        rules.append(f"Never use these words: {', '.join(request.forbidden)}.")
    if request.tokens:
        rules.append(f"Stay below {request.tokens} tokens, about {request.tokens * 2 // 3} words.")
    rules.append('Answer with one JSON object with the key "caption", a text, and nothing else.')
    return [{"role": "system", "content": " ".join(rule for rule in rules if rule)},
            {"role": "user", "content": [text_part("Describe this picture."), picture_part(picture)]}]


def _plain(text: str, request: CaptionRequest) -> str:
    """The caption that an answer without JSON is: models made for captions give no other."""
    line = bare(plain_line(text))
    if not line:
        raise Unusable("it is empty")
    if len(line) > LONGEST_CAPTION:
        raise Unusable(f"it is {len(line)} characters long, more than {LONGEST_CAPTION}")
    return _checked(line, request)


def _checked(text: str, request: CaptionRequest) -> str:
    text = bare(text)
    if request.style is CaptionStyle.TAGS:
        text = tags_without(text, request.forbidden)
    elif found := forbidden_in(text, request.forbidden):
        raise Unusable(f"it holds {', '.join(map(repr, found))}, which must not be used")
    if not text:
        raise Unusable("nothing is left of it without the words that must not be used")
    return text

