"""The numbers that claims say are above 0, each of a kind that a study file names."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, repeat
from types import MappingProxyType
from typing import Any

from scipy import stats

from solo_dimreg.config.blocks import AlarmSettings
from solo_dimreg.config.parsing import check_keys, options_of_callable, parse
from solo_dimreg.datasets.sprites import FACTORS
from solo_dimreg.errors import ConfigError, unknown
from solo_dimreg.metrics.registry import METRICS
from solo_dimreg.monitor.alarm import Alarm
from solo_dimreg.plugins import registered
from solo_dimreg.studies.claims.measures import MEASURES
from solo_dimreg.studies.statistics import Estimate, estimate

# The results of one seed, by the name of the row or of the experiment.
Results = Mapping[str, Mapping[str, Any]]

NAMES = {
    "linear_acc1": "linear accuracy",
    "knn_acc1": "k-NN accuracy",
    "z_effective_rank": "effective rank of the embeddings",
    "lid": "LID",
    "z_mean_share": "share of the embeddings' mean",
    "z_off_diagonal_correlation": "correlation of the embeddings' axes",
    "z_correlation": "correlation of the embeddings",
    "z_spread": "standard deviation of the embeddings over their length,",
    "transfer_acc1": "linear accuracy on the other data",
    "mutual_information": "I(R;Z)",
    "adadim_alpha": "alpha",
    "rankme": "RankMe",
    "z_rankme": "RankMe of the embeddings",
    "lidar": "LiDAR",
    "z_lidar": "LiDAR of the embeddings",
    "alpha_req": "alpha-ReQ",
    "mst_dimension": "dimension by spanning trees",
    "ridge_acc1": "ridge accuracy",
    "z_ridge_acc1": "ridge accuracy of the embeddings",
    **{f"r2_{name}": f"R² of the {name}" for name in FACTORS},
    **{f"z_r2_{name}": f"R² of the {name} in the embeddings" for name in FACTORS},
}
# What a finished run has, and what is recorded of it while it trains.
OF_A_RUN = (
    *("linear_acc1", "linear_acc5", "knn_acc1", "effective_rank", "lid", "rankme", "alpha_req"),
    *("z_correlation", "z_spread", "pretrain_seconds", *MEASURES),
)
USUAL = AlarmSettings()
METRIC, DRAWDOWN, PATIENCE = USUAL.metric, USUAL.drawdown, USUAL.patience
NO_LIMITS: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True)
class Number:
    """A number, from one seed's results, that a claim says is above 0; NaN if it cannot be computed.

    Attributes:
        says: What is measured, in words.
        of: The function of the results that computes the number. If there is a limit, it is the distance
            of what is measured from the limit, above 0 on the right side of it.
        parts: The results that are subtracted in it. They say how much of the number is rounding.
        rows: The rows and experiments that it needs.
        metrics: The metrics of the rows that it needs.
        of_rows: The function of some of the rows and the results that computes the number. If it is there,
            the interval is over the rows and not the seeds, which say nothing of other rows.
        score: What a tau orders the rows by, a function of a row's result; more is better.
        limit, below: The limit of what is measured, and whether it has to be below it; else above it.
        signed: Whether only a measured value below 0 says the opposite, and not one that misses the limit.
    """

    says: str
    of: Callable[[Results], float]
    parts: tuple[Callable[[Results], float], ...] = ()
    rows: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    of_rows: Callable[[Sequence[str], Results], float] | None = None
    score: Callable[[Mapping[str, Any]], float] | None = None
    limit: float = 0.0
    below: bool = False
    signed: bool = False

    @property
    def to_be(self) -> str:
        """Return in words on which side of its limit the measured value has to be."""
        return f"{'below' if self.below else 'above'} {self.limit:g}"

    def measured(self, number: float) -> float:
        """Return the measured value of a number, which is its distance from the limit."""
        return self.limit - number if self.below else self.limit + number

    def estimate(self, results: Sequence[Results]) -> Estimate:
        """Return the estimate of the number over the seeds, or over the rows by the jackknife [1].

        References:
            [1] Tukey, Bias and confidence in not-quite large samples, Annals of Mathematical Statistics 1958.
        """
        size = 0.0
        if self.of_rows is not None:
            n, whole = len(self.rows), self._mean(self.rows, results)
            fewer = ([each for each in self.rows if each != row] for row in self.rows)
            values = [n * whole - (n - 1) * self._mean(some, results) for some in fewer]
        else:
            values = [self.of(seed) for seed in results]
            size = max((abs(part(seed)) for part in self.parts for seed in results), default=0.0)
        found = estimate(values, size)
        if self.signed:
            found = replace(found, p_below=estimate(list(map(self.measured, values)), size).p_below)
        return found

    def lost(self, results: Results) -> float:
        """Return how much linear accuracy the row with the highest score lacks to the best row."""
        score = self.score
        assert score is not None
        accuracies = {row: results[row].get("linear_acc1", math.nan) for row in self.rows}
        if any(map(math.isnan, accuracies.values())):
            return math.nan
        chosen = max(self.rows, key=lambda row: score(results[row]))
        return max(accuracies.values()) - accuracies[chosen]

    def _mean(self, rows: Sequence[str], results: Sequence[Results]) -> float:
        """Return the mean over the seeds of the number of some of the rows."""
        assert self.of_rows is not None
        return math.fsum(self.of_rows(rows, seed) for seed in results) / len(results)


def exceeds(metric: str, larger: str, smaller: str) -> list[Number]:
    """Return the number that one row's metric exceeds another row's."""
    says = f"{called(metric)} of {larger} minus that of {smaller}"
    number = _difference(says, partial(_result, larger, metric), partial(_result, smaller, metric))
    return [replace(number, rows=(smaller, larger))]


def ladder(metric: str, rows: Sequence[str]) -> list[Number]:
    """Return the numbers that a metric grows from each row to the next."""
    return [each for smaller, larger in pairwise(rows) for each in exceeds(metric, larger, smaller)]


def equal(metric: str, one: str, other: str, margin: float) -> list[Number]:
    """Return the numbers that two rows differ by less than a margin.

    They are two one-sided tests (Schuirmann 1987).
    """
    parts = partial(_result, one, metric), partial(_result, other, metric)
    says = f"the difference between the {called(metric)} of {one} and {other}"
    sides = {
        "above": lambda seed: margin + (parts[0](seed) - parts[1](seed)),
        "below": lambda seed: margin - (parts[0](seed) - parts[1](seed)),
    }
    return [
        Number(says, sides["above"], parts, limit=-margin),
        Number(says, sides["below"], parts, limit=margin, below=True),
    ]


def above(metric: str, row: str, threshold: float) -> list[Number]:
    """Return the number that a row's metric exceeds a threshold, which is fixed beforehand."""
    number = _difference(_of_row(metric, row), partial(_result, row, metric), lambda _: threshold)
    return [replace(number, limit=threshold)]


