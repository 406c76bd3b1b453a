"""Claims: the decisions, what is measured for them, and one claim end to end."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.linear_model import RidgeClassifier
from support import most_slow

from solo_dimreg.config.composing import compose
from solo_dimreg.config.values import plain
from solo_dimreg.errors import PluginError
from solo_dimreg.plugins.manager import Registration
from solo_dimreg.solo_learn import register
from solo_dimreg.studies.claims.claim import Claim, Outcome, decide
from solo_dimreg.studies.claims.measures import RIDGE, measure, ridge_accuracy
from solo_dimreg.studies.claims.numbers import (
    Number,
    above,
    below,
    equal,
    exceeds,
    tau,
)
from solo_dimreg.studies.claims.page import effects, last_fifth, write_outcomes
from solo_dimreg.studies.claims.pictures import draw_effects, effects_over_training
from solo_dimreg.studies.engine import configs_of, run_study
from solo_dimreg.studies.statistics import estimate
from solo_dimreg.studies.study import claims_study, read_study
from solo_dimreg.training.evaluation import extract_splits
from solo_dimreg.training.pretraining import pretrain

ALL = read_study("claims")
SMALL = ["max_epochs=1", "optimizer.batch_size=32"]


def run_claims(out: Path, names: list[str], images: Path | None = None, say=print) -> list[Outcome]:
    """Decide claims on the digits with two seeds of short trainings."""
    paths = [f"data.{split}_path={images / split}" for split in ("train", "val")] if images else []
    study = ALL.variant("digits").asking(names)
    study = study.changed(seeds=2, overrides=[*SMALL, *paths], linear=SMALL)
    about = {"why": study.why, "options": [], "overrides": []}
    results = run_study(study, out, say=say)
    return write_outcomes(out, results, study.claims(), ALL.claims(), about, "solo-dimreg claims NAME")


def claim(name: str, paper: str = "paper") -> Claim:
    return Claim(name, paper, "table", "says.", "1", (Number("x", lambda results: results["row"][name]),))


def test_accuracies_are_rounded_to_float32() -> None:
    one, other = "a", "b"
    counts = [500 + 7 * seed for seed in range(8)]
    for images, expected in ((10, 0.5**8), (0, 1)):
        results = [
            {
                "a": {"linear_acc1": float(np.float32(100 * (count + images) / 900))},
                "b": {
                    "linear_acc1": float(np.nextafter(np.float32(100 * count / 900), np.float32(count % 2)))
                },
            }
            for count in counts
        ]
        found = exceeds("linear_acc1", one, other)[0].estimate(results)
        assert (found.p_above, found.error) == (expected, 0)
        margin = [number.estimate(results).p_above for number in equal("linear_acc1", one, other, 3.0)]
        assert margin == [0.5**8] * 2
    claim = Claim("x", "P", "", "", "", tuple(exceeds("linear_acc1", one, other)))
    assert decide([claim], results)[0].p == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_of_numbers_that_are_not_finite_nothing_is_shown(bad: float) -> None:
    found = estimate([1.0, bad])
    assert np.isnan(found.mean) and (found.p_above, found.p_below) == (1, 1)
    results = [{"row": {"x": 1.0, "y": 1 + 0.01 * i}} for i in range(8)]
    results[3]["row"]["x"] = bad
    both = decide([claim("x"), claim("y", "another")], results)
    assert [each.verdict for each in both] == ["not shown here", "holds here"]


def test_verdicts() -> None:
    rng = np.random.default_rng(2)
    results = [
        {"row": {"up": 1 + 0.1 * e, "down": -1 + 0.1 * e, "none": 0.1 * (-1) ** i, "alone": 0.08 + 0.1 * e}}
        for i, e in enumerate(rng.normal(size=8))
    ]
    outcomes = decide([claim("up"), claim("down"), claim("none")], results)
    assert [outcome.verdict for outcome in outcomes] == ["holds here", "contradicted", "not shown here"]
    trained = replace(claim("down"), numbers=(replace(claim("down").numbers[0], rows=("row",)),))
    assert decide([trained], results)[0].verdict == "opposite here"
    assert outcomes[0].values[0] == tuple(seed["row"]["up"] for seed in results)
    # Holm's correction is over the claims of the same paper alone.
    (alone,) = decide([claim("alone")], results)
    (among, *_) = decide([claim("alone"), claim("none"), claim("down")], results)
    (other, *_) = decide([claim("alone"), claim("none", "another"), claim("down", "another")], results)
    assert alone.p == other.p < among.p
    # It is over all of them, tried or not.
    (chosen,) = decide([claim("alone")], results, [claim("alone"), claim("none"), claim("down")])
    assert chosen.p == pytest.approx(3 * alone.p)


def test_a_value_is_told_beside_its_limit() -> None:
    rng = np.random.default_rng(4)
    results = [{"a": {"lid": 12 + e}} for e in rng.normal(size=8)]
    (low,), (high,) = below("lid", "a", 2), above("lid", "a", 9)
    claims = [
        Claim(name, "P", "", "", "", (replace(number, rows=("a",)),))
        for name, number in {"low": low, "high": high}.items()
    ]
    for outcome, to_be, verdict in zip(
        decide(claims, results), ("below 2", "above 9"), ("opposite here", "holds here"), strict=True
    ):
        told = outcome.as_dict()
        (number,) = told["numbers"]
        expected = estimate([seed["a"]["lid"] for seed in results])
        assert told["verdict"] == verdict and (number["says"], number["to_be"]) == ("LID of a", to_be)
        assert [number[key] for key in ("mean", "low", "high")] == pytest.approx(
            [expected.mean, expected.low, expected.high]
        )
        assert number["values"] == pytest.approx([seed["a"]["lid"] for seed in results])
        assert effects(told) == [
            f"{expected.mean:.0f} ({expected.low:.0f} to {expected.high:.0f}; must be {to_be})"
        ]


@pytest.mark.parametrize(
    ("mean", "unit", "to_be", "expected"),
    [
        (0.7834, "%", "below 3", "0.78 % (0.73 to 0.83; must be below 3 %)"),
        (0.2959, "", "above 0.3", "0.296 (0.246 to 0.346; must be above 0.3)"),
        (-3.97, "decades", "below -1", "−4.0 decades (−4.0 to −3.9; must be below −1 decades)"),
        (-0.46, "points", "above 0", "−0.46 points (−0.51 to −0.41)"),
        (0.0, "", "above 0", "+0.00 (−0.05 to 0.05)"),
    ],
)
def test_a_value_is_told_in_words(mean: float, unit: str, to_be: str, expected: str) -> None:
    number = {"says": "x", "to_be": to_be, "mean": mean, "low": mean - 0.05, "high": mean + 0.05}
    assert effects({"unit": unit, "numbers": [number]}) == [expected]


def test_a_tau_that_is_small_is_not_the_opposite_of_one_that_is_large() -> None:
    """A tau of 1/3 misses a limit of 0.6, and orders the rows as the claim says; one of -1/3 does not."""

    def verdict(*ranks: int) -> str:
        results = {
            name: {"linear_acc1": float(i), "lid": float(rank)}
            for i, (name, rank) in enumerate(zip("abc", ranks, strict=True))
        }
        (number,) = tau("lid", list(results), above=0.6)
        expected = stats.kendalltau(range(3), ranks).statistic
        assert number.measured(number.of(results)) == pytest.approx(expected)
        return decide([Claim("x", "P", "", "", "", (number,))], [results] * 8)[0].verdict

    assert verdict(1, 2, 3) == "holds here"
    assert verdict(1, 3, 2) == "not shown here"
    assert verdict(3, 1, 2) == "opposite here"


def test_a_claim_is_decided_when_all_of_its_seeds_are_done() -> None:
    (number,) = exceeds("lid", "a", "b")
    needs = Claim("x", "P", "", "", "", (replace(number, rows=("a", "b")),), seeds=4)
    results = [{"a": {"lid": 2.0 + 0.01 * i}, "b": {"lid": 1.0}} for i in range(8)]
    whole = decide([needs], results)[0]
    assert whole.verdict == "holds here" and len(whole.values[0]) == 4
    part = [seed if i != 2 else {"a": seed["a"]} for i, seed in enumerate(results)]
    unfinished = decide([needs], part)[0]
    assert unfinished.verdict == "unfinished, 3 of 4 seeds" and np.isnan(unfinished.values[0][2])
    assert unfinished.estimates[0].mean == pytest.approx(np.mean([1.0, 1.01, 1.03]))
    # A seed beyond those of the claim is of no matter.
    assert decide([needs], [*results[:4], {}])[0].verdict == "holds here"


def test_what_two_results_of_a_row_need_is_measured() -> None:
    study = read_study("evidence").asking(["projector-keeps"])
    assert set(study.measures("digit_two_layers")) == {"ridge_acc1", "z_ridge_acc1"}


def test_claims_on_embeddings_measure_those_of_the_projector(few_digits: Path, tmp_path: Path) -> None:
    """Compares RankMe with NumPy's singular values, and LiDAR with that of other outputs."""
    host, images = register(), [f"data.{split}_path={few_digits / split}" for split in ("train", "val")]
    settings = compose(
        "pretrain",
        "digits",
        "simclr",
        [*images, "max_epochs=1", "optimizer.batch_size=40", "seed=5", f"checkpoint.dir={tmp_path}"],
    )
    checkpoint = pretrain(settings)
    found = measure(checkpoint, tmp_path, [], ["z_rankme", "z_lidar", "lidar"])
    embeddings = extract_splits(host, host.read_run(checkpoint))[0].embeddings
    assert embeddings is not None and embeddings.shape == (120, 128)
    values = np.linalg.svd(embeddings.double().numpy(), compute_uv=False)
    shares = values / values.sum() + 1e-7
    assert found["z_rankme"] == pytest.approx(float(np.exp(-(shares * np.log(shares)).sum())), rel=1e-4)
    assert 1 < found["z_lidar"] < 100 and abs(found["z_lidar"] - found["lidar"]) > 0.1
    study = read_study("evidence").asking(["rankme-within", "lidar-within"])
    assert set(study.measures("byol_12")) == {"z_rankme", "z_lidar"}


