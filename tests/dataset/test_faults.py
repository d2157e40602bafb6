"""Near-duplicates, blurred and tiny pictures, made from a picture by what people do to their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kit.pictures import noise_picture
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from atelier.dataset.faults import Fault, FaultyPicture, find_faults, without
from atelier.dataset.folder import FolderOptions, read_folder
from atelier.dataset.preview import contact_sheet
from atelier.dataset.types import Resolution, TrainingSet
from atelier.errors import AtelierError


def scene(seed: int, size: tuple[int, int] = (400, 300)) -> Image.Image:
    """A random scene of coloured shapes with grain, as different from others as photographs are."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    big = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST), dtype=np.int16)
    return Image.fromarray((big + rng.integers(-20, 21, big.shape)).clip(0, 255).astype(np.uint8))


def training_set(folder: Path, size: int = 256, **pictures: Image.Image) -> TrainingSet:
    folder.mkdir(exist_ok=True)
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.png")
    return read_folder(folder, FolderOptions(text="x", resolution=Resolution(size)))


def named(found: list[FaultyPicture], fault: Fault) -> list[str]:
    return [each.image.stem for each in found if each.fault is fault]


def test_copies_are_found_whatever_was_done_to_them(tmp_path: Path) -> None:
    original = scene(1)
    original.save(tmp_path / "f.jpg", quality=40)
    data = training_set(tmp_path / "set", a=original, b=original.resize((250, 188)), c=scene(2), d=scene(3),
                        e=ImageEnhance.Brightness(original).enhance(1.05), f=Image.open(tmp_path / "f.jpg"),
                        g=original.crop((4, 4, 396, 296)))
    found = find_faults(data)
    assert named(found, Fault.DUPLICATE) == ["b", "e", "f", "g"]
    assert {each.detail for each in found if each.fault is Fault.DUPLICATE} == {"like a.png"}


def test_the_largest_of_a_group_stays(tmp_path: Path) -> None:
    data = training_set(tmp_path, a=scene(1).resize((200, 150)), b=scene(1), c=scene(1).resize((300, 225)))
    found = find_faults(data)
    assert named(found, Fault.DUPLICATE) == ["a", "c"]
    assert [sample.image.stem for sample in without(data, found, [Fault.DUPLICATE]).samples] == ["b"]


def test_pictures_that_differ_are_no_copies(tmp_path: Path) -> None:
    plain = {f"plain{level}": Image.new("RGB", (300, 300), (level, level, level)) for level in (0, 40, 80)}
    scenes = {f"scene{seed}": scene(seed) for seed in range(20)}
    data = training_set(tmp_path, **plain, **scenes, mirrored=ImageOps.mirror(scene(0)))
    assert named(find_faults(data), Fault.DUPLICATE) == []


def test_blurred_pictures_are_found_at_any_size(tmp_path: Path) -> None:
    sharp, large = scene(1), scene(2, (1600, 1200))
    data = training_set(tmp_path, a=sharp, b=sharp.filter(ImageFilter.GaussianBlur(6)).transpose(
        Image.Transpose.ROTATE_180), c=large, d=large.filter(ImageFilter.GaussianBlur(24)).transpose(
        Image.Transpose.ROTATE_180))
    assert named(find_faults(data), Fault.BLURRED) == ["b", "d"]
    assert named(find_faults(data, sharpness=0), Fault.BLURRED) == []


def test_the_measure_of_sharpness_is_the_laplacians_deviation(tmp_path: Path) -> None:
    """One white pixel on black: the Laplacian is -4 · 255 there and 255 at its four neighbours, else 0."""
    picture = Image.new("RGB", (12, 12), "black")
    picture.putpixel((5, 5), (255, 255, 255))
    found = find_faults(training_set(tmp_path, size=64, a=picture), sharpness=1000)
    values = [-4 * 255, *[255] * 4, *[0] * 95]
    assert next(each.detail for each in found if each.fault is Fault.BLURRED) == f"sharpness {np.std(values):.1f}"


def test_tiny_pictures_are_those_that_are_much_enlarged(tmp_path: Path) -> None:
    data = training_set(tmp_path, size=256, a=noise_picture(256, 256), b=noise_picture(210, 300),
                        c=noise_picture(128, 400))
    found = find_faults(data)
    assert [(each.image.stem, each.detail) for each in found if each.fault is Fault.TINY] == [
        ("c", "enlarged 2.0 times")]


def test_only_what_is_asked_for_is_left_out_and_something_stays(tmp_path: Path) -> None:
    data = training_set(tmp_path, a=scene(1), b=scene(1).resize((100, 75)))
    found = find_faults(data)
    assert without(data, found, []) is data
    assert [sample.image.stem for sample in without(data, found, [Fault.TINY]).samples] == ["a"]
    with pytest.raises(AtelierError, match="none would be left"):
        without(data, [*found, FaultyPicture(data.samples[0].image, "", Fault.BLURRED, "")], list(Fault))


def test_faulty_pictures_come_first_on_the_contact_sheet_and_bear_a_band(tmp_path: Path) -> None:
    data = training_set(tmp_path, **{f"p{number:02}": scene(number) for number in range(30)})
    plain = np.asarray(contact_sheet(data))
    marked = np.asarray(contact_sheet(data, marks={data.samples[29].image: "duplicate"}))
    red = [np.argwhere((sheet == (0xB3, 0x26, 0x1E)).all(axis=2)) for sheet in (plain, marked)]
    assert len(red[0]) < len(red[1]) - 1000
    assert (red[1][:, 1] < plain.shape[1] // 6).sum() > 1000, "in the first cell"


def test_a_picture_used_at_two_resolutions_is_no_copy_of_itself(tmp_path: Path) -> None:
    from atelier.dataset.join import join

    small, large = training_set(tmp_path, size=64, a=scene(1)), training_set(tmp_path, size=128, a=scene(1))
    assert find_faults(join([small, large])) == []


@pytest.mark.parametrize(("sharpness", "enlarged"), [(-0.5, 1.25), (6.0, 0.99)])
def test_limits_that_no_picture_can_be_measured_by_are_told(sharpness: float, enlarged: float, tmp_path: Path) -> None:
    data = training_set(tmp_path, size=64, a=scene(1))
    with pytest.raises(AtelierError, match=rf"^sharpness is {sharpness:g} and enlarged {enlarged:g}\."):
        find_faults(data, sharpness=sharpness, enlarged=enlarged)
    assert find_faults(data, sharpness=0, enlarged=1) == []


@pytest.mark.parametrize("size", [(2, 40), (40, 2), (1, 1)])
def test_a_picture_too_narrow_to_measure_counts_as_blurred(size: tuple[int, int], tmp_path: Path) -> None:
    found = find_faults(training_set(tmp_path, size=64, a=noise_picture(*size)))
    assert [each.detail for each in found if each.fault is Fault.BLURRED] == ["sharpness 0.0"]


def test_the_narrowest_picture_that_can_be_measured_is_sharp_where_it_has_detail(tmp_path: Path) -> None:
    detailed = scene(1, (3, 40))
    found = find_faults(training_set(tmp_path, size=64, tall=detailed, wide=detailed.transpose(
        Image.Transpose.ROTATE_90)))
    assert named(found, Fault.BLURRED) == []
