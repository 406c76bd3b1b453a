"""Tables of data, versions and machine of the runs on a page, and of their ``linear`` and ``knn`` results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from solo_dimreg.reports.run_files import ABSENT, RunRecord
from solo_dimreg.reports.summary import mean_and_deviation, mean_as_text

VERSIONS = ("solo-learn", "solo-dimreg", "Python", "torch", "timm", "device")


def what_ran(runs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the rows of a table of two columns with length, data, versions and machine of the runs.

    Each run has ``epochs``, ``steps``, ``seed``, ``data`` and ``environment`` as in ``result.json``, or lacks
    some.
    """
    data = [run.get("data") or {} for run in runs]
    finished = sorted(str(run["finished"]) for run in runs if run.get("finished"))
    rows = {
        "runs": str(len(runs)),
        "epochs": _all([run.get("epochs") for run in runs]),
        "steps": _all([run.get("steps") for run in runs]),
        "seeds": _all([run.get("seed") for run in runs]),
        "training data": _all([_place(each, "train_path") for each in data]),
        "training images": _all([each.get("train_images") for each in data]),
        "validation data": _all([_place(each, "val_path") for each in data]),
        "validation images": _all([each.get("val_images") for each in data]),
        "finished": " to ".join(dict.fromkeys((finished[0], finished[-1]))) if finished else "",
        **{name: _all([(run.get("environment") or {}).get(name) for run in runs]) for name in VERSIONS},
    }
    return [[name, value or "not recorded"] for name, value in rows.items()]


def _all(values: Sequence[Any]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value is not None))


def _place(data: Mapping[str, Any], key: str) -> str | None:
    path, dataset = data.get(key), data.get("dataset")
    if path is None or dataset in (None, "custom"):
        return path
    return f"{path} ({dataset})"


def evaluations_table(records: Sequence[RunRecord]) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of the results that ``linear`` and ``knn`` wrote beside the checkpoints.

    A row is one evaluation of one method, averaged over the seeds that were evaluated alike.
    """
    grouped: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for record in records:
        for each in record.evaluations:
            grouped.setdefault((record.method, *_described(each)), []).append(each)
    columns = ["top-1 %", *(["top-5 %"] if any("acc5" in e for g in grouped.values() for e in g) else [])]
    rows = []
    for key, group in grouped.items():
        values = [[each[name] for each in group if name in each] for name in ("acc1", "acc5")]
        accuracies = [mean_as_text(*mean_and_deviation(each)) for each in values[: len(columns)]]
        rows.append([*key[:2], *accuracies, str(len(group)), *key[2:]])
    header = ["method", "evaluation", *columns, "runs", "settings", "after", "steps", "data", "images"]
    return header, rows


def _described(each: Mapping[str, Any]) -> tuple[str, ...]:
    settings, data = each.get("settings", {}), each.get("data", {})
    if each["kind"] == "linear":
        optimizer = settings.get("optimizer") or {}
        shown = {
            "epochs": each.get("epochs"),
            "optimizer": optimizer.get("name"),
            **{key: optimizer.get(key) for key in ("lr", "batch_size", "weight_decay")},
            **(settings.get("classifier") or {}),
        }
    else:
        shown = {key: settings.get(key) for key in ("feature", "k", "distance", "temperature")}
    images = [str(each.get(key, ABSENT)) for key in ("train_images", "val_images")]
    return (
        {"linear": "linear", "knn": "k-NN"}[each["kind"]],
        ", ".join(f"{key} {value}" for key, value in shown.items() if value is not None),
        f"epoch {each.get('pretrained_epochs', ABSENT)}",
        str(each.get("steps", ABSENT)),
        str(data.get("val_path") or ABSENT),
        " / ".join(images),
    )
