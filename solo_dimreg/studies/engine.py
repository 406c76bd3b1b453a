"""Train the rows of a study with its seeds, evaluate every run, and write what is known after each."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from omegaconf import DictConfig, OmegaConf

from solo_dimreg.config.composing import compose, evaluation_settings, fit_to_machine, other_data
from solo_dimreg.config.folders import config_root, place_of_row
from solo_dimreg.config.loading import parse_config
from solo_dimreg.config.schema import Linear, Pretraining
from solo_dimreg.config.values import device_count, plain
from solo_dimreg.diagnosis.diagnose import diagnose
from solo_dimreg.diagnosis.sources.arrays import in_memory, open_arrays
from solo_dimreg.diagnosis.sources.images import Images
from solo_dimreg.diagnosis.sources.opening import array_source, open_source
from solo_dimreg.errors import CollapseError, ConfigError, DivergenceError, one_line
from solo_dimreg.files import checkpoint_epoch, locked, read_numbers, write_json, write_text
from solo_dimreg.functional import alignment, lidar, uniformity
from solo_dimreg.functional._rows import few_indices
from solo_dimreg.metrics.numbers import representation_numbers
from solo_dimreg.reports.run_files import parts_of, read_curves
from solo_dimreg.reports.summary import summarize
from solo_dimreg.solo_learn import Run, register
from solo_dimreg.solo_learn.base import LINEAR_CONFIGS
from solo_dimreg.solo_learn.checkpoints import read_checkpoint
from solo_dimreg.solo_learn.record import read_record
from solo_dimreg.studies.claims.experiments import EXPERIMENTS
from solo_dimreg.studies.claims.measures import LIDAR_VIEWS, ONE_DEVICE, features_of_views, measure
from solo_dimreg.studies.record import compact, digest_of, read_runs, write_runs
from solo_dimreg.studies.study import DATASETS, Study, read_study
from solo_dimreg.studies.workers import STARTED, Launcher, Task, folder_of, local

# The configs of the pretraining and the probe of each row.
Configs = Mapping[str, tuple[DictConfig, DictConfig]]

TRIED = 100  # the first of the seeds on which settings are chosen
KNN: dict[str, Any] = {"feature": "backbone", "k": 20, "temperature": 0.07, "distance": "cosine"}


def run_study(
    study: Study,
    out: Path,
    jobs: int = 1,
    say: Callable[[str], None] = print,
    seeds: Sequence[int] | None = None,
    launcher: Launcher = local,
    record: Path | None = None,
    train: bool = True,
    beside: Sequence[Path] = (),
) -> dict[str, Any]:
    """Execute a study or the rest of it, and write ``results.json`` after every run.

    Finished runs with the same settings are reused, and interrupted ones resume.

    Args:
        study: It is written to ``study.yaml``, from which each run reads it.
        jobs, say, launcher: The number of runs at a time, what prints the progress, and what executes them.
        record: The file of finished runs, of any machine; it is read before the runs and written after each.
        train: Whether to execute what is not finished; without it, only the record is read.
        beside: Records of other machines, which are read for replications.

    Returns:
        The content of ``results.json``; with a record also ``beside``, the runs that are replications.

    Raises:
        ConfigError: A config cannot work, or data is missing; this is raised before anything is trained.
    """
    if study.seeds < 1:
        raise ConfigError(f"--seeds: {study.seeds} is not allowed; it must be a whole number >= 1.")
    seeds = range(study.first_seed, study.first_seed + study.seeds) if seeds is None else seeds
    if train:
        study.write_data()
    configs = {row: configs_of(study, row, seeds[0], out) for row in study.rows}
    epochs = {row: int(settings.max_epochs) for row, (settings, _) in configs.items()}
    # With the record alone, runs that are here and not in it do not count.
    done = finished_runs(study, seeds, out, configs) if train else {}
    tasks = study.tasks(seeds)
    kept = read_runs(record) if record else {}
    digests = {task: _digest(study, configs, *task) for task in tasks} if record else {}
    recorded: dict[Task, dict[str, Any]] = {}
    for (row, seed), digest in digests.items():
        found = kept.get((row, seed, digest), {})
        if found and ("failed" in found or row in EXPERIMENTS or found.keys() >= {*study.measures(row)}):
            recorded[row, seed] = found
    if record:
        say(f"{len(recorded)} of {len(tasks)} runs are in {record}")

    def keep(task: Task, result: dict[str, Any]) -> None:
        done[task] = result
        if record:
            done[task] = compact(*task, digests[task], result)
            # Another process may have written since.
            write_runs(record, read_runs(record) | {(*task, digests[task]): done[task]})

    with locked("--out", out):
        looked = looks_of(study, len(seeds), out)
        write_text(out / "study.yaml", study.as_yaml())

        def content() -> dict[str, Any]:
            found = results_of(study, seeds, done, epochs) | looked
            write_json(out / "results.json", found)
            return found

        for task in [each for each in tasks if each in done and each not in recorded]:
            keep(task, done[task])
        done |= recorded
        results = content()
        left = [task for task in tasks if task not in done] if train else []
        if train and not record and len(left) < len(tasks):
            say(f"{len(tasks) - len(left)} of {len(tasks)} runs were finished before.")
        run = partial(run_one, out / "study.yaml", out=out)
        for task, result in launcher(run, left, out, jobs, say) if left else ():
            keep(task, result)
            results = content()
    return (
        results | {"beside": _replications(study, configs, tasks, [record, *beside])} if record else results
    )


def seeds_of(study: Study, out: Path, more: int = 0) -> list[int]:
    """Return the seeds of a comparison, with ``more`` added; raise ConfigError without one to add to."""
    if not more:
        return list(range(study.first_seed, study.first_seed + study.seeds))
    before, whole = _before(out)
    known = before.get("planned_seeds", [])
    if not whole and not before.get("looks"):
        raise ConfigError(f"--more-seeds: {str(out)!r} has no finished comparison to add seeds to.")
    # The same command again continues.
    return [*known, *range(known[-1] + 1, known[-1] + 1 + more)] if whole else known


def looks_of(study: Study, seeds: int, out: Path) -> dict[str, Any]:
    """Return what is to be known of earlier looks at the results of a comparison, for ``results.json``.

    Returns:
        ``looked``: for each row the numbers of seeds at finished comparisons with it; ``looks``: the numbers
        below ``seeds`` at which a row of this study other than the baseline was seen; ``added``: the rows
        that were not in all of these looks.
    """
    before, whole = _before(out)
    looked = {row: set(counts) for row, counts in before.get("looked", {}).items()}
    for row in before["rows"] if whole else ():
        looked.setdefault(row, set()).add(len(before["planned_seeds"]))
    baseline = study.baseline or next(iter(study.rows), "")
    mine = {row: {count for count in looked.get(row, ()) if count < seeds} for row in study.rows}
    mine.pop(baseline, None)
    looks = set().union(*mine.values())
    return {
        "looked": {row: sorted(counts) for row, counts in looked.items()},
        "looks": sorted(looks),
        "added": [row for row, counts in mine.items() if counts != looks],
    }


def _before(out: Path) -> tuple[dict[str, Any], bool]:
    """Return the results that are in a folder, and whether all runs of their comparison have ended."""
    file = out / "results.json"
    before = json.loads(file.read_text()) if file.is_file() else {}
    planned = before.get("planned_runs", len(before.get("planned_seeds", [])) * len(before.get("rows", ())))
    return before, 0 < planned <= len(before.get("runs", ()))


def results_of(
    study: Study, seeds: Sequence[int], done: dict[Task, dict[str, Any]], epochs: dict[str, int]
) -> dict[str, Any]:
    """Return the content of ``results.json`` for the finished runs and experiments."""
    runs = [done[row, seed] for row in study.rows for seed in seeds if (row, seed) in done]
    return {
        "study": study.name,
        "benchmark": study.title or study.name,
        "solo_learn": register().generation,
        "knn": KNN,
        "baseline": study.baseline or next(iter(study.rows), ""),
        "rows": {
            name: {
                "title": row.title or name,
                "config": row.config,
                "overrides": row.set,
                "epochs": epochs[name],
            }
            for name, row in study.rows.items()
        },
        "seeds": sorted({seed for _, seed in done}),
        "planned_seeds": list(seeds),
        "planned_runs": sum(name in study.rows for name, _ in study.tasks(seeds)),
        "summary": summarize(runs),
        "runs": runs,
        "experiments": {
            name: {str(seed): done[name, seed] for seed in seeds if (name, seed) in done}
            for name in study.experiments()
        },
    }


def configs_of(study: Study, name: str, seed: int, out: Path) -> tuple[DictConfig, DictConfig]:
    """Return the configs of a row's pretraining and probe; raise ConfigError if one of them cannot work."""
    row, host = study.rows[name], register()
    fixed = (f"name={name}", "checkpoint.enabled=True", f"++seed={seed}")
    changes = (*study.settings, *row.set, *study.of_rows.get(name, ()), *fixed, *study.overrides)
    try:
        settings = compose("pretrain", *place_of_row(row.config, study.folder), changes, host)
        linear = _probe_config(study, settings)
        parse_config(host, settings, Pretraining)
        # The checkpoint is not written yet.
        folder = str(folder_of(out, name, seed))
        complete = OmegaConf.create({**plain(linear), "pretrained_feature_extractor": folder})
        parse_config(host, complete, Linear)
    except ConfigError as error:
        raise ConfigError(f"{row.title or name}: {error}") from error
    for each in (settings, linear):
        fit_to_machine(each)
    return settings, linear


