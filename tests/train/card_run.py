"""A whole run on a card: encoding, training in the type that suits it, samples, interruption and resuming; and scores.

`test_card.py` runs this file on the pretend device.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kit.clip_models import clip_config, cosines, random_clip, random_pictures, reference_cosines, save_clip
from kit.training_run import REQUEST, After
from safetensors.torch import load_file

from atelier.dataset.encode import encode
from atelier.progress import Interrupted, Progress
from atelier.score.load import open_scorer
from atelier.train.devices import pick_device, pick_dtype

pytestmark = pytest.mark.gpu
CARD = torch.device("cuda")


def test_the_type_is_what_the_card_computes_in() -> None:
    assert pick_device("auto").type == "cuda"
    newer = torch.cuda.get_device_capability() >= (8, 0)
    assert pick_dtype("auto", CARD) == (torch.bfloat16 if newer else torch.float16)


def test_an_interrupted_run_goes_on_exactly_and_draws(run) -> None:
    request = REQUEST.override(dict(sample_prompt="a fox", sample_every=100, sample_steps=2, steps=4, kind="dora",
                                    ema_decay=0.9))
    whole = run("whole", request)
    assert len(whole.folder.samples) == 1
    assert whole.result.precision == ("bfloat16" if torch.cuda.get_device_capability() >= (8, 0) else "float16")
    other = replace(request, seed=request.seed)
    for path in whole.folder.path.parent.iterdir():
        path.rename(path.parent.parent / "aside")
    with pytest.raises(Interrupted):
        run("cut", other, progress=After(2))
    resumed = run("cut", other)
    one, two = load_file(whole.lora), load_file(resumed.lora)
    assert all(torch.equal(one[name], two[name]) for name in one) and one.keys() == two.keys()
    assert resumed.result.history.losses == whole.result.history.losses


def test_as_many_pictures_as_fit_are_trained_together(run) -> None:
    report = run("fitted", REQUEST.override({"batch_size": 0, "steps": 2}))
    assert "Batch size 3: as many pictures as fit." in report.result.warnings


def test_encoding_gives_what_the_processor_gives(tmp_path: Path, model, pictures) -> None:
    sets = [encode(pictures, model, tmp_path / device, device=device, dtype=torch.float32, batch_size=2,
                   progress=Progress()) for device in ("cpu", "cuda")]
    for item in sets[0].items:
        for one, two in zip(*(found.moments(item.index, False) for found in sets), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3)
        texts = [found.text(item.index, 0)["embeds"] for found in sets]
        torch.testing.assert_close(*texts, rtol=1e-3, atol=1e-3)


def test_scores_are_those_of_the_reference(tmp_path: Path) -> None:
    folder = save_clip(tmp_path / "clip", random_clip(clip_config()))
    pictures, texts = random_pictures([(40, 40), (64, 32)]), ["a fox", "a bear"]
    found = open_scorer(folder, device=CARD).score(pictures, texts)
    torch.testing.assert_close(cosines(found), reference_cosines(folder, pictures, texts), rtol=1e-3, atol=1e-3)
