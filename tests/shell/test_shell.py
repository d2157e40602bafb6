"""The command line: exit codes, results, and Ctrl-C."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from kit.checkpoints import write_sd1
from kit.loras import layers, random_lora, tiny_models
from kit.pictures import write_pictures
from kit.shell import shell
from PIL import Image
from safetensors.torch import load_file

from atelier.lora.file import save_lora
from atelier.shell.main import main
from atelier.shell.train_file import read_train_file

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sd1(tmp_path_factory.mktemp("möd els") / "tiny model.safetensors", "tiny")


@pytest.fixture
def config(tmp_path: Path, checkpoint: Path) -> Path:
    write_pictures(tmp_path / "my pictures", [(64, 64), (80, 64), (64, 90)])
    path = tmp_path / "train.toml"
    path.write_text(f"""
        name = "fox"
        model = {json.dumps(str(checkpoint))}
        steps = 3
        [data]
        folder = "my pictures"
        resolution = {{ size = 64 }}
        [lora]
        rank = 4
        [options]
        monitor = "off"
        patience = 0
    """, encoding="utf-8")
    return path


@pytest.mark.parametrize("arguments", [(), ("paint",), ("inspect",), ("convert", "a", "b", "--precision", "fp7")])
def test_wrong_use_is_two(capsys, arguments: tuple[str, ...]) -> None:
    code, out, err = shell(capsys, *arguments)
    assert (code, out) == (2, "")
    assert "usage: atelier" in err


@pytest.mark.parametrize("verb", [
    "inspect", "convert", "lora-convert", "lora-resize", "lora-merge", "lora-extract", "train", "generate",
    "score", "grid", "demo", "demo-model",
])
def test_each_verb_has_help(capsys, verb: str) -> None:
    code, out, _ = shell(capsys, verb, "--help")
    assert code == 0
    assert f"atelier {verb}" in out


def test_the_version_and_the_verbs_are_shown(capsys) -> None:
    from atelier import __version__

    assert shell(capsys, "--version") == (0, f"atelier {__version__}\n", "")
    code, out, err = shell(capsys)
    assert (code, out) == (2, "")
    assert "train a LoRA as a TOML file says" in err and "lora-convert" in err


def test_the_configuration_in_the_help_of_train_can_be_copied(capsys, checkpoint: Path, tmp_path: Path) -> None:
    """With every option that is listed switched on at its default, too."""
    _, help_, _ = shell(capsys, "train", "--help")
    text = help_[help_.index("# A configuration file"):]
    write_pictures(tmp_path / "pictures", [(64, 64)], captions=False)
    path = tmp_path / "train.toml"
    for old, new in (('"sd15.safetensors"', json.dumps(str(checkpoint))), ("size = 512", "size = 64"),
                     ("steps = 800", "steps = 1"), ("sample_prompt =", "# sample_prompt =")):
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    code, out, err = shell(capsys, "train", path, "--device", "cpu", "--json")
    assert code == 0, err
    assert json.loads(out)["step"] == 1
    listed = text[text.index("# In [options]:"):].replace("# ", "").splitlines()[1:]
    names = {line.split(" = ")[0] for line in listed if " = " in line}
    assert {"learning_rate", "noise_offset", "sample_every", "patience", "precision", "save_every"} <= names
    table = "\n".join(["name = 'x'", "model = 'm'", "steps = 1", "[data]", "folder = '.'", "[options]", *listed])
    (tmp_path / "all.toml").write_text(table, encoding="utf-8")
    read_train_file(tmp_path / "all.toml")


def test_a_failure_is_one_and_one_line(capsys, tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("hello")
    code, out, err = shell(capsys, "inspect", tmp_path / "text.safetensors")
    assert (code, out) == (1, "")
    assert err.startswith("atelier: ")
    assert "text.safetensors" in err
    assert err.count("\n") == 1


def test_a_system_error_is_one_line(capsys, tmp_path: Path, checkpoint: Path) -> None:
    picture = write_pictures(tmp_path / "pictures", [(32, 32)]) / "p0.png"
    long = "a" * 300
    for arguments in [("inspect", picture / "x"), ("inspect", tmp_path / f"{long}.safetensors"),
                      ("convert", checkpoint, tmp_path / long), ("convert", checkpoint, checkpoint / "folder"),
                      ("convert", checkpoint, picture / "x.safetensors"), ("convert", tmp_path / long, tmp_path / "f"),
                      ("grid", picture, "--block", 1, "--out", picture / "x.png"), ("grid", tmp_path / long)]:
        code, out, err = shell(capsys, *arguments)
        assert (code, out) == (1, ""), arguments
        last = err.splitlines()[-1]
        assert last.startswith("atelier: ") and last.count("atelier: ") == 1 and "Traceback" not in err, arguments


def test_inspect_tells_family_and_advice(capsys, checkpoint: Path) -> None:
    code, out, _ = shell(capsys, "inspect", checkpoint)
    assert code == 0
    assert "Stable Diffusion 1.x" in out
    assert "sampler dpmpp_2m" in out
    values = json.loads(shell(capsys, "inspect", checkpoint, "--json")[1])
    assert (values["family"], values["dtype"], values["advice"]["cfg"]) == ("sd1", "float16", 7.0)


def test_convert_goes_both_ways_and_merges_a_lora(capsys, checkpoint: Path, config: Path, tmp_path: Path) -> None:
    code, out, _ = shell(capsys, "convert", checkpoint, tmp_path / "folder")
    assert code == 0, out
    assert (tmp_path / "folder" / "model_index.json").is_file()
    assert shell(capsys, "convert", tmp_path / "folder", tmp_path / "back.safetensors")[0] == 0
    there, back = load_file(checkpoint), load_file(tmp_path / "back.safetensors")
    assert all((back[name] == there[name]).all() for name in back)
    assert shell(capsys, "train", config)[0] == 0
    lora = tmp_path / "loras" / "fox.safetensors"
    assert shell(capsys, "convert", checkpoint, tmp_path / "merged.safetensors", "--lora", lora)[0] == 0
    merged = load_file(tmp_path / "merged.safetensors")
    changed = {name for name in merged if not (merged[name] == there[name]).all()}
    assert changed
    assert all(".attn" in name for name in changed)
    code, _, err = shell(capsys, "convert", checkpoint, tmp_path / "other", "--lora", lora)
    assert code == 1
    assert ".safetensors" in err


def test_train_and_generate(capsys, checkpoint: Path, config: Path, tmp_path: Path) -> None:
    code, out, err = shell(capsys, "train", config, "--json", "--device", "cpu")
    assert code == 0, err
    result = json.loads(out)
    assert (result["status"], result["step"], result["reused"]) == ("complete", 3, False)
    assert Path(result["lora"]) == tmp_path / "loras" / "fox.safetensors"
    assert json.loads(shell(capsys, "train", config, "--json")[1])["reused"]

    common = ("generate", checkpoint, "--prompt", "a fox / at night?", "--prompt", "a hen", "--seed", 7, "--steps", 2,
              "--width", 64, "--height", 72, "--json", "--out", tmp_path / "out")
    plain = json.loads(shell(capsys, *common)[1])
    assert [(row["prompt"], row["seed"]) for row in plain] == [("a fox / at night?", 7), ("a hen", 7)]
    pictures = [np.asarray(Image.open(row["file"])) for row in plain]
    assert all(picture.shape == (72, 64, 3) and picture.std() > 1 for picture in pictures)
    zero, tuned = (json.loads(shell(capsys, *common, "--lora", result["lora"], "--strength", strength)[1])
                   for strength in (0, 8))
    assert (np.asarray(Image.open(zero[0]["file"])) == pictures[0]).all()
    assert (np.asarray(Image.open(tuned[0]["file"])) != pictures[0]).any()
    assert len({row["file"] for row in plain + zero + tuned}) == 6, "nothing is overwritten"
    assert json.loads(Image.open(tuned[0]["file"]).info["atelier"])["lora"] == "fox.safetensors"


def test_a_configuration_among_the_pictures_trains_on_those_alone(capsys, config: Path) -> None:
    """Its run, cache and LoRA folders lie there too; a second run would learn the loss plot and train anew."""
    text = config.read_text(encoding="utf-8").replace('folder = "my pictures"', 'folder = "."')
    among = config.parent / "my pictures" / "train.toml"
    among.write_text(text, encoding="utf-8")
    results = []
    for _ in range(2):
        code, out, err = shell(capsys, "train", among, "--json")
        assert code == 0, err
        results.append(json.loads(out))
    assert [(result["pictures"], result["reused"]) for result in results] == [(3, False), (3, True)]


def test_running_out_of_memory_is_one_line(capsys, monkeypatch: pytest.MonkeyPatch, checkpoint: Path,
                                           tmp_path: Path) -> None:
    def forward(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr("diffusers.UNet2DConditionModel.forward", forward)
    code, out, err = shell(capsys, "generate", checkpoint, "--prompt", "a fox", "--out", tmp_path / "out")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("atelier: Memory ran out while drawing. Choose smaller pictures")


@pytest.mark.parametrize(("arguments", "said"), [
    (("--width", 100_000), "width is 100000"), (("--width", 60), "width is 60"),
    (("--steps", 1_000_000), "steps is 1000000"),
    (("--seed", 2**64), f"seed is {2**64}"), (("--cfg", "nan"), "cfg is nan"), (("--count", 0), "--count is 0"),
    (("--negative", "a\0b"), "null character"), (("--negative", "a\ud83d"), "half a character"),
    (("--device", "foo"), "no device 'foo'"), (("--device", ""), "no device ''"),
    (("--device", "meta"), "no device 'meta'"),
    (("--device", "cuda:99"), "no device 'cuda:99'"), (("--device", "cpu:x"), "no device 'cpu:x'"),
])
def test_a_value_that_cannot_be_is_refused_before_the_model_is_read(capsys, checkpoint: Path, tmp_path: Path, said: str,
                                                                    arguments: tuple[object, object]) -> None:
    code, out, err = shell(capsys, "generate", checkpoint, "--prompt", "a fox", *arguments, "--out", tmp_path / "out")
    assert (code, out) == (1, "")
    assert said in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_training_asks_for_the_device_first(capsys, config: Path) -> None:
    code, out, err = shell(capsys, "train", config, "--device", "cuda:99")
    assert (code, out) == (1, "")
    assert err.startswith("atelier: There is no device 'cuda:99'") and "cpu" in err


def test_a_lora_is_converted_between_formats(capsys, tmp_path: Path, config: Path) -> None:
    assert shell(capsys, "train", config)[0] == 0
    lora = tmp_path / "loras" / "fox.safetensors"
    diffusers, back = tmp_path / "diffusers.safetensors", tmp_path / "back.safetensors"
    code, out, err = shell(capsys, "lora-convert", lora, diffusers, "--to", "diffusers", "--json")
    assert code == 0, err
    assert (values := json.loads(out))["matched"] == values["total"] == len(load_file(lora))
    assert all(name.startswith("unet.") for name in load_file(diffusers))
    assert shell(capsys, "lora-convert", diffusers, back)[0] == 0
    assert load_file(back).keys() == load_file(lora).keys()


def test_loras_are_resized_merged_extracted_and_inspected(capsys, tmp_path: Path, checkpoint: Path) -> None:
    one, two = (save_lora(tmp_path / f"{seed}.safetensors", random_lora(
        layers("unet", tiny_models("sd1")["unet"]), seed=seed)) for seed in (0, 1))
    small, both = tmp_path / "small.safetensors", tmp_path / "both.safetensors"
    code, out, err = shell(capsys, "lora-resize", one, small, "--rank", 2, "--save-dtype", "fp16", "--json")
    assert code == 0 and json.loads(out)["ranks_after"] == "2", err
    assert small.stat().st_size < one.stat().st_size / 2
    code, out, err = shell(capsys, "lora-merge", one, two, small, both, "--strengths", "1", "0.5", "-0.5", "--rank", 5)
    assert code == 0 and "1 × 0.safetensors + 0.5 × 1.safetensors + -0.5 × small.safetensors" in out, err
    code, out, err = shell(capsys, "lora-merge", one, two, both, "--strengths", "1")
    assert code == 1 and "There are 1 strengths for 2 LoRAs" in err
    code, out, err = shell(capsys, "inspect", both, "--json")
    # No layer has a larger rank than outputs.
    assert code == 0 and {layer["rank"] for layer in json.loads(out)["layers"]} == {4, 5}, err
    assert "LoRA of rank 4 to 5" in shell(capsys, "inspect", both)[1]
    tuned = write_sd1(tmp_path / "tuned.safetensors", "tiny", seed=1)
    code, out, err = shell(capsys, "lora-extract", tuned, checkpoint, tmp_path / "found.safetensors", "--rank", 4,
                           "--no-text-encoders", "--json")
    assert code == 0 and list(json.loads(out)["layers"]) == ["unet"], err
    assert load_file(tmp_path / "found.safetensors")


def test_no_verb_writes_over_what_it_reads(capsys, checkpoint: Path, config: Path, tmp_path: Path) -> None:
    lora = save_lora(tmp_path / "a.safetensors", random_lora(
        layers("unet", tiny_models("sd1")["unet"])))
    (tmp_path / "sub").mkdir()
    link = tmp_path / "link.safetensors"
    link.symlink_to(lora)
    picture = tmp_path / "cat.png"
    Image.new("RGB", (8, 8)).save(picture)
    picture.with_suffix(".json").write_text("{}", encoding="utf-8")
    other = tmp_path / "cat.jpg"
    Image.new("RGB", (8, 8)).save(other)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    for arguments in (("lora-convert", lora, tmp_path / "sub" / ".." / "a.safetensors"),
                      ("lora-convert", lora, link),
                      ("lora-resize", lora, link, "--rank", 1),
                      ("lora-merge", lora, lora, link),
                      ("lora-extract", checkpoint, lora, link),
                      ("convert", checkpoint, lora, "--lora", lora),
                      ("convert", checkpoint, lora, "--lora", link),
                      ("convert", checkpoint, tmp_path / "sub" / ".." / "a.safetensors", "--lora", lora),
                      ("grid", picture, "--block", 1, "--out", picture),
                      ("grid", picture, "--block", 1, "--out", tmp_path / "sub" / ".." / "cat.png"),
                      ("score", picture, "--model", checkpoint, "--text", "a cat", "--csv", picture)):
        code, _, err = shell(capsys, *arguments)
        assert code == 1 and "overlaps with its source" in err, (arguments, err)
        assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(("line", "said"), [
    ('nmae = "x"', "nmae"), ('name = 3', "name"), ("[lora]\nrnak = 3", "rnak"), ("[lora]\nrank = 0", "rank"),
    ("[data]\nfolder = 'nowhere'", "nowhere"), ("steps = 5\nepochs = 2", "epochs and steps"), ("steps = ", "TOML"),
    ('model = "C:\\Users\\me"', "single quotes"), ("[data]\nfolder = \"x\\new\"", "single quotes"),
    ("data = 3", "data"), ("[place]\nlora = 'x'", "lora"), ("preset = 'fast'", "fast"),
    ("[data]\ntrigger = 'zwx'", "[data] lacks folder"), ("[data]\nfolder = ''", "folder in [data] is ''"),
    ("[data]\nfolder = '~nobody-of-this-name/x'", "folder in [data] is '~nobody-of-this-name/x', and this system"),
    ("prediction_type = \"a\\u0000b\"", "bad.toml cannot be used: "),
])
def test_a_wrong_configuration_is_named(capsys, tmp_path: Path, checkpoint: Path, line: str, said: str) -> None:
    head = "" if line.startswith("name") else "name = 'x'\n"
    middle = line if line[0] != "[" else ""
    tables = line if line[0] == "[" else ("" if line.startswith("data") else "[data]\nfolder = '.'")
    path = tmp_path / "bad.toml"
    path.write_text(f"{head}model = {json.dumps(str(checkpoint))}\n{middle}\n{tables}\n", encoding="utf-8")
    if "[lora]" in tables or "[place]" in tables:
        path.write_text(path.read_text(encoding="utf-8") + "[data]\nfolder = '.'\n", encoding="utf-8")
    code, out, err = shell(capsys, "train", path)
    assert (code, out) == (1, "")
    assert said in err


def test_a_reader_that_has_seen_enough_is_no_failure(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    """As in `atelier inspect … | head -1`: neither the verb nor Python's flush at the end complains."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as stream:
        monkeypatch.setattr("sys.stdout", stream)
        assert main(["inspect", str(checkpoint)]) == 0
        stream.write("what Python has kept\n")
        stream.flush()


