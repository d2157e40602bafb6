"""Rounds of sample pictures: prompts and seeds, scores against the base model's, and early stopping by them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from kit.clip_models import clip_config, letter_tokenizer, picture_cosines, random_clip, reference_processor, save_clip
from kit.device import chosen_device
from kit.training import WIDTH, denoiser
from kit.training_loop import QUIET, StopAt, loop_in, request, same
from kit.training_run import REQUEST, After
from PIL import Image
from transformers import CLIPModel

from atelier.dataset.types import TrainingSet
from atelier.errors import AtelierError
from atelier.generate import GenerateRequest, generate
from atelier.lora.file import read_metadata
from atelier.models.handle import DiffusersModel
from atelier.models.text import TextBatch
from atelier.progress import Interrupted, Progress
from atelier.sampling import SamplingOptions
from atelier.shell.train_file import read_train_file
from atelier.train import samples
from atelier.train.request.outputs import SampleConfig
from atelier.train.run_folder import RoundScore, RunFolder
from atelier.train.vae_tiles import decode_in_tiles, decoding_bytes

PROMPTS = "a fox\n\n  a bear \n"
OPTIONS = dict(sample_prompt=PROMPTS, sample_seeds="7, 8", sample_every=2, sample_steps=2, sample_cfg=2.0)


class Shown(Progress):
    """Notes scores by step and the sizes of shown pictures."""

    def __init__(self) -> None:
        self.scores: dict[int, tuple[float, float]] = {}
        self.sizes: list[tuple[int, int]] = []
        self.phases: list[tuple[str, int]] = []
        self.done: list[int] = []

    def phase(self, name: str, total: int) -> None:
        self.phases.append((name, total))

    def advance(self, done: int, text: str = "") -> None:
        if self.phases[-1][0] == "sampling":
            self.done.append(done)

    def measure(self, values: Mapping[str, float]) -> None:
        if "fidelity" in values:
            self.scores[int(values["step"])] = values["fidelity"], values["likeness"]

    def preview(self, image: Any) -> None:
        self.sizes.append(image.size)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip") / "tiny", random_clip(clip_config()))


def text_cosines(folder: Path, pictures: list[Image.Image], texts: list[str]) -> list[float]:
    """By transformers' own forward pass."""
    model = CLIPModel.from_pretrained(folder).eval()
    words = letter_tokenizer()(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        out = model(**words, pixel_values=reference_processor()(pictures, return_tensors="pt")["pixel_values"])
        return (torch.diag(out.logits_per_image) / model.logit_scale.exp()).tolist()


def test_each_prompt_is_drawn_with_each_seed(run) -> None:
    shown = Shown()
    report = run(request=REQUEST.override(OPTIONS), progress=shown)
    assert list(report.folder.drawn) == [2, 3] and len(report.folder.samples) == 8
    assert ("sampling", 8) in shown.phases and shown.done[:8] == list(range(1, 9))
    assert shown.sizes == [(4 * 64 + 12, 64)] * 2, "side by side"
    four = [np.asarray(Image.open(path)) for path in report.folder.drawn[3]]
    for number, (prompt, seed) in enumerate([("a fox", 7), ("a fox", 8), ("a bear", 7), ("a bear", 8)]):
        alone = run(request=REQUEST.override(dict(OPTIONS, sample_prompt=prompt, sample_seeds=str(seed))))
        assert np.array_equal(np.asarray(Image.open(alone.folder.samples[-1])), four[number]), (prompt, seed)


def test_samples_are_drawn_with_the_text_encoder_as_it_is_trained(run, model: DiffusersModel) -> None:
    options = dict(OPTIONS, sample_prompt="a fox", sample_seeds="7", sample_negative="", train_text_encoder=True,
                   text_learning_rate=0.1, precision="fp32")
    report = run(request=REQUEST.override(options))
    size = Image.open(report.folder.samples[-1]).size
    drawn, = generate(model, GenerateRequest(prompts=("a fox",), seeds=(7,), options=SamplingOptions(*size, 2, 2.0),
                                             lora=report.lora),
                      device=chosen_device(), dtype=torch.float32, progress=Progress())
    difference = np.abs(np.asarray(Image.open(report.folder.samples[-1])).astype(int) - np.asarray(drawn.image))
    assert difference.max() <= 1


@pytest.mark.parametrize(("seeds", "said"), [("1, x", "whole numbers"), ("1, 1", "twice"), ("-1", "from 0"),
                                             (",".join(map(str, range(33))), "64 pictures")])
def test_seeds_that_are_none_are_refused(seeds: str, said: str) -> None:
    with pytest.raises(AtelierError, match=rf"sample_seeds(.|\n)*{said}"):
        SampleConfig(sample_prompt=PROMPTS, sample_seeds=seeds)


def test_a_round_that_was_cut_short_is_no_round(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "x", 2)
    folder.sample_folder.mkdir()
    for step, number in ((2, 0), (2, 1), (4, 0)):
        Image.new("L", (8, 8)).save(folder.sample(step, number))
    assert folder.drawn == {2: [folder.sample(2), folder.sample(2, 1)]}


def test_scores_are_the_means_of_cosines_beside_the_base_models(run, clip: Path, pictures: TrainingSet) -> None:
    shown = Shown()
    wanted = REQUEST.override(dict(OPTIONS, score_model=str(clip), learning_rate=0.05))
    report = run(request=wanted, progress=shown)
    assert list(report.folder.drawn) == list(report.folder.scores) == [0, 2, 3]
    assert shown.scores == {step: (score.fidelity, score.likeness) for step, score in report.folder.scores.items()}
    own = [Image.open(sample.image).convert("RGB") for sample in pictures.samples]
    for step, score in report.folder.scores.items():
        four = [Image.open(path).convert("RGB") for path in report.folder.drawn[step]]
        by_text = text_cosines(clip, four, ["a fox", "a fox", "a bear", "a bear"])
        by_picture = [picture_cosines(clip, four, picture) for picture in own]
        assert score.fidelity == pytest.approx(np.mean(by_text), abs=1e-5)
        assert score.likeness == pytest.approx(np.mean(by_picture), abs=1e-5)
    base = run("base", REQUEST.override(dict(OPTIONS, learning_rate=1e-30, sample_every=1)))
    for one, other in zip(report.folder.drawn[0], base.folder.drawn[1], strict=True):
        assert np.array_equal(np.asarray(Image.open(one)), np.asarray(Image.open(other))), "the base model's"
    assert f"fidelity {report.folder.scores[3].fidelity:.4f} (base model {report.folder.scores[0].fidelity:.4f})" \
        in report.text()
    assert json.loads(read_metadata(report.lora)["atelier.config"])["samples"]["score_model"] == "tiny"
    again = Shown()
    assert run(request=wanted, progress=again).reused and again.scores == shown.scores and len(again.sizes) == 3


def test_scores_do_not_change_what_is_learnt(run, clip: Path) -> None:
    plain, scored = run("plain"), run("scored", REQUEST.override(dict(OPTIONS, score_model=str(clip), steps=3)))
    assert plain.folder.path == scored.folder.path and scored.reused, "the same run"
    assert list(scored.folder.scores) == [0, 3], "drawn from its state: the base model's, and the last"


def test_an_interrupted_run_keeps_its_control(run, clip: Path) -> None:
    wanted = REQUEST.override(dict(OPTIONS, score_model=str(clip)))
    with pytest.raises(Interrupted):
        run(request=wanted, progress=After(1))
    phases = After(0)
    report = run(request=wanted, progress=phases)
    assert list(report.folder.scores) == [0, 2, 3] and phases.phases.count("sampling") == 2


def test_a_damaged_file_of_scores_costs_the_scores_alone(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_score(4, RoundScore(0.1, 0.2))
    folder.write_score(2, RoundScore(0.3, 0.4))
    assert list(folder.scores) == [2, 4]
    folder.write_score(4, None)
    assert folder.scores == {2: RoundScore(0.3, 0.4)}
    for text in ("half", "[]", '{"2": 5}', '{"x": {"fidelity": 1, "likeness": 1}}'):
        (folder.sample_folder / "scores.json").write_text(text)
        assert folder.scores == {}


@pytest.mark.parametrize("options", [{"sample_prompt": "a fox"}, {"score_model": "x", "sample_prompt": " \n"}], ids=str)
def test_a_score_that_nobody_computes_is_no_monitor(run, options: dict[str, str]) -> None:
    with pytest.raises(AtelierError, match=r"monitor is 'fidelity', but (score_model is none|there is no sample)"):
        run(request=REQUEST.override(dict(options, monitor="fidelity")))


JUDGED = dict(QUIET, monitor="fidelity", validate_every=2, patience=2, sample_every=1)
SCORES = {2: 0.2, 4: 0.3, 6: 0.25, 8: 0.3, 10: 0.9}


def judged(folder: Path, steps: int, progress: Progress | None = None) -> tuple[Any, list[int]]:
    """A loop whose samples have known scores, and the steps at which they were drawn."""
    drawn: list[int] = []
    run = RunFolder(folder)

    def draw(step: int, weights: Any = None) -> RoundScore:
        drawn.append(step)
        run.sample(step).parent.mkdir(parents=True, exist_ok=True)
        run.sample(step).write_bytes(b"a picture")
        return RoundScore(SCORES.get(step, 0.0), 0.5)

    return loop_in(folder, request(dict(rank=4), JUDGED, steps=steps), progress, draw=draw), drawn


def test_early_stopping_judges_by_the_score(tmp_path: Path) -> None:
    """0.3 is the best at step 4; two rounds without a better one end it, before the 0.9 of step 10."""
    loop, drawn = judged(tmp_path / "judged", 20)
    result = loop.run()
    assert (result.status, drawn, result.state.step) == ("stopped early", [2, 4, 6, 8], 8)
    assert result.weights == loop.folder.best and result.state.early_stopping.best_step == 4
    until, _ = judged(tmp_path / "until", 4)
    until.run()
    assert same(loop.folder.best, until.folder.last)


def test_the_last_weights_are_judged_too(tmp_path: Path) -> None:
    loop, drawn = judged(tmp_path, 5)
    result = loop.run()
    assert (result.status, drawn) == ("complete", [2, 4, 5])
    assert [step for step, _ in result.state.history.judged] == [2, 4, 5] and result.weights == loop.folder.best
    assert [step for step, _ in loop.state.history.judged] == [2, 4], "a longer run goes on as if it had been so"


def test_last_weights_that_are_the_best_are_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCORES, 5, 0.9)
    loop, drawn = judged(tmp_path, 5)
    result = loop.run()
    assert drawn == [2, 4, 5] and result.weights == loop.folder.last


@pytest.mark.parametrize("at", [4, 6])
def test_an_interrupted_run_judges_as_the_whole(tmp_path: Path, at: int) -> None:
    whole, _ = judged(tmp_path / "whole", 12)
    whole.run()
    cut, _ = judged(tmp_path / "cut", 12, StopAt(interrupt=at))
    with pytest.raises(Interrupted):
        cut.run()
    resumed, _ = judged(tmp_path / "cut", 12)
    assert resumed.run().state == whole.state
    assert same(resumed.folder.best, whole.folder.best)


def test_a_round_that_was_drawn_and_not_judged_is_made_up_for(tmp_path: Path) -> None:
    """The kill came between the picture and what was judged by it."""
    whole, _ = judged(tmp_path / "whole", 12)
    whole.run()
    cut, _ = judged(tmp_path / "cut", 12)

    def killed(step: int, weights: Any = None) -> RoundScore:
        cut.folder.sample(step).parent.mkdir(parents=True, exist_ok=True)
        cut.folder.sample(step).write_bytes(b"a picture")
        raise Interrupted

    cut.draw = killed
    with pytest.raises(Interrupted):
        cut.run()
    resumed, drawn = judged(tmp_path / "cut", 12)
    assert resumed.run().state == whole.state and drawn[0] == 2


def test_the_score_model_of_a_training_file_lies_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "train.toml").write_text(
        'name = "x"\nmodel = "m.safetensors"\nsteps = 3\n[data]\nfolder = "p"\n[options]\nscore_model = "clips/tiny"\n')
    assert read_train_file(tmp_path / "train.toml").request.samples.score_model == str(tmp_path / "clips" / "tiny")


