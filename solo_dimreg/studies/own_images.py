"""Make a study of rows that a reader names, on the reader's images, and say what it will take."""

from __future__ import annotations

import io
import math
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from solo_dimreg.config.agreement import idle_settings
from solo_dimreg.config.data import check_data
from solo_dimreg.config.folders import config_root
from solo_dimreg.config.loading import parse_config
from solo_dimreg.config.overrides import quoted_override
from solo_dimreg.config.parsing import parse
from solo_dimreg.config.schema import Pretraining
from solo_dimreg.config.steps import count_steps
from solo_dimreg.config.values import plain
from solo_dimreg.datasets.check import image_paths
from solo_dimreg.datasets.layout import find_layout
from solo_dimreg.datasets.split import split_folder
from solo_dimreg.errors import ConfigError
from solo_dimreg.files import write_text
from solo_dimreg.quiet import without_logs
from solo_dimreg.solo_learn import register
from solo_dimreg.studies.engine import configs_of, finished_runs
from solo_dimreg.studies.study import DATASETS, WRITERS, Row, Study, load_yaml, read_study, row_of
from solo_dimreg.training.starting import config_named, fitted_config

# The training and validation images of the data sets that torchvision downloads.
IMAGES = {"cifar10": (50_000, 10_000), "cifar100": (50_000, 10_000), "stl10": (105_000, 8_000)}
# The steps that are timed, after some that are not; LONG seconds of them are enough.
TIMED, BEFORE, LONG = 10, 2, 60.0


def study_of(
    given: Sequence[str],
    data: str,
    out: Path,
    length: tuple[int | None, int | None] = (None, None),
    changes: Mapping[str, Any] | None = None,
) -> Study:
    """Return the study that a reader's rows and data stand for.

    Args:
        given: Rows such as ``byol +regularizers.ldreg.weight=0.1``: the name of a config or of a method, or a
            YAML file, with overrides. Or one study: its name, or its file.
        data: A folder of images, or the name of embedded data. The configs are fitted to it as by ``init``,
            except the reader's own files, of which the data alone changes. Empty: the study's own.
        out: The folder of the results, where the fitted configs are written.
        length: The epochs or the steps of every training; by default those of the configs.
        changes: Other values of the study. ``overrides`` and ``linear`` are added to its own.

    Raises:
        ConfigError: A row or the data cannot be; the message says what would be right.
    """
    if len(given) == 1 and is_study(given[0]):
        study = read_study(given[0])
        study = study.variant(data) if data in study.variants else study.changed(data=data or study.data)
    else:
        rows: dict[str, Row] = {}
        for text in given:
            row = parse(Row, {**row_of(text), "title": " ".join(text.split())})
            name = re.sub(r"[^\w.]+", "-", re.sub(r"^\S*/|\.ya?ml(?= |$)", "", row.title)).strip("-")
            if name in rows:
                raise ConfigError(f"{text!r} stands there twice; each row must be another.")
            rows[name] = row
        folders = {str(Path(row.config).parent) for row in rows.values() if not Path(row.config).suffix}
        also = [] if data else sorted(folders & WRITERS.keys())
        study = parse(Study, {"name": out.name, "title": out.name, "rows": rows, "data": data, "also": also})
    for name, row in study.rows.items():
        if row.config.endswith((".yaml", ".yml")) and not Path(row.config).is_file():
            raise ConfigError(f"{row.title or name!r}: there is no file {row.config!r}; it must be a config.")
    values = dict(changes or {})
    for key in ("overrides", "linear"):
        values[key] = [*getattr(study, key), *values.get(key, ())]
    study = study.changed(**values)
    if study.data in WRITERS and not study.folder and (config_root() / "pretrain" / study.data).is_dir():
        study = study.changed(folder=study.data)
    if study.data and not (study.folder and study.data in WRITERS):
        study = study.changed(rows=_fitted(study.rows, study.data, out, *length), data="")
    study.write_data()
    if not any(length):
        return study
    rows = {}
    for name, row in study.rows.items():
        settings, _ = configs_of(study, name, study.first_seed, out)
        epochs, steps = length
        if steps:
            per_epoch = count_steps(settings, count_images(settings)[0]).per_epoch
            epochs = math.ceil(steps / max(per_epoch, 1))
        change = [f"max_epochs={epochs}"] if epochs != settings.max_epochs else []
        rows[name] = row.model_copy(update={"set": [*row.set, *change]})
    return study.changed(rows=rows)


def is_study(text: str) -> bool:
    """Return whether a text names a study: one that we ship, or a YAML file with rows."""
    if not text.endswith((".yaml", ".yml")):
        return (config_root() / "studies" / f"{text}.yaml").is_file()
    return "rows" in load_yaml(Path(text))