def test_what_is_no_stream_of_pythons_own_is_written_to(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    """A host may put in one that cannot be set to UTF-8."""
    monkeypatch.setattr("sys.stdout", out := io.StringIO())
    assert main(["inspect", str(checkpoint)]) == 0
    assert "tiny model" in out.getvalue()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
def test_ctrl_c_keeps_the_work(config: Path, tmp_path: Path) -> None:
    whole = json.loads(subprocess.run(
        [sys.executable, "-m", "atelier", "train", str(config), "--json"], cwd=ROOT, check=True, capture_output=True,
        text=True, encoding="utf-8", timeout=300).stdout)
    for folder in ("runs", "loras"):
        (tmp_path / folder).rename(tmp_path / f"whole {folder}")
    long = config.read_text(encoding="utf-8").replace("steps = 3", "steps = 100000\nseed = 1")
    (tmp_path / "long.toml").write_text(long, encoding="utf-8")
    process = subprocess.Popen([sys.executable, "-m", "atelier", "train", str(tmp_path / "long.toml")], cwd=ROOT,
                               stderr=subprocess.PIPE, text=True, encoding="utf-8")
    assert process.stderr is not None
    said: list[str] = []
    guard = threading.Timer(300, process.kill)
    guard.start()
    for line in process.stderr:
        said.append(line)
        # The first plain line of progress comes after some steps.
        if line.startswith("training") and "step" in line:
            process.send_signal(signal.SIGINT)
            break
    said += process.stderr.readlines()
    guard.cancel()
    assert process.wait() == 1, "".join(said)
    assert "Interrupted" in said[-1]
    assert "Traceback" not in "".join(said)
    assert list((tmp_path / "runs").rglob("state.safetensors"))
    partial = load_file(tmp_path / "loras" / "fox-partial.safetensors")
    assert partial.keys() == load_file(tmp_path / "whole loras" / Path(whole["lora"]).name).keys()
    assert any(tensor.abs().sum() > 0 for name, tensor in partial.items() if "lora_up" in name)
