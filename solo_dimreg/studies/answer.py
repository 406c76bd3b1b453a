"""Answer whether the rows of a comparison are better than its baseline, from runs that are paired by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from solo_dimreg.metrics.registry import METRICS
from solo_dimreg.reports.run_files import ABSENT
from solo_dimreg.studies.statistics import CONFIDENCE, Estimate, estimate, holm, level_of_look

MARGIN = 1.0  # points within which two accuracies count as equal
LABELS = {
    "linear_acc1": "linear accuracy (%)",
    "knn_acc1": "k-NN accuracy (%)",
    **{key: METRICS[key].label for key in ("effective_rank", "lid", "rankme", "alpha_req", "lidar")},
    **{key: METRICS[key].label for key in ("alignment", "uniformity")},
    "z_correlation": "correlation of the embeddings",
}
ACCURACIES = ("linear_acc1", "knn_acc1")
WITH_LABELS = (*ACCURACIES, "effective_rank", "lid")
# Kendall's tau between a score that needs no labels and the linear accuracy of the 38 rows of our claims, and
# the claim in docs/data/claims.json that says so.
TAUS = {
    "rankme": (0.47, "rankme-orders"),
    "effective_rank": (0.45, "effective-rank-orders"),
    "lidar": (0.30, "lidar-orders"),
    "alpha_req": (0.10, "alpha-req-orders"),
    "lid": (0.04, "lid-orders"),
}


@dataclass(frozen=True)
class RowAnswer:
    """What the runs say of one row.

    Attributes:
        name: The name of the row.
        runs: The number of its runs that did not fail.
        means: The mean of each measure.
        differences: The mean of the paired difference to the baseline of each measure; the baseline has none.
        word: ``better``, ``worse`` or ``not shown`` by the primary measure; ``unfinished``; ``unknown`` without
            labels; ``baseline``.
        p: The two-sided p-value of the word, after Holm's correction and that for the looks.
        notes: What else is to be said of it: failed seeds, ``within 1 point``.
    """

    name: str
    runs: int
    means: dict[str, Estimate]
    differences: dict[str, Estimate]
    word: str
    p: float
    notes: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """Return the word with its notes."""
        return "; ".join((self.word, *self.notes))


@dataclass(frozen=True)
class Answer:
    """The answer of a comparison.

    Attributes:
        baseline: The name of the row that the others are compared with.
        primary: The measure that decides; None without labels.
        measures: The measures that are shown.
        rows: The answer for each row, the baseline among them.
        seeds: The number of seeds.
        look: The number of the look at the results; ``--more-seeds`` makes a new one.
        images: The number of validation images, if it is known.
    """

    baseline: str
    primary: str | None
    measures: tuple[str, ...]
    rows: tuple[RowAnswer, ...]
    seeds: int
    look: int
    images: int | None

    @property
    def others(self) -> list[RowAnswer]:
        """Return the rows without the baseline."""
        return [row for row in self.rows if row.word != "baseline"]

    @property
    def better(self) -> list[RowAnswer]:
        """Return the rows that are shown to be better, the one with the largest difference first."""
        found = [row for row in self.rows if row.word == "better"]
        return sorted(found, key=lambda row: -row.differences[self.primary or ""].mean)

    @property
    def take(self) -> str | None:
        """Return the name of the row to take; None if none is shown to help."""
        return self.better[0].name if self.better else None

    def sentence(self) -> str:
        """Return the answer in a few sentences."""
        if self.primary is None:
            return " ".join(["Accuracy is unknown, because the images have no labels.", *self._ranks()])
        measure, base = _short(self.primary), self.baseline
        said = []
        for row in self.better:
            said.append(f"{row.name} is better than {base} by {_points(row, self.primary)} of {measure}")
        if said:
            said = [f"{', and '.join(said)} on these images over {self.seeds} seeds."]
            if len(self.better) > 1:
                said.append("Whether the first is better than the others was not tested.")
        else:
            said = [f"No row is shown to help. {self._room(self.primary)}".strip()]
        for row in self.others:
            if row.word == "worse":
                said.append(f"{row.name} is worse than {base} by {_points(row, self.primary, -1)}.")
            elif row.notes or row.word == "unfinished":
                said.append(f"{row.name}: {row.verdict}.")
        return " ".join(said)

    def _room(self, primary: str) -> str:
        if self.seeds < 2:
            return "One seed gives no interval: add seeds with --more-seeds."
        widest = max(self.others, key=lambda row: row.differences[primary].high, default=None)
        high = widest.differences[primary].high if widest else math.nan
        if not widest or not high > 0:
            return ""
        return (
            f"The intervals leave room for a gain of up to {high:.1f} points ({widest.name}); larger ones are "
            f"unlikely on these images."
        )

    def _ranks(self) -> list[str]:
        said = []
        for row in self.others:
            found = row.differences.get("effective_rank")
            if found and math.isfinite(found.mean):
                verb = "above" if found.mean > 0 else "below"
                ends = sorted((abs(found.low), abs(found.high)))
                within = f" ({ends[0]:.3g} to {ends[1]:.3g})" if found.low * found.high > 0 else ""
                unsure = "" if within else f", which is not shown ({found.low:+.3g} to {found.high:+.3g})"
                said.append(
                    f"The effective rank of {row.name} is {abs(found.mean):.3g}{within} {verb} that of "
                    f"{self.baseline}{unsure}."
                )
        return said

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return header and cells of the table of rows, with the difference in the primary measure."""
        shown = (
            [self.primary]
            if self.primary
            else [key for key in ("effective_rank", "lid") if key in self.measures]
        )
        against = [f"difference in {_short(key)} to {self.baseline}" for key in shown]
        header = ["row", "runs", *(LABELS[key] for key in self.measures), *against, "better?"]
        return header, [
            [
                row.name,
                str(row.runs),
                *(_cell(row.means.get(key), key) for key in self.measures),
                *(_cell(row.differences.get(key), key, "+") for key in shown),
                row.verdict,
            ]
            for row in self.rows
        ]

    def differences_table(self) -> tuple[list[str], list[list[str]]]:
        """Return header and cells of the table of the differences to the baseline in all measures."""
        rows = [
            [row.name, *(_cell(row.differences.get(key), key, "+") for key in self.measures)]
            for row in self.others
        ]
        return ["row", *(LABELS[key] for key in self.measures)], rows

    def rule(self) -> str:
        """Return the rule by which the words were chosen, and what the intervals are about."""
        level = level_of_look(self.look)
        images = f"these {self.images}" if self.images else "these"
        return (
            "Runs with one seed share the order of the data and, if the networks are the same, the initial "
            "weights, so rows are compared seed by seed: Student's t over the paired differences. A word is "
            f"given by {_short(self.primary) if self.primary else 'no measure'}, after Holm's correction for "
            "the number of rows. An interval is of one row and one measure, without that correction, so a row "
            "can be 'not shown' although its interval leaves out 0. 'Within 1 point' says that the interval "
            "lies between -1 and +1. "
            f"Seeds may be added: look 1 at the results spends two thirds of the {100 * (1 - CONFIDENCE):.0f} % "
            "error that is allowed, and each later look two thirds of what is left. So words and intervals "
            f"have at most 5 % error over all looks together. This is look {self.look}, with intervals of "
            f"{100 * (1 - level):.4g} % each. "
            f"The intervals are over seeds on {images} validation images; they do not say what other images "
            f"would give. {self._other_images()}"
        ).strip()

    def _other_images(self) -> str:
        base = next(row for row in self.rows if row.word == "baseline")
        accuracy = base.means[self.primary].mean / 100 if self.primary in base.means else math.nan
        if not self.images or not math.isfinite(accuracy):
            return ""
        most = 196 * math.sqrt(2 * accuracy * (1 - accuracy) / self.images)
        return f"Another draw of {self.images} images moves a difference by at most about {most:.1f} points more."

    def as_dict(self) -> dict[str, Any]:
        """Return the answer for JSON."""
        return {**asdict(self), "take": self.take, "sentence": self.sentence(), "rule": self.rule()}


