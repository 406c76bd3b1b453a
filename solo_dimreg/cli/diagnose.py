"""``solo-dimreg diagnose``."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import click

from solo_dimreg.cli.output import FOLDER, PATH, example, print_table, writable

if TYPE_CHECKING:
    from solo_dimreg.diagnosis.diagnose import Diagnosis


@click.command(
    "diagnose",
    epilog=example(
        "solo-dimreg diagnose trained_models/simclr/offline-ab12cd34",
        "solo-dimreg diagnose trained_models/simclr/offline-ab12cd34 --layers --checkpoints",
        "solo-dimreg diagnose pixels resnet18 --images datasets/digits --size 32",
        "solo-dimreg diagnose features.npy --labels labels.npy",
    ),
)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--images", type=PATH, help="Image folder, or root of a torchvision data set.")
@click.option(
    "--dataset", help="Name of the torchvision data set at --images, such as CIFAR10; not downloaded."
)
@click.option(
    "--split",
    type=click.Choice(["train", "val"]),
    default="train",
    help="Part of the images of a checkpoint, folder or data set.",
)
@click.option("--weights", type=PATH, help="Weights of a timm model.")
@click.option(
    "--size",
    type=click.IntRange(min=1),
    help="Resolution for a timm model or pixels.  [default: the model's own, or 32 for pixels]",
)
@click.option("--embeddings", type=PATH, help="File of the embeddings that belong to a feature file.")
@click.option("--labels", type=PATH, help="File of the labels that belong to a feature file.")
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=256,
    help="Images in one forward pass; changes the memory, not the metrics.",
)
@click.option(
    "--num-workers", type=click.IntRange(min=0), default=0, help="Worker processes of the image loader."
)
@click.option(
    "--layers", is_flag=True, help="Also measure each block of a network, and say where dimensions are lost."
)
@click.option(
    "--checkpoints",
    is_flag=True,
    help="Diagnose all checkpoints of a run, and say when dimensions are lost; the page shows the last one.",
)
@click.option(
    "--umap/--no-umap", default=True, help="Draw solo-learn's UMAP plot, where the extra umap is installed."
)
@click.option(
    "--out",
    type=FOLDER,
    default=Path("diagnosis"),
    help="Folder of diagnosis.html, diagnosis.json and the PNG plots; earlier ones move to <out>.bak.",
)
def command(
    inputs: tuple[str, ...],
    images: Path | None,
    dataset: str | None,
    split: str,
    weights: Path | None,
    size: int | None,
    embeddings: Path | None,
    labels: Path | None,
    batch_size: int,
    num_workers: int,
    layers: bool,
    checkpoints: bool,
    umap: bool,
    out: Path,
) -> None:
    """Tell whether representations have collapsed: globally, locally or completely.

    Each INPUT is one of four things: a checkpoint folder or .ckpt file of solo-learn; a timm model, untrained
    or with --weights; a file of features (.npy, .npz, .pt or .safetensors); or the word pixels. A .npz, .pt
    or .safetensors file may hold arrays named features, embeddings and labels. A checkpoint is diagnosed on
    its own images unless --images names others. Several inputs are shown side by side.
    """
    # Wrong input is refused before timm, torchvision and solo-learn are imported.
    from solo_dimreg.diagnosis.sources.names import PIXELS, SUFFIXES, check_given, check_images
    from solo_dimreg.errors import ConfigError

    if len(inputs) > 1 and (weights or embeddings or labels):
        raise ConfigError("--weights, --embeddings and --labels belong to one input; give one at a time.")
    if checkpoints and len(inputs) > 1:
        raise ConfigError(f"--checkpoints: takes one run, not {len(inputs)} inputs; give one at a time.")
    if (images or dataset) and all(Path(given).suffix in SUFFIXES for given in inputs):
        raise ConfigError("--images and --dataset are for models and pixels; a feature file needs no images.")
    if images and not images.expanduser().exists():
        raise ConfigError(f"--images: {str(images)!r} does not exist (working directory {Path.cwd()}).")
    for given in inputs:
        check_given(given, weights, embeddings, labels)
        if layers and (given == PIXELS or Path(given).suffix in SUFFIXES):
            raise ConfigError(f"--layers: {given} has no network; give a checkpoint or a timm model.")
        if not checkpoints:  # these are of a run, which needs no other images
            check_images(given, images)
    out = writable(out)

    from solo_dimreg.diagnosis.checkpoints import Checkpoint, Course, checkpoints_of
    from solo_dimreg.diagnosis.diagnose import diagnose
    from solo_dimreg.diagnosis.differences import differences
    from solo_dimreg.diagnosis.layers import diagnose_with_layers
    from solo_dimreg.diagnosis.page import write_diagnosis
    from solo_dimreg.diagnosis.sources.images import Images
    from solo_dimreg.diagnosis.sources.opening import distinct_names, open_source
    from solo_dimreg.diagnosis.table import summary_table
    from solo_dimreg.solo_learn.registration import generation

    where = Images(images, dataset, split, size, batch_size, num_workers)
    files = checkpoints_of(inputs[0]) if checkpoints else []
    with_umap = umap and importlib.util.find_spec("umap") is not None and generation() is not None
    one = diagnose_with_layers if layers else diagnose
    if files:
        records = []
        for file in files:  # one network in memory at a time
            diagnoses = [one(open_source(str(file), where), with_umap and file is files[-1])]
            records.append(Checkpoint.of(file, diagnoses[0]))
        course = Course(records)
        print_table(*course.table)
        click.echo(f"\n{course.sentence}\n")
    else:
        course = None
        sources = [open_source(given, where, weights, embeddings, labels) for given in inputs]
        diagnoses = [one(source, with_umap) for source in distinct_names(sources, inputs)]
    print_table(*summary_table(diagnoses))
    for each in diagnoses:
        _print(each)
    for comparison in differences(diagnoses):
        click.echo(f"\n{comparison}")
    click.echo(f"\nPage: {write_diagnosis(diagnoses, out, course)}")


def _print(each: Diagnosis) -> None:
    from solo_dimreg.diagnosis.classes import collapsed_classes
    from solo_dimreg.diagnosis.layer_profile import HEADER

    click.echo(f"\n{each.source.name}: {each.verdict} {each.intervals} {each.caution}".rstrip())
    if each.layers is not None:
        click.echo()
        print_table(HEADER[: len(each.layers.rows[0])], each.layers.brief_rows)
        click.echo(f"\n{each.layers.sentence} {each.layers.dense_sentence}".rstrip())
    if collapsed := collapsed_classes(each.classes):
        click.echo(collapsed)