@pytest.mark.parametrize(("free", "tiled"), [(100_000, True), (None, False)])
def test_a_card_without_room_for_the_vae_has_the_picture_in_tiles(free: int | None, tiled: bool,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "free_memory", lambda device: free)
    vae = AutoencoderKL(block_out_channels=(8,) * 4, norm_num_groups=4, layers_per_block=1, latent_channels=4,
                        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4).eval()
    text = TextBatch(torch.zeros(1, 77, WIDTH), None)
    config = SampleConfig(sample_prompt="a", sample_steps=1)
    paint = samples.UNetPainter(denoiser(), config, ([text], text), lambda: vae)
    with torch.no_grad():
        picture = paint(samples.SamplePicture((24, 20), 0, 1), Progress(), lambda step: None)
    assert (vae.use_tiling, picture.size) == (tiled, (160, 192))


@pytest.mark.parametrize(("size", "room", "side"), [
    (64, None, 0), (64, 64, 0), (64, 63, 48), (64, 32, 32), (64, 31, 24), (64, 0, 16), (17, 0, 16), (16, 0, 0),
    ((16, 17), 0, 16), ((17, 16), 0, 16)])
def test_a_picture_is_decoded_in_the_largest_tiles_that_fit(size: Any, room: int | None, side: int) -> None:
    """`room` is for the latents of that side. A picture of one tile is decoded as it is."""
    height, width = size if isinstance(size, tuple) else (size, size)
    tiled: list[bool] = []
    vae: Any = SimpleNamespace(config={"block_out_channels": (32, 64, 64)}, dtype=torch.float32,
                               enable_tiling=lambda: tiled.append(True))
    free = None if room is None else decoding_bytes(vae, room, room)
    assert decode_in_tiles(vae, torch.zeros(1, 4, height, width), free) == side
    assert tiled == [True] * bool(side)
    if side:
        assert (vae.tile_latent_min_size, vae.tile_sample_min_size) == (side, 4 * side)