def below(metric: str, row: str, threshold: float) -> list[Number]:
    """Return the number that a row's metric stays below a threshold, which is fixed beforehand."""
    number = _difference(_of_row(metric, row), lambda _: threshold, partial(_result, row, metric))
    return [replace(number, limit=threshold, below=True)]


def within(row: str, larger: str, smaller: str) -> list[Number]:
    """Return the number that one result of a row or an experiment exceeds another one of it."""
    says = f"{called(larger)} of {row} minus its {called(smaller)}"
    return [_difference(says, partial(_result, row, larger), partial(_result, row, smaller))]


def exceeds_at_the_end(metric: str, larger: str, smaller: str) -> list[Number]:
    """Return the number that one row's monitored metric exceeds another's after the last epoch."""
    says = f"{called(metric)} of {larger} minus that of {smaller}, at the end"
    return [_difference(says, partial(_at, larger, metric, 1), partial(_at, smaller, metric, 1))]


def rise(row: str, metric: str, first: float, last: float) -> list[Number]:
    """Return the number that a monitored metric grows between two parts of the epochs after the first."""
    says = f"{called(metric)} of {row} {_when(last)} minus {_when(first)}"
    return [_difference(says, partial(_at, row, metric, last), partial(_at, row, metric, first))]


def slower(row: str, metric: str, turn: float) -> list[Number]:
    """Return the number that a metric grows less per epoch after a part of the training than before it."""

    def difference(results: Results) -> float:
        start, middle, end = (_at(row, metric, part, results) for part in (0, turn, 1))
        epochs = len(curve_of(row, metric, results)) - 1
        before = round(turn * epochs)
        if not 0 < before < epochs:
            return math.nan
        return (middle - start) / before - (end - middle) / (epochs - before)

    return [Number(f"rise of {called(metric)} of {row} per epoch before {turn:.0%} minus after", difference)]


