"""The table of a GPU: its sections, what becomes of one that fails, and what a bare Python can do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch

from solo_dimreg.studies.bench_cases import cases
from solo_dimreg.studies.gpu import bench, study
from solo_dimreg.studies.gpu.rows import CannotRun, Rows

ROOT = Path(__file__).parents[2]
BLOCKED = (
    *("hydra", "omegaconf", "pydantic", "solo", "pluggy", "lightning", "pytorch_lightning", "click", "rich"),
    *("jinja2", "matplotlib", "sklearn", "scipy"),
)
SCRIPT = """
import sys, time
from pathlib import Path
from solo_dimreg.studies.gpu.rows import Rows

def lacking(): import nosuch_package
def wrong(): raise ValueError("not\\nright")

name, device, file, seconds = sys.argv[1:]
rows = Rows(Path(file), float(seconds))
rows.run("right", lambda: {"value": 1.5})
if name == "ends":
    sys.exit("out of order")
if name == "hangs":
    time.sleep(600)
rows.run("wrong", wrong)
rows.run("lacking", lacking)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    file = tmp_path / "script.py"
    file.write_text(SCRIPT)
    return file


def run(script: Path, name: str, limit: float = 60) -> list[dict]:
    section = study.Section("Some", str(script), name, 60)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return study.run_section(section, "cpu", limit, environment, script.parent)


def test_a_failure_fails_its_row_only(script: Path) -> None:
    rows = run(script, "some")
    assert [(row["name"], row["status"], row["note"]) for row in rows] == [
        ("right", "passed", ""),
        ("wrong", "failed", "ValueError: not right"),
        ("lacking", "skipped", "needs nosuch_package"),
    ]
    assert rows[0]["values"] == {"value": 1.5}
    assert study.count(rows) == "1 passed, 1 failed, 1 skipped"


def test_what_a_section_found_before_it_ended_is_kept(script: Path) -> None:
    found, failed = run(script, "ends")
    assert (found["name"], failed["status"]) == ("right", "failed")
    assert failed["note"] == "ended with status 1; the end of ends.log: out of order"


def test_a_section_is_stopped_at_its_limit(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "GRACE", 1)
    found, failed = run(script, "hangs", limit=4)
    assert (found["name"], failed["status"]) == ("right", "failed")
    assert "was stopped at its limit of 4 s" in failed["note"]


def test_without_time_a_section_is_not_begun(script: Path) -> None:
    (row,) = run(script, "hangs", limit=1)
    assert row["status"] == "skipped" and "no time left" in row["note"]


