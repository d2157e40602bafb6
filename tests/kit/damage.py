"""Damage for files of every kind: random changes that keep enough of a file for its readers to go on.

Each function takes a source of random numbers and a file's bytes, and returns others.
"""

from __future__ import annotations

import json
import random
import struct
import zlib
from typing import Any

from atelier.pictures.png import SIGNATURE


def damage_bytes(rng: random.Random, data: bytes) -> bytes:
    """Change, remove, insert or repeat some bytes, mostly near the beginning, where the structure is."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        end = len(content) if rng.random() < 0.3 else min(len(content), 400)
        at, length = rng.randrange(end + 1), rng.choice((1, 1, 4, 60))
        what = rng.randrange(6)
        if what == 0:
            content[at:at + 1] = bytes([rng.randrange(256)])
        elif what == 1:
            del content[at:at + length]
        elif what == 2:
            content[at:at] = rng.choice((b"\xff\xfe", b"\0", b'"', b"[" * 5000, b"{", b"\xed\xa0\xbd", b"9" * 5000,
                                         b"}"))
        elif what == 3:
            content[at:at] = content[at:at + length] * rng.choice((1, 3, 500))
        elif what == 4:
            del content[at:]
        else:
            content[at:at + length] = rng.randbytes(length)
    return bytes(content)


def hostile_value(rng: random.Random) -> Any:
    """A JSON value that no field expects; those that JSON's writer refuses are marked as `_raw`."""
    return rng.choice((
        None, True, False, -1, 0, 1, 2, 3, 1.5, 10**9, 10**18, 2**63, 2**64, -10**9, "", "x", "None", "\0", "\ud83d",
        "../x", "x" * 100_000, [], {}, [[]], [None], ["x"], [1, 2, 3, 4], [10**9] * 4, {"a": 1}, {"content": 5},
        [1] * 3000,
        _raw("9" * 5000), _raw("9" * 30), _raw("1e999"), _raw("-1e999"), _raw("NaN"), _raw("1e-999"),
        _raw("[" * 500 + "]" * 500), _raw("[" * 50_000 + "]" * 50_000), _raw('{"a":' * 5000 + "1" + "}" * 5000),
        "FooBlock2D", "CrossAttnUpBlock2D", "(a+)+$", "((a*)*)*b", "a{1,999999999}", "(" * 90 + ")" * 90))


def _raw(text: str) -> str:
    return f"\ue000{text}\ue000"


def dumps(value: Any) -> str:
    """JSON with what `_raw` marked put in as it is."""
    return json.dumps(value).replace('"\\ue000', "").replace('\\ue000"', "")


def change_json(rng: random.Random, value: Any) -> Any:
    """The same value with one or two of its parts changed, removed, renamed or repeated."""
    for _ in range(rng.choice((1, 1, 1, 2))):
        places: list[tuple[Any, Any]] = []
        waiting = [value]
        while waiting:
            held = waiting.pop()
            if isinstance(held, dict | list):
                keys = list(held) if isinstance(held, dict) else list(range(len(held)))
                places += [(held, key) for key in keys]
                waiting += [held[key] for key in keys]
        if not places or rng.random() < 0.03:
            return hostile_value(rng)
        held, key = rng.choice(places)
        what = rng.random()
        if what < 0.7:
            held[key] = hostile_value(rng)
        elif what < 0.8:
            del held[key]
        elif isinstance(held, dict):
            name = rng.choice(("", "x", "\0", "\ud83d", "a" * 300, "9" * 5000, str(key) + "_", "(a|a)*b", "(a+)+$"))
            held[name] = held.pop(key)
        else:
            held[key:key] = [held[key]] * rng.choice((1, 2000))
    return value


def damage_json(rng: random.Random, data: bytes) -> bytes:
    """Change values of a JSON file."""
    return dumps(change_json(rng, json.loads(data))).encode()


def damage_header(rng: random.Random, data: bytes) -> bytes:
    """Change values in the header of a safetensors file, whose length stays right."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = dumps(change_json(rng, json.loads(data[8:end]))).encode()
    return len(header).to_bytes(8, "little") + header + data[end:]


def damage_names(rng: random.Random, data: bytes) -> bytes:
    """Change shapes and names in the header of a safetensors file so that the bytes still fit."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    names = [name for name in header if name != "__metadata__"]
    for name in rng.sample(names, min(len(names), rng.choice((1, 1, 3)))):
        entry = header.pop(name)
        if rng.random() < 0.5:
            shape, count = entry["shape"], 1
            for side in shape:
                count *= side
            entry["shape"] = rng.choice(([count], [1, count], [count, 1, 1, 1], [*shape, 1], shape[::-1],
                                         [1] * 60 + [count], [1, 1, 1, 1, count]))
        else:
            digits = "".join("9" * rng.choice((1, 9, 30, 5000)) if c.isdigit() else c for c in name)
            name = rng.choice((digits, name + ".weight", name.rpartition(".")[0], "x" + name, name[:-1], "", "\ud83d"))
        header[name] = entry
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[end:]


