"""Choose the remedies that fit the verdict on a run, and find out whether one of them helps."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from solo_dimreg.config.loading import load_settings
from solo_dimreg.config.steps import FEW, check_steps, count_steps
from solo_dimreg.config.values import base_name, device_count, plain
from solo_dimreg.diagnosis.diagnose import diagnose
from solo_dimreg.diagnosis.sources.images import Images
from solo_dimreg.diagnosis.sources.opening import open_source
from solo_dimreg.diagnosis.verdict import HEALTHY, PARTLY, Verdict
from solo_dimreg.errors import ConfigError
from solo_dimreg.files import find_checkpoint, write_json, write_text
from solo_dimreg.reports.comparison import Section
from solo_dimreg.solo_learn import register
from solo_dimreg.solo_learn.checkpoints import generation_of, read_object
from solo_dimreg.solo_learn.record import counted
from solo_dimreg.studies.answer import ACCURACIES, Answer, answer_of, short
from solo_dimreg.studies.compare_page import write_answer
from solo_dimreg.studies.engine import configs_of, run_study
from solo_dimreg.studies.own_images import count_images, plan_of, study_of
from solo_dimreg.studies.power import assumed_spread, smallest_difference
from solo_dimreg.studies.statistics import CONFIDENCE
from solo_dimreg.studies.study import Row, Study
from solo_dimreg.studies.workers import Launcher, Say, threads_of
from solo_dimreg.training.starting import HYDRA

OWN = "own"
FEATURES = "++regularizers.decorrelation.where=features"


class Remedy(NamedTuple):
    """A remedy: its overrides, its weights (the default and a stronger one), and where it fits."""

    weights: tuple[float, ...]
    overrides: tuple[str, ...]
    needs_no_negatives: bool = False


#: The remedies. ``docs/choosing.md`` says what each did here.
REMEDIES = {
    "shuffled_dbn": Remedy((), ("++projector.normalization=shuffled_dbn",), True),
    "ldreg": Remedy((0.01, 0.1), ("++regularizers.ldreg.weight={}",)),
    "decorrelation": Remedy((0.01, 0.1), ("++regularizers.decorrelation.weight={}", FEATURES)),
    "t_regs": Remedy((0.2, 1), ("++regularizers.t_regs.weight={}",), True),
    "wasserstein_uniformity": Remedy((1, 5), ("++regularizers.wasserstein_uniformity.weight={}",), True),
}
#: For each sign of a collapse, the remedies that fit it.
TABLE = {
    "collapsed completely": ("shuffled_dbn", "t_regs", "wasserstein_uniformity"),
    "embeddings that correlate": ("shuffled_dbn",),
    "collapsed globally": ("decorrelation", "ldreg", "t_regs", "wasserstein_uniformity"),
    "partly collapsed": ("decorrelation", "ldreg"),
    "collapsed locally": ("ldreg",),
}
MILD = ("ldreg", "decorrelation")  # without a sign, with their default weights
MOST = 4  # remedies
CORRELATED = 0.5  # the mean absolute correlation of the embeddings, as in the claim decorrelation-bn
CONTRASTIVE = {"adadim", "directclr", "infonce", "mocov2plus", "mocov3", "nnclr", "simclr", "supcon"}
# The seeds that confirm: with the time for it, without, and at most.
CONFIRMING, LEAST, MOST_SEEDS = 5, 3, 8
SHARE = 0.75  # of the budget is planned; the rest is for what the timing did not see
RULE = (
    "The remedies were trained beside your config with one seed; the better half of them with a second, "
    "and so on until one was left (successive halving by the mean {measure}). These seeds chose, so they "
    "prove nothing. If the one that was left had a higher mean than your config, both were trained with "
    "new seeds. Only these decide: a paired t-test, two-sided, at 5 %."
)


def signs_of(kind: str, ways: Sequence[str], correlation: float | None) -> list[str]:
    """Return the signs of a collapse, keys of ``TABLE``, in a verdict and the embeddings' correlation."""
    found = {f"collapsed {way}" for way in ways} | ({"partly collapsed"} if kind == PARTLY else set())
    if correlation is not None and correlation > CORRELATED:
        found.add("embeddings that correlate")
    return [sign for sign in TABLE if sign in found]