def _probe_config(study: Study, settings: DictConfig) -> DictConfig:
    folder = study.folder
    if not folder or not (config_root() / "linear" / folder).is_dir():
        folder = LINEAR_CONFIGS.get(str(OmegaConf.select(settings, "data.dataset")), "digits")
    changes = [*ONE_DEVICE, *study.linear]
    if study.probe_data:
        changes += other_data(Path(study.probe_data))
    return compose("linear", str(config_root() / "linear" / folder), "linear", changes)


def run_one(study_file: Path, row: str, seed: int, out: Path) -> dict[str, Any]:
    """Train and evaluate one row with one seed, or the rest of it; or measure an experiment.

    This is the unit of work of every launcher: it may be called in another process or on another host. A run
    with exactly the same settings that is finished there or in the folders beside is used. If another process
    trains it, ConfigError is raised.
    """
    if row in EXPERIMENTS:
        if (known := _finished_experiment(row, seed, out)) is None:
            function, version = EXPERIMENTS[row]
            write_json(folder_of(out, row, seed) / f"version{version}.json", function(seed))
            return _finished_experiment(row, seed, out) or {}
        return known
    study = read_study(study_file)
    settings, linear = configs_of(study, row, seed, out)
    folder = folder_of(out, row, seed) / fingerprint(study, settings, linear)
    measures = study.measures(row)
    if result := _finished(row, measures, folder, out):
        return result
    with locked("--out", folder):
        write_json(folder / STARTED, {"at": time.time()})
        if finished := finished_result(folder, out):
            result = json.loads(finished.read_text())
        else:
            settings.checkpoint.dir = str(folder)
            try:
                result = _train_and_evaluate(study, row, settings, linear, folder)
            except (DivergenceError, CollapseError) as error:
                result = {"method": row, "seed": seed, "failed": one_line(error)}
            write_json(folder / "result.json", result)
        missing = [name for name in measures if name not in result]
        if missing and "failed" not in result:
            result |= measure(Path(result["checkpoint"]), DATASETS / study.other, study.linear, missing)
            write_json(folder / "result.json", result)
    return _finished(row, measures, folder, out) or result


