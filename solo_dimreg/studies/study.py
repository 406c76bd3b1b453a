"""Read a study: the rows that are compared, their data and settings, and the questions that they answer."""

# ruff: noqa: RUF012 - pydantic copies the defaults of a model
from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator

from solo_dimreg.config.folders import find_study
from solo_dimreg.config.parsing import Block, Refusal, parse, whole
from solo_dimreg.datasets.digits import write_digits, write_mnist
from solo_dimreg.datasets.overlay import write_overlay
from solo_dimreg.datasets.patches import write_patches
from solo_dimreg.datasets.sprites import write_sprites
from solo_dimreg.errors import ConfigError, PluginError, unknown
from solo_dimreg.plugins import registered
from solo_dimreg.studies.claims.claim import Claim
from solo_dimreg.studies.claims.experiments import EXPERIMENTS
from solo_dimreg.studies.claims.numbers import Number, read_number

FIRST_SEED = 5
DATASETS = Path("datasets")
WRITERS: dict[str, Callable[..., Path]] = {
    "digits": write_digits,
    "mnist": write_mnist,
    "patches": write_patches,
    "evidence-patches": lambda out: write_patches(out, patches=600),
    "overlay": write_overlay,
    "claims-sprites": lambda out: write_sprites(out, factors=8, images=2_400),
}
# The words of a row: spaces inside of Hydra's quotes do not separate.
WORDS = re.compile(r"(?:'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|[^\s'\"])+")


class Row(Block):
    """A row: a config and the overrides that change it.

    A text stands for both: ``byol +regularizers.ldreg.weight=0.1``.
    """

    config: str
    set: list[str] = []
    title: str = ""


def row_of(given: Any) -> Any:
    """Return the settings of a row that is given as one text."""
    if not isinstance(given, str):
        return given
    config, *overrides = WORDS.findall(given) or [""]
    return {"config": config, "set": overrides}


def _embedded(name: Any) -> Any:
    if name and name not in WRITERS and not Path(str(name)).is_dir():
        raise Refusal(f"{name!r} is not a folder. {unknown('embedded data', str(name), WRITERS)}")
    return name


Embedded = Annotated[str, BeforeValidator(_embedded)]
Rows = dict[str, Annotated[Row, BeforeValidator(row_of)]]


class Setting(Block):
    """The data of a study, and the conditions of its trainings.

    Attributes:
        folder: The folder of the configs: ours, such as ``digits``, or the reader's.
        data: The embedded data that is written below ``datasets``, or a folder of images.
        other: The embedded data on which transfer is measured.
        also: More embedded data, which some of the rows read.
        needs: The data that the reader provides: each path with what belongs there.
        regime: The setting in a few words, for the head of a table.
        settings: The overrides of every config, before those of its row.
        of_rows: The overrides of some of the rows.
    """

    folder: str = ""
    data: Embedded = ""
    other: Embedded = "patches"
    also: list[Embedded] = []
    needs: dict[str, str] = {}
    why: str = ""
    regime: str = ""
    settings: list[str] = []
    of_rows: dict[str, list[str]] = {}


def _some(given: Any) -> Any:
    if not given:
        raise Refusal("is empty; it must hold a number: exceeds: {metric: lid, larger: a, smaller: b}.")
    return given


def _span(given: Any) -> Any:
    whole_numbers = isinstance(given, list) and all(type(each) is int for each in given)
    if not whole_numbers or len(given) != 2 or given[0] > given[1]:
        raise Refusal(f"{given!r} is not allowed; it must be the first and the last seed, as [5, 12].")
    return given


class Question(Block):
    """A claim: a sentence, its source, and the numbers that decide it, over so many seeds.

    ``beside`` names rows for its picture, such as a healthy one, and ``chosen_on`` the first and the last
    seed on which its setting was chosen.
    """

    sentence: str
    numbers: Annotated[list[dict[str, dict[str, Any]]], BeforeValidator(_some)]
    paper: str = ""
    place: str = ""
    published: str = ""
    unit: str = ""
    note: str = ""
    differs: str = ""
    regime: str = ""
    seeds: Annotated[int | None, whole(2)] = None
    beside: list[str] = []
    chosen_on: Annotated[list[int], BeforeValidator(_span)] = []


class Part(Block):
    """A part of a study in a file of its own: rows and questions, such as those of one paper."""

    paper: str = ""
    differs: str = ""
    regime: str = ""
    rows: Rows = {}
    questions: dict[str, Question] = {}


