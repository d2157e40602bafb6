"""Colour profiles made by hand, as ICC.1:2001-04 lays them out: of displays, of grey, and of a printer."""

from __future__ import annotations

import struct

import numpy as np

D50 = (0.9642, 1.0, 0.8249)
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
DISPLAY_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
SRGB = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
D65 = (0.3127, 0.3290)


def to_d50(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """The matrix from linear RGB with these xy primaries and white D65 to XYZ of white D50 (Bradford)."""
    def xyz(x: float, y: float) -> np.ndarray:
        return np.array([x / y, 1, (1 - x - y) / y])

    columns = np.stack([xyz(*place) for place in primaries], 1)
    white = xyz(*D65)
    matrix = columns * np.linalg.solve(columns, white)
    cones = np.diag((BRADFORD @ np.array(D50)) / (BRADFORD @ white))
    return np.linalg.inv(BRADFORD) @ cones @ BRADFORD @ matrix


def rgb_profile(primaries: tuple[tuple[float, float], ...], gamma: float = 2.2) -> bytes:
    """A display profile."""
    matrix = to_d50(primaries)
    curve = _curve(gamma)
    return _profile(b"mntr", b"RGB ", b"XYZ ", {
        b"rXYZ": _xyz(matrix[:, 0]), b"gXYZ": _xyz(matrix[:, 1]), b"bXYZ": _xyz(matrix[:, 2]), b"rTRC": curve,
        b"gTRC": curve, b"bTRC": curve})


def grey_profile(gamma: float) -> bytes:
    """A display without colours."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _curve(gamma)})


def cmyk_profile(cyan: int) -> bytes:
    """A printer whose cyan is a grey of lightness `cyan` of 255 (CIE L*), whatever inks are beside it but black, which
    is black; the others leave the paper white."""
    ramp = bytes(range(256))
    # Cyan is the first ink and changes last, black the other way round.
    table = b"".join(bytes((0 if ink & 1 else cyan if ink & 8 else 255, 128, 128)) for ink in range(2**4))
    matrix = struct.pack(">9i", *(65536 if n % 4 == 0 else 0 for n in range(9)))
    return _profile(b"prtr", b"CMYK", b"Lab ", {
        b"A2B0": b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + matrix + ramp * 4 + table + ramp * 3})


def _curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def _xyz(values: tuple[float, ...] | np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)


def _profile(kind: bytes, space: bytes, meeting: bytes, own: dict[bytes, bytes]) -> bytes:
    """A profile from `space` to the space `meeting`, in which profiles meet."""
    name = b"made by hand\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(78)
    tags = {b"desc": description, b"cprt": b"text\0\0\0\0none\0", b"wtpt": _xyz(D50), **own}
    place, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for tag, content in tags.items():
        content += bytes(-len(content) % 4)
        table += tag + struct.pack(">II", place + len(body), len(content))
        body += content
    size = place + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"test", 0x02100000, kind, space, meeting)
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + _xyz(D50)[8:]
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + body


def expected_srgb(levels: np.ndarray, primaries: tuple[tuple[float, float], ...], gamma: float = 2.2) -> np.ndarray:
    """What `levels` (0..255, [..., 3]) of such a profile are in sRGB, by its equations (IEC 61966-2-1)."""
    linear = (levels / 255) ** gamma @ np.linalg.solve(to_d50(SRGB), to_d50(primaries)).T
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
