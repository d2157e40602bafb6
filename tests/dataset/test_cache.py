"""The cache of latents and embeddings against diffusers and transformers on the same pixels and words."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from kit.encoding import BUCKETS, SIZES, Count, batches_encoded, encoded, reference
from kit.pictures import noise_picture, write_pictures
from PIL import Image

from atelier.dataset import cache as cache_module
from atelier.dataset.captions import variants
from atelier.dataset.encode import encode
from atelier.dataset.encoders import TextEncoder
from atelier.dataset.folder import FolderOptions, read_folder
from atelier.dataset.join import join
from atelier.dataset.prepare import prepare
from atelier.dataset.store import Row
from atelier.dataset.types import Crop, Resolution, TrainingSet
from atelier.errors import AtelierError
from atelier.models import load
from atelier.models.handle import DiffusersModel
from atelier.progress import Progress

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("flip", [False, True])
def test_moments_are_diffusers_own(data: TrainingSet, model: DiffusersModel, tmp_path: Path, flip: bool) -> None:
    got = encoded(data, model, tmp_path / "cache")
    for index, item in enumerate(got.items):
        mean, std = got.moments(index, flip)
        expected_mean, expected_std = reference(model, data, index, flip)
        torch.testing.assert_close(mean, expected_mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(std, expected_std, rtol=1e-4, atol=1e-5)
        assert mean.shape == (4, item.height, item.width) and mean.dtype == torch.float32
        assert not torch.equal(mean, got.moments(index, not flip)[0])


def test_embeddings_are_transformers_own(data: TrainingSet, model: DiffusersModel, tmp_path: Path) -> None:
    got = encoded(data, model, tmp_path / "cache", variants=3, keep_tokens=1, class_word="dog")
    stack = load.load_text(model)
    encoder, tokenizer = stack.encoders["text_encoder"], stack.tokenizers["text_encoder"]

    def expected(text: str) -> torch.Tensor:
        ids = tokenizer(text, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        with torch.no_grad():
            return encoder(ids).last_hidden_state[0]

    for index, item in enumerate(got.items):
        texts = variants(f"sks, a fox, red, seen {index}", 3, 1, 0)
        assert item.captions == len(texts) == 3
        for number, text in enumerate(texts):
            assert got.caption(index, number) == text
            row = got.text(index, number)
            assert set(row) == {"embeds"} and row["embeds"].shape[0] == 77
            torch.testing.assert_close(row["embeds"], expected(text), rtol=1e-4, atol=1e-5)
            held = got.class_text(index, number)
            assert held is not None
            torch.testing.assert_close(held["embeds"], expected(text.replace("sks", "dog")), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got.empty_text()["embeds"], expected(""), rtol=1e-4, atol=1e-5)
    assert len({got.text(0, n)["embeds"].sum().item() for n in range(3)}) == 3


def test_items_and_size_ids(data: TrainingSet, model: DiffusersModel, tmp_path: Path) -> None:
    marked = replace(data, samples=(replace(data.samples[0], repeats=3, prior=True), *data.samples[1:]))
    got = encoded(marked, model, tmp_path / "cache")
    first, second = got.items[0], got.items[1]
    assert (first.index, first.repeats, first.prior, first.captions, first.flips) == (0, 3, True, 1, True)
    assert (first.height, first.width) == (second.width, second.height) == (48 // 8, 80 // 8)
    for index, item in enumerate(got.items):
        geometry = prepare(data.samples[index], BUCKETS).geometry
        assert (item.width * 8, item.height * 8) == geometry.target
        assert got.time_ids(index).tolist() == list(geometry.time_ids())
        assert got.time_ids(index, flip=True).tolist() == list(geometry.time_ids(flip=True))
        assert got.mask(index, False) is None


def test_a_second_run_loads_and_decodes_nothing(data: TrainingSet, model: DiffusersModel, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    first = encoded(data, model, tmp_path / "cache")
    for name in ("load_vae", "load_text"):
        Count(monkeypatch, name, refuse=True)
    monkeypatch.setattr(Image, "open", None)
    second = encoded(data, model, tmp_path / "cache")
    assert second.items == first.items
    for index in range(len(SIZES)):
        assert all(torch.equal(a, b) for a, b in zip(first.moments(index, True), second.moments(index, True),
                                                     strict=True))
        assert torch.equal(first.text(index, 0)["embeds"], second.text(index, 0)["embeds"])


def test_only_what_changed_is_encoded_again(data: TrainingSet, model: DiffusersModel, tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    before = encoded(data, model, tmp_path / "cache")
    folder = data.samples[0].image.parent
    noise_picture(80, 80, 77).save(folder / "p2.png")
    options = FolderOptions(resolution=BUCKETS, flip=True, trigger="sks")
    seen = batches_encoded(monkeypatch)
    Count(monkeypatch, "load_text", refuse=True)
    after = encoded(read_folder(folder, options), model, tmp_path / "cache")
    assert seen == [1, 1], "one picture and its mirror image"
    assert not torch.equal(after.moments(2, False)[0], before.moments(2, False)[0])
    assert torch.equal(after.moments(1, False)[0], before.moments(1, False)[0])
    # A new caption needs the text encoder alone, and another size the VAE alone.
    (folder / "p0.txt").write_text("something new", encoding="utf-8")
    monkeypatch.undo()
    Count(monkeypatch, "load_vae", refuse=True)
    texts = Count(monkeypatch, "load_text")
    encoded(read_folder(folder, options), model, tmp_path / "cache")
    assert texts.calls == 1


def test_keys_cover_what_changes_the_latents(data: TrainingSet, model: DiffusersModel, tmp_path: Path,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    centre = replace(data, resolution=Resolution(64))
    encoded(centre, model, tmp_path / "cache")
    vae = Count(monkeypatch, "load_vae")
    encoded(replace(data, resolution=Resolution(64, bucket_step=32)), model, tmp_path / "cache")
    assert vae.calls == 0, "the bucket step does not matter without buckets"
    keys = {cache_module.latent_key(data.samples[0], resolution, False) for resolution in (
        BUCKETS, replace(BUCKETS, bucket_step=16), replace(BUCKETS, max_aspect=3.0), replace(BUCKETS, size=72))}
    assert len(keys) == 4, "with buckets it does"
    for number, changed in enumerate((replace(centre, resolution=Resolution(72)),
                                      replace(centre, resolution=Resolution(64, Crop.PAD)),
                                      replace(centre, resolution=Resolution(64, Crop.FOCAL))), 1):
        encoded(changed, model, tmp_path / "cache")
        assert vae.calls == number
    encoded(centre, replace(model, fingerprint="another"), tmp_path / "cache")
    assert vae.calls == 4
    half = encode(centre, model, tmp_path / "cache", device="cpu", dtype=torch.bfloat16, batch_size=2,
                  progress=Progress())
    assert vae.calls == 5 and half.text(0, 0)["embeds"].dtype == torch.bfloat16


def test_the_two_models_are_never_in_memory_together(data: TrainingSet, model: DiffusersModel, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref] = []
    vae_loader, text_loader = load.load_vae, load.load_text

    def vae(*args: object, **kwargs: object):
        loaded = vae_loader(*args, **kwargs)
        alive.append(weakref.ref(loaded))
        return loaded

    def text(*args: object, **kwargs: object):
        assert len(alive) == 1 and alive[0]() is None
        return text_loader(*args, **kwargs)

    monkeypatch.setattr(load, "load_vae", vae)
    monkeypatch.setattr(load, "load_text", text)
    encoded(data, model, tmp_path / "cache")


def test_masks_shrink_to_the_latents_and_mirror(model: DiffusersModel, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", [(64, 64), (64, 64)])
    mask = np.zeros((64, 64), np.uint8)
    mask[:, :12] = 255
    Image.fromarray(mask).save(folder / "p0-mask.png")
    got = encoded(read_folder(folder, FolderOptions(resolution=Resolution(64), flip=True)), model, tmp_path / "cache")
    expected = torch.zeros(1, 8, 8)
    expected[..., 0], expected[..., 1] = 1.0, 0.5
    assert torch.equal(got.mask(0, False), expected)
    assert torch.equal(got.mask(0, True), expected.flip(-1))
    assert got.mask(1, False) is None


def test_padding_does_not_count(model: DiffusersModel, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", [(128, 64)])
    got = encoded(read_folder(folder, FolderOptions(resolution=Resolution(64, Crop.PAD))), model, tmp_path / "cache")
    mask = got.mask(0, False)
    assert mask is not None and mask[0, 2:6].all() and mask.sum() == 4 * 8


def test_a_large_set_is_read_from_disk(data: TrainingSet, model: DiffusersModel, tmp_path: Path,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    held = encoded(data, model, tmp_path / "cache")
    monkeypatch.setattr(cache_module, "IN_MEMORY_BYTES", 0)
    read = encoded(data, model, tmp_path / "cache")
    assert torch.equal(held.moments(3, True)[1], read.moments(3, True)[1])
    assert torch.equal(held.text(3, 0)["embeds"], read.text(3, 0)["embeds"])
    assert held.moments(3, True)[1] is held.moments(3, True)[1]
    assert read.moments(3, True)[1] is not read.moments(3, True)[1]


def enlarge_activations(monkeypatch: pytest.MonkeyPatch, by: float) -> None:
    """Scale the VAE's first activations by `by`: beyond float16's range, within float32's."""
    real = load.load_vae

    def enlarged(*args: object, **kwargs: object):
        vae = real(*args, **kwargs)
        forward = vae.encoder.conv_in.forward
        vae.encoder.conv_in.forward = lambda x: forward(x) * by
        return vae

    monkeypatch.setattr(load, "load_vae", enlarged)


