"""Split a folder of classes into ``train/`` and ``val/``, by symbolic links."""

from __future__ import annotations

import random
from pathlib import Path

from solo_dimreg.datasets.check import image_paths
from solo_dimreg.datasets.folder import write_image_folder
from solo_dimreg.errors import ConfigError


def split_folder(folder: Path, out: Path, share: float = 0.2, seed: int = 0, *, force: bool = False) -> Path:
    """Write ``out/train`` and ``out/val``, whose files are links to the images of ``folder``.

    The share is taken from every class, and no image is copied. The same folder, share and seed give the same
    split.

    Args:
        folder: The folder to split, with one folder per class.
        out: The folder to write.
        share: The part of every class that is held back, above 0 and below 1; at least one image a class.
        seed: The seed of the choice.
        force: Move an existing folder aside and write a new one.

    Returns:
        ``out``.

    Raises:
        ConfigError: there are no class folders, a class has a single image, or ``out`` has other content.
    """
    if not 0 < share < 1:
        raise ConfigError(f"--share: {share} is not allowed; it must be above 0 and below 1.")
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is not a folder; it must be a folder with one folder per class.")
    source = folder.resolve()
    if out.resolve().is_relative_to(source):
        raise ConfigError(f"--out: {str(out)!r} is inside {str(folder)!r}; give a folder elsewhere.")
    links: list[tuple[str, Path]] = []
    for each in sorted(source.iterdir()):
        paths = sorted(image_paths(each)) if each.is_dir() and not each.name.startswith(".") else []
        if len(paths) == 1:
            raise ConfigError(f"{each}: has a single image; a class needs one each for train/ and val/.")
        number = min(max(1, round(share * len(paths))), len(paths) - 1) if paths else 0
        # Each class draws by itself, so another class does not change its choice.
        chosen = set(random.Random(f"{seed} {each.name}").sample(paths, number))
        for path in paths:
            split = "val" if path in chosen else "train"
            links.append((f"{split}/{path.relative_to(source).as_posix()}", path))
    if not links:
        raise ConfigError(
            f"{folder}: has no class folders with images; images without labels need no split, only "
            "data.no_labels=True."
        )
    count = sum(name.startswith("val/") for name, _ in links)
    manifest = {
        "name": f"split of {source.name}",
        "source": str(source),
        "share": share,
        "seed": seed,
        "splits": {"train": len(links) - count, "val": count},
    }
    return write_image_folder(out, manifest, links, force=force)
