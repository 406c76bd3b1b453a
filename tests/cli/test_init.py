from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from solo_dimreg.config.composing import compose, fit_to_machine
from solo_dimreg.config.folders import config_root
from solo_dimreg.config.loading import load_settings
from solo_dimreg.datasets.layout import find_layout
from solo_dimreg.datasets.split import split_folder
from solo_dimreg.errors import ConfigError
from solo_dimreg.solo_learn import Host
from solo_dimreg.training.starting import base_config, fitted_config


def draw(folder: Path, count: int, size: tuple[int, int] = (48, 40), colour: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(0, 255, (size[1], size[0], 3 if colour else 1), dtype=np.uint8)
        Image.fromarray(np.repeat(pixels, 3 if not colour else 1, axis=2)).save(folder / f"{number}.png")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, count in (("cat", 20), ("dog é", 30), (".ipynb_checkpoints", 3)):
        draw(tmp_path / "my photos" / name, count)
    return tmp_path / "my photos"


def test_a_split_is_stratified_seeded_and_made_of_links(photos: Path, tmp_path: Path) -> None:
    out = split_folder(photos, tmp_path / "split", seed=1)
    files = {split: sorted(path for path in (out / split).rglob("*.png")) for split in ("train", "val")}
    counted = {split: Counter(path.parent.name for path in paths) for split, paths in files.items()}
    assert counted == {"train": {"cat": 16, "dog é": 24}, "val": {"cat": 4, "dog é": 6}}
    assert all(path.is_symlink() and path.resolve().parent.parent == photos for path in files["val"])
    assert len({path.resolve() for paths in files.values() for path in paths}) == 50
    again = split_folder(photos, tmp_path / "again", seed=1)
    other = split_folder(photos, tmp_path / "other", seed=2)
    names = [{path.relative_to(each) for path in each.glob("val/*/*")} for each in (out, again, other)]
    assert names[0] == names[1] != names[2]
    assert split_folder(photos, out, seed=1) == out  # it is there, and whole
    with pytest.raises(ConfigError, match="split"):
        split_folder(photos, out, seed=2)
    next(iter(photos.glob("cat/*"))).unlink()
    with pytest.raises(ConfigError, match="split"):  # an image is gone, so that a link leads nowhere
        split_folder(photos, out, seed=1)


@pytest.mark.parametrize(("share", "words"), [(0.0, "--share: 0.0"), (1.0, "--share: 1.0")])
def test_a_share_that_leaves_one_side_empty_is_refused(photos: Path, share: float, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        split_folder(photos, photos.parent / "split", share)


def test_what_cannot_be_split_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no class folders.*data\.no_labels"):
        split_folder(photos / "cat", tmp_path / "split")
    with pytest.raises(ConfigError, match="--out"):
        split_folder(photos, photos / "split")
    draw(photos / "single", 1)
    with pytest.raises(ConfigError, match="single image"):
        split_folder(photos, tmp_path / "split")
    assert not list(tmp_path.glob("*split*"))


def test_layouts_are_told_apart(photos: Path, tmp_path: Path) -> None:
    classes = find_layout(photos)
    assert (classes.classes, classes.images, classes.val) == (("cat", "dog é"), 50, None)
    assert (classes.side, classes.grey) == (40, False)
    flat = find_layout(photos / "cat")
    assert (flat.classes, flat.images, flat.train) == ((), 20, photos / "cat")
    shutil.rmtree(photos / "dog é")  # a single class is a flat folder
    assert find_layout(photos).train == photos / "cat" and not find_layout(photos).classes
    draw(tmp_path / "grey", 4, (28, 28), colour=False)  # saved with three channels, all the same
    assert find_layout(tmp_path / "grey").grey
    (tmp_path / "grey" / "notes.txt").write_text("")
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        find_layout(tmp_path / "grey")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no images"):
        find_layout(tmp_path / "empty")
    for name in ("Training", "testing"):
        draw(tmp_path / "other" / name / "cat", 4)
    other = find_layout(tmp_path / "other")
    assert (other.train.name, other.val and other.val.name, other.images) == ("Training", "testing", 4)
    shutil.rmtree(tmp_path / "other" / "testing")
    draw(tmp_path / "other" / "resting", 4)
    assert find_layout(tmp_path / "other").classes == ("Training", "resting")


def test_init_looks_at_images_as_a_training_reads_them(tmp_path: Path) -> None:
    """An image of 16 bits in dark colours, which is black when it is cut to 8 bits, and one of NaN."""
    colours = np.random.default_rng(0).integers(0, 200, (6, 5, 3)).astype(">u2")
    (tmp_path / "deep.ppm").write_bytes(b"P6 5 6 65535\n" + colours.tobytes())
    layout = find_layout(tmp_path)
    assert not layout.grey and layout.side == 5
    Image.fromarray(np.full((6, 5), np.nan, np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(ConfigError, match=r"nan\.tif: .*not finite"):
        find_layout(tmp_path)


def test_init_writes_a_config_that_every_check_passes(here, host: Host, photos: Path, tmp_path: Path) -> None:
    run = here("init", str(photos), "--method", "byol", "--out", "my.yaml")
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert "  solo-dimreg pretrain --config-path . --config-name my" in lines
    # A folder of the method holds one run or several, so the command names the run.
    assert "  solo-dimreg linear trained_models/byol/RUN" in lines
    script = f"  python main_pretrain.py --config-path {tmp_path} --config-name my"
    assert (script in lines) == (host.generation == "current")
    assert ("Train with:" in lines) == (host.generation == "published")
    settings = compose("pretrain", str(tmp_path), "my", [])
    fit_to_machine(settings)
    load_settings(host, settings)
    assert settings.data.train_path == str(tmp_path / "datasets" / "my photos-split" / "train")
    assert settings.augmentations[0].crop_size == 40 and settings.augmentations[0].horizontal_flip.prob == 0
    assert (
        settings.optimizer.batch_size == 16 and settings.max_epochs == 1000
    )  # 2 steps an epoch, 2000 in all
    assert settings.momentum.base_tau == 0.99
    before = (tmp_path / "my.yaml").read_text()
    again = here("init", str(photos), "--method", "simclr", "--out", "my.yaml")
    assert again.returncode == 2 and "--force" in again.stderr
    assert (tmp_path / "my.yaml").read_text() == before
    assert here("init", str(photos), "--method", "simclr", "--out", "my.yaml", "--force").returncode == 0
    assert (tmp_path / "my.yaml").read_text() != before


def test_images_without_labels_get_no_split_and_no_probe(here, host: Host, tmp_path: Path) -> None:
    draw(tmp_path / "flat", 70, (28, 28), colour=False)
    run = here("init", "flat", "--method", "ldreg_simclr")
    assert run.returncode == 0, run.stderr
    assert "linear" not in run.stdout and "solo-dimreg diagnose trained_models/ldreg_simclr/RUN" in run.stdout
    settings = compose("pretrain", str(tmp_path), "ldreg_simclr-flat", [])
    fit_to_machine(settings)
    load_settings(host, settings)
    view = settings.augmentations[0]
    assert settings.data.no_labels is True and settings.data.val_path is None
    assert (view.grayscale.prob, view.color_jitter.saturation, view.color_jitter.hue) == (0, 0, 0)
    assert view.crop_size == 32 and not (tmp_path / "datasets").exists()


def test_every_method_has_a_config_or_is_refused_with_those_that_have(host: Host, photos: Path) -> None:
    layout = find_layout(photos)
    written, refused = [], {}
    for method in host.trainable:
        try:
            text = fitted_config(host, layout, "my photos", *base_config(host, method, layout.images))
        except ConfigError as error:
            refused[method] = str(error)
            continue
        written.append(method)
        settings = OmegaConf.create(text)
        assert settings.method == method
        assert ("ldreg" in (settings.get("regularizers") or {})) == method.startswith(("ldreg", "minlid"))
    shipped = {OmegaConf.load(file).get("method") for file in config_root().glob("pretrain/digits/*.yaml")}
    assert {*shipped, "ldreg", "ldreg_vicreg", "minlid_simclr"} - {None} <= set(written)
    # W-MSE, where there is a config of it, whitens slices of 128 images.
    slices = [name for name in refused if name.endswith("wmse") and "whitening_size" in refused[name]]
    for method in {*refused} - {*slices}:
        said = refused[method]
        assert said.startswith(f"--method: {method!r} can be trained, but no config of it is here")
        # Every name that the message offers works, and none that works is missing.
        assert {*said.rstrip(".").rpartition(": ")[2].split(", ")} == {*written, *slices}


def test_an_unknown_method_is_refused_before_anything_is_written(here, photos: Path, tmp_path: Path) -> None:
    run = here("init", str(photos), "--method", "byool")
    assert run.returncode == 2 and "--method" in run.stderr and "Did you mean 'byol'" in run.stderr
    assert [each.name for each in tmp_path.iterdir()] == [photos.name]