def tau(
    metric: str,
    rows: Sequence[str],
    best: float | None = None,
    above: float = 0.0,
    over: str = "",
    lower: bool = False,
    settings: bool = False,
) -> list[Number]:
    """Return the number that a metric without labels orders rows by accuracy, by Kendall's tau.

    More is better, or what is nearer to ``best``, or less with ``lower``. The tau is compared with ``above``,
    or with that of another metric, ``over``. RankMe and LiDAR claim it of the settings of one method: with
    ``settings``, the rows are a sample of these, and the interval is over the rows.
    """

    def of_rows(some: Sequence[str], results: Results) -> float:
        other = _tau(some, partial(_score, over, None, False), results) if over else above
        return _tau(some, score, results) - other

    score = partial(_score, metric, best, lower)
    name = called(metric)
    scored = f"minus {name}" if lower else name if best is None else f"minus |{name} - {best:g}|"
    says = f"Kendall's tau of {scored} and linear accuracy over {len(rows)} rows"
    says += f", {span(rows)}" if settings else ""
    says += f" minus that of {called(over)}" if over else ""
    number = Number(says, partial(of_rows, rows), rows=tuple(rows), limit=0.0 if over else above)
    return [replace(number, of_rows=of_rows if settings else None, score=score, signed=True)]


def span(rows: Sequence[str]) -> str:
    """Return the first and the last of the settings of one method, as they are told apart from another's."""
    return f"{rows[0]} to {rows[-1]}"


def diagnosed(row: str) -> list[Number]:
    """Return the number that the diagnosis calls more than half of a row's networks (partly) collapsed."""

    def above_half(results: Results) -> float:
        kind = (results[row].get("verdict") or {}).get("kind")
        return math.nan if kind is None else (kind in ("collapsed", "partly collapsed")) - 0.5

    says = f"share of the networks of {row} that the diagnosis calls collapsed, or partly so"
    return [Number(says, above_half, limit=0.5)]


def triggers(
    row: str,
    drawdown: float = DRAWDOWN,
    metric: str = METRIC,
    limits: Mapping[str, float] = NO_LIMITS,
) -> list[Number]:
    """Return the numbers that the alarm triggers on a row, and before its training ends.

    It has no limits, or those of ``limits``, such as ``{z_mean_share: 0.97}``.
    """
    held = f"the largest drawdown{_of(metric)} that {row} held for {PATIENCE} looks"
    left = f"the part of {row}'s training that is left when the alarm triggers, 0 if it does not"

    def part(results: Results) -> float:
        curve = curve_of(row, metric, results)
        if not all(curve_of(row, name, results) for name in (metric, *limits)):
            return math.nan
        look = first_trigger(curve, drawdown, _beyond(row, limits, results))
        return 0.0 if look is None else 1 - (look + 1) / len(curve)

    numbers = [Number(left, part)]
    if not limits:  # with limits, the drawdown need not be held
        fall = Number(held, lambda results: _held(curve_of(row, metric, results)) - drawdown, limit=drawdown)
        numbers = [fall, *numbers]
    return numbers