class Study(Setting, Part):
    """Rows of configs, trained alike with several seeds.

    Attributes:
        baseline: The row that the others are compared with; the first one by default.
        overrides: The overrides of every config, after those of its row.
        probe_data: The folder of other labelled images to evaluate on, with ``train/`` and ``val/``.
        parts: The files of its parts, relative to its own.
        quick: The questions that are cheap.
        headlines: The questions that its page begins with, each with a picture.
    """

    name: str = ""
    title: str = ""
    seeds: Annotated[int, whole(1)] = 3
    first_seed: Annotated[int, whole(0)] = FIRST_SEED
    baseline: str = ""
    overrides: list[str] = []
    linear: list[str] = []
    probe: Literal["linear", "knn", "both"] = "both"
    probe_data: str = ""
    parts: list[str] = []
    quick: list[str] = []
    headlines: list[str] = []
    variants: dict[str, Setting] = {}

    def changed(self, **values: Any) -> Study:
        """Return the study with other values; None leaves a value as it is."""
        return self.model_copy(update={key: value for key, value in values.items() if value is not None})

    def checked(self) -> Study:
        """Return the study itself; raise ConfigError if one of its names leads nowhere."""
        if not self.rows and not self.questions:
            raise ConfigError("rows: is missing; it must name at least one row, as NAME: CONFIG KEY=VALUE...")
        _check_known("baseline: ", "row", filter(None, [self.baseline]), self.rows)
        _check_known("of_rows: ", "row", self.of_rows, self.rows)
        for name in self.rows:
            if not re.fullmatch(r"[\w.+-]+", name):
                raise ConfigError(
                    f"rows: {name!r} is not allowed; it must be of letters, digits and . _ + -."
                )
            if name in EXPERIMENTS:
                raise ConfigError(f"rows: {name!r} is the name of an experiment; it must be another.")
        _check_known("headlines: ", "claim", self.headlines, self.questions)
        self.claims()
        return self

    def variant(self, name: str) -> Study:
        """Return the study on other data; raise ConfigError if there is no such variant."""
        if name == self.data:
            return self
        _check_known("--data: ", "data", [name], (self.data, *self.variants))
        given = self.variants[name]
        return self.model_copy(update={key: getattr(given, key) for key in given.model_fields_set})

    def only(self, rows: Sequence[str]) -> Study:
        """Return the study with the named rows, or all if none is; raise ConfigError if one is unknown."""
        _check_known("--row: ", "row", rows, self.rows)
        return self._with_rows(rows or list(self.rows))

    def asking(self, names: Sequence[str]) -> Study:
        """Return the study with the named questions, or all, and their rows; raise if one is unknown."""
        _check_known("", "claim", names, self.questions)
        chosen = {name: each for name, each in self.questions.items() if not names or name in names}
        needed = {row for claim in self.claims() if claim.name in chosen for row in claim.rows}
        for name, each in chosen.items():
            chosen[name] = each.model_copy(update={"beside": [row for row in each.beside if row in needed]})
        study = self.changed(questions=chosen, headlines=[name for name in self.headlines if name in chosen])
        return study._with_rows(needed)

    def _with_rows(self, names: Collection[str]) -> Study:
        kept = {name: row for name, row in self.rows.items() if name in names}
        of_rows = {name: changes for name, changes in self.of_rows.items() if name in kept}
        baseline = self.baseline if self.baseline in kept else ""
        return self.changed(rows=kept, of_rows=of_rows, baseline=baseline)

    def claims(self) -> list[Claim]:
        """Return the claims of the questions; raise ConfigError if a name in one leads nowhere."""
        for name, question in self.questions.items():
            _check_known(f"questions.{name}.beside: ", "row", question.beside, self.rows)
        return [
            Claim(
                name,
                *(each.paper or self.title or self.name, each.place, each.sentence, each.published),
                numbers=tuple(self._numbers(name, each)),
                unit=each.unit,
                note=each.note,
                differs=each.differs or self.differs,
                regime=each.regime or self.regime,
                seeds=each.seeds,
                beside=tuple(each.beside),
                chosen_on=tuple(each.chosen_on),
            )
            for name, each in self.questions.items()
        ]

    def _numbers(self, name: str, question: Question) -> list[Number]:
        found = []
        for place, given in enumerate(question.numbers):
            for kind, options in given.items():
                key = f"questions.{name}.numbers.{place}.{kind}"
                found += read_number(key, kind, options, self.rows, EXPERIMENTS)
        return found

    def experiments(self) -> list[str]:
        """Return the names of the experiments that the questions need."""
        return list(dict.fromkeys(name for claim in self.claims() for name in claim.experiments))

    def tasks(self, seeds: Sequence[int]) -> list[tuple[str, int]]:
        """Return the experiments and rows to run, each with the seeds that its questions ask for."""
        asked: dict[str, int] = {}
        for claim in self.claims():
            for name in claim.needed:
                asked[name] = max(asked.get(name, 0), claim.seeds or len(seeds))
        names = [*self.experiments(), *self.rows]
        return [
            (name, seed)
            for place, seed in enumerate(seeds)
            for name in names
            if place < asked.get(name, len(seeds))
        ]

    def measures(self, row: str) -> tuple[str, ...]:
        """Return what is measured for a row beside its accuracies, for the questions."""
        claims = [claim for claim in self.claims() if row in claim.rows]
        return tuple(dict.fromkeys(name for claim in claims for name in claim.measures))

    def write_data(self) -> None:
        """Write the embedded data that is missing; raise ConfigError if the reader's data is."""
        given = any(each.startswith("data.train_path=") for each in self.overrides)
        missing = {path: what for path, what in self.needs.items() if not (given or Path(path).exists())}
        if missing:
            wanted = "; ".join(f"{what}, into {path}/" for path, what in missing.items())
            raise ConfigError(f"This study needs data that is not here. Put {wanted} (below {Path.cwd()}).")
        transfer = any("transfer_acc1" in self.measures(row) for row in self.rows)
        for name in {"" if given else self.data, self.other if transfer else "", *self.also} & WRITERS.keys():
            WRITERS[name](DATASETS / name)

    def as_yaml(self) -> str:
        """Return the study as the YAML that :func:`read_study` reads."""
        content = self.model_dump(exclude_defaults=True, exclude={"variants", "quick"})
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _check_known(key: str, kind: str, names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"{key}{unknown(kind, name, known)}")


