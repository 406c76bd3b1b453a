from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import has_file, until

from solo_dimreg.solo_learn.contract import missing_packages

TINY = "backbone.name=timm/test_resnet"
ROOT = Path(__file__).parents[2]
SMALL = ("optimizer.batch_size=32", "data.num_workers=0", "checkpoint.dir=out")


def solo_dimreg(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "solo_dimreg", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)


def paths(data: Path) -> tuple[str, ...]:
    return tuple(f"data.{split}_path={data / split}" for split in ("train", "val"))


def pretrain(name: str, data: Path, *overrides: str) -> tuple[str, ...]:
    return ("pretrain", "-cp", "digits", "-cn", name, "max_epochs=1", *SMALL, *paths(data), *overrides)


def test_pretrain_linear_and_knn_end_to_end(here, tmp_path: Path, few_digits: Path) -> None:
    terms = ("regularizers.ldreg.warmup_epochs=0", "regularizers.ldreg.k=8")
    run = solo_dimreg(*pretrain("ldreg_byol", few_digits, TINY, *terms), cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    (checkpoint,) = tmp_path.glob("out/ldreg_byol/*/*.ckpt")
    assert f"solo-dimreg knn {checkpoint.parent.relative_to(tmp_path)}" in run.stdout
    assert re.search("^method +ldreg_byol$", run.stdout, re.MULTILINE)
    assert re.search(f"^checkpoint +{checkpoint.parent.relative_to(tmp_path)}$", run.stdout, re.MULTILINE)
    # There were some 20 lines of warnings from the code of solo-learn and Lightning.
    assert not re.search("Warning|deprecated|available: False", run.stderr), run.stderr
    header = (checkpoint.parent / "metrics.csv").read_text().splitlines()[0]
    assert "train_ldreg_epoch" in header and "val_acc1" in header

    probe = ("linear", str(checkpoint.parent), "--out", "linear.json", "max_epochs=2", SMALL[0])
    result = here(*probe, "data.num_workers=0")
    assert result.returncode == 0, result.stderr
    assert 0 <= json.loads((tmp_path / "linear.json").read_text())["linear"]["acc1"] <= 100

    other = tmp_path / "other"
    for split in ("train", "val"):
        for index, digit in enumerate("36"):
            shutil.copytree(few_digits / split / digit, other / split / f"kind{index}")
    result = here(
        *("linear", str(checkpoint.parent), "--data", str(other), "--out", "other.json", "max_epochs=1"),
        *("optimizer.batch_size=8", "+classifier.normalization=bn", "+classifier.init_std=0.01"),
    )
    assert result.returncode == 0, result.stderr
    assert "2 classes (kind0, kind1)" in result.stdout
    probed = json.loads((tmp_path / "other.json").read_text())
    assert probed["data"] == str(other) and 0 <= probed["linear"]["acc1"] <= 100

    options = [
        "--k",
        "5",
        "--k",
        "10",
        "--feature",
        "backbone",
        "--feature",
        "projector",
        "--out",
        "knn.json",
    ]
    result = here("knn", str(checkpoint), *options, "--out", "knn.json")
    assert result.returncode == 0, result.stderr
    rows = json.loads((tmp_path / "knn.json").read_text())["knn"]
    assert [(row["feature"], row["k"]) for row in rows] == [
        ("backbone", 5), ("backbone", 10), ("projector", 5), ("projector", 10)
    ]  # fmt: skip


def fails(run: subprocess.CompletedProcess, *words: str) -> None:
    """One line on standard error that holds the words, and exit status 2."""
    assert run.returncode == 2, (run.returncode, run.stderr)
    assert len(run.stderr.strip().splitlines()) == 1, run.stderr
    assert all(word in run.stderr for word in words), run.stderr


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        ("simclr", ["method=simclar"], ["method", "'simclar'", "Did you mean 'simclr'"]),
        ("simclr", ["+regularizers.ldrag.weight=1"], ["regularizers.ldrag", "Did you mean 'ldreg'"]),
        ("ldreg_simclr", ["regularizers.ldreg.k=0"], ["regularizers.ldreg", "k", "0"]),
        ("ldreg_simclr", ["regularizers.ldreg.weight=-1"], ["regularizers.ldreg.weight", "-1", ">= 0"]),
        ("ldreg_simclr", ["+regularizers.ldreg.kk=3"], ["regularizers.ldreg.kk", "3", "Did you mean 'k'"]),
        ("simclr", ["data.train_path=nowhere"], ["data.train_path", "'nowhere'", "does not exist"]),
        ("simclrr", [], ["--config-name", "'simclrr'", "Did you mean 'simclr'"]),
        ("simclr", ["data.format=dali"], ["data.format", "'dali'", "CUDA"]),
        ("simclr", ["data.format=dalli"], ["data.format", "Did you mean 'dali'"]),
        ("simclr", ["optimizer.batch_size=5000"], ["optimizer.batch_size", "5000", "120"]),
        ("simclr", ["optimiser.lr=1"], ["optimiser"]),
        ("directclr", ["method_kwargs.dim=4096"], ["method_kwargs.dim", "4096", "256"]),
    ],
)
def test_wrong_input_is_one_line_and_status_2(
    here, tmp_path: Path, few_digits: Path, name: str, overrides: list[str], words: list[str]
) -> None:
    fails(here(*pretrain(name, few_digits, *overrides)), *words)
    assert not (tmp_path / "out").exists()


