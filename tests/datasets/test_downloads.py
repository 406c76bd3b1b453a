"""``data.dataset`` of a data set that solo-learn downloads, where there is none of it."""

from __future__ import annotations

import shutil
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from support import config

from solo_dimreg.config.data import check_data
from solo_dimreg.datasets.downloads import DOWNLOADED, explained_download
from solo_dimreg.errors import ConfigError
from solo_dimreg.solo_learn import Host
from solo_dimreg.training.evaluation import labelled_images
from solo_dimreg.training.pretraining import pretrain

FILES = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python", "stl10": "stl10_binary"}
CUSTOM = "data.dataset must be 'custom', which reads a folder"


def settings_of(dataset: str, train: Path, val: Path | None = None) -> Any:
    settings = config("simclr", str(train))
    settings.backbone = {"name": "timm/test_resnet"}
    settings.data.update(dataset=dataset, val_path=val and str(val))
    return settings


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every download ends at a port of this machine at which nobody listens."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)


@pytest.mark.parametrize("dataset", DOWNLOADED)
@pytest.mark.parametrize("folder", ["train", "train/3", "."])
def test_a_folder_of_images_is_custom(few_digits: Path, dataset: str, folder: str) -> None:
    path = (few_digits / folder).resolve()
    for key, train, val in (("train", path, None), ("val", few_digits / "nowhere", path)):
        words = (
            rf"data\.dataset: is '{dataset}'.* data\.{key}_path \('{path}'\) is a folder of images; {CUSTOM}"
        )
        with pytest.raises(ConfigError, match=words):
            check_data(settings_of(dataset, train, val), need_val=False)


@pytest.mark.parametrize("dataset", DOWNLOADED)
def test_a_folder_to_download_into_is_let_through(few_digits: Path, tmp_path: Path, dataset: str) -> None:
    shutil.copytree(few_digits, tmp_path / "digits")  # another data set beside it
    check_data(settings_of(dataset, tmp_path, tmp_path / "not there yet"), need_val=True)
    shutil.copytree(few_digits / "train" / "3", tmp_path / "mine")
    with pytest.raises(ConfigError, match=CUSTOM):
        check_data(settings_of(dataset, tmp_path), need_val=False)
    (tmp_path / FILES[dataset]).mkdir()
    check_data(settings_of(dataset, tmp_path), need_val=False)


@pytest.mark.usefixtures("offline")
def test_a_download_that_fails_names_the_data_set(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = rf"data\.dataset: 'cifar10' .*{tmp_path / 'data'}.*cannot be downloaded \(URLError: .*{CUSTOM}"
    settings = settings_of("cifar10", tmp_path / "data", tmp_path / "data")
    with pytest.raises(ConfigError, match=words):
        pretrain(settings)
    with pytest.raises(ConfigError, match=words):
        labelled_images(host, settings, lambda image: image, lambda image: image)


def test_other_errors_are_left_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), explained_download("custom", tmp_path):
        (tmp_path / "nowhere").read_text()