def remedies_for(
    signs: Sequence[str], method: str, terms: Mapping[str, Any], normalization: str | None = None
) -> list[tuple[str, float | None]]:
    """Return the remedies to try with their weights, the default ones before the stronger ones.

    Args:
        signs: From :func:`signs_of`. Without any, the mildest terms are tried with their default weights.
        method: The method of the run. T-REGS, Wasserstein uniformity and Shuffled-DBN were tried here in
            methods without negatives.
        terms: The ``regularizers:`` that the run has already; only larger weights of these are tried.
        normalization: That of the run's projector.
    """
    names = list(dict.fromkeys(name for sign in signs for name in TABLE[sign])) or list(MILD)
    contrastive = base_name("ldreg_simclr" if method == "ldreg" else method) in CONTRASTIVE
    whitened = normalization or (method if method == "shuffled_dbn" else "")
    found: list[tuple[str, float | None]] = []
    stronger: list[tuple[str, float | None]] = []
    names = [name for name in names if not (contrastive and REMEDIES[name].needs_no_negatives)]
    for name in (names or list(MILD))[:MOST]:
        if name == "shuffled_dbn":
            found += [] if whitened == name else [(name, None)]
            continue
        present = float((terms.get(name) or {}).get("weight") or 0.0)
        default, strong = REMEDIES[name].weights
        found += [(name, default)] if default > present else []
        stronger += [(name, strong)] if signs and strong > present else []
    return found + stronger


def remedy_row(own: Row, name: str, weight: float | None, epochs: int) -> tuple[str, Row]:
    """Return the name of a remedy's row, and the row; LDReg waits for a tenth of the training."""
    overrides = [each.format(weight) for each in REMEDIES[name].overrides]
    if name == "ldreg":
        overrides.append(f"++regularizers.ldreg.warmup_epochs={epochs // 10}")
    titled = name if weight is None else f"{name}, weight {weight:g}"
    row = Row(config=own.config, set=[*own.set, *overrides], title=titled)
    return titled.replace(", weight ", "-"), row


def rounds(rows: int) -> list[int]:
    """Return how many remedies are trained in each round of the halving."""
    found = []
    while rows > 1:
        found.append(rows)
        rows = math.ceil(rows / 2)
    return found


def waves_of(rows: int, confirming: int, jobs: int = 1) -> int:
    """Return how many runs of a search among so many remedies follow each other, ``jobs`` at a time."""
    return sum(math.ceil((each + 1) / jobs) for each in rounds(rows)) + math.ceil(2 * confirming / jobs)


def select(
    execute: Callable[[Sequence[str], int], Mapping[str, Mapping[str, Any]]], names: Sequence[str], seed: int
) -> tuple[str | None, str, list[dict[str, float]]]:
    """Return the remedy that is left by the halving, the measure that decided, and the means of each round.

    Args:
        execute: A function of the rows and a seed that returns the run of each row.
        names, seed: The rows of the remedies, and the seed of the first round.

    Returns:
        None instead of a remedy if the one that is left is not above the own config.
    """
    alive, values, means = list(names), dict[str, list[float]](), []
    measure = ""
    for number, _ in enumerate(rounds(len(names))):
        runs = execute([OWN, *alive], seed + number)
        known = {key for run in runs.values() for key in run}
        measure = measure or next((key for key in ACCURACIES if key in known), "effective_rank")
        for name in (OWN, *alive):
            values.setdefault(name, []).append(_value(runs[name], measure))
        mean = {name: math.fsum(values[name]) / len(values[name]) for name in (OWN, *alive)}
        means.append(mean)
        alive = sorted(alive, key=lambda name: -mean[name])[: math.ceil(len(alive) / 2)]
    is_above = not means or means[-1][alive[0]] > means[-1][OWN]
    return alive[0] if is_above else None, measure, means


def _value(run: Mapping[str, Any], key: str) -> float:
    """Return the measure of a run; a run that failed is below all others."""
    value = run.get(key)
    return float(value) if value is not None and math.isfinite(value) else -math.inf


