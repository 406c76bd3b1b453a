"""Images on disk: folders with a folder per class, folders of images, and data sets of torchvision."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torchvision
from torch.utils.data import Dataset
from torchvision.transforms import Compose

from solo_dimreg.config.data import check_image_folder
from solo_dimreg.datasets.images import IMAGE_SUFFIXES, load_image, to_rgb
from solo_dimreg.errors import ConfigError, brief, unknown


@dataclass(frozen=True)
class Images:
    """The place of the images, for the inputs that need some.

    Attributes:
        path: An image folder, or the root of a torchvision data set; None for the checkpoint's own images.
        dataset: The name of a torchvision data set, such as ``CIFAR10``; None for an image folder.
        split: ``train`` or ``val``. In an image folder, it is the subfolder of that name, if there is one.
        size: The resolution in pixels; None for the model's own.
    """

    path: Path | None = None
    dataset: str | None = None
    split: str = "train"
    size: int | None = None
    batch_size: int = 256
    num_workers: int = 0


def image_dataset(images: Images, transform: Callable) -> Dataset:
    """Return the transformed images with their labels, which are all 0 without class folders.

    Raises:
        ConfigError: there are no images, or the torchvision data set is not intact.
    """
    if images.path is None:
        raise ConfigError("--images: is missing; a model needs an image folder, or the root of a data set.")
    root = images.path.expanduser()
    if not root.exists():
        raise ConfigError(f"--images: {str(root)!r} does not exist (working directory {Path.cwd()}).")
    if images.dataset is not None:
        return _torchvision_dataset(images.dataset, root, images.split, transform)
    if not root.is_dir():
        raise ConfigError(f"--images: {str(root)!r} is a file; it must be a folder of images.")
    splits = [name for name in ("train", "val") if (root / name).is_dir()]
    if splits and images.split not in splits:
        raise ConfigError(f"--split: {str(root)!r} has no folder {images.split!r}, only {splits[0]!r}.")
    root = root / images.split if splits else root
    entries = list(root.iterdir())
    flat = any(each.suffix.lower() in IMAGE_SUFFIXES for each in entries)
    if flat and not any(each.is_dir() for each in entries):
        return _FlatFolder(str(root), transform, loader=load_image)
    check_image_folder("--images", root)
    return torchvision.datasets.ImageFolder(str(root), transform, loader=load_image)


class _FlatFolder(torchvision.datasets.ImageFolder):
    """A data set of the images in one folder, without classes."""

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        return [], {"": 0}


def _torchvision_dataset(name: str, root: Path, split: str, transform: Callable) -> Dataset:
    known = {
        each.lower(): getattr(torchvision.datasets, each)
        for each in torchvision.datasets.__all__
        if "root" in inspect.signature(getattr(torchvision.datasets, each)).parameters
    }
    if name.lower() not in known:
        raise ConfigError(f"--dataset: {unknown('data set', name.lower(), known)}")
    build = known[name.lower()]
    parameters = inspect.signature(build).parameters
    choices: list[dict[str, Any]] = [{}]
    if "train" in parameters:
        choices = [{"train": split == "train"}]
    elif "split" in parameters:
        choices = [{"split": each} for each in (("train",) if split == "train" else ("val", "test", "valid"))]
    reasons = []
    for choice in choices:
        try:
            return build(str(root), transform=Compose([to_rgb, transform]), **choice)
        except Exception as error:
            reasons.append(brief(error).removesuffix(" You can use download=True to download it"))
    raise ConfigError(f"--dataset: {name} is not intact in {str(root)!r} ({reasons[0]}).")
