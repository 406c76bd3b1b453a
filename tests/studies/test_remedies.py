"""``compare --remedies``: which remedies fit, the budget, the halving, and what a confirmation may claim."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support import small

from solo_dimreg.config.composing import compose
from solo_dimreg.config.folders import config_root
from solo_dimreg.config.loading import load_settings, parse_config
from solo_dimreg.config.schema import Pretraining
from solo_dimreg.config.values import plain
from solo_dimreg.errors import ConfigError
from solo_dimreg.solo_learn import Host
from solo_dimreg.studies.answer import answer_of
from solo_dimreg.studies.remedies import (
    MILD,
    OWN,
    REMEDIES,
    TABLE,
    Search,
    _own_study,
    _write_config,
    conclusion,
    fit_budget,
    own_config,
    remedies_for,
    rounds,
    seconds_of,
    select,
    signs_of,
    waves_of,
)
from solo_dimreg.studies.workers import local

CHOOSING = config_root().parent / "docs" / "choosing.md"


@pytest.mark.parametrize(
    ("kind", "ways", "correlation", "signs"),
    [
        ("healthy", [], 0.2, []),
        ("healthy", [], 0.6, ["embeddings that correlate"]),
        ("partly collapsed", [], None, ["partly collapsed"]),
        ("collapsed", ["globally", "locally"], 0.1, ["collapsed globally", "collapsed locally"]),
        ("collapsed", ["completely"], None, ["collapsed completely"]),
        ("cannot tell", [], None, []),
    ],
)
def test_the_signs_of_a_verdict(kind: str, ways: list[str], correlation: float | None, signs: list) -> None:
    assert signs_of(kind, ways, correlation) == signs


def test_remedies_fit_the_signs_and_the_config() -> None:
    assert remedies_for(["collapsed locally"], "byol", {}) == [("ldreg", 0.01), ("ldreg", 0.1)]
    # What the config has already is tried with larger weights alone.
    assert remedies_for(["collapsed locally"], "ldreg_byol", {"ldreg": {"weight": 0.05}}) == [("ldreg", 0.1)]
    whole = remedies_for(["embeddings that correlate", "collapsed globally"], "simsiam", {})
    assert whole[0] == ("shuffled_dbn", None) and whole[-1] == ("t_regs", 1) and ("t_regs", 0.2) in whole[:4]
    assert len({name for name, _ in whole}) == 4
    assert "shuffled_dbn" not in dict(
        remedies_for(["embeddings that correlate", "collapsed globally"], "byol", {}, "shuffled_dbn")
    )
    # Of a contrastive method, only what was tried in one; without a sign, the mildest terms.
    assert {name for name, _ in remedies_for(["collapsed globally"], "simclr", {})} == set(MILD)
    assert remedies_for([], "ldreg_simclr", {}) == [("ldreg", 0.01), ("decorrelation", 0.01)]


def test_the_page_names_the_same_remedies() -> None:
    lines = [line.split("|") for line in CHOOSING.read_text().splitlines() if line.startswith("|")]
    table = {cells[1].strip(" `"): cells[2].strip() for cells in lines if len(cells) == 4}
    for sign, names in [*TABLE.items(), ("none of these", MILD)]:
        assert re.findall(r"`(\w+)`", table[sign]) == list(names)
    for name, remedy in REMEDIES.items():
        assert table[name] == (", ".join(f"{weight:g}" for weight in remedy.weights) or "none")


def test_a_budget_fits() -> None:
    assert seconds_of("15m") == 900 and seconds_of("1.5h") == 5_400
    for wrong in ("15", "-1h", "0m", "soon"):
        with pytest.raises(ConfigError, match=r"--budget: .* must be a time, such as 15m or 2h"):
            seconds_of(wrong)
    assert rounds(7) == [7, 4, 2] and rounds(1) == [] and waves_of(7, 5) == 8 + 5 + 3 + 10
    assert waves_of(7, 5, 2) == 4 + 3 + 2 + 5
    for budget in (2_000, 4_000, 100_000):
        epochs, seeds, remedies = fit_budget(budget, 1.0, 10.0, 7, 2, longest=200, shortest=20)
        assert seeds == 5 and remedies == 7 and 20 <= epochs <= 200
        assert (epochs + 10) * waves_of(7, seeds, 2) <= 0.75 * budget
    assert fit_budget(100_000, 1.0, 10.0, 7, 2, 200, 20) == (200, 5, 7)
    assert fit_budget(500, 1.0, 10.0, 7, 2, 200, 20) == (21, 3, 7)
    # In 225 s, four remedies and three seeds are too many: 2 runs at a time, at least 30 s each.
    assert 30 * waves_of(4, 3, 2) == 240 and 32 * waves_of(3, 3, 2) == 224
    assert fit_budget(300, 1.0, 10.0, 7, 2, 200, 20) == (22, 3, 3)
    with pytest.raises(ConfigError, match=r"6 runs of 20 epochs take 2 minutes here.*--budget 3m"):
        fit_budget(60, 1.0, 10.0, 7, 2, 200, 20)


def simulated(gains: Mapping[str, float], rng: np.random.Generator, label: str = "linear_acc1"):
    """Runs whose accuracy has the gain of their row, and noise of its own and of the seed."""
    asked: list[tuple[list[str], int]] = []

    def run(names: Sequence[str], seed: int) -> dict[str, dict[str, Any]]:
        asked.append((list(names), seed))
        shared = rng.normal(60, 3)
        return {
            name: {"row": name, "seed": seed, label: shared + gains.get(name, 0.0) + rng.normal(0, 1.5)}
            for name in names
        }

    return run, asked


def test_the_halving_leaves_the_best() -> None:
    names = [f"r{i}" for i in range(7)]
    run, asked = simulated({"r4": 30.0, "r1": -20.0}, np.random.default_rng(0))
    chosen, measure, means = select(run, names, 5)
    assert chosen == "r4" and measure == "linear_acc1"
    assert [(len(rows), seed) for rows, seed in asked] == [(8, 5), (5, 6), (3, 7)]
    assert "r1" in means[0] and "r1" not in means[1] and OWN in means[2]
    run, _ = simulated(dict.fromkeys(names, -30.0), np.random.default_rng(0))
    assert select(run, names, 5)[0] is None
    # A run that failed is the worst.
    run, _ = simulated({}, np.random.default_rng(0), "effective_rank")
    failing = lambda names, seed: run(names, seed) | {"a": {"failed": "diverged"}}  # noqa: E731
    chosen, measure, means = select(failing, ["a", "b"], 5)
    assert chosen != "a" and means[0]["a"] == -np.inf and measure == "effective_rank"
    run, asked = simulated({}, np.random.default_rng(0))
    assert select(run, ["only"], 5)[0] == "only" and not asked


def confirmed(chosen: str, run: Any, seeds: Sequence[int]) -> dict[str, Any]:
    runs = [each for seed in seeds for each in run([OWN, chosen], seed).values()]
    return {
        "baseline": OWN,
        "rows": {OWN: {}, chosen: {}},
        "seeds": list(seeds),
        "planned_seeds": list(seeds),
        "runs": runs,
        "final": True,
    }


@pytest.mark.parametrize(("gain", "count", "least", "most"), [(0.0, 100, 0.0, 0.05), (8.0, 20, 0.9, 1.0)])
def test_how_often_a_remedy_is_recommended(gain: float, count: int, least: float, most: float) -> None:
    """Without an effect in at most 5 % of the searches, although the best of seven is chosen."""
    rng, helps = np.random.default_rng(1), 0
    for _ in range(count):
        run, _ = simulated({"r3": gain}, rng)
        chosen, _, means = select(run, [f"r{i}" for i in range(7)], 5)
        if chosen is not None:
            first = 5 + len(means)
            helps += conclusion(answer_of(confirmed(chosen, run, range(first, first + 5))))[1]
    assert least <= helps / count <= most


def test_a_last_look_spends_the_whole_level() -> None:
    rng = np.random.default_rng(3)
    run, _ = simulated({"r": 4.0}, rng)
    content = confirmed("r", run, range(5))
    last, first = answer_of(content), answer_of(content | {"final": False})
    differences = [each.others[0].differences["linear_acc1"] for each in (last, first)]
    assert differences[0].high < differences[1].high
    pairs = np.array([run["linear_acc1"] for run in content["runs"]]).reshape(5, 2)
    from scipy import stats

    truth = stats.ttest_rel(pairs[:, 1], pairs[:, 0])
    assert last.others[0].p == pytest.approx(truth.pvalue)
    assert "spends all of the 5 %" in last.rules()["interval"] and "look 1" in first.rules()["interval"]


def test_without_labels_the_rank_is_all_that_is_said() -> None:
    run, _ = simulated({"r": 40.0}, np.random.default_rng(0), "effective_rank")
    says, helps = conclusion(answer_of(confirmed("r", run, range(5))))
    assert helps and "raises the effective rank: +" in says and "accuracy is unknown" in says
    run, _ = simulated({"r": -40.0}, np.random.default_rng(0), "effective_rank")
    says, helps = conclusion(answer_of(confirmed("r", run, range(5))))
    assert not helps and says.startswith("No remedy is shown to raise the effective rank")


def test_the_config_of_a_run(host: Host, few_digits: Path, tmp_path: Path) -> None:
    """The current solo-learn writes scaled learning rates, the published one our config beside its own."""
    settings = small(few_digits, "byol", regularizers={"ldreg": {"weight": 0.1}})
    if host.generation == "current":
        arguments = plain(host.pretraining_arguments(settings))
        assert arguments["optimizer"]["lr"] != settings.optimizer.lr
    else:
        arguments = {"method": "byol", "encoder": "x", "config": plain(settings)}
    (tmp_path / "args.json").write_text(json.dumps(arguments))
    (tmp_path / "byol-ep=0.ckpt").touch()
    found = own_config(tmp_path)
    assert found.optimizer.lr == settings.optimizer.lr and found.optimizer.classifier_lr == 0.1
    assert found.regularizers.ldreg.weight == 0.1 and "seed" not in found
    parse_config(host, found, Pretraining)
    (tmp_path / "args.json").write_text(json.dumps({"method": "byol", "encoder": "x"}))
    with pytest.raises(ConfigError, match=r"a script of solo-learn 1.0.2 keeps no config"):
        own_config(tmp_path)


def test_the_config_to_take(host: Host, few_digits: Path, tmp_path: Path) -> None:
    paths = [f"data.{split}_path={few_digits / split}" for split in ("train", "val")]
    changes = {"overrides": [*paths, "optimizer.batch_size=32"]}
    study, settings = _own_study("digits/byol", "", tmp_path, (40, None), changes)
    state, said = {"signs": ["collapsed locally"], "count": 1}, list[str]()
    search = Search("digits/byol", tmp_path, study, settings, 1, said.append, local, state)
    assert list(search.add_rows(10)) == ["ldreg-0.01"]
    assert said.pop() == "Left out for want of time: ldreg, weight 0.1."
    del search.state["count"]
    # The time is kept whenever a run has ended, also if the command is killed then.
    search.state["spent"] = 0.0
    search._tell("[1/2] own, seed 5: done")
    assert json.loads((tmp_path / "remedies.json").read_text())["spent"] > 0 and said.pop()[:5] == "[1/2]"
    rows = search.add_rows(10)
    assert list(rows) == ["ldreg-0.01", "ldreg-0.1"] and not said
    assert "++regularizers.ldreg.warmup_epochs=1" in rows["ldreg-0.1"].set
    _write_config(search, "ldreg-0.1", "It helps.")
    found = compose("pretrain", str(tmp_path), "remedy", [], host)
    # At the length of the own config, which is 40 epochs, with its warm-up.
    assert found.max_epochs == 40 and plain(found.regularizers) == {
        "ldreg": {"weight": 0.1, "warmup_epochs": 4}
    }
    assert "seed" not in found and "-cn remedy" in said[0]
    load_settings(host, found)
    _write_config(search, None, "")
    assert not (tmp_path / "remedy.yaml").exists()


TINY = ["backbone.name=timm/test_resnet", "data.num_workers=0", "optimizer.batch_size=32"]


@pytest.mark.slow
def test_a_search_ends_with_a_page_and_goes_on(
    tmp_path: Path, few_digits: Path, here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run of the digits: a search, and the same command again, which trains nothing."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(few_digits, tmp_path / "photos")
    settings = [text for each in TINY for text in ("--set", each)]
    paths = [f"data.{split}_path=photos/{split}" for split in ("train", "val")]
    done = here("pretrain", "-cp", "digits", "-cn", "simclr", "max_epochs=1", *TINY, *paths)
    assert done.returncode == 0, done.stderr
    (run,) = {file.parent for file in tmp_path.glob("trained_models/**/*.ckpt")}
    command = ("compare", str(run), "--remedies", "--seeds", "2", "--probe", "knn", "--jobs", "1")
    done = here(*command, *settings, "--out", "out")
    assert done.returncode == 0, done.stderr
    rules = json.loads(Path("out/remedies.json").read_text())
    assert rules["verdict"] in done.stdout and "2 seeds confirm" in done.stdout
    page = Path("out/compare.md").read_text()
    assert "How the remedy was chosen" in page and "successive halving by the mean k-NN accuracy" in page
    said = json.loads(Path("out/compare.json").read_text())["sentence"]
    assert said in done.stdout
    written = Path("out/remedy.yaml")
    assert written.is_file() == (not said.startswith("No re") and "No row" not in said)
    if written.is_file():
        assert yaml.safe_load(written.read_text())["regularizers"]
    checkpoints = sorted(Path("out").rglob("*.ckpt"))
    again = here(*command, *settings, "--out", "out")
    assert again.returncode == 0 and said in again.stdout and "finished before" in again.stdout
    assert sorted(Path("out").rglob("*.ckpt")) == checkpoints


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("runs/typo", "'runs/typo' does not exist (working directory"),
        ("digits/byl", "Unknown config 'byl'. Did you mean 'byol'?"),
        ("typo.ckpt", "'typo.ckpt' does not exist (working directory"),
        ("notes.txt", "'notes.txt' is no checkpoint, folder of a run or config."),
    ],
)
def test_neither_a_run_nor_a_config_is_refused(given: str, message: str, tmp_path: Path, here) -> None:
    (tmp_path / "notes.txt").touch()
    done = here("compare", given, "--remedies", "--dry-run")
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_config_may_be_named_with_its_folder(tmp_path: Path, here) -> None:
    """Plans a search for digits/byol in an empty folder, whose embedded data is written."""
    done = here("compare", "digits/byol", "--remedies", "--dry-run", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    assert "The remedies depend on the verdict after a training of 12 epochs." in done.stdout