def seconds_of(text: str) -> float:
    """Return the seconds of a time such as ``15m`` or ``2h``; raise ConfigError if it is none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)", text.strip())
    seconds = float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2][0]] if found else 0.0
    if not seconds:
        raise ConfigError(f"--budget: {text!r} is not allowed; it must be a time, such as 15m or 2h.")
    return seconds


def fit_budget(
    budget: float, per_epoch: float, fixed: float, rows: int, jobs: int, longest: int, shortest: int,
    seeds: int | None = None,
) -> tuple[int, int, int]:  # fmt: skip
    """Return the epochs of every training and the numbers of seeds and remedies that fit the budget.

    The trainings are as long as their own config says, or as fits with 5 seeds that confirm. If that is less
    than the shortest training, 4 and then 3 seeds are tried, and then fewer remedies.

    Args:
        budget: The seconds for all jobs together.
        per_epoch, fixed: The seconds of an epoch, and of the rest of a run.
        rows, jobs: The numbers of remedies, and of runs at a time.
        longest, shortest: The epochs of the own config, and the least that are worth while.

    Raises:
        ConfigError: Nothing can be shown in this time; the message says what would be needed.
    """
    tried = [seeds] if seeds else range(CONFIRMING, LEAST - 1, -1)
    for count, confirming in product(range(rows, 0, -1), tried):
        waves = waves_of(count, confirming, jobs)
        epochs = min(longest, int((SHARE * budget / waves - fixed) / per_epoch))
        if epochs >= shortest:
            return epochs, confirming, count
    needed = waves * (shortest * per_epoch + fixed) / SHARE
    raise ConfigError(
        f"--budget: {max(budget, 0) / 60:.3g} minutes are left, which is not enough to show anything: "
        f"{waves_of(count, confirming)} runs of {shortest} epochs take {needed / 60:.3g} minutes here, with "
        f"a reserve; give at least --budget {math.ceil(needed / 60) + 1}m."
    )


def own_config(run: Path) -> DictConfig:
    """Return the config in the ``args.json`` of a run; raise ConfigError if there is no run or config."""
    folder, _ = find_checkpoint(run)
    arguments = read_object(folder / "args.json", "the settings of a run")
    if "config" not in arguments and generation_of(arguments) == "published":
        raise ConfigError(f"{folder}: a script of solo-learn 1.0.2 keeps no config; give it as a YAML file.")
    settings: Any = OmegaConf.create(arguments.get("config", arguments))
    if "config" not in arguments:  # the current solo-learn writes the learning rates that it has scaled
        processes = device_count(settings.get("devices") or [0]) * (settings.get("num_nodes") or 1)
        scale = settings.optimizer.batch_size * processes / 256
        # It scales that of the online classifier only with validation images.
        scaled = ["lr", *(["classifier_lr"] if settings.data.get("val_path") is not None else [])]
        for key in scaled:
            if settings.optimizer.get(key) is not None:
                settings.optimizer[key] = float(f"{settings.optimizer[key] / scale:.12g}")
    for key in ("seed", "wandb_run_id", "resume_from_checkpoint"):
        settings.pop(key, None)
    return settings


@dataclass
class Search:
    """A search for a remedy in a folder.

    Attributes:
        study: The own config and, when they are known, the remedies.
        settings: The own config, with its own length.
        state: What was chosen, and the seconds that were spent; it stands in ``remedies.json``.
    """

    given: str
    out: Path
    study: Study
    settings: DictConfig
    jobs: int
    say: Say
    launcher: Launcher
    state: dict[str, Any] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)

    def keep(self, **values: Any) -> None:
        """Write the state with other values."""
        spent = self.state["spent"] + time.monotonic() - self.since
        self.since = time.monotonic()
        self.state.update(values, spent=spent)
        write_json(self.out / "remedies.json", self.state)

    def train(self, names: Sequence[str], seeds: Sequence[int], epochs: int) -> dict[str, Any]:
        """Return the results of some rows after so many epochs."""
        rows = {name: row for name, row in self.study.rows.items() if name in names}
        study = self.study.changed(rows=rows, overrides=[*self.study.overrides, *self._length(epochs)])
        return run_study(study, self.out, self.jobs, self._tell, seeds, launcher=self.launcher)

    def _tell(self, line: str) -> None:
        """Print what a run says, and keep the time: the command may be killed before the next one."""
        self.say(line)
        self.keep()

    def train_once(self, epochs: int, names: Sequence[str], seed: int) -> dict[str, Mapping[str, Any]]:
        """Return the run of each row with one seed."""
        return {run["row"]: run for run in self.train(names, [seed], epochs)["runs"]}

    def _length(self, epochs: int) -> list[str]:
        """Return the overrides for a training of so many epochs; at most a tenth of it is warm-up."""
        if epochs == self.settings.max_epochs:
            return []
        warmup = min(float(self.settings.scheduler.get("warmup_epochs", 10)), epochs // 10)
        return [f"max_epochs={epochs}", f"++scheduler.warmup_epochs={warmup:g}"]

    def tried(self, signs: Sequence[str]) -> list[tuple[str, float | None]]:
        """Return the remedies and weights that fit the signs and the own config."""
        settings = self.settings
        terms = register().terms(settings.method, plain(settings.get("regularizers")) or {})
        projector = plain(settings.get("projector")) or {}
        return remedies_for(signs, settings.method, terms, projector.get("normalization"))

    def fit(self, budget: float, seeds: int | None, steps: int) -> None:
        """Choose the length of the trainings for a budget in seconds, from a training of one epoch."""
        longest, first = self.settings.max_epochs, self.study.first_seed
        epoch = steps * self.seconds_per_step()
        count = len(self.tried(self.state.get("signs", list(TABLE))))
        if not count:
            raise self.nothing_left()
        if "fixed" not in self.state:
            self.say("A training of one epoch and its evaluation, to see how long they take:")
            begin = time.monotonic()
            self.train_once(1, [OWN], first)
            self.keep(fixed=max(time.monotonic() - begin - epoch, 0.0))
        fixed = self.state["fixed"]
        left = budget - self.state["spent"]
        shortest = min(longest, math.ceil(FEW / steps))
        epochs, confirming, count = fit_budget(left, epoch, fixed, count, self.jobs, longest, shortest, seeds)
        self.keep(epochs=epochs, confirming=confirming, count=count, per_run=fixed + epochs * epoch)

    def diagnose(self, epochs: int) -> None:
        """Diagnose the own config after a training of so many epochs."""
        self.say("The own config, to diagnose it:")
        run = self.train_once(epochs, [OWN], self.study.first_seed)[OWN]
        if "failed" in run:
            raise ConfigError(f"{self.given}: its training fails ({run['failed']}), so there is no verdict.")
        self.keep(**_judged(Verdict(**run["verdict"]), run.get("z_correlation")))

    def add_rows(self, epochs: int) -> dict[str, Row]:
        """Add the remedies that can work with the own config to the study, and return their rows."""
        own, found = self.study.rows[OWN], dict[str, Row]()
        for remedy, weight in self.tried(self.state["signs"]):
            name, row = remedy_row(own, remedy, weight, epochs)
            try:
                load_settings(register(), self.config_of(name, row))
                found[name] = row
            except ConfigError as error:
                self.say(f"Left out: {error}")
        if not found:
            raise self.nothing_left()
        names = list(found)
        if without := names[self.state.get("count", len(names)) :]:
            self.say(f"Left out for want of time: {'; '.join(found.pop(name).title for name in without)}.")
        self.study = self.study.changed(rows={OWN: own, **found})
        return found

    def nothing_left(self) -> ConfigError:
        """Return the error for a config to which no remedy can be added."""
        return ConfigError(
            f"--remedies: {self.given} has all remedies for its verdict already, or can work with none."
        )

    def config_of(self, name: str, row: Row) -> DictConfig:
        """Return the complete config of a row, with the own length."""
        study = self.study.changed(rows={name: row}, baseline="")
        return configs_of(study, name, study.first_seed, self.out)[0]

    def seconds_per_step(self) -> float:
        """Return the seconds that a step of the own config takes here."""
        plan = plan_of(self.study.only([OWN]), [self.study.first_seed], self.out)
        return plan.seconds_per_step(threads_of(self.jobs))

    def confirming(self, budget: float, seeds: int | None, seconds: float) -> int:
        """Return the number of seeds that confirm: as many as fit into the time that is left."""
        if not math.isfinite(budget) or seeds:
            return self.state.get("confirming") or seeds or CONFIRMING
        if "confirmed_with" not in self.state:
            waves = int(max(budget - self.state["spent"], 0.0) / max(self.state["per_run"], seconds))
            self.keep(confirmed_with=min(max(waves * self.jobs // 2, LEAST), MOST_SEEDS))
        return self.state["confirmed_with"]


def find_remedy(
    given: str,
    data: str,
    out: Path,
    jobs: int,
    say: Say,
    launcher: Launcher,
    *,
    budget: str = "",
    seeds: int | None = None,
    length: tuple[int | None, int | None] = (None, None),
    changes: Mapping[str, Any] | None = None,
    dry_run: bool = False,
) -> Answer | None:
    """Diagnose a run, train the remedies that fit it, and write the answer and ``remedy.yaml``.

    The same call continues an interrupted search: its choices are in ``remedies.json``.

    Args:
        given: A checkpoint folder or file, or the name or file of a config.
        data, length, changes: As for :func:`solo_dimreg.studies.own_images.study_of`.
        jobs, say, launcher: As for :func:`solo_dimreg.studies.engine.run_study`.
        budget: The time for all of it, such as ``2h``; by default the trainings have their own length.

    Returns:
        The answer; None after ``dry_run``, which only says what will run.

    Raises:
        ConfigError: The run, the images or the budget cannot be.
    """
    seconds = seconds_of(budget) if budget else math.inf
    is_run = Path(given).suffix == ".ckpt" or Path(given).is_dir()
    config = own_config(Path(given)) if is_run else given
    study, settings = _own_study(config, data, out, length, changes or {})
    search = Search(given, out, study, settings, jobs, say, launcher)
    asked = [given, data, budget, seeds, study.as_yaml()]
    known = json.loads(file.read_text()) if (file := out / "remedies.json").is_file() else {}
    search.state = known if known.get("asked") == asked else {"asked": asked, "spent": 0.0}
    images, val = count_images(settings)
    steps = count_steps(settings, images).per_epoch
    if is_run and "signs" not in search.state:
        _, checkpoint = find_checkpoint(Path(given))
        found = diagnose(open_source(str(checkpoint), Images()), intervals=False)
        correlation = found.embeddings.off_diagonal_correlation if found.embeddings is not None else None
        search.keep(**_judged(found.verdict, correlation))
    if is_run:
        say(search.state["verdict"])
    if budget and "epochs" not in search.state:
        search.fit(seconds, seeds, steps)
    epochs = search.state.get("epochs", settings.max_epochs)
    if not is_run:
        if "signs" not in search.state and dry_run:
            say(f"The remedies depend on the verdict after a training of {counted(epochs, 'epoch')}.")
            return None
        if "signs" not in search.state:
            search.diagnose(epochs)
        say(search.state["verdict"])
    rows = search.add_rows(epochs)
    count = search.state.get("confirming") or seeds or CONFIRMING
    lines = [
        f"Remedies: {'; '.join(each.title for each in rows.values())}.",
        f"{waves_of(len(rows), count)} runs of {counted(epochs, 'epoch')} ({epochs * steps} steps; the own "
        f"config has {settings.max_epochs}) on {images} images, {jobs} at a time; {count} seeds confirm.",
    ]
    if val and count > 1:
        shown = smallest_difference(count, assumed_spread(val), 1 - CONFIDENCE)
        lines.append(
            f"They can show differences above about {shown:.2g} points (assumed for {val} validation images)."
        )
    say(" ".join(lines))
    if not budget:
        minutes = waves_of(len(rows), count, jobs) * epochs * steps * search.seconds_per_step() / 60
        say(f"That is about {minutes:.0f} min here, and some more for the evaluation.")
    return None if dry_run else _decide(search, rows, epochs, seconds, seeds, lines)


def _decide(
    search: Search, rows: dict[str, Row], epochs: int, budget: float, seeds: int | None, lines: Sequence[str]
) -> Answer:
    begin, first, longest = time.monotonic(), search.study.first_seed, search.settings.max_epochs
    chosen, measure, means = select(partial(search.train_once, epochs), list(rows), first)
    waves = waves_of(len(rows), 0, search.jobs)
    search.keep()
    sections = [
        Section("The diagnosis", search.state["verdict"]),
        _of_selection(means, rows, measure, chosen, lines),
    ]
    if chosen is None:
        results = search.train([OWN, *rows], [first], epochs) | {"planned_seeds": []}
        says = f"No remedy is shown to help: none was above the own config in mean {short(measure)}."
        helps = False
    else:
        count = search.confirming(budget, seeds, (time.monotonic() - begin) / max(waves, 1))
        first += len(means)
        search.say(
            f"{rows[chosen].title} is left. Seeds {first} to {first + count - 1} confirm it or do not:"
        )
        results = search.train([OWN, chosen], range(first, first + count), epochs)
        says, helps = conclusion(answer_of(results | {"final": True}))
    if epochs < longest:
        says += f" These trainings had {counted(epochs, 'epoch')} instead of the {longest} of the own config."
        says += " Its complete config is in remedy.yaml." if helps else ""
    said = {"final": True, "sections": sections, "conclusion": says, "helps": helps}
    answer = write_answer(results | said, search.out)
    search.keep()
    search.say(says)
    _write_config(search, chosen if helps else None, says)
    return answer


def _write_config(search: Search, name: str | None, says: str) -> None:
    """Write the complete config of a remedy, with the own length; without a remedy, remove an earlier one."""
    file, own = search.out / "remedy.yaml", search.study.rows[OWN]
    if name is None:
        file.unlink(missing_ok=True)
        return
    tried, longest = search.tried(search.state["signs"]), search.settings.max_epochs
    rows = dict(remedy_row(own, *each, longest) for each in tried)
    config = search.config_of(name, rows[name])
    config.pop("seed", None)
    write_text(file, f"# {says}\n{HYDRA}\n{OmegaConf.to_yaml(config)}")
    search.say(f"Config: {file} (solo-dimreg pretrain -cp {search.out} -cn remedy)")


def _own_study(
    config: str | DictConfig,
    data: str,
    out: Path,
    length: tuple[int | None, int | None],
    changes: Mapping[str, Any],
) -> tuple[Study, DictConfig]:
    """Return a study whose only row is the own config, and that config."""
    if not isinstance(config, str):
        file = (out / "configs" / "own.yaml").absolute()
        write_text(file, OmegaConf.to_yaml(config))
        config = str(file)
    study = study_of([config], data, out, length, changes)
    row = next(iter(study.rows.values())).model_copy(update={"title": "your config"})
    study = study.changed(rows={OWN: row}, baseline=OWN, name="remedies")
    settings, _ = configs_of(study, OWN, study.first_seed, out)
    check_steps(settings, count_images(settings)[0])
    return study, settings


def conclusion(answer: Answer) -> tuple[str, bool]:
    """Return the answer of a confirmation in a sentence or two, and whether the remedy is to be taken."""
    (row,) = answer.others
    if answer.primary:
        return answer.sentence(), answer.take is not None
    rank = row.differences["effective_rank"]
    where = f"{rank.mean:+.3g} ({rank.low:+.3g} to {rank.high:+.3g}) on {answer.seeds} new seeds"
    if rank.low > 0:
        return (
            f"{row.title} raises the effective rank: {where}. Whether it raises the accuracy is unknown, "
            "since the images have no labels; a higher rank is not better by itself.",
            True,
        )
    return f"No remedy is shown to raise the effective rank; {row.title}: {where}.", False


def _judged(verdict: Verdict, correlation: float | None) -> dict[str, Any]:
    signs, said = signs_of(verdict.kind, verdict.ways, correlation), str(verdict)
    if "embeddings that correlate" in signs:
        said += f" The embeddings correlate: {correlation:.2f} on average."
    if not signs:
        healthy = verdict.kind == HEALTHY
        sign = "There is no collapse to remedy" if healthy else "No sign of a collapse is known"
        said += f" {sign}; the mildest terms are tried all the same."
    return {"signs": signs, "verdict": said}


def _of_selection(
    means: Sequence[Mapping[str, float]],
    rows: Mapping[str, Row],
    measure: str,
    chosen: str | None,
    lines: Sequence[str],
) -> Section:
    def cells(name: str, title: str) -> list[str]:
        return [title, *(f"{mean[name]:.4g}" if name in mean else "dropped" for mean in means)]

    seeds = [f"mean of {number} seed{'s' if number > 1 else ''}" for number in range(1, len(means) + 1)]
    end = "" if chosen else " None was above the own config, so that nothing was confirmed."
    rule = RULE.format(measure=short(measure)) if measure else "There is one remedy, so nothing was chosen."
    table = [cells(OWN, "your config"), *(cells(name, row.title) for name, row in rows.items())]
    return Section("How the remedy was chosen", " ".join([*lines, rule + end]), ["row", *seeds], table)