def answer_of(results: Mapping[str, Any]) -> Answer:
    """Return the answer of the results of a comparison.

    Args:
        results: ``baseline``, ``rows`` by name, ``seeds``, and ``runs`` with ``row``, ``seed`` and their measures.
            A run with ``failed`` (a text), or whose primary measure is not finite, has failed: nothing is
            claimed of its row. A row that lacks one of ``planned_seeds`` is unfinished. ``looks`` are the
            numbers of seeds at earlier looks.
    """
    runs: dict[str, dict[Any, Mapping[str, Any]]] = {name: {} for name in results["rows"]}
    for run in results["runs"]:
        runs[run["row"]][run["seed"]] = run
    found = [key for key in LABELS if any(_finite(run.get(key)) for run in results["runs"])]
    primary = next((key for key in ACCURACIES if any(key in run for run in results["runs"])), None)
    measures = tuple(key for key in (WITH_LABELS if primary else LABELS) if key in found)
    look = 1 + len({count for count in results.get("looks", ()) if count < len(results["seeds"])})
    compared = _Comparison(
        runs,
        results["baseline"],
        primary,
        measures,
        1 - level_of_look(look),
        tuple(results.get("planned_seeds") or ()),
    )
    names = [name for name in runs if name != results["baseline"]]
    p_values = {name: compared.p_value(name) for name in names}
    # Runs that equal the baseline's are no test: they cannot differ from it.
    tested = [name for name in names if not compared.identical(name)]
    spent = level_of_look(look) / (1 - CONFIDENCE)
    adjusted = dict(zip(tested, holm([min(1.0, p_values[name] / spent) for name in tested]), strict=True))
    rows = tuple(compared.row(name, adjusted.get(name, 1.0)) for name in runs)
    return Answer(results["baseline"], primary, measures, rows, len(results["seeds"]), look, compared.images)


