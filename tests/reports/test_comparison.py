from __future__ import annotations

import csv
import json
import math
import re
import shutil
import statistics
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from solo_dimreg.cli import main
from solo_dimreg.errors import ConfigError
from solo_dimreg.reports.comparison import write_report
from solo_dimreg.reports.run_files import read_curves
from solo_dimreg.reports.runs import read_runs
from solo_dimreg.reports.summary import results_table, summarize

ACCURACIES = {"simclr": (97.5, 96.0, 95.25), "adadim": (90.0, 91.0, 95.0)}
SECONDS = {"simclr": (60.0, None, 70.0), "adadim": (80.0, 90.0, 130.0)}


def config(method: str, seed: int, **changes: Any) -> dict[str, Any]:
    return {
        "name": f"{method}-digits",
        "method": method,
        "method_kwargs": {"temperature": 0.2} if method == "simclr" else {"alpha": "erank"},
        "optimizer": {"lr": 0.002, "kwargs": {"betas": [0.9, 0.99]}},
        "augmentations": [{"crop_size": 32}],
        "checkpoint": {"dir": f"somewhere/{method}/seed{seed}"},
        "max_epochs": 2,
        "seed": seed,
        **changes,
    }


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)


def write_run(folder: Path, settings: dict[str, Any], scale: float = 1.0) -> Path:
    """A checkpoint folder as a training leaves it."""
    folder.mkdir(parents=True)
    # As with the published solo-learn: its own arguments, and our config beside them.
    (folder / "args.json").write_text(json.dumps({"lr": settings["seed"], "config": settings}))
    rows = [{"epoch": epoch, "step": 10, "val_acc1": 50.0 + epoch} for epoch in range(2)]
    if settings["method"] == "adadim":
        rows += [{"epoch": epoch, "step": 10, "train_alpha_epoch": 0.75 - epoch / 4} for epoch in range(2)]
    write_csv(folder / "metrics.csv", rows)
    figures = {
        "effective_rank": 10.5,
        "z_effective_rank": 4.5,
        "matrix_entropy": 2.5,
        "lid": 3.5,
        "own": 1.5,
    }
    measured = [{name: value * scale * (epoch + 1) for name, value in figures.items()} for epoch in range(2)]
    write_csv(
        folder / "dimensionality.csv",
        [{"epoch": epoch, "step": 10, **values} for epoch, values in enumerate(measured)],
    )
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Return what the benchmark leaves of two methods with three seeds, in a folder that was moved since."""
    runs = []
    for method, accuracies in ACCURACIES.items():
        for i, accuracy in enumerate(accuracies):
            name = f"offline-{method}{i}"
            below = f"runs/{method}/seed{5 + i}/0123456789ab/{method}/{name}"
            write_run(tmp_path / below, config(method, 5 + i), scale=i + 1)
            runs.append(
                {
                    "method": method,
                    "seed": 5 + i,
                    "checkpoint": f"elsewhere/{below}/{name}-ep=1.ckpt",
                    "epochs": 2,
                    "pretrain_seconds": SECONDS[method][i],
                    "linear_acc1": accuracy,
                    "linear_acc5": 100.0,
                    "knn_acc1": accuracy - 1,
                    "effective_rank": 100.0 + i,
                    "lid": 4.0,
                    "z_correlation": None,
                    "spectrum": [4.0, 2.0, 1.0],
                    "environment": {
                        "torch": "2.99",
                        "solo-learn": "published 1.0.2",
                        "device": "CPU, 2 threads",
                    },
                    "finished": f"2026-01-0{i + 1} 10:00 UTC",
                }
            )
    content = {"benchmark": "quick", "solo_learn": "published", "knn": {"k": 20}, "runs": runs}
    (tmp_path / "results.json").write_text(json.dumps(content))
    return tmp_path


class Tables(HTMLParser):
    """The tables of a page by the heading above them, and all that a page refers to."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.figures: dict[str, list[str]] = {}
        self.references: list[tuple[str, str, str]] = []
        self.within = self.heading = ""
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.within = tag
        if tag in ("h2", "summary"):
            self.heading = ""
        elif tag == "tr":
            self.tables.setdefault(self.heading, []).append([])
        elif tag in ("th", "td"):
            self.tables[self.heading][-1].append("")
        elif tag == "figcaption":
            self.figures.setdefault(self.heading, []).append("")
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "data"):
                self.references.append((tag, name, value or ""))

    def handle_endtag(self, tag: str) -> None:
        self.within = ""

    def handle_data(self, data: str) -> None:
        if self.within in ("h2", "summary"):
            self.heading += data
        elif self.within in ("th", "td", "wbr") and self.tables:
            self.tables[self.heading][-1][-1] += data
        elif self.within == "b" and self.heading in self.figures:
            self.figures[self.heading][-1] += data


