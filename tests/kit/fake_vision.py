"""A language model's server that sees: it tells the number that `numbered_picture` painted into a picture.

    with FakeVision() as fake:
        CaptionWriter(client=…, …).run(pictures)
        assert fake.seen() == [0, 1, 2]                  # the pictures that were asked about, in order of arrival
        fake.largest = 256                               # 413 for a picture with a longer side
"""

from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

from kit.fake_llm import FakeLlm, Turn, refusal
from PIL import Image

START = "data:image/jpeg;base64,"
_STEP = 16
"""Levels between neighbouring numbers' colours: JPEG changes a plain colour by less."""


def numbered_picture(number: int, size: tuple[int, int] = (48, 32)) -> Image.Image:
    """A plain picture that holds `number`, 0 to 255, in its colour."""
    low, high = number % 16, number // 16
    return Image.new("RGB", size, (low * _STEP + _STEP // 2, high * _STEP + _STEP // 2, 128))


def number_in(picture: Image.Image) -> int:
    """The number of a `numbered_picture`, scaled and compressed as it may be."""
    red, green, _ = picture.convert("RGB").resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    return red // _STEP + 16 * (green // _STEP)


def write_numbered(folder: Path, count: int, size: tuple[int, int] = (48, 32)) -> list[Path]:
    """Pictures of the numbers 0 to `count` - 1 as `000.png`, …"""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03}.png" for number in range(count)]
    for number, path in enumerate(paths):
        numbered_picture(number, size).save(path)
    return paths


def pictures_in(body: dict[str, Any]) -> list[Image.Image]:
    """The pictures of a request, as a service takes them: JPEGs in data URLs, and nothing that it would fetch."""
    found = []
    for message in body["messages"]:
        for part in message["content"] if isinstance(message["content"], list) else []:
            if part["type"] == "image_url":
                url = part["image_url"]["url"]
                assert url.startswith(START), url[:40]
                found.append(Image.open(BytesIO(base64.b64decode(url[len(START):], validate=True))))
    return found


def word(number: int) -> str:
    """A word of letters for each number."""
    return "".join("abcdefghij"[int(digit)] for digit in f"{number:03}")


def description(number: int) -> str:
    """What the server says about a picture."""
    return f"a plain sheet called {word(number)} on a table"


class FakeVision(FakeLlm):
    """A server whose best answer describes the picture of the question."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(port)
        self.forget()

    def forget(self) -> FakeVision:
        """As at the start, for the next test."""
        super().forget()
        self.largest = 10_000
        """Pixels of a side; a larger picture is refused with 413."""
        self.answers = describe
        self.refuses = self._too_large
        return self

    def seen(self) -> list[int]:
        """Numbers of the pictures in all requests."""
        return [number_in(picture) for request in self.requests for picture in pictures_in(request.body)]

    def told(self) -> list[int]:
        """Numbers of the pictures in requests that were answered."""
        return [number_in(picture) for request in self.answered for picture in pictures_in(request.body)]

    def _too_large(self, body: dict[str, Any]) -> Turn | None:
        sizes = [max(picture.size) for picture in pictures_in(body)]
        return refusal("Request Entity Too Large", 413) if max(sizes, default=0) > self.largest else None


def describe(body: dict[str, Any]) -> str:
    """A valid answer to a question about one picture."""
    picture, = pictures_in(body)
    return json.dumps({"caption": description(number_in(picture))})
