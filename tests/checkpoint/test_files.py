"""Weight files from strangers: what is read, what is refused, and that the reference implementation agrees."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from atelier.checkpoint import header as header_module
from atelier.checkpoint import write as write_module
from atelier.checkpoint.entry import Entry
from atelier.checkpoint.folder import component_entries
from atelier.checkpoint.header import read_header
from atelier.checkpoint.source import open_file
from atelier.checkpoint.write import Output, write_safetensors, write_tensors
from atelier.errors import AtelierError


def file_with(path: Path, header: Any, data: bytes = b"\0" * 8, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(dtype: str = "F32", shape: Any = (2,), begin: int = 0, end: int = 8) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


HOSTILE = {
    "empty file": b"",
    "too short": b"abc",
    "a web page": b"<!DOCTYPE html><html><body>404</body></html>",
    "a git pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
    "a pickle": b"PK\x03\x04" + b"\0" * 60,
    "a header longer than the file": struct.pack("<Q", 1 << 40) + b"{}",
    "a header as long as memory": struct.pack("<Q", (1 << 64) - 1) + b"{}",
    "no object": struct.pack("<Q", 2) + b"[]",
    "no text": struct.pack("<Q", 4) + b"\xff\xfe\xfd\xfc",
    "endless nesting": struct.pack("<Q", 200_000) + b"[" * 200_000,
    "an endless number": struct.pack("<Q", 10_005) + b'{"a":' + b"9" * 9_999 + b"}",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_safetensors_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(AtelierError, match=r"m\.safetensors"):
        read_header(tmp_path / "m.safetensors")


CONTRADICTIONS = {
    "shape and range disagree": {"a": entry(shape=(3,))},
    "overlap": {"a": entry(), "b": entry(begin=4, end=12)},
    "hole": {"a": entry(end=8), "b": entry(begin=12, end=20)},
    "hole at the start": {"a": entry(begin=4, end=12)},
    "beyond the end": {"a": entry(shape=(4,), end=16)},
    "bytes left over": {"a": entry(shape=(1,), end=4)},
    "half a character in a name": {"\ud83d": entry()},
    "half a character in the metadata": {"__metadata__": {"comment": "x \ud83d"}, "a": entry()},
    "backwards": {"a": entry(begin=8, end=0)},
    "negative": {"a": entry(begin=-8, end=0)},
    "negative shape": {"a": entry(shape=(-1, -2))},
    "huge shape": {"a": entry(shape=(1 << 62, 1 << 62))},
    "a product that cannot be printed": {"a": entry(shape=(1 << 62,) * 60)},
    "more dimensions than torch has": {"a": entry(shape=(1 << 62,) * 500)},
    "shape of fractions": {"a": entry(shape=(2.0,))},
    "shape of truths": {"a": entry(dtype="U8", shape=(True, 8))},
    "unknown dtype": {"a": entry(dtype="F7")},
    "dtype that is no text": {"a": entry(dtype=["F32"])},  # type: ignore[arg-type]
    "entry that is no object": {"a": 5},
    "three offsets": {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4, 8]}},
    "metadata that is no text": {"__metadata__": {"a": 1}, "a": entry()},
}


def test_the_smallest_file_there_is_holds_nothing(tmp_path: Path) -> None:
    path = file_with(tmp_path / "m.safetensors", {}, data=b"")
    with safe_open(str(path), "pt") as file:
        assert list(file.keys()) == []
    assert not read_header(path).tensors


@pytest.mark.parametrize("header", CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_headers_that_contradict_themselves(header: dict[str, Any], tmp_path: Path) -> None:
    path = file_with(tmp_path / "m.safetensors", header)
    with pytest.raises(AtelierError, match=r"m\.safetensors"):
        read_header(path)


def test_a_name_that_appears_twice(tmp_path: Path) -> None:
    one = json.dumps(entry())
    path = file_with(tmp_path / "m.safetensors", f'{{"a":{one},"a":{one}}}'.encode())
    with pytest.raises(AtelierError, match="twice"):
        read_header(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=300), st.integers(0, 200), st.integers(0, 255))
def test_damaged_bytes_are_read_right_or_refused(tmp_path: Path, tail: bytes, place: int, value: int) -> None:
    """Whatever is done to a good file, it is refused, or the reference implementation reads the same from it."""
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.arange(6.0).reshape(2, 3), "b": torch.arange(4, dtype=torch.int64)}, path)
    content = bytearray(path.read_bytes())
    content[min(place, len(content) - 1)] = value
    path.write_bytes(bytes(content) + tail[:place % 3])
    try:
        ours = {name: e.read() for name, e in open_file(path).entries.items()}
    except AtelierError:
        return
    theirs = load_file(path)
    assert ours.keys() == theirs.keys()
    # Bytes, because a changed byte may have made a NaN.
    assert all(ours[name].numpy().tobytes() == theirs[name].numpy().tobytes() for name in ours)


def test_written_files_are_read_by_the_reference_implementation(tmp_path: Path) -> None:
    """Mixed widths, an empty and a scalar tensor, joined parts; every tensor aligned to its own width."""
    source = {"long": torch.arange(5), "odd": torch.arange(3, dtype=torch.uint8), "empty": torch.zeros(0, 4),
              "scalar": torch.tensor(2.5), "half": torch.randn(3, 7).half(), "top": torch.randn(2, 3),
              "below": torch.randn(4, 3)}
    save_file(source, tmp_path / "in.safetensors")
    entries = open_file(tmp_path / "in.safetensors").entries
    outputs = [Output(name, e.dtype, e.shape, (e,)) for name, e in entries.items() if name not in ("top", "below")]
    outputs.append(Output("joined", "F32", (6, 3), (entries["top"], entries["below"])))
    outputs.append(Output("rows", "F32", (2, 3), (entries["below"].rows(1, 3),)))
    seen: list[int] = []
    size = write_safetensors(tmp_path / "out.safetensors", outputs, {"größe": "ä"}, seen.append)
    assert size == (tmp_path / "out.safetensors").stat().st_size and sum(seen) < size
    expected = {name: t for name, t in source.items() if name not in ("top", "below")}
    expected |= {"joined": torch.cat([source["top"], source["below"]]), "rows": source["below"][1:3]}
    found = load_file(tmp_path / "out.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert file.metadata() == {"größe": "ä"}
    for info in read_header(tmp_path / "out.safetensors").tensors.values():
        assert info.begin % max(1, (info.end - info.begin) // max(1, torch.Size(info.shape).numel())) == 0


def test_tensors_in_memory_are_written_as_the_reference_implementation_reads_them(tmp_path: Path) -> None:
    batch = torch.arange(24.0).reshape(2, 3, 4)
    tensors = {"byte": torch.arange(3, dtype=torch.uint8), "one": batch[0], "other": batch[1], "turned": batch[1].T,
               "half": batch.bfloat16(), "number": torch.tensor(5.0), "none": torch.zeros(0, 4), "flag": batch[0] > 4,
               "trained": torch.nn.Parameter(batch)}
    write_tensors(tmp_path / "m.safetensors", tensors, {"said": "ä"})
    read = load_file(tmp_path / "m.safetensors")
    assert read.keys() == tensors.keys()
    assert all(read[name].dtype == tensors[name].dtype and torch.equal(read[name], tensors[name]) for name in tensors)
    assert read_header(tmp_path / "m.safetensors").metadata == {"said": "ä"}
    write_tensors(tmp_path / "n.safetensors", {"a": batch}, {})
    assert torch.equal(load_file(tmp_path / "n.safetensors")["a"], batch)


def test_copying_without_the_kernels_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows and macOS, which have no `os.copy_file_range`, and between file systems, where it may fail."""
    save_file({"a": torch.randn(1 << 19), "b": torch.randn(5)}, tmp_path / "in.safetensors")
    expected = load_file(tmp_path / "in.safetensors")
    entries = open_file(tmp_path / "in.safetensors").entries

    def fails(*args: Any) -> int:
        raise OSError(18, "Invalid cross-device link")

    for number, replacement in enumerate((None, fails)):
        with monkeypatch.context() as patch:
            if replacement:
                patch.setattr("os.copy_file_range", replacement, raising=False)
            else:
                patch.delattr("os.copy_file_range", raising=False)
            path = tmp_path / f"{number}.safetensors"
            write_safetensors(path, [Output(n, e.dtype, e.shape, (e,)) for n, e in entries.items()], {}, lambda _: None)
        found = load_file(path)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_file_that_takes_less_than_it_is_given_is_written_whole(tmp_path: Path) -> None:
    """As a network drive may; a write that is not repeated leaves the file cut."""
    class Slow(io.FileIO):
        def write(self, data: Any, /) -> int:
            return super().write(memoryview(data)[:3])

    with Slow(tmp_path / "a", "w") as file:
        write_module._write(file, b"0123456789")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


