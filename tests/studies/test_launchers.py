"""Jobs of submitit: its local executor, and the scripts for SLURM, which a stand-in of sbatch executes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import cloudpickle
import pytest
from support import until

import solo_dimreg
from solo_dimreg.errors import ConfigError, DimregError, MissingPackageError
from solo_dimreg.files import locked
from solo_dimreg.studies import launchers
from solo_dimreg.studies.launchers import is_active, job_of, launcher_of, read_jobs, run_job
from solo_dimreg.studies.status import status_line, status_of
from solo_dimreg.studies.workers import STARTED, folder_of

STUDY = "seeds: 2\nrows: {a: digits/byol}\n"
PYTHONPATH = os.pathsep.join(
    [str(Path(solo_dimreg.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
)
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # a job cannot import a test


def work(row: str, seed: int) -> dict[str, object]:
    from solo_dimreg.errors import ConfigError

    if row == "bad":
        raise ConfigError("optimizer.lr: 'x' is no number.")
    return {"row": row, "seed": seed, "linear_acc1": 50.0 + seed}


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    out = tmp_path / "out"
    out.mkdir()
    (out / "study.yaml").write_text(STUDY)
    return out


@pytest.mark.slow
def test_jobs_that_have_ended_are_not_started_again(out: Path) -> None:
    said: list[str] = []
    tasks = [("a", 1), ("bad", 1), ("a", 2)]
    found = {}
    with pytest.raises(DimregError, match=r"bad, seed 1 \(job \d+\): ConfigError: optimizer.lr") as error:
        for task, result in launcher_of("submitit-local", [], out)(work, tasks, out, 2, said.append):
            found[task] = result
    assert found == {task: work(*task) for task in tasks if task[0] == "a"}
    log = Path(str(error.value).partition("log: ")[2].partition(")")[0])
    assert "'x' is no number" in log.read_text()
    first = read_jobs(out)
    again = launcher_of("submitit-local", ["timeout_min=5"], out)
    with pytest.raises(DimregError):
        assert dict(again(work, tasks, out, 2, said.append)) == found
    second = read_jobs(out)
    assert first["a", 1] == second["a", 1] and first["bad", 1]["id"] != second["bad", 1]["id"]
    # Another study in this folder does not take them for its own.
    (out / "study.yaml").write_text(STUDY.replace("byol", "simclr"))
    assert dict(launcher_of("submitit-local", [], out)(work, [("a", 1)], out, 1, said.append))
    assert read_jobs(out)["a", 1]["id"] != first["a", 1]["id"]


SCRIPT = """
import os, sys, time
from pathlib import Path
from solo_dimreg.studies.launchers import launcher_of

def work(row, seed):
    with open("starts", "a") as file:
        file.write(f"{os.getpid()} ")
    while not Path("go").exists():
        time.sleep(0.05)
    return {"seed": seed}

if __name__ == "__main__":
    out = Path("out")
    for task, result in launcher_of("submitit-local", [], out)(work, [("a", 1)], out, 1, print):
        print(task, result)
"""


@pytest.mark.slow
def test_a_job_outlives_the_command_and_is_not_started_twice(out: Path) -> None:
    (out.parent / "script.py").write_text(SCRIPT)
    starts = out.parent / "starts"

    def start(name: str) -> subprocess.Popen:
        # The job keeps the output of its command open, so a pipe would not end with the command.
        with (out.parent / name).open("w") as file:
            return subprocess.Popen([sys.executable, "-u", "script.py"], cwd=out.parent, stdout=file)

    command = start("first")
    until(lambda: starts.is_file() and starts.read_text(), command)
    command.kill()
    command.wait()
    command = start("second")
    printed = out.parent / "second"
    until(lambda: "1 of the runs have jobs of an earlier start" in printed.read_text(), command)
    (out.parent / "go").touch()
    assert command.wait() == 0
    assert printed.read_text().splitlines()[-1] == "('a', 1) {'seed': 1}"
    assert len(starts.read_text().split()) == 1


SBATCH = """#!/bin/bash
cp "$1" script.sh
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' "$1")
for i in $(seq 0 $last); do
  export SLURM_JOB_ID=$((78 + i)) SLURM_ARRAY_JOB_ID=77 SLURM_ARRAY_TASK_ID=$i
  bash "$1" > /dev/null 2>&1 < /dev/null &
