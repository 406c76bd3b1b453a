import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from solo_dimreg.datasets import digits
from solo_dimreg.datasets.digits import write_digits
from solo_dimreg.errors import ConfigError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("data") / "digits")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_digit_is_there_once_in_the_folder_of_its_class(folder):
    target = load_digits().target
    paths = list(folder.glob("*/*/*.png"))
    assert sorted(int(path.stem) for path in paths) == list(range(len(target)))
    assert all(int(path.parent.name) == target[int(path.stem)] for path in paths)


def test_the_split_is_80_to_20_in_every_class(folder):
    target = load_digits().target
    for name, count in json.loads((folder / "dataset.json").read_text())["splits"].items():
        assert len(list(folder.glob(f"{name}/*/*.png"))) == count
    for digit in range(10):
        share = len(list(folder.glob(f"val/{digit}/*.png"))) / np.sum(target == digit)
        assert share == pytest.approx(0.2, abs=0.004)


def test_the_pixels_are_those_of_scikit_learn(folder):
    originals = load_digits().images.reshape(-1, 64) * (255 / 16)
    for path in sorted(folder.glob("*/*/*.png"))[::7]:
        image = Image.open(path)
        assert (image.size, image.mode) == ((32, 32), "RGB")
        pixels = np.asarray(image, dtype=float)
        assert np.ptp(pixels, axis=2).max() == 0
        # the mean over each 4 x 4 block undoes the enlargement, up to its smoothing
        small = pixels[:, :, 0].reshape(8, 4, 8, 4).mean(axis=(1, 3)).ravel()
        assert np.linalg.norm(originals - small, axis=1).argmin() == int(path.stem)
        assert small.mean() == pytest.approx(originals[int(path.stem)].mean(), rel=0.1)


def test_a_second_call_changes_nothing_and_a_second_copy_is_the_same(folder, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    write_digits(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert contents(write_digits(tmp_path / "copy")) == contents(folder)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch, error):
    save, saved = Image.Image.save, []

    def fail_later(self, path, *args, **kwargs):
        saved.append(path)
        if len(saved) > 20:
            raise error
        save(self, path, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "save", fail_later)
    with pytest.raises(error):
        write_digits(tmp_path / "digits")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "digits").mkdir()
    write_digits(tmp_path / "digits")
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]
    assert len(contents(tmp_path / "digits")) == 1798


def test_a_foreign_folder_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"not empty and has no readable dataset\.json.*--force"):
        write_digits(tmp_path)
    assert contents(tmp_path) == {"thesis.txt": b"years of work"}


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "digits").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        write_digits(tmp_path / "digits")


def test_an_incomplete_folder_is_refused_and_force_moves_it_aside(tmp_path):
    out = write_digits(tmp_path / "digits")
    next(out.glob("val/3/*.png")).unlink()
    with pytest.raises(ConfigError, match=r"has 359 images in 'val' instead of 360.*digits\.bak"):
        write_digits(out)
    write_digits(out, force=True)
    assert len(contents(out)) == 1798
    assert len(contents(tmp_path / "digits.bak")) == 1797


def test_another_version_is_refused(tmp_path, monkeypatch):
    out = write_digits(tmp_path / "digits")
    monkeypatch.setitem(digits.DIGITS, "split_seed", 1)
    with pytest.raises(ConfigError, match="another version of 'digits'"):
        write_digits(out)
