"""Check the names of inputs, before timm, torchvision and solo-learn are imported."""

from __future__ import annotations

from pathlib import Path

from solo_dimreg.errors import ConfigError
from solo_dimreg.files import find_checkpoint

SUFFIXES = (".npy", ".npz", ".pt", ".pth", ".safetensors")
CHECKPOINT = ".ckpt"
PIXELS = "pixels"
# The start of the name of a timm model, which is no path.
TIMM = "timm/"
# The endings of files, which no timm model's name has; a downloaded checkpoint may be a .pth.tar.
ENDINGS = (CHECKPOINT, ".tar")


def check_feature_file(path: Path) -> None:
    """Raise if a file of features, embeddings or labels is missing, is empty or has another format.

    Raises:
        ConfigError: names the file, and the formats that are read.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file.")
    if path.suffix not in SUFFIXES:
        suffix = f"with the suffix {path.suffix}" if path.suffix else "without a suffix"
        raise ConfigError(
            f"{path}: files {suffix} are not read; features come as {', '.join(SUFFIXES)}, and a checkpoint "
            f"of solo-learn as a folder or {CHECKPOINT}."
        )
    if path.stat().st_size == 0:
        raise ConfigError(f"{path}: is empty.")


def check_given(given: str, weights: Path | None, embeddings: Path | None, labels: Path | None) -> None:
    """Raise a ConfigError if a file of an input is missing, or an option belongs to another kind of input."""
    path = Path(given).expanduser()
    features = path.suffix in SUFFIXES
    if weights and (features or path.exists()):
        own = "" if features else " A checkpoint brings its own weights."
        raise ConfigError(f"--weights: is for a timm model, not for {given}.{own}")
    if weights and not weights.is_file():
        raise ConfigError(f"--weights: {weights}: no such file.")
    for option, file in (("embeddings", embeddings), ("labels", labels)):
        if file and not features:
            raise ConfigError(f"--{option}: is for a feature file, not for {given}.")
        if file:
            check_feature_file(file)
    if not features and not path.exists() and (path.suffix in ENDINGS or "/" in given.removeprefix(TIMM)):
        raise ConfigError(f"{given}: no such file or folder (working directory {Path.cwd()}).")
    if features or (path.is_file() and path.suffix != CHECKPOINT):
        check_feature_file(path)
    elif path.exists():
        find_checkpoint(path)


def check_images(given: str, images: Path | None) -> None:
    """Raise a ConfigError if there are no images for pixels or a timm model."""
    path = Path(given).expanduser()
    if images is None and path.suffix not in SUFFIXES and not path.exists():
        what = "pixels need" if given == PIXELS else f"{given} is no file or folder, and a timm model needs"
        raise ConfigError(f"--images: is missing; {what} an image folder, or the root of a data set.")
