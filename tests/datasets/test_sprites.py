from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import skdim
import torch
from PIL import Image
from support import most_slow

from solo_dimreg.datasets import sprites
from solo_dimreg.datasets.sprites import (
    FACTORS,
    HELD,
    SATURATION,
    SHAPES,
    draw_sprites,
    sample_factors,
    write_sprites,
)
from solo_dimreg.errors import ConfigError
from solo_dimreg.functional import local_intrinsic_dimensionality

MIDDLE = np.array([HELD.get(name, sum(limits) / 2) for name, limits in FACTORS.items()])


def pixels(images: int, free: int) -> np.ndarray:
    """All shapes in turn, as rows of pixels."""
    factors = sample_factors(images, free)
    drawn = np.empty((images, 32 * 32 * 3), dtype=np.float32)
    for i, shape in enumerate(SHAPES):
        own = factors[i :: len(SHAPES)]
        drawn[i :: len(SHAPES)] = draw_sprites(shape, own).reshape(len(own), -1) / 255
    return drawn


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sprites(tmp_path_factory.mktemp("data") / "sprites", factors=3, images=152, seed=4)


def lines(folder: Path) -> list[dict[str, str]]:
    with (folder / "factors.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("free", most_slow(range(1, 9), keep=[3, 8]))
def test_the_lid_of_the_pixels_is_the_number_of_free_factors(free: int) -> None:
    x = torch.from_numpy(pixels(2000, free))
    queries = torch.arange(300)
    lid = local_intrinsic_dimensionality(x[queries], x, k=32, self_indices=queries).log().mean().exp()
    assert float(lid) == pytest.approx(free, rel=0.12)


@pytest.mark.parametrize("free", most_slow(range(1, 9), keep=[3]))
def test_an_independent_estimator_finds_the_same_dimension(free: int) -> None:
    """From the number of close pairs instead of the distances around a point."""
    correlation = skdim.id.CorrInt(k1=10, k2=20).fit(pixels(2000, free))
    assert correlation.dimension_ == pytest.approx(free, rel=0.12)


@pytest.mark.parametrize("shape", most_slow(SHAPES, keep=["hook"]))
def test_every_factor_moves_the_image_smoothly_and_in_a_direction_of_its_own(shape: str) -> None:
    low, high = np.array(list(FACTORS.values())).T
    rng = np.random.default_rng(0)
    for start in low + (0.1 + 0.6 * rng.random((5, 8))) * (high - low):
        steps = np.diag(high - low) * 0.1

        def change(part: float, start: np.ndarray = start, steps: np.ndarray = steps) -> np.ndarray:
            drawn = draw_sprites(shape, np.stack([start, *(start + part * steps)])).reshape(9, -1) / 255
            return drawn[1:] - drawn[0]

        whole, half = change(1), change(0.5)
        ratios = np.linalg.norm(whole, axis=1) / np.linalg.norm(half, axis=1)
        assert ratios[:7] == pytest.approx([2] * 7, rel=0.12)  # with the square root it would be 1.41
        assert ratios[7] == pytest.approx(2, rel=0.25)  # all of the background is rounded alike
        directions = whole / np.linalg.norm(whole, axis=1, keepdims=True)
        assert np.linalg.svd(directions)[1].min() > 0.2


@pytest.fixture
def sharp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Edges so sharp that areas and centroids are those of geometry."""
    monkeypatch.setattr(sprites, "EDGE", 0.01)


def cover(shape: str, factors: np.ndarray, size: int = 256) -> np.ndarray:
    """How much of each pixel the shape covers, from its brightness."""
    brightness = draw_sprites(shape, factors[None], size)[0].mean(axis=2)
    return (brightness - brightness.min()) / np.ptp(brightness)


@pytest.mark.parametrize("seed", range(5))
def test_size_angle_and_place_are_those_of_the_letter_l(sharp: None, seed: int) -> None:
    """Area and centroid in closed form: a 0.5 x 1.6 and a 1.2 x 0.5 bar that share a 0.5 x 0.5 corner."""
    factors = sample_factors(1, 5, seed)[0]
    radius, angle, x, y, *_ = factors
    drawn = cover("hook", factors)
    area = 0.8 + 0.6 - 0.25
    assert drawn.mean() == pytest.approx(area * radius**2, rel=0.005)
    u = (-0.35 * 0.8 + 0.0 * 0.6 + 0.35 * 0.25) / area
    v = (0.55 * 0.6 - 0.55 * 0.25) / area
    turn = 2 * math.pi * angle
    expected = (
        x + radius * (u * math.cos(turn) - v * math.sin(turn)),
        y + radius * (u * math.sin(turn) + v * math.cos(turn)),
    )
    centres = (np.arange(256) + 0.5) / 256 - 0.5
    found = [(drawn.sum(axis=axis) * centres).sum() / drawn.sum() for axis in (0, 1)]
    assert found == pytest.approx(expected, abs=0.0003)  # a hundredth of a pixel at 32 x 32


def test_the_moon_has_the_area_of_a_disc_without_a_lens(sharp: None) -> None:
    r, d = 0.75, 0.55
    lens = math.acos((d**2 + 1 - r**2) / (2 * d)) + r**2 * math.acos((d**2 + r**2 - 1) / (2 * d * r))
    lens -= 0.5 * math.sqrt((1 + r - d) * (d + 1 - r) * (d + r - 1) * (d + r + 1))
    assert cover("moon", MIDDLE).mean() == pytest.approx((math.pi - lens) * MIDDLE[0] ** 2, rel=0.005)


def test_the_hue_is_the_angle_on_the_circle_of_colours() -> None:
    factors = np.tile(MIDDLE, (11, 1))
    factors[:, 4] = np.linspace(*FACTORS["hue"], 11)
    colours = draw_sprites("drop", factors).reshape(11, -1, 3).max(axis=1) / 255
    red, green, blue = colours.T
    found = np.arctan2(math.sqrt(3) * (green - blue), 2 * red - green - blue) / (2 * math.pi)
    assert found == pytest.approx(factors[:, 4], abs=0.002)
    assert np.linalg.norm(colours - HELD["light"], axis=1) == pytest.approx(SATURATION * 1.5**0.5, abs=0.005)


def test_shapes_have_room_in_the_image() -> None:
    corners = np.array(np.meshgrid(*FACTORS.values())).reshape(8, -1).T
    ground = np.rint(255 * corners[:, 7, None, None])
    for shape in SHAPES:
        drawn = draw_sprites(shape, corners).astype(int)
        border = np.concatenate([drawn[:, 0], drawn[:, -1], drawn[:, :, 0], drawn[:, :, -1]], axis=1)
        assert np.abs(border - ground).max() <= 15


def test_the_images_are_those_that_the_table_says(folder: Path) -> None:
    table = lines(folder)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*.png")}
    assert {line["path"] for line in table} == files and len(table) == 152
    for line in table:
        factors = np.array([[float(line[name]) for name in FACTORS]])
        drawn = draw_sprites(line["shape"], factors)[0]
        image = Image.open(folder / line["path"])
        assert Path(line["path"]).parent.name == line["shape"]
        assert image.mode == "RGB" and np.array_equal(np.asarray(image), drawn)


def test_the_first_factors_are_free_and_the_others_held(folder: Path) -> None:
    assert json.loads((folder / "dataset.json").read_text())["free_factors"] == ["size", "angle", "x"]
    for i, (name, (low, high)) in enumerate(FACTORS.items()):
        values = np.array([float(line[name]) for line in lines(folder)])
        if i < 3:
            assert values.min() >= low and values.max() <= high
            assert np.unique(values).size > 145
            assert values.mean() == pytest.approx((low + high) / 2, abs=(high - low) * 0.12)
        else:
            assert set(values) == {HELD.get(name, (low + high) / 2)}


def test_a_fifth_of_every_shape_is_for_validation(folder: Path) -> None:
    splits = json.loads((folder / "dataset.json").read_text())["splits"]
    assert sum(splits.values()) == 152
    for shape in SHAPES:
        train, val = (len(list(folder.glob(f"{split}/{shape}/*.png"))) for split in ("train", "val"))
        assert train + val in (50, 51) and val == 10
    assert {split: len(list(folder.glob(f"{split}/*/*.png"))) for split in splits} == splits


def test_the_seed_fixes_each_image_whatever_else_is_chosen() -> None:
    factors = sample_factors(100, 8, seed=3)
    assert np.array_equal(sample_factors(40, 2, seed=3)[:, :2], factors[:40, :2])
    assert not np.isin(sample_factors(100, 8, seed=4), factors).any()


def test_a_second_call_changes_nothing_and_another_choice_is_refused(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    same = {"factors": 3, "images": 152, "seed": 4}
    assert write_sprites(folder, **same) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    for change in ({"factors": 4}, {"images": 153}, {"seed": 5}, {"size": 48}):
        with pytest.raises(ConfigError, match="another version of 'sprites'"):
            write_sprites(folder, **{**same, **change})


def test_without_its_table_a_folder_is_incomplete(tmp_path: Path) -> None:
    out = write_sprites(tmp_path / "sprites", images=15)
    (out / "factors.csv").unlink()
    with pytest.raises(ConfigError, match=r"has no factors\.csv.*sprites\.bak"):
        write_sprites(out, images=15)
    write_sprites(out, images=15, force=True)
    assert len(lines(out)) == 15


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("factors", 0, "from 1 to 8"),
        ("factors", 9, "from 1 to 8"),
        ("images", 14, ">= 15"),
        ("size", 8, ">= 16"),
        ("seed", -1, ">= 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path: Path, option: str, value: int, allowed: str) -> None:
    with pytest.raises(ConfigError, match=f"{option} must be an integer {allowed}, got {value}"):
        write_sprites(tmp_path / "sprites", **{option: value})
    assert list(tmp_path.iterdir()) == []
