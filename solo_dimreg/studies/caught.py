"""Show a collapse being caught: of three SimSiam trainings, one collapses while its loss looks good."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from solo_dimreg.files import write_json
from solo_dimreg.plots import COLOURS, STYLE, save_png
from solo_dimreg.reports.run_files import parts_of, read_curves
from solo_dimreg.studies.claims.numbers import first_trigger
from solo_dimreg.studies.engine import run_study
from solo_dimreg.studies.pages import markdown_table
from solo_dimreg.studies.study import FIRST_SEED, Row, Study

STEPS = 15  # per epoch; the monitor looks after each epoch
EPOCHS = 12
LOW, HIGH = "optimizer.lr=2e-3", "optimizer.lr=1.6e-2"
REMEDY = "+regularizers.decorrelation={weight:0.01,where:features}"
STUDY = Study(
    name="caught",
    folder="patches",
    data="patches",
    seeds=1,
    settings=[
        "method=simsiam",
        f"max_epochs={EPOCHS}",
        f"+limit_train_batches={STEPS}",
        f"+check_val_every_n_epoch={EPOCHS}",
        "scheduler.warmup_epochs=1",
        "optimizer.batch_size=64",
        "+monitor.alarm={}",
    ],
    rows={
        "low_rate": Row(config="byol", set=[LOW]),
        "high_rate": Row(config="byol", set=[HIGH]),
        "remedy": Row(config="byol", set=[HIGH, REMEDY]),
    },
)
LABELS = {
    "low_rate": "SimSiam, learning rate 0.002",
    "high_rate": "SimSiam, learning rate 0.016",
    "remedy": "the latter with decorrelation of the features",
}
PANELS = ("loss", "effective_rank")
COLUMNS = {"train_neg_cos_sim_epoch": "loss", "dimensionality/effective_rank": "effective_rank"}


def run_caught(
    out: Path, seed: int = FIRST_SEED, jobs: int = 1, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Train the three rows on the patches, up to ``jobs`` at a time, and write ``caught.json`` and its plot.

    ConfigError is raised if the photographs of the patches are not installed.

    Returns:
        The content of ``caught.json``. Each of its ``rows`` has, for each epoch, the loss without the
        regularizer and the effective rank of the features. It also has the step of the alarm, None without
        one, and the linear accuracy at the end.
    """
    content: dict[str, Any] = {"seed": seed, "settings": STUDY.settings, "rows": {}}
    for run in run_study(STUDY, out, jobs, say, [seed])["runs"]:
        curves = read_curves(parts_of(Path(run["checkpoint"])), COLUMNS)
        loss, ranks = ([curves[name][epoch] for epoch in sorted(curves[name])] for name in PANELS)
        content["rows"][run["row"]] = {
            "changes": STUDY.rows[run["row"]].set,
            "loss": loss,
            "effective_rank": ranks,
            "alarm": alarm_step(ranks),
            "linear_acc1": run["linear_acc1"],
        }
    write_json(out / "caught.json", content)
    save_png(draw_caught(content["rows"]), out / "caught.png")
    return content


def alarm_step(ranks: Sequence[float]) -> int | None:
    """Return the step at which the ranks trigger the alarm with its default drawdown, or None."""
    look = first_trigger(ranks)
    return None if look is None else (look + 1) * STEPS


HEADER = ("training", "loss", "effective rank", "alarm at step", "linear top-1 %")


def table(content: Mapping[str, Any]) -> list[list[str]]:
    """Return the cells of the comparison, one line per training, under ``HEADER``."""
    return [
        [
            LABELS[name],
            f"{row['loss'][-1]:.2f}",
            f"{row['effective_rank'][-1]:.0f}",
            str(row["alarm"] or "none"),
            f"{row['linear_acc1']:.1f}",
        ]
        for name, row in content["rows"].items()
    ]


def caught_tables(contents: Sequence[Mapping[str, Any]]) -> str:
    """Return the ``caught.json`` of each seed as a Markdown table."""
    rows = [[str(content["seed"]), *cells] for content in contents for cells in table(content)]
    return "\n".join(markdown_table(["seed", *HEADER], rows)) + "\n"


@rc_context(STYLE)
def draw_caught(rows: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Return the figure: the losses on the left, the effective ranks with the alarm's mark on the right."""
    figure = Figure(figsize=(8.6, 3.5), facecolor="white")
    figure.set_label("Loss and effective rank of three trainings of SimSiam")
    panels = dict(zip(PANELS, figure.subplots(1, 2), strict=True))
    styles = {"low_rate": (COLOURS[0], "--"), "high_rate": (COLOURS[5], "-"), "remedy": (COLOURS[2], "-.")}
    for name, row in rows.items():
        colour, line = styles[name]
        for column, axes in panels.items():
            steps = [(i + 1) * STEPS for i in range(len(row[column]))]
            axes.plot(steps, row[column], line, color=colour, label=LABELS[name], linewidth=2)
        if row["alarm"] is not None:
            rank = row["effective_rank"][row["alarm"] // STEPS - 1]
            panels["effective_rank"].plot([row["alarm"]], [rank], "v", color=colour, markersize=11)
            panels["effective_rank"].annotate(
                "alarm", (row["alarm"], rank), (0, 9), textcoords="offset points", ha="center", color=colour
            )
    panels["loss"].set_title("loss (negative cosine similarity)", fontsize=11)
    panels["effective_rank"].set_title("effective rank of the features", fontsize=11)
    panels["effective_rank"].set_ylim(bottom=0)
    for axes in panels.values():
        axes.set_xlabel("step")
    figure.legend(handles=panels["loss"].lines, loc="outside lower center", ncols=1, fontsize=10)
    return figure