def damage_lines(rng: random.Random, data: bytes) -> bytes:
    """Change lines of a text file: repeated, removed, exchanged, of another kind."""
    lines = data.decode().split("\n")
    at = rng.randrange(len(lines))
    what = rng.randrange(5)
    if what == 0:
        lines[at:at + 1] = [lines[at]] * rng.choice((2, 5000))
    elif what == 1:
        del lines[at]
    elif what == 2:
        lines[at] = rng.choice(("", " ", "a", "a b c", "\0", "x" * 100_000, "a " * 1000, "\u2028 a", "zzz qqq"))
    elif what == 3:
        lines[at] = lines[at][::-1]
    else:
        lines[at], lines[0] = lines[0], lines[at]
    return "\n".join(lines).encode(errors="surrogatepass")


def damage_toml(rng: random.Random, data: bytes) -> bytes:
    """Give a key another value, or add a line that asks for much."""
    lines = data.decode().split("\n")
    values = ("9" * 5000, "0x" + "f" * 5000, "0b" + "1" * 70, "1e999", "nan", "-1", "0", "1_000_000_000", "9" * 30,
              "true", '""', '"\\u0000"', "[]", "{}", "[" * 3000 + "]" * 3000, "[" * 300 + "]" * 300,
              "{a=" * 500 + "1" + "}" * 500, "2020-13-41", "1979-05-27", "'" + "x" * 5000 + "'", "[1, 2]", '["a"]',
              "{ a = 1 }", '"""' + '\\"""' * 3000,
              "[" + "[],", "inf", '"~nobody/x"', '"\\ud83d"', "1e5")
    at = rng.choice([place for place, line in enumerate(lines) if " = " in line])
    key = lines[at].split(" = ")[0]
    what = rng.random()
    if what < 0.7:
        lines[at] = f"{key} = {rng.choice(values)}"
    elif what < 0.8:
        lines[at] = ".".join([key] * rng.choice((2, 17, 20_000))) + " = 1"
    elif what < 0.9:
        lines.insert(at, rng.choice(("[" + ".".join("a" * 9000) + "]", "[data]", "[[lora]]", "a.b.c = 1\na.b = 2",
                                     "x" * 9000, "]", lines[at])))
    else:
        del lines[at]
    return "\n".join(lines).encode()


def damage_picture(rng: random.Random, data: bytes) -> bytes:
    """Change the texts of a PNG file, and give each chunk its right checksum."""
    found, place = [], len(SIGNATURE)
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        found.append((kind, data[place + 8:place + 8 + length]))
        place += 12 + length
    at = rng.choice([n for n, (kind, _) in enumerate(found) if kind in (b"tEXt", b"iTXt", b"zTXt")])
    kind, body = found[at]
    keyword, _, content = body.partition(b"\0")
    if content[:1] == b"{" and rng.random() < 0.8:
        links = {"a": {"class_type": "X", "inputs": {f"i{n}": ["a", 0] for n in range(200_000)}}}
        graph = change_json(rng, json.loads(content))
        if rng.random() < 0.1 and isinstance(graph, dict):
            graph |= links
        content = dumps(graph).encode()
    else:
        content = rng.choice((damage_bytes(rng, content), content + b", a: {" * 100_000, b"Steps: " * 200_000,
                              b"<lora:" * 100_000, b"\n" * 300_000 + content))
    found[at] = rng.choice((kind, kind, b"zTXt", b"iTXt")), keyword + b"\0" + content
    return SIGNATURE + b"".join(struct.pack(">I", len(body)) + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
                                for kind, body in found)


def damage_dtypes(rng: random.Random, data: bytes) -> bytes:
    """Say that a tensor's bytes are numbers of another type, with a shape that fits them."""
    sizes = {"F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1, "F16": 2, "BF16": 2, "I16": 2, "I32": 4,
             "F64": 8, "F8_E8M0": 1, "C64": 8, "U64": 8}
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    entry = header[rng.choice([name for name in header if name != "__metadata__"])]
    dtype = rng.choice(list(sizes))
    begin, stop = entry["data_offsets"]
    rows = entry["shape"][0] if entry["shape"] else 1
    entry["dtype"], entry["shape"] = dtype, [rows, (stop - begin) // rows // sizes[dtype]]
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[end:]
