"""Compare the LID of representations with the true dimension of the images, on drawn sprites."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from solo_dimreg.config.overrides import quoted_override
from solo_dimreg.datasets.sprites import FACTORS, read_split, write_sprites
from solo_dimreg.files import write_json
from solo_dimreg.functional import geometric_mean_lid
from solo_dimreg.metrics.neighbourhoods import LID_NEIGHBOURS
from solo_dimreg.plots import COLOURS, STYLE, WIDTH, save_png
from solo_dimreg.solo_learn import Run, register
from solo_dimreg.studies.claims.measures import readout
from solo_dimreg.studies.engine import run_study
from solo_dimreg.studies.study import Study
from solo_dimreg.training.evaluation import extract_splits

FREE_FACTORS = (1, 2, 3, 5)
IMAGES = 2_000
MAX_SAMPLES = 10_000  # for the LID, which searches the neighbours among all pairs


def run_sprites(
    study: Study,
    out: Path,
    factors: Sequence[int] = FREE_FACTORS,
    images: int = IMAGES,
    jobs: int = 1,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Run a study on sprites with different numbers of free factors, and measure the representations.

    Args:
        study: The study of ``configs/studies/sprites.yaml``, with one seed.
        out: The folder of the results: ``sprites.json``, ``sprites.png``, the data and the runs.
        factors, images: The numbers of free factors, and of the images of each, which are a data set.

    Returns:
        The content of ``sprites.json``. Each of its ``rows`` is one representation of one data set: the
        pixels, the features of an untrained backbone, or those of a trained one. ``lid`` is the LID of the
        training images (geometric mean, moments). ``readout`` is, for each free factor, the R2 of a linear
        regression on the validation images. ``linear_acc1`` is the probe's accuracy on the shapes.

    Raises:
        ConfigError: An option is out of range, or a config cannot work.
    """
    content: dict[str, Any] = {
        "solo_learn": register().generation,
        "images": images,
        "seed": study.first_seed,
        "overrides": study.overrides,
        "k": LID_NEIGHBOURS,
        "rows": [],
    }
    data = {
        free: write_sprites(out / "data" / f"factors{free}-images{images}", factors=free, images=images)
        for free in sorted(set(factors))
    }
    for free, folder in data.items():
        say(f"{free} free factor{'s' if free > 1 else ''}")
        paths = [quoted_override(f"data.{split}_path", folder / split) for split in ("train", "val")]
        results = run_study(study.changed(settings=paths), out / f"factors{free}", jobs, say)
        for row in _measure(folder, free, results["runs"]):
            content["rows"].append(row)
            write_json(out / "sprites.json", content)
    save_png(draw_known_and_measured(content["rows"]), out / "sprites.png")
    return content


def _measure(data: Path, free: int, results: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    (paths, factors), (val_paths, val_factors) = (read_split(data, split, free) for split in ("train", "val"))

    def row(representation: str, x: Tensor, x_val: Tensor, accuracy: float | None = None) -> dict[str, Any]:
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))  # they are sorted by shape
        return {
            "factors": free,
            "representation": representation,
            "lid": float(geometric_mean_lid(x[order[:MAX_SAMPLES]], k=LID_NEIGHBOURS)),
            "readout": readout(x, x_val, factors, val_factors),
            "linear_acc1": accuracy,
        }

    def row_of_run(representation: str, run: Run, accuracy: float | None = None) -> dict[str, Any]:
        x, x_val = (split.features for split in extract_splits(register(), run))
        return row(representation, x, x_val, accuracy)

    yield row("pixels", read_pixels(paths), read_pixels(val_paths))
    for number, result in enumerate(results):
        run = register().read_run(Path(result["checkpoint"]))
        if number == 0:
            register().seed(run.settings.seed)
            method = register().rebuild(json.loads((run.folder / "args.json").read_text()))
            yield row_of_run("untrained", replace(run, method=method.eval()))
        yield row_of_run(result["method"], run, result["linear_acc1"])


def read_pixels(paths: Sequence[Path]) -> Tensor:
    """Return images as rows of values from 0 to 1."""
    return torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in paths])).flatten(1) / 255


def sprites_table(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the cells of the comparison, as text."""

    def text(value: float | None, digits: int = 2) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    names = [name for name in FACTORS if any(name in row["readout"] for row in rows)]
    header = ["free factors", "representation", "LID", *(f"R2 {name}" for name in names), "linear top-1 %"]
    cells = [
        [
            str(row["factors"]),
            row["representation"],
            text(row["lid"]),
            *(text(row["readout"].get(name)) for name in names),
            text(row["linear_acc1"], 1),
        ]
        for row in rows
    ]
    return header, cells


@rc_context(STYLE)
def draw_known_and_measured(rows: Sequence[dict[str, Any]]) -> Figure:
    """Return a figure of each representation's LID over the number of free factors, beside the truth."""
    figure = Figure(figsize=(WIDTH, 4.0))
    figure.set_label("LID of sprites over their true dimension")
    axes = figure.add_subplot()
    counts = sorted({row["factors"] for row in rows})
    axes.plot(counts, counts, "--", color="#7F7F7F", label="true dimension")
    for i, name in enumerate(dict.fromkeys(row["representation"] for row in rows)):
        own = [row for row in rows if row["representation"] == name]
        lids = [row["lid"] for row in own]
        axes.plot([row["factors"] for row in own], lids, marker="o", color=COLOURS[i], label=name)
    axes.set_xlabel("free factors of the images")
    axes.set_ylabel(f"LID (k = {LID_NEIGHBOURS})")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=3, fontsize=9)
    return figure