done
echo Submitted batch job 77
"""
SRUN = """#!/bin/bash
[ "$1 $2 $4" = "--unbuffered --output --error" ] || exit 1
name() { local a="${1//%A/$SLURM_ARRAY_JOB_ID}"; a="${a//%a/$SLURM_ARRAY_TASK_ID}"; echo "${a//%t/0}"; }
out=$(name "$3") error=$(name "$5")
shift 5
exec "$@" > "$out" 2> "$error"
"""


SACCT = "#!/bin/sh\necho 'JobID|State|NodeList'\n"  # it knows no job


def install(out: Path, monkeypatch: pytest.MonkeyPatch, **tools: str) -> None:
    """Put stand-ins of SLURM's commands on the path."""
    folder = out.parent / "bin"
    folder.mkdir(exist_ok=True)
    for name, text in tools.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(out.parent)


@pytest.mark.slow
def test_slurm_executes_one_array(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(out, monkeypatch, sbatch=SBATCH, srun=SRUN, sacct=SACCT)
    options = ["timeout_min=240", "slurm_partition=gpu", "gpus_per_node=1", "slurm_setup=[module load cuda]"]
    tasks = [("a", 5), ("b", 5)]
    found = dict(launcher_of("slurm", options, out)(work, tasks, out, 1, print))
    assert found == {task: work(*task) for task in tasks}
    assert [job["id"] for job in read_jobs(out).values()] == ["77_0", "77_1"]
    script = Path("script.sh").read_text()
    for line in ("array=0-1%2", "time=240", "partition=gpu", "gpus-per-node=1", "job-name=solo-dimreg"):
        assert f"#SBATCH --{line}\n" in script
    setup, command = script.partition("# command")[::2]
    assert setup.rstrip().endswith("module load cuda")
    assert f"{sys.executable} -u -m submitit.core._submit {out / 'jobs'}" in command


def test_a_job_that_slurm_has_lost_is_not_waited_for(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither sacct nor squeue knows the first of two jobs; the second one leaves the queue afterwards."""
    monkeypatch.setattr(launchers, "POLL", 0.01)
    monkeypatch.setattr(launchers, "UNKNOWN", 0.0)
    monkeypatch.setattr(launchers, "LATE", 0.0)
    install(out, monkeypatch, sbatch="#!/bin/sh\necho Submitted batch job 79\n", srun=SRUN, sacct=SACCT)
    install(out, monkeypatch, squeue="#!/bin/sh\ncat queue || { echo $ERROR >&2; exit 1; }\n")
    Path("queue").write_text("79_1\n")
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if "[1/2] a, seed 5 (job 79_0): SLURM lost it" in line:
            monkeypatch.setenv("ERROR", "slurm_load_jobs error: Invalid job id specified")
            Path("queue").unlink()
            launchers._queued.cache_clear()  # a minute later

    with pytest.raises(DimregError, match=r"a, seed 5 \(job 79_0\): SLURM lost it.*The same command starts"):
        dict(launcher_of("slurm", [], out)(work, [("a", 5), ("b", 5)], out, 1, say))
    assert [line.partition(":")[0] for line in said[1:]] == [
        "[1/2] a, seed 5 (job 79_0)",
        "[2/2] b, seed 5 (job 79_1)",
    ]
    # If squeue cannot tell, a job is not given up.
    monkeypatch.setenv("ERROR", "Unable to contact slurm controller")
    known = read_jobs(out)["a", 5]
    assert not is_active(job_of(known), known)
    launchers._queued.cache_clear()
    assert is_active(job_of(known), known)


@pytest.mark.slow
def test_a_comparison_as_jobs(out: Path, few_digits: Path, here) -> None:
    small = ("backbone.name=timm/test_resnet", "data.num_workers=0", "optimizer.batch_size=32")
    settings = [text for each in small for text in ("--set", each)]
    data = ("--data", str(few_digits), "--probe-data", str(few_digits))
    command = ("compare", "simclr", *data, "--seeds", "1", "--epochs", "1", "--out", "out")
    options = ("--linear", "max_epochs=1", "--launcher", "submitit-local", *settings)
    done = here(*command, *options)
    assert done.returncode == 0, done.stderr
    assert "1 jobs of submitit-local" in done.stdout and "[1/1] simclr, seed 5: linear top-1" in done.stdout
    (run,) = json.loads((out / "results.json").read_text())["runs"]
    assert run["knn_acc1"] > 0 and run["val_images"] == 40 and Path(run["checkpoint"]).is_file()
    done = here("status", "out", "--json")
    (state,) = json.loads(done.stdout)["runs"]
    assert (state["state"], state["epoch"], state["epochs"]) == ("finished", 1, 1)
    assert Path(state["log"]).is_file()


def test_a_job_that_is_ended_early_continues() -> None:
    """submitit asks this of the function of a job, and queues again what it gives."""
    again = run_job.checkpoint(work, 1, "a", 5)  # type: ignore[attr-defined]
    assert again.function is run_job and again.args == (work, 1, "a", 5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("local", ["timeout_min=1"], "needs --launcher slurm or submitit-local"),
        ("submitit-local", ["timeout_min"], "'timeout_min' must be KEY=VALUE"),
        ("submitit-local", ["slurm_partitions=gpu"], "Unknown argument 'partitions' for executor 'slurm'"),
        ("submitit-local", ["timeout_min=an hour"], 'Parameter "timeout_min" expected type'),
        ("slurm", [], 'Could not detect "srun"'),
    ],
)
def test_wrong_options_are_refused(
    name: str, options: list[str], message: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError) as error:
        launcher_of(name, options, out)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_without_submitit_one_line_says_what_to_install(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'solo-dimreg\[sweeps\]'"):
        launcher_of("slurm", [], out)


def test_the_states_of_runs(out: Path) -> None:
    rows = {name: {"title": name, "epochs": 4} for name in "ab"}
    runs = [{"row": "a", "seed": 5}, {"row": "b", "seed": 5, "failed": "the loss is not finite"}]
    content = {"planned_seeds": [5, 6], "rows": rows, "runs": runs}
    (out / "results.json").write_text(json.dumps(content))
    finished, going = (folder_of(out, "a", seed) / "0123" for seed in (5, 6))
    for folder, begun in ((finished, time.time() - 80), (going, time.time() - 20)):
        folder.mkdir(parents=True)
        (folder / STARTED).write_text(json.dumps({"at": begun}))
    (finished / "result.json").write_text(json.dumps(runs[0]))
    (going / "run-ep=1.ckpt").touch()

    def states() -> list[str]:
        return [run["state"] for run in status_of(out)["runs"]]

    assert states() == ["finished", "failed", "interrupted", "not started"]
    assert status_line(status_of(out)).endswith("Nothing runs; the same compare command continues.")
    with locked("--out", out), locked("--out", going):
        status = status_of(out)
        assert states() == ["finished", "failed", "running", "waiting"]
    assert (status["runs"][2]["epoch"], status["runs"][2]["epochs"]) == (2, 4)
    # A run takes 80 s, one is at its half, and another one waits for it.
    assert status["seconds_left"] == pytest.approx(40 + 80, abs=2)
    assert status["runs"][1]["reason"] == "the loss is not finite"


def test_there_is_no_comparison(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no comparison"):
        status_of(tmp_path)
    (tmp_path / "results.json").write_text('{"runs": [], "rows": {}}')
    with pytest.raises(ConfigError, match="is of another command than compare"):
        status_of(tmp_path)


def test_the_status_needs_no_torch() -> None:
    code = "import sys, solo_dimreg.studies.status, submitit; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": PYTHONPATH})
