"""Answer whether the rows of a comparison are better than its baseline, from runs that are paired by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, TypeGuard

from solo_dimreg.metrics.registry import METRICS
from solo_dimreg.reports.run_files import ABSENT
from solo_dimreg.studies.power import DISAGREE
from solo_dimreg.studies.statistics import CONFIDENCE, Estimate, estimate, holm, level_of_look

MARGIN = 1.0  # points within which two accuracies count as equal
ADDED = "added after a look, which the 5 % error does not cover"
ACCURACIES = ("linear_acc1", "knn_acc1")
DIMENSIONS = ("effective_rank", "lid")
SCORES = (*DIMENSIONS, "rankme", "alpha_req", "lidar", "alignment", "uniformity")  # they need no labels
LABELS = {
    "linear_acc1": "linear accuracy (%)",
    "knn_acc1": "k-NN accuracy (%)",
    **{key: METRICS[key].label for key in SCORES},
    "z_correlation": "correlation of the embeddings",
}


@dataclass(frozen=True)
class RowAnswer:
    """Holds the answer for one row.

    Attributes:
        title: Its name in tables and texts.
        runs: The number of its runs that did not fail.
        differences: The mean of each measure's paired difference to the baseline, which itself has none.
        word: ``better``, ``worse`` or ``not shown`` by the primary measure; ``unfinished``; ``unknown``
            without labels; ``baseline``.
        p: The two-sided p-value of the word, after Holm's correction and that for the looks.
        notes: What else is to be said of it: failed seeds, ``within 1 point``.
    """

    name: str
    title: str
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
        look: The number of the look at the results; ``--more-seeds`` makes a new one.
        images: The number of validation images, if it is known.
        chance: The percentage of the most frequent class among them, if it is known.
        final: No seeds are added to this look, which spends all of the 5 %.
    """

    baseline: str
    primary: str | None
    measures: tuple[str, ...]
    rows: tuple[RowAnswer, ...]
    seeds: int
    look: int
    images: int | None
    chance: float | None = None
    final: bool = False

    @property
    def base(self) -> str:
        """Return the title of the baseline."""
        return next(row.title for row in self.rows if row.name == self.baseline)

    @property
    def others(self) -> list[RowAnswer]:
        """Return the rows without the baseline."""
        return [row for row in self.rows if row.name != self.baseline]

    @property
    def compared(self) -> tuple[str, ...]:
        """Return the measures whose differences stand in the table of rows."""
        return (self.primary,) if self.primary else tuple(k for k in DIMENSIONS if k in self.measures)

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
            said = ["Which row is better is unknown: the images have no labels, so there is no accuracy."]
            return " ".join([*said, *filter(None, map(self._rank, self.others))])
        found = [f"{row.title} is better than {self._by(row, self.primary)}" for row in self.better]
        if found:
            said = [f"{'; '.join(found)}, on these images over {self.seeds} seeds."]
            said += ["Which of these is best was not tested."] if len(found) > 1 else []
        else:
            said = ["No row is shown to help.", self._room(self.primary)]
        for row in self.others:
            if row.word == "worse":
                said.append(f"{row.title} is worse than {self._by(row, self.primary, -1)}.")
            elif row.word == "unfinished" or row.notes:
                said.append(f"{row.title}: {row.verdict}.")
        return " ".join(filter(None, [*said, self._guessing(self.primary)]))

    def _guessing(self, key: str) -> str:
        """Return a caution if all rows are as accurate as guessing, up to two binomial standard errors."""
        if self.chance is None or not self.images:
            return ""
        means = [mean for row in self.rows if math.isfinite(mean := row.means[key].mean)]
        error = math.sqrt(self.chance * (100 - self.chance) / self.images)
        if not means or max(means) > self.chance + 2 * error:
            return ""
        return (
            f"All rows are near {self.chance:.0f} %, which guessing the most frequent class gives: such "
            "accuracies compare nothing, so train longer."
        )

    def _by(self, row: RowAnswer, key: str, sign: int = 1) -> str:
        found = row.differences[key]
        low, high = sorted((sign * found.low, sign * found.high))
        points = f"{sign * found.mean:.1f} points of {short(key)}"
        return f"{self.base} by {points} ({low:.1f} to {high:.1f})"

    def _room(self, key: str) -> str:
        """Return how much a row may help all the same."""
        known = [row for row in self.others if math.isfinite(row.differences[key].high)]
        if not known:
            return "Fewer than two pairs of runs give no interval: add seeds with --more-seeds."
        widest = max(known, key=lambda row: row.differences[key].high)
        high = widest.differences[key].high
        if not high > 0:
            return ""
        room = f"The intervals leave room for a gain of up to {high:.1f} points ({widest.title})"
        return f"{room}; a larger one would have been seen on these images."

    def _rank(self, row: RowAnswer) -> str:
        """Return how the effective rank of a row differs."""
        found = row.differences.get("effective_rank")
        if not found or not math.isfinite(found.low):
            return ""
        where = "above" if found.mean > 0 else "below"
        unsure = "" if found.low * found.high > 0 else ", which may be chance"
        return (
            f"The effective rank of {row.title} is {abs(found.mean):.3g} {where} that of {self.base} "
            f"({found.low:+.3g} to {found.high:+.3g}){unsure}."
        )

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return header and cells of the table of rows: the word, the difference that decides, and means."""
        against = [f"difference in {short(key)} to {self.base}" for key in self.compared]
        header = ["row", "better?", *against, *(LABELS[key] for key in self.measures), "runs"]
        return header, [
            [
                row.title,
                row.verdict,
                *(_cell(row.differences.get(key), key, "+") for key in self.compared),
                *(_cell(row.means[key], key) for key in self.measures),
                str(row.runs),
            ]
            for row in self.rows
        ]

    def differences_table(self) -> tuple[list[str], list[list[str]]]:
        """Return header and cells of the table of the differences to the baseline in all measures."""
        return ["row", *(LABELS[key] for key in self.measures)], [
            [row.title, *(_cell(row.differences.get(key), key, "+") for key in self.measures)]
            for row in self.others
        ]

    def rules(self) -> dict[str, str]:
        """Return the meaning of each word of the answer, and the rule by which it was chosen."""
        decides = "Nothing is decided here, since there is no accuracy."
        if self.primary:
            decides = f"The {short(self.primary)} decides, after Holm's correction for the number of rows."
        looks = (
            "Seeds may be added: the first look at the results spends two thirds of the 5 % error that is "
            "allowed, and each later look two thirds of what is left, so words and intervals have at most "
            f"5 % error over all looks together. This is look {self.look}, with intervals of "
            f"{100 * (1 - level_of_look(self.look)):.4g} % each."
        )
        if self.final:
            looks = "No seeds are added, so this look spends all of the 5 %, with intervals of 95 %."
        other = (
            "The intervals are over seeds on these validation images and do not say what others would give"
        )
        if self.images:
            away = 196 * math.sqrt(DISAGREE / self.images)
            other += (
                f": {self.images} others can change a difference by {away:.1f} points, if two rows disagree "
                f"on {100 * DISAGREE:.0f} % of the images"
            )
        return {
            "difference": "Runs with one seed share the order of the data and, if the networks are the same, "
            "the initial weights. Rows are therefore compared seed by seed, by Student's t over the "
            "differences.",
            "better, worse": decides,
            "not shown": "These seeds do not show a difference. Intervals are without Holm's correction, so "
            "one may leave out 0 all the same.",
            f"within {MARGIN:g} point": "The whole interval is that near to 0.",
            "interval": looks,
            "other images": f"{other}.",
        }

    def as_dict(self) -> dict[str, Any]:
        """Return the answer for JSON."""
        return {**asdict(self), "take": self.take, "sentence": self.sentence(), "rules": self.rules()}


def answer_of(results: Mapping[str, Any]) -> Answer:
    """Return the answer of the results of a comparison.

    Args:
        results: ``baseline``, ``rows`` by name, ``seeds``, and ``runs`` with ``row``, ``seed`` and their
            measures; ``val_images`` of a run, or of its ``data``, says how many images gave them. A run with
            ``failed`` (a text), or whose primary measure is not finite, has failed: nothing is claimed of
            its row. A row that lacks one of ``planned_seeds`` is unfinished. ``looks`` are the numbers of
            seeds at earlier looks, ``final`` says that no look follows, and ``added`` are the rows that were
            not in all of these.
    """
    titles = {name: row.get("title") or name for name, row in results["rows"].items()}
    if len(set(titles.values())) < len(titles):
        titles = {name: name for name in titles}
    runs: dict[str, dict[Any, Mapping[str, Any]]] = {name: {} for name in results["rows"]}
    for run in results["runs"]:
        runs[run["row"]][run["seed"]] = run
    baseline, planned = results["baseline"], tuple(results.get("planned_seeds") or ())
    found = [key for key in LABELS if any(_finite(run.get(key)) for run in results["runs"])]
    given = {key for run in results["runs"] for key, value in run.items() if value is not None}
    primary = next((key for key in ACCURACIES if key in given), None)
    measures = tuple(key for key in found if not primary or key in (*ACCURACIES, *DIMENSIONS))
    count = len(results["seeds"])
    look = 1 + len({seeds for seeds in results.get("looks") or () if seeds < max(count, len(planned))})
    final = bool(results.get("final"))
    level = 1 - CONFIDENCE if final else level_of_look(look)
    added = tuple(results.get("added", ()))
    compared = _Comparison(titles, runs, baseline, primary, measures, 1 - level, planned, added)
    # Runs that equal the baseline's are no test: they cannot differ from it.
    tested = [name for name in runs if name != baseline and not compared.identical(name)]
    # Over the share of the error that this look may spend, p-values compare with 5 %.
    p_values = [min(1.0, compared.p_value(name) * (1 - CONFIDENCE) / level) for name in tested]
    adjusted = dict(zip(tested, holm(p_values), strict=True))
    rows = tuple(compared.row(name, adjusted.get(name, 1.0)) for name in runs)
    chance = max((run["chance"] for run in results["runs"] if run.get("chance")), default=None)
    return Answer(baseline, primary, measures, rows, count, look, compared.images, chance, final)


@dataclass(frozen=True)
class _Comparison:
    """The runs of the rows by seed, and how they are compared."""

    titles: Mapping[str, str]
    runs: Mapping[str, Mapping[Any, Mapping[str, Any]]]
    baseline: str
    primary: str | None
    measures: tuple[str, ...]
    confidence: float
    planned: tuple[Any, ...]
    added: tuple[str, ...] = ()

    @property
    def images(self) -> int | None:
        given = [run for runs in self.runs.values() for run in runs.values()]
        counts = [run.get("val_images") or (run.get("data") or {}).get("val_images") for run in given]
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
        return [(one, other) for one, other in both if _finite(one) and _finite(other)]

    def identical(self, name: str) -> bool:
        """Return whether all measures of the paired runs are equal to the last bit."""
        pairs = [pair for key in self.measures for pair in self.pairs(name, key)]
        return bool(pairs) and all(one == other for one, other in pairs)

    def difference(self, name: str, key: str) -> Estimate:
        pairs = self.pairs(name, key)
        size = max((abs(value) for pair in pairs for value in pair), default=0.0)
        found = self.estimate([one - other for one, other in pairs], size)
        if key not in ACCURACIES:
            return found
        # An accuracy is a count of images, so even equal differences are known only up to half an image.
        half = 50 / self.images if self.images and not self.identical(name) else 0.0
        low, high = min(found.low, found.mean - half), max(found.high, found.mean + half)
        return replace(found, low=max(low, -100.0), high=min(high, 100.0))

    def mean(self, name: str, key: str) -> Estimate:
        found = self.estimate([run[key] for run in self.runs[name].values() if _finite(run.get(key))])
        if key not in ACCURACIES:
            return found
        return replace(found, low=max(found.low, 0.0), high=min(found.high, 100.0))

    def estimate(self, values: Sequence[float], size: float = 0.0) -> Estimate:
        if len(values) < 2:
            return Estimate(values[0] if values else math.nan, math.nan, math.nan, math.nan, 1.0, 1.0)
        return estimate(values, size, self.confidence)

    def p_value(self, name: str) -> float:
        """Return the two-sided p-value of the primary measure; 1 if nothing may be claimed."""
        if not self.primary or self.failed(name) or self.failed(self.baseline) or self.missing(name):
            return 1.0
        found = self.difference(name, self.primary)
        return min(1.0, 2 * min(found.p_above, found.p_below))

    def row(self, name: str, p: float) -> RowAnswer:
        runs, failed, base = self.runs[name], self.failed(name), self.titles[self.baseline]
        means = {key: self.mean(name, key) for key in self.measures}
        known = partial(RowAnswer, name, self.titles[name], len(runs) - len(failed), means)
        notes = [f"failed with seed {', '.join(map(str, failed))}: nothing is claimed"] if failed else []
        notes += [ADDED] if name in self.added else []
        if name == self.baseline:
            return known({}, "baseline", 1.0, tuple(notes))
        differences = {key: self.difference(name, key) for key in self.measures}
        primary = differences.get(self.primary or "")
        if self.failed(self.baseline):
            notes.append(f"{base} failed: nothing is claimed")
        if self.identical(name):
            notes.append(f"its runs equal those of {base}")
        if primary and primary.low >= -MARGIN and primary.high <= MARGIN:
            notes.append(f"within {MARGIN:g} point")
        if self.primary is None:
            word = "unknown"
        elif self.missing(name):
            word = "unfinished"
        elif primary and p < 1 - CONFIDENCE:
            word = "better" if primary.mean > 0 else "worse"
        else:
            word = "not shown"
        return known(differences, word, p, tuple(notes))


def short(key: str) -> str:
    """Return the label of a measure without its unit."""
    return LABELS[key].removesuffix(" (%)")


def _finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _cell(found: Estimate | None, key: str, sign: str = "") -> str:
    if found is None or not math.isfinite(found.mean):
        return ABSENT
    form = f"{sign}.1f" if key in ACCURACIES else f"{sign}.3g"
    interval = f" ({found.low:{form}} to {found.high:{form}})" if math.isfinite(found.low) else ""
    return f"{found.mean:{form}}{interval}"
