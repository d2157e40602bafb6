"""Picture files, decoded: any mode Pillow reads becomes an upright RGB picture, or an error that names the file."""

from __future__ import annotations

import importlib
import importlib.util
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageFile, features

from ..errors import AtelierError
from ..limits import BeyondLimits, Limits, read_limited
from .png import without_texts
from .rgb import has_alpha, to_rgb

MAX_PIXELS = 2 ** 27
"""Pictures above 134 megapixels are refused: a few kilobytes can claim to be gigabytes."""

LARGEST = Limits(size=2**30)
"""A file of as many pixels, stored plainly, is smaller."""

DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError, OverflowError,
                  MemoryError, struct.error, zlib.error, Image.DecompressionBombError)
"""What Pillow's decoders raise on damaged files; they agree on no type of their own."""

_ORIENTATION = 0x0112
_UPRIGHT = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_90}
"""EXIF orientation to what undoes it (TIFF 6.0, tag 274). 1 and unknown values mean upright."""


class UnreadablePicture(AtelierError):
    """A picture file that cannot be used. `why` is the reason without the file's name."""

    def __init__(self, path: Path, why: str) -> None:
        self.path = path
        self.why = why
        super().__init__(f"{path} cannot be used: {why}.", "Replace or remove the file.")


def read_file(path: Path) -> bytes:
    """The bytes of `path`.

    Raises:
        UnreadablePicture: the file is gone, may not be opened, or is too large to be a picture.
    """
    try:
        return read_limited(path, LARGEST)
    except OSError as error:
        raise UnreadablePicture(path, f"it cannot be opened ({error.strerror or error})") from error
    except BeyondLimits as error:
        raise UnreadablePicture(path, str(error)) from error


def read_picture(path: Path) -> Image.Image:
    """The picture in `path`, upright, mode RGB; see `decode_picture`."""
    return decode_picture(path, read_file(path))


def decode_picture(path: Path, data: bytes) -> Image.Image:
    """The picture in a file's bytes, upright, mode RGB; `path` names it in errors.

    Transparency is composited on white; 16-bit greyscale is scaled, not clipped; of an animation the first frame
    counts; EXIF orientation and colour profile are applied (see `rgb.to_rgb`).

    Raises:
        UnreadablePicture: damaged, cut short, of an unknown format, too large or fully transparent.
    """
    with _opened(path, data) as image:
        return _turned(as_rgb(image, path), _orientation(image))


def decode_mask(path: Path, data: bytes) -> Image.Image:
    """The loss mask in a file's bytes, upright, mode L: 255 counts in full, 0 not at all. Transparent counts as black.

    Raises:
        UnreadablePicture: as for `decode_picture`.
    """
    with _opened(path, data) as image:
        if has_alpha(image):
            rgba = image.convert("RGBA")
            grey = Image.composite(rgba.convert("L"), Image.new("L", rgba.size, 0), rgba.getchannel("A"))
        else:
            grey = as_rgb(image, path).convert("L")
        return _turned(grey, _orientation(image))


def check_picture(path: Path, data: bytes, *, is_mask: bool = False) -> tuple[int, int]:
    """Decode the file's bytes to see that they are whole; upright (width, height).

    A mask may well be fully transparent; a picture may not.

    JPEGs are decoded at an eighth of their size, which still reads every byte and is several times faster.

    Raises:
        UnreadablePicture: as for `decode_picture`.
    """
    with _opened(path, data) as image:
        if image.format == "JPEG":
            size = _upright_size(image)
            image.draft(None, (1, 1))
            image.load()
            return size
        image.load()
        if not is_mask and has_alpha(image):
            as_rgb(image, path)
        # Asked last, because Pillow turns TIFFs while loading them.
        return _upright_size(image)


def as_rgb(image: Image.Image, path: Path) -> Image.Image:
    """`image` of any mode as RGB, by the rules of `decode_picture`; `path` names it in errors.

    Raises:
        UnreadablePicture: fully transparent.
    """
    if has_alpha(image) and image.convert("RGBA").getchannel("A").getextrema() == (0, 0):
        raise UnreadablePicture(path, "it is fully transparent")
    return to_rgb(image)


@contextmanager
def strict_decoding() -> Iterator[None]:
    """Inside, a truncated file is an error even where other code has told Pillow to fill it with grey.

    Enter it once around all decoding, not in each worker thread: Pillow's switch and Python's warning filters are
    global, and are put back on leaving.
    """
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            # Sizes between Pillow's warning and its limit are judged by MAX_PIXELS.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


@contextmanager
def _opened(path: Path, data: bytes) -> Iterator[Image.Image]:
    """The opened, not yet decoded picture; decoder errors inside the block become `UnreadablePicture`."""
    try:
        _register_heif()
        # Pillow refuses a PNG for one long text, and what allows them is global.
        with Image.open(BytesIO(without_texts(data))) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{width} × {height}")
            yield image
    except UnreadablePicture:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadablePicture(path, f"it claims {error} pixels, more than {MAX_PIXELS / 1e6:.0f} million") from error
    except Image.UnidentifiedImageError as error:
        raise UnreadablePicture(path, _why_unknown(path)) from error
    except DECODER_ERRORS as error:
        raise UnreadablePicture(path, f"it is damaged ({error or type(error).__name__})") from error


@lru_cache(maxsize=1)
def _register_heif() -> None:
    """Let Pillow read HEIC, the format of phones, where the package for it is installed."""
    if importlib.util.find_spec("pillow_heif"):
        importlib.import_module("pillow_heif").register_heif_opener()


def _why_unknown(path: Path) -> str:
    if path.suffix.lower() in (".heic", ".heif"):
        return 'it is a HEIC file, which needs a package: run "pip install pillow-heif" and start again'
    if path.suffix.lower() == ".avif" and not features.check("avif"):
        return 'it is an AVIF file, which this Pillow cannot read: run "pip install -U pillow" and start again'
    return "it is not a picture of a known format"


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except DECODER_ERRORS:
        # Damaged EXIF says nothing about the pixels; every viewer shows such a picture as stored.
        return 1


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if _orientation(image) in (5, 6, 7, 8) else (width, height)


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    method = _UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)