def markdown_tables(content: str) -> dict[str, list[list[str]]]:
    tables: dict[str, list[list[str]]] = {}
    heading = ""
    for line in content.splitlines():
        if line.startswith("## "):
            heading = line[3:]
        elif line.startswith("| ") and "| --- |" not in line:
            cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            tables.setdefault(heading, []).append(cells)
    return tables


def over(values: list[float]) -> str:
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def test_numbers_are_those_of_the_runs_on_both_pages(results: Path, tmp_path: Path) -> None:
    assert write_report(results, tmp_path / "out") == tmp_path / "out" / "report.html"
    html = Tables((tmp_path / "out" / "report.html").read_text()).tables
    text = (tmp_path / "out" / "report.md").read_text()
    assert html == markdown_tables(text)

    header, *rows = html["Accuracy and dimensionality"]
    assert header == [
        "method",
        "seeds",
        "linear top-1 %",
        "k-NN top-1 %",
        "effective rank",
        "LID",
        "pretraining",
    ]
    for row, (method, accuracies) in zip(rows, ACCURACIES.items(), strict=True):
        seconds = [each for each in SECONDS[method] if each is not None]
        knn = over([accuracy - 1 for accuracy in accuracies])
        expected = [method, "3", over(list(accuracies)), knn, "101.00 ± 1.00", "4.00 ± 0.00"]
        assert row == [*expected, f"{over(seconds)} s"]

    header, *rows = html["Over the epochs"]
    last = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert last["adadim"]["effective rank of features"] == over([21.0, 42.0, 63.0])
    assert last["adadim"]["effective rank of embeddings"] == over([9.0, 18.0, 27.0])
    assert last["adadim"]["alpha (AdaDim)"] == "0.50 ± 0.00" and last["simclr"]["alpha (AdaDim)"] == "–"
    assert last["simclr"]["online accuracy (%)"] == "51.00 ± 0.00"

    assert html["Differences of configuration"] == [
        ["setting", "simclr", "adadim"],
        ["method", "simclr", "adadim"],
        ["method_kwargs.alpha", "–", "erank"],
        ["method_kwargs.temperature", "0.2", "–"],
    ]
    ran = dict(html["What ran"])
    assert ran["runs"] == "6" and ran["seeds"] == "5, 6, 7" and ran["epochs"] == "2"
    assert ran["finished"] == "2026-01-01 10:00 UTC to 2026-01-03 10:00 UTC"
    assert (ran["torch"], ran["device"], ran["k-NN"]) == ("2.99", "CPU, 2 threads", "k 20")
    assert ran["solo-learn"] == "published 1.0.2" and ran["solo-dimreg"] == "not recorded"