def test_a_check_is_not_begun_after_the_limit(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows.jsonl", 0.01)
    time.sleep(0.02)
    row = rows.run("late", lambda: {})
    assert row["status"] == "skipped" and "no time left" in row["note"]


def test_a_row_that_a_kill_has_cut_off_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = Rows(file, 60)
    rows.run("first", lambda: {"value": 2.0})

    def cannot() -> None:
        raise CannotRun("there is none")

    rows.run("second", cannot)
    file.write_text(file.read_text()[:-5])
    assert [row["name"] for row in study.read_rows(file)] == ["first"]


def test_the_table_is_written(tmp_path: Path) -> None:
    machine = {
        "devices": ["A card"],
        "torch": "2.11",
        "CUDA": "13.0",
        "driver": None,
        "missing": {"hydra": "solo-learn"},
    }
    rows = [
        {
            "name": "LDReg",
            "status": "passed",
            "values": {"ours, ms": 1.23456, "sort over ours": 12345.6},
            "note": "",
        },
        {"name": "DBN", "status": "failed", "values": {}, "note": "a | b"},
    ]
    study.write_table(tmp_path, machine, "cuda", {"Times": rows}, 12.3)
    assert json.loads((tmp_path / "gpu.json").read_text())["sections"] == {"Times": rows}
    text = (tmp_path / "gpu.md").read_text()
    assert "On A card: 1 passed, 1 failed, 0 skipped, in 12 s. torch 2.11, CUDA 13.0." in text
    assert "Missing: hydra (solo-learn)." in text
    assert "| LDReg | passed | 1.23 | 12346 |  |" in text and "| DBN | failed |  |  | a / b |" in text


def test_every_section_exists() -> None:
    from solo_dimreg.studies.gpu import training

    names = {bench.__name__: bench.SECTIONS, training.__name__: training.SECTIONS}
    checks = (ROOT / study.CHECKS).read_text()
    for section in study.SECTIONS:
        if section.script == study.CHECKS:
            assert f'    "{section.name}": run_' in checks
        else:
            assert section.name in names[section.script]
    assert sum(section.seconds for section in study.SECTIONS) <= study.SECONDS


@pytest.mark.parametrize("case", cases(), ids=lambda case: f"{case.name} {case.shape}")
def test_the_textbooks_compute_on_the_device(case) -> None:
    """Meta tensors show, without a GPU, that constants are made on the device of the features."""
    x = torch.empty(case.shape, device="meta", requires_grad=True)
    for loss in (case.ours, case.textbook):
        if loss is case.textbook and case.name == "T-REG":
            continue  # SciPy needs numbers
        assert torch.autograd.grad(loss(x), x)[0].device.type == "meta"


def test_topk_and_sort_agree() -> None:
    x = bench.features((96, 32)).double()
    torch.testing.assert_close(bench.topk_ldreg(x, 8), bench.textbook_ldreg(x, 8))
    torch.testing.assert_close(bench.topk_ldreg(x, 8), bench.ldreg_loss(x, k=8))


def test_a_step_moves_the_network() -> None:
    step = bench.Step(bench.small_backbone(), torch.device("cpu"), 4, 32)
    before = [parameter.detach().clone() for parameter in step.backbone.parameters()]
    loss = step(bench.step_losses(step.width, step.device)["simclr + ldreg"])
    assert loss.isfinite()
    assert any(not torch.equal(a, b) for a, b in zip(before, step.backbone.parameters(), strict=True))


def test_torch_and_timm_are_enough(tmp_path: Path) -> None:
    """What runs without solo-learn imports none of what comes with it, and a check skips what it lacks."""
    code = f"""
import sys
for name in {BLOCKED}:
    sys.modules[name] = None
import importlib.util, pathlib, solo_dimreg.functional, solo_dimreg.nn
import solo_dimreg.studies.gpu.bench, solo_dimreg.studies.gpu.training, solo_dimreg.studies.gpu.study
spec = importlib.util.spec_from_file_location("checks", {str(ROOT / study.CHECKS)!r})
checks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(checks)
rows = checks.Rows(pathlib.Path({str(tmp_path / "rows.jsonl")!r}), 60)
checks.run_graphs(rows, checks.CPU)
for name in ("TREGS", "KoLeo"):
    rows.run(name, lambda: checks.check_value(name, checks.CPU))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *graphs, tree, koleo = study.read_rows(tmp_path / "rows.jsonl")
    assert len(graphs) > 30 and {row["note"] for row in graphs} == {"only CUDA has graphs"}
    assert (tree["note"], koleo["status"]) == ("needs scipy", "passed")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_one_line_says_so(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert study.main(["--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        "No CUDA device: nothing was run. --cpu runs at small sizes what a CPU can run.\n"
    )


def wheel(folder: Path, name: str, tag: str) -> None:
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-{tag}.whl", "w") as file:
        file.writestr(f"{name}/__init__.py", "")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        file.writestr(f"{info}/RECORD", "")


def test_wheels_add_what_is_lacking(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """One that is installed already is not replaced, and one for another Python is named."""
    folder, target = tmp_path / "wheels", tmp_path / "packages"
    folder.mkdir()
    wheel(folder, "dimreg_test_package", "py3-none-any")
    wheel(folder, "numpy", "py3-none-any")
    wheel(folder, "dimreg_other_package", "cp27-cp27m-win32")
    assert study.add_wheels(folder, target) == ["dimreg-test-package"]
    assert "dimreg-other-package was not added" in capsys.readouterr().out
    assert sorted(each.name for each in target.iterdir() if each.is_dir()) == [
        "dimreg_test_package",
        "dimreg_test_package-1.0.dist-info",
    ]


def test_an_interruption_ends_the_section_and_keeps_its_rows(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    class Interrupted(subprocess.Popen):
        def wait(self, timeout: float | None = None) -> int:
            if timeout is None or self in started:
                return super().wait(timeout)
            started.append(self)
            while not (tmp_path / "hangs.jsonl").exists():
                time.sleep(0.05)
            raise KeyboardInterrupt

    monkeypatch.setattr(study.subprocess, "Popen", Interrupted)
    monkeypatch.setattr(study, "describe_machine", lambda: {"devices": [], "missing": {}})
    monkeypatch.setattr(study, "SECTIONS", [study.Section("Some", str(script), "hangs", 60)])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with pytest.raises(KeyboardInterrupt):
        study.main(["--cpu", "--out", str(tmp_path)])
    assert started[0].poll() == -signal.SIGKILL
    rows = json.loads((tmp_path / "gpu.json").read_text())["sections"]["Some"]
    assert [(row["name"], row["note"]) for row in rows] == [("right", ""), ("the section", "was interrupted")]


def test_failures_come_last_and_give_status_1(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    machine = {"devices": [], "missing": {"hydra": "solo-learn"}}
    monkeypatch.setattr(study, "describe_machine", lambda: machine)
    sections = [study.Section(title, str(script), name, 60) for title, name in (("A", "some"), ("B", "ends"))]
    monkeypatch.setattr(study, "SECTIONS", sections)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert study.main(["--cpu", "--out", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "missing: hydra (solo-learn)"
    assert lines[-3:] == [
        f"{tmp_path / 'gpu.md'}: 2 passed, 2 failed, 1 skipped on cpu.",
        "failed: A: wrong: ValueError: not right",
        "failed: B: the section: ended with status 1; the end of ends.log: out of order",
    ]