class Evil:
    """What a hostile pickle does when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("evil-was-here"),)


@pytest.mark.parametrize("old_format", [False, True])
def test_a_pickle_with_code_is_refused_and_not_run(old_format: bool, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"a": torch.zeros(2)}, "callbacks": Evil()}, tmp_path / "m.ckpt",
               _use_new_zipfile_serialization=not old_format)
    with pytest.raises(AtelierError, match="run code"):
        open_file(tmp_path / "m.ckpt")
    assert not (tmp_path / "evil-was-here").exists()


@pytest.mark.parametrize("old_format", [False, True])
def test_pickles_of_trainers(old_format: bool, tmp_path: Path) -> None:
    """Nested weights, leftovers of the optimiser, and tensors that are views."""
    weight = torch.randn(4, 6)
    state = {"state_dict": {"w": weight, "t": weight.t()[1:], "n": torch.tensor(3)}, "global_step": 5,
             "optimizer_states": [{"state": {0: {"exp_avg": weight}}}]}
    torch.save(state, tmp_path / "m.ckpt", _use_new_zipfile_serialization=not old_format)
    entries = open_file(tmp_path / "m.ckpt").entries
    assert entries.keys() == {"w", "t", "n"}
    assert torch.equal(entries["t"].read(), weight.t()[1:]) and torch.equal(entries["w"].rows(1, 3).read(), weight[1:3])


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
@pytest.mark.parametrize("number", [np.float64(1.5), np.float32(1.5), np.int64(3)], ids=lambda number: number.dtype)
def test_pickles_with_numbers_of_either_numpy(number: np.generic, module: str, tmp_path: Path) -> None:
    """Old trainers left numpy's numbers in checkpoints, and numpy has moved since."""
    torch.save({"state_dict": {"w": torch.ones(2)}, "best": number}, tmp_path / "new.ckpt")
    with zipfile.ZipFile(tmp_path / "new.ckpt") as new, zipfile.ZipFile(tmp_path / "m.ckpt", "w") as old:
        for name in new.namelist():
            data = new.read(name)
            if name.endswith("data.pkl"):
                assert b".multiarray\nscalar" in data
                data = re.sub(rb"cnumpy\._?core\.multiarray\n", f"c{module}\n".encode(), data)
            old.writestr(name, data)
    assert open_file(tmp_path / "m.ckpt").entries.keys() == {"w"}