def finished_runs(
    study: Study, seeds: Sequence[int], out: Path, configs: Configs
) -> dict[Task, dict[str, Any]]:
    """Return the results of the runs that are finished."""
    done: dict[Task, dict[str, Any] | None] = {}
    for name, (settings, linear) in configs.items():
        measures = study.measures(name)
        for seed in seeds:
            settings.seed = seed
            folder = folder_of(out, name, seed) / fingerprint(study, settings, linear)
            done[name, seed] = _finished(name, measures, folder, out)
    for name in study.experiments():
        done |= {(name, seed): _finished_experiment(name, seed, out) for seed in seeds}
    return {task: result for task, result in done.items() if result}


def _finished(row: str, measures: Sequence[str], folder: Path, out: Path) -> dict[str, Any] | None:
    """Return the result of a run with the measures of its questions; None if something is missing."""
    file = finished_result(folder, out)
    if file is None:
        return None
    result = json.loads(file.read_text())
    if "failed" in result:
        return {"row": row, **result, "curves": {}}
    if any(name not in result for name in measures):
        return None
    return {"row": row, **result, "curves": read_curves(parts_of(Path(result["checkpoint"])))}


def _finished_experiment(name: str, seed: int, out: Path) -> dict[str, Any] | None:
    file = folder_of(out, name, seed) / f"version{EXPERIMENTS[name][1]}.json"
    return read_numbers(file) if file.is_file() else None