def test_a_half_precision_vae_that_overflows_continues_in_float32(
        data: TrainingSet, model: DiffusersModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture) -> None:
    enlarge_activations(monkeypatch, 1e6)
    plain = replace(data, flip=False)
    half = encode(plain, model, tmp_path / "half", device="cpu", dtype=torch.float16, batch_size=2, progress=Progress())
    assert "overflows" in caplog.text
    full = encoded(plain, model, tmp_path / "full")
    for index in range(len(SIZES)):
        mean, std = half.moments(index, False)
        assert torch.isfinite(mean).all() and torch.isfinite(std).all() and mean.dtype == torch.float32
        # The weights themselves were rounded to float16.
        torch.testing.assert_close(mean, full.moments(index, False)[0], rtol=0.05, atol=0.02)


def test_latents_that_are_not_finite_name_the_picture(data: TrainingSet, model: DiffusersModel, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    enlarge_activations(monkeypatch, float("nan"))
    with pytest.raises(AtelierError, match=r"not finite for .*p\d\.png"):
        encoded(data, model, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_embeddings_that_are_not_finite_name_the_caption_and_are_not_kept(
        data: TrainingSet, model: DiffusersModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = TextEncoder.__call__

    def spoiled(self: TextEncoder, captions: Sequence[str]) -> list[Row]:
        rows = real(self, captions)
        rows[captions.index("sks, a fox, red, seen 1")]["embeds"][3, 5] = torch.inf
        return rows

    monkeypatch.setattr(TextEncoder, "__call__", spoiled)
    with pytest.raises(AtelierError, match=r"not finite for 'sks, a fox, red, seen 1'\. Choose the precision fp32"):
        encoded(data, model, tmp_path / "cache")
    monkeypatch.undo()
    assert torch.isfinite(encoded(data, model, tmp_path / "cache").text(1, 0)["embeds"]).all()


def test_mirrored_pictures_are_added_to_those_that_are_kept(data: TrainingSet, model: DiffusersModel, tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    encoded(replace(data, flip=False), model, tmp_path / "cache")
    seen = batches_encoded(monkeypatch)
    got = encoded(data, model, tmp_path / "cache")
    assert sum(seen) == len(SIZES), "each mirrored picture, and none of the others again"
    for index in range(len(SIZES)):
        assert not torch.equal(got.moments(index, True)[0], got.moments(index, False)[0])


def test_a_picture_that_changed_or_was_deleted_is_named(data: TrainingSet, model: DiffusersModel,
                                                              tmp_path: Path) -> None:
    path = data.samples[1].image
    noise_picture(64, 96, 50).save(path)
    with pytest.raises(AtelierError, match=r"p1\.png.*changed"):
        encoded(data, model, tmp_path / "cache")
    path.unlink()
    with pytest.raises(AtelierError, match=r"p1\.png.*cannot be opened"):
        encoded(data, model, tmp_path / "cache")


def test_progress_counts_pictures_and_captions(data: TrainingSet, model: DiffusersModel, tmp_path: Path) -> None:
    class Seen(Progress):
        def __init__(self) -> None:
            self.said: list[object] = []

        def phase(self, name: str, total: int) -> None:
            self.said.append((name, total))

        def advance(self, done: int, text: str = "") -> None:
            self.said.append(done)

    seen = Seen()
    encoded(data, model, tmp_path / "cache", seen)
    total = len(SIZES) + len(SIZES) + 1
    assert seen.said[0] == ("encoding", total) and seen.said[-1] == total
    numbers = seen.said[1:]
    assert numbers == sorted(numbers)  # type: ignore[type-var]
    again = Seen()
    encoded(data, model, tmp_path / "cache", again)
    assert again.said == []


def test_pictures_of_two_resolutions_are_encoded_at_each(data: TrainingSet, model: DiffusersModel, tmp_path: Path
                                                         ) -> None:
    other = Resolution(96, Crop.BUCKET, bucket_step=8)
    both = join([data, replace(data, resolution=other)])
    got = encoded(both, model, tmp_path / "cache")
    alone = [encoded(replace(data, resolution=size), model, tmp_path / f"alone {size.size}")
             for size in (BUCKETS, other)]
    count = len(data.samples)
    for index, item in enumerate(got.items):
        expected = alone[index // count]
        assert (item.height, item.width) == (expected.items[index % count].height, expected.items[index % count].width)
        means = [each.moments(number, True)[0] for each, number in ((got, index), (expected, index % count))]
        assert torch.allclose(*means, atol=1e-5)  # batches differ
        assert torch.equal(got.time_ids(index), expected.time_ids(index % count))
