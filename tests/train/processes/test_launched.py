"""The shell's training as accelerate and torchrun launch it, on what stands for one machine and for two."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kit import dying_shell
from kit.checkpoints import write_sd1
from kit.clip_models import clip_config, random_clip, save_clip
from kit.joint_loop import ENDS, free_port
from kit.pictures import write_pictures
from kit.shell import shell
from PIL import Image
from safetensors.torch import load_file

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills processes by a POSIX signal")

ROOT = Path(__file__).resolve().parent.parent.parent.parent
PICTURES, PRIOR = 6, 2


def write_machine(folder: Path, model: Path, clip: Path, batch_size: int) -> Path:
    """A folder as one machine has it; its configuration file."""
    folder.mkdir()
    write_pictures(folder / "pictures", [(64 + 8 * index, 64) for index in range(PICTURES)])
    config = folder / "train.toml"
    config.write_text(f"""
        name = "fox"
        model = {json.dumps(str(model))}
        steps = 6
        data = {{ folder = "pictures", resolution = {{ size = 64 }} }}
        prior = {{ count = {PRIOR}, prompt = "a dog", steps = 1 }}
        lora = {{ rank = 4 }}
        [options]
        batch_size = {batch_size}
        learning_rate = 1e-3
        precision = "fp32"
        validate_every = 2
        sample_prompt = "a fox\\na dog"
        sample_steps = 2
        sample_every = 3
        score_model = {json.dumps(str(clip))}
    """, encoding="utf-8")
    return config


def start(*command: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", *map(str, command)], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, encoding="utf-8", env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_a_run_of_two_processes_of_which_one_is_killed_goes_on_in_three_on_two_machines(
        capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = write_sd1(tmp_path / "tiny.safetensors", "tiny")
    clip = save_clip(tmp_path / "clip", random_clip(clip_config()))
    config = write_machine(tmp_path / "machine", model, clip, 2)

    launched = start("accelerate.commands.launch", "--multi_gpu", "--num_processes", 2, "--num_machines", 1,
                     "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", free_port(),
                     dying_shell.__file__, 1, 3, "train", config, "--device", "cpu")
    _, said = launched.communicate(timeout=ENDS)
    assert launched.returncode != 0
    assert "Another process of this training has ended" in said
    state = next((tmp_path / "machine" / "runs").rglob("state.safetensors"))
    assert (tmp_path / "machine" / "loras" / "fox-partial.safetensors").exists()
    packs = list((tmp_path / "machine" / "cache" / "latents").rglob("*.safetensors"))
    assert sum(len({name.partition("/")[0] for name in load_file(pack)}) for pack in packs) == PICTURES + PRIOR
    drawn = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "machine" / "cache" / "prior").iterdir()}
    assert len(drawn) == PRIOR

    second = write_machine(tmp_path / "second machine", model, clip, 2)
    port = free_port()
    agents = [start("torch.distributed.run", "--nnodes", 2, "--node_rank", node, "--nproc_per_node", node + 1,
                    "--master_addr", "127.0.0.1", "--master_port", port, "-m", "atelier", "train", file, "--device",
                    "cpu", "--json", "--tracker", "jsonl") for node, file in enumerate((config, second))]
    (out, said), (silent, other) = (agent.communicate(timeout=ENDS) for agent in agents)
    assert [agent.returncode for agent in agents] == [0, 0], said + other
    assert "in the batches of the 2 processes that began it" in said
    assert "Training resumes at step" in said
    result = json.loads(out)
    assert result["status"] == "complete" and not silent, "the first process of all reports, alone"
    assert sorted(path.name for path in second.parent.iterdir()) == ["cache", "pictures", "train.toml"]
    again = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "machine" / "cache" / "prior").iterdir()}
    assert again == drawn, "drawn once"
    assert {path.name for path in (second.parent / "cache" / "prior").iterdir()} == set(drawn), "each machine has them"
    log = [json.loads(line) for line in (tmp_path / "machine" / "logs" / "fox.jsonl").read_text("utf-8").splitlines()]
    assert [row["step"] for row in log if "step" in row and "loss" in row] == [1, 2, 3, 4, 5, 6], (
        "a resumed run tells what was before, too")
    drawn = sorted(state.parent.glob("samples-*/*.png"))
    assert len(drawn) == 6, "the base model's two, and two after 3 steps and 6"
    (scores,) = state.parent.glob("samples-*/scores.json")
    joint = json.loads(scores.read_text(encoding="utf-8"))
    assert joint.keys() == {"0", "3"}, "the last is of the best weights"

    whole = write_machine(tmp_path / "alone", model, clip, 4)
    # As drawn: another number of threads may round a pixel to another value, which makes it another training set.
    shutil.copytree(tmp_path / "machine" / "cache" / "prior", tmp_path / "alone" / "cache" / "prior")
    code, out, said = shell(capsys, "train", whole, "--device", "cpu", "--json")
    assert code == 0, said
    alone = json.loads(out)
    assert Path(alone["run"]).name == state.parent.name
    alone_scores = json.loads(next(Path(alone["run"]).glob("samples-*/scores.json")).read_text(encoding="utf-8"))
    for picture, other in zip(drawn, sorted(Path(alone["run"]).glob("samples-*/*.png")), strict=True):
        assert picture.name == other.name
        assert np.abs(np.asarray(Image.open(picture)).astype(int) - np.asarray(Image.open(other))).max() <= 2
    for step, score in joint.items():
        assert score == pytest.approx(alone_scores[step], abs=1e-3), step
    assert result["history"]["losses"] == pytest.approx(alone["history"]["losses"], abs=1e-5)
    assert [loss for _, loss in result["history"]["validation"]] == pytest.approx(
        [loss for _, loss in alone["history"]["validation"]], abs=1e-5)
    one, several = load_file(alone["lora"]), load_file(result["lora"])
    assert one.keys() == several.keys()
    assert max((one[key] - several[key]).abs().max().item() for key in one) < 2e-4, "a fifth of one step"