def read_study(name: str | Path) -> Study:
    """Return a study that we ship, by its name, or the one in a YAML file.

    A row whose config is the name of a row above it starts from that row.

    Raises:
        ConfigError: There is no such study, or a value in it cannot be; the message names it.
    """
    file = find_study(name)
    content = load_yaml(file)
    try:
        study = parse(Study, {"name": file.stem, **content})
        for part in study.parts:
            _add(study, parse(Part, load_yaml(file.parent / part)))
        study.checked()
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    rows: dict[str, Row] = {}
    for each, row in study.rows.items():
        if row.config.endswith((".yaml", ".yml")):
            row = row.model_copy(update={"config": str((file.parent / row.config).resolve())})
        base = rows.get(row.config)
        if base is not None:
            row = row.model_copy(update={"config": base.config, "set": [*base.set, *row.set]})
        rows[each] = row
    return study.changed(rows=rows, parts=[])


def load_yaml(file: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; raise if it cannot be read or is none."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: cannot be read as YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: must hold a mapping, with rows: NAME: CONFIG in it.")
    return content


def _add(study: Study, part: Part) -> None:
    for name, row in part.rows.items():
        if study.rows.setdefault(name, row) != row:
            raise ConfigError(f"rows.{name}: two parts have different rows of this name; rename one of them.")
    for name, question in part.questions.items():
        if name in study.questions:
            raise ConfigError(f"questions.{name}: two parts have a question of this name; rename one.")
        shared = {key: getattr(question, key) or getattr(part, key) for key in ("paper", "differs", "regime")}
        study.questions[name] = question.model_copy(update=shared)


def claims_study() -> Study:
    """Return our claims of the papers and those of plugins, whose rows are ours.

    Raises:
        PluginError: A plugin registers something else than the settings of a question, or one of our names.
    """
    study = read_study("claims")
    for name, registration in registered("claims").items():
        where = f"{registration.distribution} (plugin {registration.plugin!r}) registers the claim {name!r}"
        if name in study.questions:
            raise PluginError(f"{where}, a name that we have. Uninstall or fix that package.")
        try:
            given: Mapping[str, Any] = registration.value
            study = study.changed(questions={**study.questions, name: parse(Question, given)})
            study.claims()
        except (ConfigError, TypeError) as error:
            raise PluginError(f"{where}, which cannot be: {error} Uninstall or fix that package.") from error
    return study