def test_ridge_accuracy_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    centres, labels, expected = rng.normal(size=(3, 6)), rng.integers(0, 3, 90), rng.integers(0, 3, 60)
    train, val = (centres[of] + rng.normal(size=(len(of), 6)) for of in (labels, expected))
    scaled = (train - train.mean(0)) / train.std(0, ddof=1), (val - train.mean(0)) / train.std(0, ddof=1)
    theirs = RidgeClassifier(alpha=RIDGE * 90).fit(scaled[0], labels).score(scaled[1], expected)
    ours = ridge_accuracy(*map(torch.from_numpy, (train, labels, val, expected)))
    assert ours == pytest.approx(100 * theirs) and 40 < ours < 95


def test_every_claim_says_what_is_to_be_said() -> None:
    claims = ALL.claims()
    assert len(claims) >= 50
    assert {each.paper.split()[0] for each in claims} >= {"LDReg", "DirectCLR", "Feature", "AdaDim", "RankMe"}
    for each in claims:
        assert each.sentence.endswith(".") and each.published and each.place and each.paper
        assert each.rows or each.experiments
    assert {each.name for each in claims} >= set(ALL.quick)
    assert {row for each in claims for row in each.rows} == set(ALL.rows)


def test_the_claims_are_those_of_the_recorded_outcomes() -> None:
    recorded = json.loads((Path(__file__).parents[2] / "docs" / "data" / "claims.json").read_text())
    assert [each["name"] for each in recorded["outcomes"]] == list(ALL.questions)
    for claim, old in zip(ALL.claims(), recorded["outcomes"], strict=True):
        assert (claim.paper, claim.unit) == (old["paper"], old["unit"])
        assert len(claim.numbers) == len(old["numbers"])


