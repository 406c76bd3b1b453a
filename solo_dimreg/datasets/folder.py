"""Write an image folder in one step, so that it is either complete or absent."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from solo_dimreg.errors import ConfigError
from solo_dimreg.files import aside

MANIFEST = "dataset.json"


def write_image_folder(
    out: Path,
    manifest: Mapping[str, Any],
    images: Iterable[tuple[str, Image.Image | Path]],
    *,
    texts: Mapping[str, str] | None = None,
    force: bool = False,
) -> Path:
    """Write images and their manifest as ``out/<split>/<class>/<name>.png`` and ``out/dataset.json``.

    The images go to a temporary sibling folder that is renamed at the end, so ``out`` is complete or absent
    even after an interruption. A complete folder with the same manifest is left alone, and ``images`` is then
    not read.

    Args:
        out: folder to write.
        manifest: description of the data set; ``manifest["splits"]`` maps each split to its number of images.
        images: pairs of a path below ``out``, and the image or the path of an image to link to.
        texts: further files, such as a table of the images: name -> content.
        force: move an existing folder aside (``<out>.bak``, ``<out>.bak2``, ...) and write a new one.

    Returns:
        ``out``.

    Raises:
        ConfigError: ``out`` exists and is neither empty nor complete.
    """
    texts = {**(texts or {}), MANIFEST: json.dumps(manifest, indent=2) + "\n"}
    target = out.expanduser().resolve()
    vacant = not target.exists() or (target.is_dir() and not any(target.iterdir()))
    if not vacant and not force:
        if fault := _fault(target, manifest, texts):
            raise ConfigError(
                f"{out} {fault}. Give another folder, or use --force, "
                f"which moves this one to {aside(target).name}."
            )
        return out

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}")
    try:
        _write(partial, manifest, images, texts)
        if not vacant:
            target.rename(aside(target))
        try:
            partial.rename(target)  # over an empty folder, if there is one
        except OSError:
            if _fault(target, manifest, texts):
                raise
            shutil.rmtree(partial)  # another process has written the same folder in the meantime
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return out


def _fault(target: Path, manifest: Mapping[str, Any], texts: Iterable[str]) -> str:
    """Return why the existing ``target`` cannot be used; empty if it is complete."""
    if not target.is_dir():
        return "is a file"
    try:
        found = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"is not empty and has no readable {MANIFEST}"
    if found != manifest:
        return f"holds another data set, or another version of {manifest['name']!r}"
    for split, expected in manifest["splits"].items():
        count = sum(path.is_file() for path in (target / split).rglob("*"))
        if count != expected:
            return f"has {count} images in {split!r} instead of {expected}"
    missing = [name for name in texts if not (target / name).is_file()]
    return f"has no {missing[0]}" if missing else ""


def _write(
    folder: Path,
    manifest: Mapping[str, Any],
    images: Iterable[tuple[str, Image.Image | Path]],
    texts: Mapping[str, str],
) -> None:
    folder.mkdir()
    total = sum(manifest["splits"].values())
    # disable=None: no bar if standard error is not a terminal
    for name, image in tqdm(images, desc=manifest["name"], total=total, unit="image", disable=None):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(image, Path):
            path.symlink_to(image)
        else:
            image.save(path, format="PNG")
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