@pytest.mark.parametrize("tensor", [torch.zeros(2, dtype=torch.complex64), torch.zeros(2).to(torch.float8_e4m3fnuz),
                                    torch.eye(2).to_sparse(), torch.empty(2, device="meta")], ids=str)
def test_tensors_that_no_model_has(tensor: torch.Tensor, tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.ones(2), "odd": tensor}}, tmp_path / "m.ckpt")
    with pytest.raises(AtelierError, match=r"'odd'.*not supported"):
        open_file(tmp_path / "m.ckpt")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x80\x04junk", b"text"])
def test_damaged_pickles(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.ckpt").write_bytes(content)
    with pytest.raises(AtelierError, match=r"m\.ckpt"):
        open_file(tmp_path / "m.ckpt")


def test_shards_may_not_lie_elsewhere_nor_be_missing(tmp_path: Path) -> None:
    folder = tmp_path / "unet"
    folder.mkdir()
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    save_file({"a": torch.zeros(2)}, tmp_path / "outside.safetensors")
    for places, message in (({"a": "../outside.safetensors"}, "outside its folder"),
                            ({"a": "x.safetensors"}, "missing"), ({}, "no shards"), ({"a": 3}, "names 3 as the file"),
                            ({"a": ["x"]}, "as the file of 'a'"), ({"a": "x" * 999}, "as the file of 'a'"),
                            ("x.safetensors", "no shards")):
        index.write_text(json.dumps({"weight_map": places}))
        with pytest.raises(AtelierError, match=message):
            component_entries(folder)
    index.write_text("[" * 50_000 + "]" * 50_000)
    with pytest.raises(AtelierError, match="nested"):
        component_entries(folder)
    save_file({"b": torch.zeros(2)}, folder / "x.safetensors")
    index.write_text(json.dumps({"weight_map": {"a": "x.safetensors"}}))
    with pytest.raises(AtelierError, match="no shard holds"):
        component_entries(folder)


def test_the_reference_implementation_refuses_the_same_contradictions(tmp_path: Path) -> None:
    """Our list of contradictions is not invented."""
    accepted = []
    for name, header in CONTRADICTIONS.items():
        path = file_with(tmp_path / "m.safetensors", header)
        try:
            with safe_open(path, "pt"):
                accepted.append(name)
        except (SafetensorError, OverflowError):
            pass
    assert accepted == []


def test_an_entry_made_by_a_function() -> None:
    made = Entry("F32", (4, 2), lambda: torch.arange(8.0).reshape(4, 2))
    assert torch.equal(made.rows(1, 3).read(), torch.arange(8.0).reshape(4, 2)[1:3])
    assert bytes(made.read_bytes()) == torch.arange(8.0).numpy().tobytes()


@pytest.mark.parametrize("how", ["read", "copied by the kernel", "copied without it"])
def test_a_file_that_shrinks_after_its_header_was_read_is_named(how: str, tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is still being downloaded or copied over; waiting for its missing bytes would never end."""
    source = tmp_path / "in.safetensors"
    save_file({"a": torch.zeros(1000)}, source)
    stored = open_file(source).entries["a"]
    os.truncate(source, source.stat().st_size - 100)
    if how == "copied without it":
        monkeypatch.delattr("os.copy_file_range", raising=False)
    with pytest.raises(AtelierError, match=r"in\.safetensors became shorter while it was read\. Run again"):
        if how == "read":
            stored.read()
        else:
            output = Output("a", "F32", (1000,), (stored,))
            write_safetensors(tmp_path / "out.safetensors", [output], {}, lambda _: None)


def test_no_more_tensors_are_taken_from_a_file_than_any_model_has(tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.safetensors"
    save_file({name: torch.zeros(2) for name in "abc"}, path, metadata={"not": "counted"})
    monkeypatch.setattr(header_module, "MOST_TENSORS", 3)
    assert set(read_header(path).tensors) == {"a", "b", "c"}
    monkeypatch.setattr(header_module, "MOST_TENSORS", 2)
    with pytest.raises(AtelierError, match=r"m\.safetensors has a damaged header: it lists 3 tensors, more than 2\."):
        read_header(path)


@pytest.mark.parametrize("state", [{}, {"state_dict": {}}, {"state_dict": {"step": 5}}, [torch.ones(2)], 5], ids=str)
def test_a_pickle_without_named_tensors_holds_no_weights(state: object, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "m.ckpt")
    with pytest.raises(AtelierError, match=r"m\.ckpt holds no weights\."):
        open_file(tmp_path / "m.ckpt")


@pytest.mark.parametrize("kind", ["absent", "folder"])
def test_a_pickle_that_is_not_there_is_no_damaged_one(kind: str, tmp_path: Path) -> None:
    if kind == "folder":
        (tmp_path / "m.ckpt").mkdir()
    with pytest.raises(AtelierError, match=r"m\.ckpt cannot be read: no such file"):
        open_file(tmp_path / "m.ckpt")