def test_empty_class_folder_is_refused(here, tmp_path: Path, few_digits: Path) -> None:
    data = tmp_path / "data" / "train"
    (data / "empty").mkdir(parents=True)
    run = here(*pretrain("simclr", few_digits, f"data.train_path={data}"))
    fails(run, "data.train_path", "empty")


def test_unknown_config_folder_is_refused(here) -> None:
    fails(here("pretrain", "-cp", "digit", "-cn", "simclr"), "'digits'", "imagenet100")


def test_missing_checkpoint_is_refused(here) -> None:
    fails(here("knn", "nowhere"), "nowhere")
    fails(here("linear", "nowhere"), "nowhere")


# Each of the command lines in its arguments, one after the other; prints their status, output and errors.
IN_TURN = """
import contextlib, io, json, sys
from solo_dimreg.cli import main

for arguments in json.loads(sys.argv[1]):
    sys.argv = ["solo-dimreg", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            main()
        except SystemExit as exit_:
            status = exit_.code
    print(json.dumps([status, out.getvalue(), err.getvalue()]))
"""


def without_solo_learn(tmp_path: Path, *commands: tuple[str, ...]) -> list[subprocess.CompletedProcess]:
    """Run commands in a process in which no solo-learn can be found."""
    (tmp_path / "sitecustomize.py").write_text(
        "from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        "hidden = lambda name, *rest: None if name.partition('.')[0] == 'solo' else find(name, *rest)\n"
        "PathFinder.find_spec = staticmethod(hidden)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", IN_TURN, json.dumps(commands)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [subprocess.CompletedProcess(commands, *json.loads(line)) for line in done.stdout.splitlines()]


def test_without_solo_learn(tmp_path: Path, few_digits: Path) -> None:
    trained, checked, library, listed = without_solo_learn(
        tmp_path,
        pretrain("simclr", few_digits),
        ("doctor", "--json"),
        ("doctor", "--library"),
        ("methods", "--json"),
    )
    fails(trained, "solo-learn", "PYTHONPATH", "pip install")
    assert checked.returncode == 1
    (problem,) = json.loads(checked.stdout)["problems"]
    assert "solo-learn" in problem["what"] and "pip install" in problem["mend"]
    assert library.returncode == 0, library.stdout
    assert (
        "Training is impossible. What works: the library, diagnose, report, the tracker, the Lightning"
        in library.stdout
    )
    names = {row["name"] for row in json.loads(listed.stdout) if row["kind"] == "method"}
    assert {"adadim", "directclr", "shuffled_dbn", "ldreg_<method>", "minlid_<method>"} <= names


def test_doctor_reports_what_is_here(here, host) -> None:
    run = here("doctor", "--json")
    assert run.returncode == 0, run.stderr
    findings = json.loads(run.stdout)
    assert findings["solo_learn"]["generation"] == host.generation
    assert findings["hydra_plugin"] and findings["problems"] == []
    assert findings["plugins"]["ldreg"] == "solo-dimreg"
    assert (Path(findings["configs"]) / "pretrain").is_dir()
    shown = here("doctor")
    assert "Ready to train." in shown.stdout and "digits, imagenet, imagenet100, patches" in " ".join(
        shown.stdout.split()
    )


def test_methods_lists_where_each_comes_from(here, host) -> None:
    rows = {row["name"]: row for row in json.loads(here("methods", "--json").stdout)}
    assert rows["byol"]["distribution"] == "solo-learn"
    assert rows["ldreg_byol"]["plugin"] == "ldreg" and rows["ldreg_byol"]["distribution"] == "solo-dimreg"
    assert rows["directclr"]["kind"] == "method" and rows["ldreg"]["kind"] in ("method", "regularizer")
    assert set(rows) >= set(host.methods) - {"base", "linear"}
    assert rows["minlid_byol"]["plugin"] == "ldreg" and rows["minlid_byol"]["distribution"] == "solo-dimreg"
    assert rows["ldreg_byol"]["weight"] == 0.005 and rows["minlid_byol"]["weight"] == 0.01
    assert rows["koleo"]["weight"] == "required"
    assert not [name for name, row in rows.items() if not row["description"]]
    # From the docstrings: of the class, of solo-learn's constructor, of what a partial calls.
    assert rows["lejepa"]["description"].startswith("Implements LeJEPA (Balestriero & LeCun")
    assert rows["simclr"]["description"].startswith("Implements SimCLR")
    assert rows["simclr"]["description"].endswith(")") and rows["ldreg_simclr"]["description"] == (
        rows["simclr"]["description"] + ", with LDReg, which raises the local intrinsic dimensionality"
    )
    assert "which lowers the local intrinsic dim" in here("methods", "minlid_byol").stdout
    assert rows["lid_mle"]["description"].endswith("(k = 32, estimator = mle)")
    assert rows["two_nn"]["description"].startswith("Estimate the intrinsic dimension")
    tables = [table.splitlines() for table in here("methods").stdout.split("\n\n")]
    assert [table[0].split()[0] for table in tables] == ["method", "regularizer", "metric"]
    for header, *lines in tables:
        starts = [match.start() for match in re.finditer(r"\S+", header)]
        assert all(not line[start - 1 : start].strip() for line in lines for start in starts[1:])
        shown = [line.split()[0] for line in lines if line[0] != " "]
        assert shown == [name for name in shown if rows[name]] and shown


def test_methods_of_one_name_are_its_options_with_their_defaults(here) -> None:
    (row,) = json.loads(here("methods", "ldreg_byol", "--json").stdout)
    assert row["options"]["regularizers.ldreg.weight"] == 0.005
    assert row["options"].keys() >= {"proj_hidden_dim", "proj_output_dim", "pred_hidden_dim"}
    (row,) = json.loads(here("methods", "directclr", "--json").stdout)
    assert row["options"] == {
        "mode": "directclr", "dim": 360, "temperature": 0.1, "proj_output_dim": 128, "num_groups": 8
    }  # fmt: skip
    assert "regularizers.koleo.weight" in here("methods", "koleo").stdout
    fails(here("methods", "ldrag_byol"), "'ldrag_byol'", "Did you mean 'ldreg_byol'")


def test_all_that_solo_learn_lacks_is_named_at_once(host, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    lacking = {"current": ["lightning", "torchmetrics"], "published": ["pl_bolts", "torchmetrics"]}[
        host.generation
    ]
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in lacking else find(name, *rest)
    )
    assert missing_packages(host.generation) == lacking


@pytest.mark.slow
def test_interrupt_keeps_what_is_finished_and_a_rerun_resumes(here, tmp_path: Path, few_digits: Path) -> None:
    arguments = ["benchmark", "quick", "--out", "results", "--row", "simclr", "--linear", "max_epochs=1"]
    arguments += ["--linear", "optimizer.batch_size=32", "max_epochs=12", *SMALL[:2], *paths(few_digits)]
    arguments += [TINY, "++monitor.metrics=[effective_rank]"]
    process = subprocess.Popen(
        [sys.executable, "-m", "solo_dimreg", *arguments],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts its background jobs with the signal ignored, which children inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until(lambda: has_file(tmp_path, "ep=1.ckpt"), process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Interrupted" in errors and "Traceback" not in errors
    assert list(tmp_path.rglob("*.ckpt")) and not list(tmp_path.rglob("result.json"))

    again = here(*arguments)
    assert again.returncode == 0, again.stderr
    assert "resuming after epoch" in again.stdout
    (result,) = tmp_path.rglob("result.json")
    assert "ep=11" in json.loads(result.read_text())["checkpoint"]
    third = here(*arguments)
    assert third.returncode == 0 and "1 of 1 runs were finished before" in third.stdout