@dataclass(frozen=True)
class _Comparison:
    """The runs of the rows by seed, and how they are compared."""

    runs: Mapping[str, Mapping[Any, Mapping[str, Any]]]
    baseline: str
    primary: str | None
    measures: tuple[str, ...]
    confidence: float
    planned: tuple[Any, ...]

    @property
    def images(self) -> int | None:
        counts = [
            (run.get("data") or {}).get("val_images") for row in self.runs.values() for run in row.values()
        ]
        return min((int(count) for count in counts if count), default=None)

    def failed(self, name: str) -> list[Any]:
        """Return the seeds with which a row failed."""
        return [
            seed
            for seed, run in self.runs[name].items()
            if run.get("failed") or (self.primary and not _finite(run.get(self.primary)))
        ]

    def missing(self, name: str) -> bool:
        return any(seed not in self.runs[each] for each in (name, self.baseline) for seed in self.planned)

    def pairs(self, name: str, key: str) -> list[tuple[float, float]]:
        """Return a measure of the row and of the baseline, for each seed that both have."""
        base = self.runs[self.baseline]
        both = [(run.get(key), base[seed].get(key)) for seed, run in self.runs[name].items() if seed in base]
        return [(float(one), float(other)) for one, other in both if _finite(one) and _finite(other)]

    def identical(self, name: str) -> bool:
        """Return whether all measures of the paired runs are equal to the last bit."""
        pairs = [pair for key in self.measures for pair in self.pairs(name, key)]
        return bool(pairs) and all(one == other for one, other in pairs)

    def difference(self, name: str, key: str) -> Estimate:
        pairs = self.pairs(name, key)
        size = max((abs(value) for pair in pairs for value in pair), default=0.0)
        found = _estimate([one - other for one, other in pairs], size, self.confidence)
        if key in ACCURACIES and self.images and not self.identical(name):
            # An accuracy is a count of images, so equal differences are known up to half an image.
            half = 50 / self.images
            low, high = min(found.low, found.mean - half), max(found.high, found.mean + half)
            return Estimate(found.mean, low, high, found.error, found.p_above, found.p_below)
        return found

    def p_value(self, name: str) -> float:
        """Return the two-sided p-value of the primary measure; 1 if nothing may be claimed."""
        if not self.primary or self.failed(name) or self.failed(self.baseline) or self.missing(name):
            return 1.0
        found = self.difference(name, self.primary)
        return min(1.0, 2 * min(found.p_above, found.p_below))

    def row(self, name: str, p: float) -> RowAnswer:
        runs = self.runs[name]
        failed = self.failed(name)
        values = {
            key: [float(run[key]) for run in runs.values() if _finite(run.get(key))] for key in self.measures
        }
        means = {key: _estimate(each, 0.0, self.confidence) for key, each in values.items() if each}
        if name == self.baseline:
            notes = (_failure(failed),) if failed else ()
            return RowAnswer(name, len(runs) - len(failed), means, {}, "baseline", 1.0, notes)
        differences = {key: self.difference(name, key) for key in self.measures}
        primary = differences.get(self.primary or "")
        notes = (_failure(failed),) if failed else ()
        if self.failed(self.baseline) and self.primary:
            notes = (*notes, f"{self.baseline} failed")
        if self.identical(name):
            notes = (*notes, f"its runs equal those of {self.baseline}")
        if primary and primary.low >= -MARGIN and primary.high <= MARGIN:
            notes = (*notes, f"within {MARGIN:g} point")
        if self.primary is None:
            word = "unknown"
        elif self.missing(name):
            word = "unfinished"
        elif primary and p < 1 - CONFIDENCE:
            word = "better" if primary.mean > 0 else "worse"
        else:
            word = "not shown"
        return RowAnswer(name, len(runs) - len(failed), means, differences, word, p, notes)


def _estimate(values: Sequence[float], size: float, confidence: float) -> Estimate:
    if len(values) < 2:
        return Estimate(values[0] if values else math.nan, math.nan, math.nan, math.nan, 1.0, 1.0)
    return estimate(values, size, confidence)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _failure(seeds: Sequence[Any]) -> str:
    return (
        f"failed with seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}, so nothing is claimed"
    )


def _short(key: str) -> str:
    return LABELS[key].removesuffix(" (%)")


def _points(row: RowAnswer, key: str, sign: int = 1) -> str:
    found = row.differences[key]
    low, high = sorted((sign * found.low, sign * found.high))
    return f"{sign * found.mean:.1f} points ({low:.1f} to {high:.1f})"


def _cell(found: Estimate | None, key: str, sign: str = "") -> str:
    if found is None or not math.isfinite(found.mean):
        return ABSENT
    form = f"{sign}.1f" if key in ACCURACIES else f"{sign}.3g"
    if not math.isfinite(found.low):
        return f"{found.mean:{form}}"
    return f"{found.mean:{form}} ({found.low:{form}} to {found.high:{form}})"
