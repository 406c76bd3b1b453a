"""Read an image file as 8-bit RGB; all trainings, evaluations, diagnoses and checks use this loader.

An image of 8 bits without transparency has the pixels of ``Image.open(path).convert("RGB")``, as torchvision
and solo-learn read it. Two kinds of image differ, since this conversion would cut their values off at 255 or
ignore their alpha channel:

- A *deep* image (16-bit or 32-bit integers, floating-point numbers) is scaled to 8 bits by its own range:
  its smallest value becomes 0 and its largest 255. A constant one becomes black.
- An image with *alpha* is composed onto a white background.

A deep image whose values Pillow cannot return in full (such as CMYK of 16 bits) is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from solo_dimreg.errors import ConfigError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
WHITE = 255  # of the background under transparent parts
TRANSPARENT_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
# Pillow decodes only the high byte of 16-bit colours. The second name makes it decode the low byte, or all
# four bytes of grey with alpha. Pillow cuts all other layouts of colours of more than 8 bits to 8 bits.
LOW_BYTES = {
    **{"RGB;16B": "RGB;16L", "RGB;16L": "RGB;16B", "RGB;16N": "RGB;16B"},
    **{"RGBA;16B": "RGBA;16L", "RGBA;16L": "RGBA;16B", "RGBA;16N": "RGBA;16B"},
    **{"RGBX;16B": "RGBX;16L", "RGBX;16L": "RGBX;16B", "RGBX;16N": "RGBX;16B"},
    "LA;16B": "RGBA",
}
# libtiff returns the values of a compressed file in the byte order of the machine, but Pillow expects the
# byte order of the file for these.
NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
UNSIGNED = ("I;32N", "I;32B")  # TIFF's unsigned integers, which Pillow reads as signed
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # a tag of TIFF and its value, which Pillow heeds only for 8 bits
BITS = 258  # the tag of TIFF with the bits of each channel
PLANES, SEPARATE = 284, 2  # a tag of TIFF and its value for a file with one channel after the other


def load_image(path: str | Path) -> Image.Image:
    """Return the image of a file in mode RGB, 8 bits a channel.

    Raises:
        ConfigError: the image cannot be decoded in full, or has values that are not finite; names the file.
    """
    with _naming(path):
        return read_image(path)


@contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise ConfigError(
            f"{path}: {reason(error)}. 'solo-dimreg data check' lists all such files."
        ) from error


def read_image(path: str | Path, content: bytes | None = None) -> Image.Image:
    """Return the image of a file, or of the content of a file, in mode RGB, 8 bits a channel.

    Raises:
        Exception: the error of Pillow for a file that it cannot decode.
        ValueError: Pillow would cut the values of the image to 8 bits, or they are not finite.
    """

    def opened() -> Image.Image:
        return _in_full(Image.open(path if content is None else BytesIO(content)))

    with opened() as image:
        if image.mode[0] in "IF" or not is_deep(image):
            return to_rgb(image)
        separate = getattr(image, "tag_v2", {}).get(PLANES) == SEPARATE
        if separate or _codec(image)[1] not in LOW_BYTES:
            raise ValueError(
                f"Pillow would cut its {_bits(image)} bits a channel to 8; save it with 8 bits a channel, or "
                "as a 16-bit PNG in grey or RGB"
            )
        with opened() as again:
            return _of_values(*_colours(image, again))


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image in mode RGB, 8 bits a channel, with Pillow's values of 16-bit colours.

    Raises:
        ValueError: the image has values that are not finite.
    """
    if image.mode[0] in "IF":
        return _of_values(*_greys(image))
    if not has_alpha(image):
        return image.convert("RGB")
    if image.mode == "La":  # Pillow cannot convert this mode to RGBA directly
        image = image.convert("LA")
    background = Image.new("RGBA", image.size, (WHITE, WHITE, WHITE))
    return Image.alpha_composite(background, image.convert("RGBA")).convert("RGB")


def is_deep(image: Image.Image) -> bool:
    """Return whether an opened image that is not yet loaded has more than 8 bits a channel."""
    return image.mode[0] in "IF" or _bits(image) > 8


def has_alpha(image: Image.Image) -> bool:
    """Return whether an image has an alpha channel or a transparent colour."""
    return image.mode in TRANSPARENT_MODES or "transparency" in image.info


def is_transparent(image: Image.Image) -> bool:
    """Return whether a part of an image is transparent; an opaque alpha channel does not count."""
    if not has_alpha(image):
        return False
    if is_deep(image) and "transparency" in image.info:
        return True
    whole = image.convert("LA") if image.mode == "La" else image
    return whole.convert("RGBA").getchannel("A").getextrema()[0] < 255  # type: ignore[operator]


def reason(error: BaseException) -> str:
    """Return why an image cannot be read, in a few words."""
    text = str(error).strip().partition("\n")[0].rstrip(".")
    if isinstance(error, FileNotFoundError):
        return "is a link to a file that does not exist"
    if isinstance(error, PermissionError):
        return "cannot be opened: permission denied"
    if "cannot identify image file" in text:
        return "cannot be read as an image: the file is empty or damaged, or Pillow does not know its format"
    return f"cannot be read as an image ({text or type(error).__name__})"


def _codec(image: Any) -> tuple[str, str, tuple[Any, ...]]:
    """Return Pillow's decoder of an opened image, the raw mode, and the other arguments of the decoder.

    The raw mode is Pillow's name for the layout of the pixels in the file. It is empty once they are loaded.
    """
    name, _, _, arguments = image.tile[0] if getattr(image, "tile", None) else ("", None, 0, "")
    raw, *others = (arguments,) if isinstance(arguments, str) else arguments or ("",)
    return name, str(raw), tuple(others)