def fingerprint(study: Study, settings: DictConfig, linear: DictConfig) -> str:
    """Return a name for all settings that change the result of a run."""
    asked = [register().generation, plain(settings), plain(linear)]
    if study.probe != "both" or study.probe_data:
        asked.append([study.probe, study.probe_data])
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]


def _digest(study: Study, configs: Configs, row: str, seed: int) -> str:
    """Return the digest of a run or an experiment for the record."""
    if row in EXPERIMENTS:
        return f"version {EXPERIMENTS[row][1]}"
    settings, linear = configs[row]
    settings.seed = seed
    return digest_of([register().generation, study.probe, study.probe_data], settings, linear)


def _replications(
    study: Study, configs: Configs, tasks: Sequence[Task], files: Sequence[Path]
) -> list[dict[str, Any]]:
    """Return the runs of the rows with other seeds, or on another machine or solo-learn, from records.

    The first file is the record of the tasks. Seeds from ``TRIED`` on, on which settings are chosen, are left
    out, and so are runs of other settings; those on the other solo-learn cannot be compared with ours.
    """
    found, ours = [], register().generation
    for place, file in enumerate(files):
        for (row, seed, digest), run in read_runs(file).items():
            if seed >= TRIED or (row not in configs and row not in study.experiments()):
                continue
            on_ours = str(run["environment"].get("solo-learn", ours)).startswith(ours)
            own = not place and (row, seed) in tasks
            if not on_ours or (not own and digest == _digest(study, configs, row, seed)):
                found.append({**run, "place": place})
    return found


def finished_result(folder: Path, out: Path) -> Path | None:
    """Return the result of a run with the same settings, in its folder or in that of a study beside."""
    places = out.absolute().parent.glob(str(Path("*", *folder.parts[-4:], "result.json")))
    return next(filter(Path.is_file, (folder / "result.json", *sorted(places))), None)


def _train_and_evaluate(
    study: Study, row: str, settings: DictConfig, linear: DictConfig, folder: Path
) -> dict[str, Any]:
    run, seconds = _pretrain(settings, folder)
    record = read_record(run.folder)
    return {
        "method": row,
        "seed": settings.seed,
        "checkpoint": str(run.checkpoint),
        "epochs": settings.max_epochs,
        "pretrain_seconds": seconds,
        # The steps are the checkpoint's: a training that is killed after its last one records no steps.
        "steps": int(read_checkpoint(run.checkpoint)["global_step"]),
        **{key: record.get(key, {}) for key in ("data", "environment")},
        **_evaluate(study, run, linear),
        "finished": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
    }