def _fitted(
    rows: dict[str, Row], data: str, out: Path, epochs: int | None, steps: int | None
) -> dict[str, Row]:
    """Return the rows with configs that fit the images, which are written below ``out``.

    Images with classes are split if no validation images are there.
    """
    folder = WRITERS[data](DATASETS / data) if data in WRITERS and not Path(data).is_dir() else Path(data)
    host, layout, images = register(), find_layout(folder), folder.resolve().name
    if layout.classes and layout.val is None:
        layout = find_layout(split_folder(layout.train, DATASETS / f"{images}-split"))
    paths = [
        quoted_override("data.train_path", layout.train),
        quoted_override("data.val_path", layout.val) if layout.val else "data.val_path=null",
    ]
    own = ["data.dataset=custom", "++data.format=image_folder", *paths]
    own += [] if layout.classes else ["++data.no_labels=True"]
    found = {}
    for name, row in rows.items():
        file = Path(row.config)
        if file.suffix in (".yaml", ".yml"):
            found[name] = row.model_copy(update={"config": str(file.absolute()), "set": [*own, *row.set]})
            continue
        source, base = config_named(host, file.name, layout.images)
        text = fitted_config(host, layout, images, source, base, epochs, steps)
        fitted = out.absolute() / "configs" / f"{file.name}.yaml"
        write_text(fitted, text)
        found[name] = row.model_copy(update={"config": str(fitted)})
    return found


def count_images(settings: DictConfig) -> tuple[int, int]:
    """Return the numbers of training and validation images of a config."""
    data = settings.data
    if data.dataset in IMAGES:
        return IMAGES[data.dataset]
    paths = [Path(str(path)) if path else None for path in (data.train_path, data.get("val_path"))]
    train, val = (sum(1 for _ in image_paths(each)) if each and each.is_dir() else 0 for each in paths)
    return train, 0 if data.get("no_labels") else val


@dataclass(frozen=True)
class Plan:
    """Holds the plan of a comparison.

    Attributes:
        rows: For each row its title, epochs, steps, and how many of its runs are finished.
        train, val: The numbers of training and validation images.
        steps: The number of steps that are left, over all runs.
        first: The config of the first row.
        idle: For each setting of a row without an effect, the row and the reason.
    """

    rows: list[list[str]]
    train: int
    val: int
    steps: int
    runs: int
    finished: int
    first: DictConfig
    idle: list[str]

    def seconds_per_step(self, threads: int) -> float:
        """Return the seconds that a step of the first row takes here, from a few steps of a training."""
        batches = self.train // self.first.optimizer.batch_size
        untimed = min(BEFORE, batches)
        with _computing_with(threads):
            before = self._seconds(untimed)
            timed = min(TIMED, batches - untimed, max(2, round(LONG * untimed / before)))
            if not timed:  # with so few batches the start of the training counts too
                return before / max(batches, 1)
            return max(self._seconds(untimed + timed) - before, 0.0) / timed

    def _seconds(self, steps: int) -> float:
        """Return the seconds of so many steps of the first row, with the start of the training."""
        from solo_dimreg.training.pretraining import pretrain

        starts: list[float] = []
        with tempfile.TemporaryDirectory() as folder:
            settings = OmegaConf.create(plain(self.first))
            settings.update(max_epochs=1, limit_train_batches=steps, limit_val_batches=0)
            settings.update(checkpoint={"enabled": False, "dir": folder}, wandb={"enabled": False})
            settings.update(monitor=None, enable_model_summary=False, enable_progress_bar=False)
            with without_logs(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                pretrain(settings, on_start=lambda: starts.append(time.perf_counter()))
            return time.perf_counter() - starts[-1]


@contextmanager
def _computing_with(threads: int) -> Iterator[None]:
    """Let torch compute with so many threads, and afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def plan_of(study: Study, seeds: Sequence[int], out: Path) -> Plan:
    """Return what a comparison will do; raise ConfigError if a config or its data cannot work."""
    if not study.rows:
        raise ConfigError(f"{study.title}: has no rows to compare; its questions need no training.")
    configs = {name: configs_of(study, name, seeds[0], out) for name in study.rows}
    runs = [task for task in study.tasks(seeds) if task[0] in configs]
    left = Counter(name for name, _ in set(runs) - finished_runs(study, seeds, out, configs).keys())
    planned = Counter(name for name, _ in runs)
    counted: dict[str, tuple[int, int]] = {}
    rows, steps_left, idle = [], 0, []
    for name, (settings, _) in configs.items():
        title = study.rows[name].title or name
        lines = idle_settings(register(), settings, parse_config(register(), settings, Pretraining))
        idle += [f"{title}: {line}" for line in lines]
        data = str(settings.data.train_path)
        check_data(settings, need_val=False)
        counted[data] = counted.get(data) or count_images(settings)
        steps = count_steps(settings, counted[data][0]).total
        steps_left += steps * left[name]
        done = f"{planned[name] - left[name]} of {planned[name]}"
        rows.append([title, str(settings.max_epochs), str(steps), done])
    first, _ = next(iter(configs.values()))
    train, val = counted[str(first.data.train_path)]
    if study.probe_data:
        val = sum(1 for _ in image_paths(Path(study.probe_data, "val")))
    return Plan(rows, train, val, steps_left, len(runs), len(runs) - left.total(), first, idle)