def test_the_pages_hold_all_they_show(results: Path) -> None:
    write_report(results, results)
    page = Tables((results / "report.html").read_text())
    for tag, name, address in page.references:
        paper = (tag, name) == ("a", "href") and address.startswith("https://arxiv.org/")
        assert paper or address.startswith("data:image/svg+xml;base64,")
    assert page.figures["Accuracy and dimensionality"] == ["accuracy", "spectrum"]
    shown = [
        "matrix entropy of features",
        "effective rank of features",
        "LID of features",
        "alpha (AdaDim)",
        "effective rank of embeddings",
        "online accuracy (%)",
    ]
    assert page.figures["Over the epochs"] == shown
    assert page.figures["Further metrics over the epochs"] == ["own"]
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", (results / "report.md").read_text())
    assert len(pictures) == 2 + 6 + 1
    assert all((results / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_plain_runs_show_what_there_is(tmp_path: Path) -> None:
    """Seeds of one configuration are one method; the same name with another configuration is another."""
    for seed in (1, 2):
        write_run(tmp_path / "simclr" / f"offline-{seed}", config("simclr", seed), scale=seed)
    for lr in (0.1, 0.2):
        write_run(tmp_path / "adadim" / f"offline-{lr}", config("adadim", 1, optimizer={"lr": lr}))
    probe = {**config("linear", 1), "pretrained_feature_extractor": "x.ckpt"}
    write_run(tmp_path / "linear" / "offline-3", probe)
    write_report(tmp_path, tmp_path / "out")
    tables = Tables((tmp_path / "out" / "report.html").read_text()).tables
    assert "Accuracy and dimensionality" not in tables
    assert "Accuracies are not here" in (tmp_path / "out" / "report.md").read_text()
    header, *rows = tables["Over the epochs"]
    ranks = {row[0]: row[header.index("effective rank of features")] for row in rows}
    first, second = "adadim-digits, optimizer.lr=0.1", "adadim-digits, optimizer.lr=0.2"
    assert ranks == {first: "21.00", second: "21.00", "simclr-digits": over([21.0, 42.0])}
    differ = {row[0]: row[1:] for row in tables["Differences of configuration"]}
    assert differ["setting"] == [first, second, "simclr-digits"]
    assert differ["optimizer.lr"] == ["0.1", "0.2", "0.002"]
    assert differ["optimizer.kwargs.betas"] == ["–", "–", "[0.9, 0.99]"]
    assert set(differ) - {"setting"} == {
        *("method", "method_kwargs.alpha", "method_kwargs.temperature"),
        *("optimizer.lr", "optimizer.kwargs.betas"),
    }


def record(folder: Path, **content: Any) -> None:
    data = {"dataset": "custom", "train_path": "images/train", "train_images": 120}
    data |= {"val_path": "images/val", "val_images": 40}
    content = {"epochs": 2, "steps": 14, "data": data, "environment": {"torch": "2.99"}, **content}
    (folder / "run.json").write_text(json.dumps(content))


def evaluation(folder: Path, name: str, kind: str, acc1: float, **content: Any) -> None:
    settings = {"optimizer": {"name": "sgd", "lr": 0.1}} if kind == "linear" else {"k": 20}
    data = {"val_path": "images/val"}
    steps = {"epochs": 5, "steps": 30} if kind == "linear" else {}
    base = {"kind": kind, "acc1": acc1, "settings": settings, "data": data, "pretrained_epochs": 2, **steps}
    counts = {"train_images": 120, "val_images": 40}
    (folder / f"{kind}-{name}.json").write_text(json.dumps({**base, **counts, **content}))


def test_what_linear_and_knn_have_left_is_shown(tmp_path: Path) -> None:
    """Seeds that were evaluated alike are averaged; another evaluation has its own line."""
    for seed, accuracy in ((1, 80.0), (2, 90.0)):
        run = write_run(tmp_path / f"offline-{seed}", config("ldreg_byol", seed, name="byol-digits"))
        record(run)
        evaluation(run, "aa", "linear", accuracy)
        evaluation(run, "bb", "linear", 70.0, settings={"optimizer": {"name": "sgd", "lr": 0.2}}, acc5=99.0)
    evaluation(run, "cc", "knn", 60.0)
    write_report(tmp_path, tmp_path)
    page = Tables((tmp_path / "report.html").read_text()).tables
    assert page == markdown_tables((tmp_path / "report.md").read_text())
    assert "Accuracy and dimensionality" not in (tmp_path / "report.md").read_text()
    header, *rows = page["Evaluations"]
    assert header == [
        *("method", "evaluation", "top-1 %", "top-5 %", "runs"),
        *("settings", "after", "steps", "data", "images"),
    ]
    name, data = "ldreg_byol (byol-digits)", ["images/val", "120 / 40"]
    probe = "epochs 5, optimizer sgd, lr"
    assert rows == [
        [name, "linear", over([80.0, 90.0]), "–", "2", f"{probe} 0.1", "epoch 2", "30", *data],
        [name, "linear", "70.00 ± 0.00", "99.00 ± 0.00", "2", f"{probe} 0.2", "epoch 2", "30", *data],
        [name, "k-NN", "60.00", "–", "1", "k 20", "epoch 2", "–", *data],
    ]
    ran = dict(page["What ran"])
    assert (ran["epochs"], ran["steps"], ran["runs"], ran["torch"]) == ("2", "14", "2", "2.99")
    assert (ran["training data"], ran["training images"]) == ("images/train", "120")
    assert (ran["validation data"], ran["validation images"]) == ("images/val", "40")


def test_top_five_has_no_column_where_nobody_has_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / "offline-1", config("byol", 1))
    evaluation(run, "aa", "linear", 80.0)
    write_report(tmp_path, tmp_path)
    assert "top-5" not in (tmp_path / "report.html").read_text()


def test_what_was_not_recorded_is_read_from_the_settings(tmp_path: Path) -> None:
    data = {"dataset": "custom", "train_path": "mine/train"}
    write_run(tmp_path / "offline-1", config("byol", 1, data=data))
    write_report(tmp_path, tmp_path)
    ran = dict(Tables((tmp_path / "report.html").read_text()).tables["What ran"])
    assert (ran["training data"], ran["steps"], ran["training images"]) == (
        *("mine/train", "not recorded"),
        "not recorded",
    )


def test_a_resumed_run_is_one_row(tmp_path: Path) -> None:
    """Its parts are joined by what they have recorded, though the folder was moved and it was prolonged."""
    first = write_run(tmp_path / "offline-1", config("simclr", 1))
    second = write_run(tmp_path / "offline-0", config("simclr", 1, max_epochs=3))
    write_csv(second / "dimensionality.csv", [{"epoch": 2, "step": 21, "lid": 9.0, "effective_rank": 33.0}])
    third = write_run(tmp_path / "offline-2", config("simclr", 1, max_epochs=3, optimizer={"lr": 1}))
    record(first)
    record(second, resumed_from="before/simclr/offline-1/simclr-ep=1.ckpt", epochs=3, steps=21)
    record(third, resumed_from="before/simclr/offline-1/simclr-ep=1.ckpt", epochs=3, steps=21)
    evaluation(first, "aa", "knn", 60.0)
    _, (joined, other) = read_runs(tmp_path)
    assert joined.curves["lid"] == {0: 3.5, 1: 7.0, 2: 9.0} and joined.result["steps"] == 21
    assert len(joined.evaluations) == 1 and joined.settings["max_epochs"] == "3"
    # With another learning rate it is another run, which has its own row.
    assert other.settings["optimizer.lr"] == "1" and other.curves["lid"] == {0: 3.5, 1: 7.0}


def test_a_value_of_an_earlier_epoch_says_so(tmp_path: Path) -> None:
    """A run that was resumed without the monitor has the dimensionality of its first part alone."""
    first = write_run(tmp_path / "offline-1", config("simclr", 1))
    second = write_run(tmp_path / "offline-2", config("simclr", 1, max_epochs=3))
    (second / "dimensionality.csv").unlink()
    write_csv(second / "metrics.csv", [{"epoch": 2, "step": 21, "val_acc1": 80.0}])
    record(first)
    for epochs in (3, 4):  # with a fourth epoch that nothing measured
        record(second, resumed_from="offline-1/simclr-ep=1.ckpt", epochs=epochs)
        html = Tables(write_report(tmp_path, tmp_path / "out").read_text()).tables
        header, row = html["Over the epochs"]
        last = dict(zip(header, row, strict=True))
        assert last["effective rank of features"] == f"21.00 (after epoch 2 of {epochs})"
        assert last["online accuracy (%)"] == ("80.00" if epochs == 3 else "80.00 (after epoch 3 of 4)")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "the table has its newest one and says so" in text


def test_runs_that_continue_each_other_in_a_circle_are_read(tmp_path: Path) -> None:
    for name, other in (("offline-1", "offline-2"), ("offline-2", "offline-1")):
        run = write_run(tmp_path / name, config("simclr", 1))
        record(run, resumed_from=f"{other}/simclr-ep=1.ckpt")
    assert len(read_runs(tmp_path)[1]) == 1


def test_a_run_that_was_made_twice_goes_by_its_folder(tmp_path: Path) -> None:
    for name in ("offline-1", "offline-2"):
        write_run(tmp_path / name, config("ldreg_byol", 1, name="byol-digits"))
    _, records = read_runs(tmp_path)
    assert [each.method for each in records] == [
        "ldreg_byol (byol-digits) offline-1",
        "ldreg_byol (byol-digits) offline-2",
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", "{"),
        ("run.json", '{"data": 1}'),
        ("linear-1.json", "[]"),
        ("knn-1.json", '{"kind": "knn"}'),
    ],
)
def test_a_run_whose_record_is_damaged_is_named(
    tmp_path: Path, name: str, content: str, capfd: pytest.CaptureFixture
) -> None:
    write_run(tmp_path / "offline-1", config("byol", 1))
    broken = write_run(tmp_path / "offline-2", config("byol", 2))
    (broken / name).write_text(content)
    write_report(tmp_path, tmp_path / "out")
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("warning: not in the report: ") and f"offline-2/{name}" in line


def test_a_resumed_run_has_one_curve(results: Path) -> None:
    """Its second half was logged in a folder of its own, which the checkpoint names."""
    (folder,) = results.rglob("offline-simclr0")
    rows = [{"epoch": epoch, "step": 10, "lid": 100.0 + epoch} for epoch in (1, 2)]
    other = folder.with_name("offline-0")
    write_run(other, config("simclr", 5))
    (other / "metrics.csv").unlink()
    write_csv(other / "dimensionality.csv", rows)
    _, records = read_runs(results)
    assert records[0].curves["lid"] == {0: 3.5, 1: 101.0, 2: 102.0}
    assert records[1].curves["lid"] == {0: 7.0, 1: 14.0}


def test_a_training_killed_while_it_logged_has_no_curve(results: Path) -> None:
    """Lightning's logger writes metrics.csv anew at every turn: killed in between, it is empty."""
    file = next(results.rglob("metrics.csv"))
    file.write_text("")
    assert "val_acc1" not in read_curves([file.parent])


def test_hostile_names_are_only_text(results: Path) -> None:
    name = "<script>alert(1)</script>|*x*\n$\\frac{$ `"
    content = json.loads((results / "results.json").read_text())
    for run in content["runs"][:3]:
        run["method"] = name
    (results / "results.json").write_text(json.dumps(content))
    write_report(results, results)
    page = (results / "report.html").read_text()
    assert "<script" not in page
    assert Tables(page).tables["Accuracy and dimensionality"][1][0] == name
    rows = markdown_tables((results / "report.md").read_text())["Accuracy and dimensionality"]
    assert len({len(row) for row in rows}) == 1
    assert rows[1][0] == "&lt;script>alert(1)&lt;/script>|\\*x\\* $\\\\frac{$ \\`"


def test_without_curves_or_configurations_a_word_says_so(results: Path) -> None:
    for file in [*results.rglob("*.csv"), *results.rglob("args.json")]:
        file.unlink()
    write_report(results, results)
    text = (results / "report.md").read_text()
    assert "The dimensionality was not recorded" in text and "(args.json of each run) are not here" in text
    assert "97.5" not in text and "96.25" in text  # the mean


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("results.json", "{"),
        ("results.json", '{"runs": []}'),
        ("results.json", '{"runs": [{"method": 3}]}'),
        ("results.json", '{"runs": [{"method": "a", "linear_acc1": "high"}]}'),
        ("results.json", '{"runs": [{"method": "a", "spectrum": [1, null]}]}'),
        ("args.json", "[1]"),
        ("args.json", '{"config": {"name'),
        ("metrics.csv", "step,val_acc1\n1,2\n"),
        ("dimensionality.csv", "epoch,step,lid\n0,1,many\n"),
        ("dimensionality.csv", "epoch,step,lid\nfirst,1,3.5\n"),
        ("dimensionality.csv", "epoch,step,lid\n,1,3.5\n"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(results: Path, name: str, content: str) -> None:
    file = next(results.rglob(name))
    file.write_text(content)
    with pytest.raises(ConfigError) as error:
        write_report(results, results)
    assert str(file) in str(error.value) and "\n" not in str(error.value)
    assert not (results / "report.html").exists()


def test_a_row_that_was_cut_off_counts_as_far_as_it_goes(results: Path) -> None:
    file = next(results.rglob("offline-simclr0")) / "dimensionality.csv"
    file.write_text("epoch,step,lid,effective_rank\n0,1,3.5,9.5\n1,2,4.5")
    _, records = read_runs(results)
    assert records[0].curves["lid"] == {0: 3.5, 1: 4.5}
    assert records[0].curves["effective_rank"] == {0: 9.5}


def test_the_command(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def report(*arguments: str) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["solo-dimreg", "report", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, *capsys.readouterr()

    monkeypatch.chdir(tmp_path)
    assert report(str(results), "--out", "out") == (0, f"Report: {Path('out/report.html')}\n", "")
    assert (tmp_path / "out" / "report.md").is_file()
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "nowhere"):
        code, _, error = report(folder)
        assert code == 2 and error.startswith(f"error: {folder}: holds no run")
        assert len(error.splitlines()) == 1


def test_summary_over_seeds_is_mean_and_sample_deviation() -> None:
    runs = [
        {
            "method": "m",
            "linear_acc1": a,
            "knn_acc1": 2 * a,
            "effective_rank": 3.0,
            "lid": 4.0,
            "z_correlation": 0.5,
            "pretrain_seconds": 3600 * a,
        }
        for a in (1.0, 2.0, 6.0)
    ]
    (line,) = summarize(runs)
    assert line["seeds"] == 3 and line["linear_acc1"] == 3 and line["effective_rank_std"] == 0
    assert line["linear_acc1_std"] == pytest.approx(math.sqrt(7))
    _, (cells,) = results_table([line])
    figures = ["3.00 ± 2.65", "6.00 ± 5.29", "3.00 ± 0.00", "4.00 ± 0.00", "0.50 ± 0.00", "3.00 ± 2.65 h"]
    assert cells == ["m", "3", *figures]


def test_what_cannot_be_read_is_named_and_the_rest_is_shown(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    for name, arguments in (("good", '{"name": "good", "seed": 1}'), ("bad", "{"), ("old", None)):
        folder = tmp_path / "simclr" / name
        folder.mkdir(parents=True)
        (folder / f"{name}-ep=1.ckpt").touch()
        (folder / "metrics.csv").write_text("epoch,step,val_acc1\n0,1,50\n")
        if arguments:
            (folder / "args.json").write_text(arguments)
    write_report(tmp_path, tmp_path / "out")
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("warning: not in the report: ") for line in lines)
    assert "old: has no args.json" in lines[0] and "bad/args.json: cannot be read" in lines[1]
    for page in ("report.html", "report.md"):
        text = (tmp_path / "out" / page).read_text()
        assert "good" in text and "Not read" in text and "bad/args.json" in text


def test_what_other_people_write_into_arguments_is_shown_or_named(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    for name, arguments in (("odd", '{"name": "odd", "seed": [1]}'), ("deep", "[" * 100_000)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "metrics.csv").write_text("epoch,step,val_acc1\n0,1,50\n")
        (folder / "args.json").write_text(arguments)
    text = write_report(tmp_path, tmp_path / "out").read_text()
    assert "odd" in text and "deep/args.json: cannot be read" in capfd.readouterr().err


def test_runs_of_a_benchmark_whose_folders_are_gone_are_named(
    results: Path, capfd: pytest.CaptureFixture
) -> None:
    content = json.loads((results / "results.json").read_text())
    (results / "results.json").write_text(json.dumps({**content, "unread": 5}))
    write_report(results, results)
    assert "not in the report" not in capfd.readouterr().err
    lost = next(results.rglob("args.json")).parent
    shutil.rmtree(lost)
    write_report(results, results)
    assert "settings and curves of" in (said := capfd.readouterr().err) and lost.name in said