def silent(
    rows: Sequence[str],
    drawdown: float = DRAWDOWN,
    metric: str = METRIC,
    limits: Mapping[str, float] = NO_LIMITS,
) -> list[Number]:
    """Return the numbers that neither the metric nor a limit triggers the alarm on any of the rows."""
    any_held = f"that any of {len(rows)} rows held for {PATIENCE} looks"

    def number(says: str, held: Callable[[Sequence[float]], float], name: str, limit: float) -> Number:
        def room(results: Results) -> float:
            found = [held(curve_of(row, name, results)) for row in rows]
            return limit - (math.nan if any(map(math.isnan, found)) else max(found))

        return Number(f"the largest {says} {any_held}", room, limit=limit, below=True)

    return [
        number(f"drawdown{_of(metric)}", _held, metric, drawdown),
        *(number(called(name), _held_level, name, limit) for name, limit in limits.items()),
    ]


def _of(metric: str) -> str:
    """Return the metric of an alarm in words, or nothing for the usual one."""
    return "" if metric == METRIC else f" of the {called(metric)}"


KINDS: dict[str, Callable[..., list[Number]]] = {
    each.__name__: each
    for each in (
        *(exceeds, ladder, equal, above, below, within),
        *(exceeds_at_the_end, rise, slower, tau, diagnosed, triggers, silent),
    )
}
OF_CURVES = ("exceeds_at_the_end", "rise", "slower", "triggers", "silent")


def read_number(
    key: str, kind: str, options: Mapping[str, Any], rows: Collection[str], experiments: Collection[str]
) -> list[Number]:
    """Return the numbers of one entry of a question.

    Args:
        key: The dotted key of the entry, for the messages.
        options: The options of the kind; ``says`` gives the number other words.
        rows, experiments: The names that an entry may use.

    Raises:
        ConfigError: The message names the key, the value and the nearest valid name.
    """
    if kind not in KINDS:
        raise ConfigError(f"{key}: {unknown('kind of number', kind, KINDS)}")
    function = KINDS[kind]
    check_keys(key, options, {*options_of_callable(function)[0], "says"})
    options, words = {name: each for name, each in options.items() if name != "says"}, options.get("says")
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in options and parameter.default is inspect.Parameter.empty:
            raise ConfigError(f"{key}.{name}: is missing; it must be there.")
        value = options.get(name)
        if name == "limits":
            _check_limits(key, value or {})
            continue
        is_number = isinstance(value, int | float | None) and not isinstance(value, bool)
        if "float" in parameter.annotation and not is_number:
            raise ConfigError(f"{key}.{name}: {value!r} is not allowed; it must be a number.")
    # Of one row, larger and smaller are metrics.
    names = ("row",) if "row" in options else ("one", "other", "smaller", "larger")
    used = [*(options[name] for name in names if name in options), *(options.get("rows") or ())]
    for name in used:
        if name not in rows and name not in experiments:
            raise ConfigError(f"{key}: {unknown('row', str(name), (*rows, *experiments))}")
    metrics = [str(options[name]) for name in ("metric", "over") if options.get(name)]
    known = OF_A_RUN
    if kind in OF_CURVES:
        ours = (*METRICS, *registered("metrics"))
        known = (*ours, *(f"z_{name}" for name in ours), "adadim_alpha", "val_acc1", "mutual_information")
    for name in metrics:
        if name not in known and not set(used) & set(experiments):
            raise ConfigError(f"{key}.metric: {unknown('metric', name, known)}")
    of_one_row = (options["larger"], options["smaller"]) if kind == "within" else ()
    wanted = (*metrics, *(each for each in of_one_row if each in MEASURES))
    wanted += ("linear_acc1",) if kind == "tau" else ()
    named = tuple(dict.fromkeys(map(str, used)))
    numbers = function(**options)
    return [
        replace(each, rows=each.rows or named, metrics=wanted, says=words or each.says) for each in numbers
    ]


