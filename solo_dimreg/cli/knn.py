"""``solo-dimreg knn``."""

from __future__ import annotations

import itertools
from pathlib import Path

import click

from solo_dimreg.cli.output import PATH, example, print_table


@click.command(
    "knn",
    epilog=example("solo-dimreg knn trained_models/simclr/offline-ab12cd34 --k 20 --k 50 --feature backbone"),
)
@click.argument("checkpoint", type=PATH)
@click.option("--k", "ks", multiple=True, type=int, default=(20,), help="Number of neighbours.")
@click.option(
    "--temperature",
    "temperatures",
    multiple=True,
    type=float,
    default=(0.07,),
    help="Temperature of the cosine distance.",
)
@click.option(
    "--distance",
    "distances",
    multiple=True,
    type=click.Choice(["cosine", "euclidean"]),
    default=("cosine",),
    help="Distance between two features.",
)
@click.option(
    "--feature",
    "features",
    multiple=True,
    type=click.Choice(["backbone", "projector"]),
    default=("backbone",),
    help="Compare features of the backbone, or embeddings of the projector.",
)
@click.option("--train-path", help="Folder of the labelled images.  [default: that of the pretraining]")
@click.option("--val-path", help="Folder of the test images.  [default: that of the pretraining]")
@click.option("--out", type=PATH, help="Also write the results to this JSON file.")
def command(
    checkpoint: Path,
    ks: tuple[int, ...],
    temperatures: tuple[float, ...],
    distances: tuple[str, ...],
    features: tuple[str, ...],
    train_path: str | None,
    val_path: str | None,
    out: Path | None,
) -> None:
    """Classify test images by solo-learn's weighted k nearest neighbours.

    CHECKPOINT is a .ckpt file of solo-learn or its folder. The images have the resolution of the pretraining.
    --k, --temperature, --distance and --feature may be repeated; every combination is evaluated. Each result
    is kept beside the checkpoint as knn-*.json, where 'solo-dimreg report' finds it.
    """
    from solo_dimreg.files import find_checkpoint

    checkpoint = checkpoint.expanduser()
    find_checkpoint(checkpoint)  # a wrong one is refused before solo-learn is imported

    from solo_dimreg.files import write_json
    from solo_dimreg.solo_learn import register
    from solo_dimreg.training.evaluation import DEVICE, extract_splits, knn_accuracy
    from solo_dimreg.training.results import save_evaluation

    host = register()
    run = host.read_run(checkpoint)
    settings = run.settings
    if train_path:
        settings.data.train_path = train_path
    if val_path:
        settings.data.val_path = val_path
    train, val = extract_splits(host, run, settings)
    counts = {"train_images": len(train.labels), "val_images": len(val.labels)}
    results, files = [], []
    for feature, k, distance in itertools.product(features, ks, distances):
        for temperature in temperatures if distance == "cosine" else (None,):
            used = 0.07 if temperature is None else temperature
            accuracy = knn_accuracy(host, train, val, feature, k, used, distance)
            chosen = {"feature": feature, "k": k, "distance": distance, "temperature": temperature}
            results.append({**chosen, **accuracy})
            files.append(save_evaluation(host, run, "knn", chosen, settings, {**accuracy, **counts}, DEVICE))
    columns = {"feature": "feature", "k": "k", "distance": "distance", "temperature": "temperature"}
    columns |= {"acc1": "top-1 %"} | ({"acc5": "top-5 %"} if "acc5" in results[0] else {})
    print_table(
        list(columns.values()),
        [["-" if result[key] is None else result[key] for key in columns] for result in results],
    )
    if saved := [path.name for path in files if path]:
        click.echo(f"Saved: {run.folder / saved[0]}{f' and {len(saved) - 1} more' if saved[1:] else ''}")
    if out:
        write_json(out, {"checkpoint": str(run.checkpoint), "knn": results})