def _pretrain(settings: DictConfig, folder: Path) -> tuple[Run, float | None]:
    """Return the pretrained run and its seconds; None if a part of it was done before."""
    from solo_dimreg.training.pretraining import pretrain

    # An interruption can damage the checkpoint that is being written; the previous one still exists then.
    before = sorted(filter(is_zipfile, folder.rglob("*.ckpt")), key=checkpoint_epoch)
    done = checkpoint_epoch(before[-1]) + 1 if before else 0
    start = time.perf_counter()
    if done < settings.max_epochs:
        if before:
            print(f"  resuming after epoch {done} of {settings.max_epochs}", flush=True)
            settings.resume_from_checkpoint = str(before[-1])
        if device_count(settings.devices) * settings.get("num_nodes", 1) > 1:
            _pretrain_apart(settings, folder)
        else:
            pretrain(settings)
    seconds = None if before else round(time.perf_counter() - start, 1)
    last = max(folder.rglob("*.ckpt"), key=checkpoint_epoch)
    return register().read_run(last), seconds


def _pretrain_apart(settings: DictConfig, folder: Path) -> None:
    # Lightning starts the other processes by running the command of this one again.
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(settings))
    command = [sys.executable, "-m", "solo_dimreg", "pretrain", "-cp", str(folder), "-cn", "config"]
    if subprocess.run(command).returncode:
        raise ConfigError(f"The pretraining of {settings.name} failed; its output above says why.")


def _evaluate(study: Study, run: Run, linear: DictConfig) -> dict[str, Any]:
    """Return the accuracies and the dimensionality of a run; without labels, the dimensionality alone."""
    from solo_dimreg.training.evaluation import extract_splits, knn_accuracy, linear_accuracy

    print("  evaluating", flush=True)
    host, data, other = register(), run.settings.data, bool(study.probe_data)
    unlabelled = data.get("no_labels") or data.get("val_path") is None
    if unlabelled and not other:
        return _unlabelled(run)
    overrides = [*study.linear, *(other_data(Path(study.probe_data)) if other else ())]
    settings = evaluation_settings(linear, run, overrides)
    train, val = extract_splits(host, run, settings if other else None)
    found: dict[str, Any] = {"chance": 100 * int(val.labels.bincount().max()) / len(val.labels)}
    found |= {"val_images": len(val.labels)} if other else {}
    if study.probe != "linear":
        knn = KNN | {"k": min(KNN["k"], len(train.labels))}
        found["knn_acc1"] = knn_accuracy(host, train, val, **knn)["acc1"]
    if study.probe != "knn":
        same = all(settings.data[key] == data[key] for key in ("dataset", "train_path", "val_path"))
        given = any("optimizer.batch_size" in each for each in study.linear)
        smaller = None if given else run.settings.optimizer.batch_size
        extracted = (train, val) if same else None
        try:
            probe = linear_accuracy(host, run, settings, other, extracted, smaller)
        except ConfigError as error:
            raise ConfigError(f"The linear probe: {error} Fix it with --linear KEY=VALUE.") from error
        found = {f"linear_{key}": probe[key] for key in ("acc1", "acc5") if key in probe} | found
    if unlabelled:
        return {**found, **_unlabelled(run)}
    if other:
        train, _ = extract_splits(host, run)
    return {**found, **_described(train.features, train.embeddings)}


def _unlabelled(run: Run) -> dict[str, Any]:
    """Return the dimensionality and the scores without labels on the images of the pretraining."""
    batches = list(open_source(str(run.checkpoint), Images()).batches(None))
    embeddings = [each[1] for each in batches if each[1] is not None]
    features = torch.cat([each[0] for each in batches])
    views = features_of_views(run)
    return {
        **_described(features, torch.cat(embeddings) if embeddings else None),
        "uniformity": float(uniformity(features[few_indices(len(features))])),
        "alignment": float(alignment(views[::LIDAR_VIEWS], views[1::LIDAR_VIEWS])),
        "lidar": float(lidar(views, LIDAR_VIEWS)),
    }


def _described(features: Any, embeddings: Any) -> dict[str, Any]:
    source = array_source("features", open_arrays(in_memory(features)))
    verdict = diagnose(source, intervals=False).verdict
    return {
        **representation_numbers(features, embeddings),
        "verdict": {"kind": verdict.kind, "reason": verdict.reason, "ways": list(verdict.ways)},
    }