def _check_limits(key: str, limits: Any) -> None:
    """Raise ConfigError if a monitor would refuse these limits of its alarm."""
    try:
        parse(AlarmSettings, {"limits": limits})
    except ConfigError as error:
        raise ConfigError(f"{key}.{error}") from error


def _difference(says: str, larger: Callable[[Results], float], smaller: Callable[[Results], float]) -> Number:
    return Number(says, lambda results: larger(results) - smaller(results), (larger, smaller))


def _of_row(metric: str, row: str) -> str:
    return f"{called(metric)} of {row}"


def called(metric: str) -> str:
    """Return a metric in words."""
    return NAMES.get(metric, metric.replace(".", " ").replace("_", " "))


def _result(row: str, metric: str, results: Results) -> float:
    """Return a result of a row; a name with dots leads into the results of an experiment."""
    found: Any = results[row]
    for name in (metric,) if metric in found else metric.split("."):
        found = found.get(name)
    return math.nan if found is None else float(found)


def _when(part: float) -> str:
    if part in (0, 1):
        return "at the end" if part else "after the first epoch"
    return f"after {part:.0%} of the later epochs"


def curve_of(row: str, metric: str, results: Results) -> list[float]:
    """Return a row's monitored metric over the epochs."""
    curve = results[row].get("curves", {}).get(metric, {})
    return [math.nan if curve[epoch] is None else float(curve[epoch]) for epoch in sorted(curve)]


def _at(row: str, metric: str, part: float, results: Results) -> float:
    curve = curve_of(row, metric, results)
    return curve[round(part * (len(curve) - 1))] if curve else math.nan


def _score(metric: str, best: float | None, lower: bool, result: Mapping[str, Any]) -> float:
    """Return what is better the larger it is; a row without the metric comes last."""
    value = result.get(metric)
    if value is None or not math.isfinite(value):
        return -math.inf
    value = value if best is None else -abs(value - best)
    return -value if lower else value


def _tau(rows: Sequence[str], score: Callable[[Mapping[str, Any]], float], results: Results) -> float:
    """Return Kendall's tau between a score and the linear accuracy."""
    accuracies = [results[row].get("linear_acc1", math.nan) for row in rows]
    return float(stats.kendalltau([score(results[row]) for row in rows], accuracies).statistic)


def first_trigger(
    curve: Sequence[float], drawdown: float = DRAWDOWN, beyond: Iterable[bool | None] = repeat(None)
) -> int | None:
    """Return the look, counted from 0, at which the alarm first triggers; return None if it does not.

    ``beyond`` says for each look whether another metric is beyond its limit.
    """
    alarm = Alarm(drawdown, PATIENCE)
    looks = enumerate(zip(curve, beyond, strict=False))
    return next((look for look, (value, far) in looks if alarm.look(value, look, beyond=far)), None)


def _beyond(row: str, limits: Mapping[str, float], results: Results) -> Iterable[bool | None]:
    """Return for each look whether a metric of a row is at its limit or above; None without limits."""
    if not limits:
        return repeat(None)
    curves = [[value >= limit for value in curve_of(row, name, results)] for name, limit in limits.items()]
    return map(any, zip(*curves, strict=True))


def _held(curve: Sequence[float]) -> float:
    """Return the largest drawdown in whole percent that triggers the alarm; 0 if none, NaN if no curve."""
    if not curve:
        return math.nan
    return next((p / 100 for p in range(99, 0, -1) if first_trigger(curve, p / 100) is not None), 0.0)


def _held_level(curve: Sequence[float]) -> float:
    """Return the largest level at which a curve stays for as many looks as the alarm waits for; else NaN."""
    spans = zip(*(curve[start:] for start in range(PATIENCE)), strict=False)
    return max(map(min, spans), default=math.nan)