def _bits(image: Image.Image) -> int:
    """Return the bits a channel that an opened file of colours states."""
    tags = getattr(image, "tag_v2", None)
    if tags is not None:
        return max(tags.get(BITS) or (1,))
    name, raw, others = _codec(image)
    if name.startswith("ppm") and others:  # the largest value in the file
        return int(others[0]).bit_length()
    return 16 if raw in LOW_BYTES else 8


def _in_full(image: Image.Image) -> Image.Image:
    """Return an opened image, and make Pillow decode its values in full where it otherwise would not."""
    name, raw, others = _codec(image)
    if name == "libtiff" and raw in NATIVE:
        _decode_as(image, NATIVE[raw])
    elif name == "ppm" and image.mode == "RGB" and others[0] > 255:
        _decode_as(image, "RGB;16B", "raw")
    return image


def _decode_as(image: Any, raw: str, decoder: str = "") -> None:
    """Make Pillow decode an opened image as if its pixels had another layout."""

    def changed(tile: Any) -> Any:
        name, extents, offset, arguments = tile
        arguments = raw if decoder or isinstance(arguments, str) else (raw, *arguments[1:])
        return getattr(tile, "_make", tuple)((decoder or name, extents, offset, arguments))  # since Pillow 11

    image.tile = [changed(tile) for tile in image.tile]


def _greys(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the values of a deep image (H, W), and where it is opaque, or None if everywhere."""
    unsigned = _codec(image)[1] in UNSIGNED
    values = np.asarray(image)
    values = (values.view(np.uint32) if unsigned else values).astype(np.float64)
    transparent = image.info.get("transparency")
    opaque = None if transparent is None else (values != transparent).astype(np.float64)
    white_is_zero = getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO
    return -values if white_is_zero else values, opaque


def _colours(high: Image.Image, low: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the values of 16-bit colours (H, W, 3), and their opacity (H, W), from 0 to 1, or None for 1."""
    raw = _codec(high)[1]
    _decode_as(low, LOW_BYTES[raw])
    lows = np.asarray(low).astype(np.float64)
    if raw == "LA;16B":
        values = lows[..., 0::2] * 256 + lows[..., 1::2]
        return values[..., [0, 0, 0]], values[..., 1] / 65535
    values = np.asarray(high) * 256.0 + lows
    if high.mode == "RGBA":
        return values[..., :3], values[..., 3] / 65535
    values = values[..., :3]  # Pillow before version 11 keeps the fourth channel of RGBX
    transparent = high.info.get("transparency")
    return values, None if transparent is None else (values != transparent).any(-1).astype(np.float64)


def _of_values(values: np.ndarray, opaque: np.ndarray | None) -> Image.Image:
    """Return the image of values (H, W) or (H, W, 3), scaled by the range of its visible values."""
    if not np.isfinite(values).all():
        raise ValueError("it has values that are not finite")
    seen = values if opaque is None or not opaque.any() else values[opaque > 0]
    low, high = seen.min(), seen.max()
    scaled = np.clip((values - low) / ((high - low) or 1), 0, 1) * 255
    if opaque is not None:
        opaque = opaque.reshape(opaque.shape + (1,) * (values.ndim - 2))
        scaled = scaled * opaque + WHITE * (1 - opaque)
    return Image.fromarray(np.rint(scaled).astype(np.uint8)).convert("RGB")


def image_files(dataset: Any) -> list[Path]:
    """Return the files of a data set of images on disk; none if it holds its images in another way."""
    inner = _innermost(dataset)
    if _is_unlabelled(inner):
        return [Path(inner.root, name) for name in inner.images]
    return [Path(path) for path, _ in inner.samples] if hasattr(inner, "loader") else []


def read_with_us(dataset: Any) -> Any:
    """Make a data set of torchvision or solo-learn read its files by :func:`load_image`, and return it.

    An error then names the file, even from a worker process. Data sets that hold their images in memory, such
    as CIFAR-10, do not change.
    """
    inner = _innermost(dataset)
    if hasattr(inner, "loader"):
        inner.loader = load_image
    elif _is_unlabelled(inner):
        _override_item(inner)
    elif hasattr(inner, "_load_img"):
        inner._load_img = partial(_from_h5, inner)
    return dataset


def _innermost(dataset: Any) -> Any:
    while hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    return dataset


def _is_unlabelled(dataset: Any) -> bool:
    """Return whether a data set is solo-learn's one of images without labels, which has no loader."""
    return hasattr(dataset, "root") and isinstance(getattr(dataset, "images", None), list)


def _override_item(dataset: Any) -> None:
    """Give a data set our ``__getitem__``, below the class that adds the index to an item."""
    kind = type(dataset)
    having = [each for each in kind.__mro__ if "__getitem__" in vars(each)]
    base = [each for each in having if not each.__module__.startswith("torch.")][-1]
    ours = type(base.__name__, (base,), {"__getitem__": _unlabelled_item})
    dataset.__class__ = ours if kind is base else type(kind.__name__, (kind, ours), {})


def _unlabelled_item(dataset: Any, index: int) -> tuple[Any, int]:
    image = load_image(dataset.root / dataset.images[index])
    return image if dataset.transform is None else dataset.transform(image), -1


def _from_h5(dataset: Any, folder: str, name: str) -> Image.Image:
    """Return an image from solo-learn's HDF5 files, which hold the bytes of image files."""
    path = f"{dataset.h5_path}/{folder}/{name}"
    with _naming(path):
        return read_image(path, dataset.h5_file[folder][name][:].tobytes())