@pytest.mark.parametrize("data", most_slow([ALL.data, *ALL.variants], keep=["digits"]))
def test_rows_differ_from_their_config_by_what_is_compared(data: str, tmp_path: Path) -> None:
    study = ALL.variant(data)
    configs: dict[str, dict] = {}
    for row in study.rows if data in ("patches", "digits", "cifar10") else list(study.rows)[:2]:
        ours, _ = configs_of(study, row, 5, tmp_path)
        assert ours.method in register().methods and ours.name == row
        config = study.rows[row].config
        if config not in configs:
            configs[config] = plain(compose("pretrain", study.folder, config, study.settings, register()))
        changed = {key for key, value in plain(ours).items() if configs[config].get(key) != value}
        fixed = {"seed", "checkpoint", "accelerator", "devices", "strategy", "precision"}
        allowed = {"name", "method", "method_kwargs", "regularizers", "projector", *fixed}
        assert changed <= allowed | ({"optimizer"} if row in study.of_rows else set())


def test_one_claim_end_to_end(tmp_path: Path, few_digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    (outcome,) = run_claims(Path("out"), ["decorrelation-none"], few_digits, said.append)
    assert (
        outcome.verdict in ("holds here", "not shown here", "opposite here") and len(outcome.values[0]) == 2
    )
    content = json.loads(Path("out/claims.json").read_text())
    (written,) = content["outcomes"]
    assert content["seeds"] == [5, 6] and written["rows"] == ["none", "bn"]
    assert [each["values"] for each in written["numbers"]] == [list(outcome.values[0])]
    results = {
        (row, seed): json.loads(next(Path(f"out/runs/{row}/seed{seed}").rglob("result.json")).read_text())
        for row in ("none", "bn")
        for seed in (5, 6)
    }
    expected = [results["bn", seed]["linear_acc1"] - results["none", seed]["linear_acc1"] for seed in (5, 6)]
    assert list(outcome.values[0]) == pytest.approx(expected)
    page = Path("out/claims.html").read_text()
    assert outcome.verdict in page
    assert "decorrelation-none" in page and "data:image/svg+xml;base64," in page and "script" not in page
    assert "solo-dimreg claims decorrelation-none" in page
    # Four runs of three steps: 120 images in batches of 32.
    ran = re.sub(r"<[^>]+>|\s+", " ", page.partition("What ran")[2])
    for line in ("runs 4", "steps 3", f"training data {few_digits / 'train'}", "training images 120"):
        assert line in " ".join(ran.split()), ran
    assert str(few_digits / "val") in page
    said.clear()
    (again,) = run_claims(Path("out"), ["decorrelation-none"], few_digits, said.append)
    assert again.values == outcome.values and said == ["4 of 4 runs were finished before."]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ldreg-lid-biol"], "Unknown claim 'ldreg-lid-biol'. Did you mean 'ldreg-lid-byol'"),
        (["--seeds", "1"], "--seeds: 1 is not allowed; an interval needs at least 2"),
        (["--data", "digit"], "--data: Unknown data 'digit'. Did you mean 'digits'"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(here, arguments: list[str], message: str) -> None:
    done = here("claims", *arguments, "--out", "out")
    assert done.returncode == 2 and message in done.stderr


def test_plugins_bring_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = [{"exceeds": {"metric": "lid", "larger": "ldreg_byol", "smaller": "byol"}}]
    theirs = {"sentence": "It helps.", "paper": "Theirs", "numbers": numbers}

    def register(name: str, value: object) -> None:
        found = {name: Registration(name, "claims", value, "plugin", "package")}
        monkeypatch.setattr("solo_dimreg.studies.study.registered", lambda kind: found)

    register("their-claim", theirs)
    claim = claims_study().claims()[-1]
    assert (claim.name, claim.rows) == ("their-claim", ["byol", "ldreg_byol"])
    for broken, message in (
        ({**theirs, "numbers": [{"exceeds": {**numbers[0]["exceeds"], "metric": "lidd"}}]}, "metric 'lidd'"),
        ({**theirs, "numbers": []}, "is empty"),
        ({**theirs, "sentenc": "x"}, "sentenc: unknown key"),
        ("text", "must be a mapping"),
    ):
        register("their-claim", broken)
        with pytest.raises(PluginError, match=f"package .* registers the claim 'their-claim'.*{message}"):
            claims_study()
    register("minlid", theirs)
    with pytest.raises(PluginError, match=r"package .* registers the claim 'minlid'"):
        claims_study()


def test_the_list_needs_no_run(here) -> None:
    done = here("claims", "--list", "--json")
    content = json.loads(done.stdout)
    assert done.returncode == 0 and "Holm" in content["rule"]
    assert {each["name"] for each in content["claims"]} >= {"minlid", "directclr-ladder", "adadim-alpha"}


@pytest.mark.slow
def test_what_needs_no_training_is_measured_once_a_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    (outcome,) = run_claims(Path("out"), ["lid-finds-the-dimension"], say=said.append)
    assert len(outcome.values) == 3 and all(value > 0 for number in outcome.values for value in number)
    (again,) = run_claims(Path("out"), ["lid-finds-the-dimension"], say=said.append)
    assert again.values == outcome.values and "2 of 2 runs were finished before." in said


@pytest.mark.slow
def test_claims_of_the_newest_losses_are_measured_on_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed forms beside: VISReg's scale, and both uniformities of points that fill the sphere."""
    monkeypatch.chdir(tmp_path)
    names = ["visreg-gradient", "wasserstein-sensitive", "uniformity-spreads", "koleo-spreads"]
    outcomes = run_claims(Path("out"), names)
    values = {outcome.claim.name: np.array(outcome.values) for outcome in outcomes}
    assert all((found > 0).all() for found in values.values())
    # SIGReg's gradient is that of small features: it falls as they do, by four decades.
    np.testing.assert_allclose(values["visreg-gradient"][1], 3, atol=0.02)
    # Half of the axes: sqrt(2 - 2 sqrt(1/2)) for sqrt(0), less the sampling of 2,000 points.
    expected = (2 - 2**0.5) ** 0.5 / 2**0.5
    assert (np.abs(values["wasserstein-sensitive"][0] + 0.3 - expected) < 0.1).all()
    assert (values["uniformity-spreads"][0] > 0.09).all()


def test_the_effect_over_the_training_is_paired_and_by_steps() -> None:
    claim = next(each for each in read_study("evidence").claims() if each.name == "ldreg-accuracy-byol")

    def run(seed: int, gain: float) -> dict:
        curve = {epoch: 40.0 + epoch + seed + gain * epoch for epoch in range(13)}
        return {"steps": 1_560, "epochs": 13, "curves": {"val_acc1": curve}}

    results = [{"byol": run(seed, 0), "ldreg_byol": run(seed, 1 + 0.1 * seed)} for seed in range(4)]
    ((label, effects),) = effects_over_training(claim, [*results, {"byol": run(9, 0)}]).items()
    assert label == "ldreg_byol - byol"
    assert list(effects) == [120 * (epoch + 1) for epoch in range(13)]
    expected = estimate([3 * (1 + 0.1 * seed) for seed in range(4)])
    assert effects[480].mean == pytest.approx(expected.mean)
    assert (effects[480].low, effects[480].high) == pytest.approx((expected.low, expected.high))
    (axes,) = draw_effects(claim, {label: effects}).axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["120", "360", "960", "1,560"]
    assert axes.lines[0].get_ydata()[3] == pytest.approx(expected.mean)
    assert effects_over_training(claim, results[:1]) == {}
    # Of a ladder, each step is an effect.
    steps = next(each for each in read_study("evidence").claims() if each.name == "decorrelation-accuracy")
    rows = ("none", "bn", "dbn", "shuffled_dbn")
    whole = [{row: run(seed, place) for place, row in enumerate(rows)} for seed in range(2)]
    assert list(effects_over_training(steps, whole)) == ["bn - none", "dbn - bn", "shuffled_dbn - dbn"]


def test_the_last_fifth_says_whether_a_training_was_long_enough() -> None:
    curves = [
        {"val_acc1": {e: 50.0 + up * e for e in range(11)}, "effective_rank": {0: 3.0}} for up in (2, -1)
    ]
    results = [{"a": {"method": "a", "curves": each}, "pixels": {"lid": 1}} for each in curves]
    (accuracy, rank), *others = last_fifth([*results, {}]).values()
    # From 66 to 70, and from 42 to 40: one training changes by about 5 %, the mean of both by 2 %.
    assert accuracy.mean == pytest.approx(100 * (110 / 108 - 1)) and rank is None and not others
    assert accuracy.single == pytest.approx(100 * (4 / 66 + 2 / 42) / 2)


def test_the_long_study_can_be_trained(tmp_path: Path) -> None:
    """Every config composes, and the papers' weights are those that we ship for their methods."""
    study = read_study("evidence")
    tasks = study.tasks(range(5, 13))
    # The main rows, the sweeps, the settings of one method; and the experiment on stepwise learning.
    assert len(tasks) == 16 * 8 + 8 * 4 + 24 * 2 + 8
    assert len(study.headlines) == 10
    images_of = {"evidence-patches": 7_680, "overlay": 6_016, "claims-sprites": 1_920}
    for row in [*list(study.rows)[:23:4], "sprite_two_layers"]:
        settings, _ = configs_of(study, row, 5, tmp_path)
        images = images_of[Path(settings.data.train_path).parent.name]
        length = settings.max_epochs * (images // settings.optimizer.batch_size)
        assert 1_500 <= length <= 2_450
        regimes = {claim.regime for claim in study.claims() if row in claim.rows}
        assert any(regime.startswith(f"{length:,} steps of 64 ") for regime in regimes)
        assert settings.monitor.on == "val"
    assert {name for claim in study.claims() for name in claim.rows} == set(study.rows)
