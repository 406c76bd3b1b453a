"""Open the inputs of a diagnosis: feature files, checkpoints of solo-learn, timm models and raw pixels.

Each input is opened and checked first, and then yields its features batch by batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from solo_dimreg.diagnosis.neighbourhoods import Batch
from solo_dimreg.diagnosis.sources.arrays import Array, open_arrays
from solo_dimreg.diagnosis.sources.images import Images, image_dataset
from solo_dimreg.diagnosis.sources.models import explained_refusal
from solo_dimreg.diagnosis.sources.names import PIXELS, SUFFIXES, check_given
from solo_dimreg.diagnosis.sources.weights import load_weights
from solo_dimreg.errors import ConfigError, nearest
from solo_dimreg.solo_learn.backbone import PREFIX, build_backbone, input_size_kwargs, timm_names

# What features are of, for the verdict.
FEATURES, NETWORK, REFERENCE = "features", "network", "reference"
# The largest number of images in a UMAP plot; more are thinned out evenly.
UMAP_IMAGES = 10_000
# The parts of a method whose outputs are scores, and no representation: the online classifier, and SwAV's and
# DeepCluster's prototypes.
SCORES = ("classifier", "prototypes")
# The number of rows of a feature file that are read at a time.
ROWS = 8192


@dataclass(frozen=True)
class Source:
    """An input whose features are ready to be read.

    Attributes:
        name: The name in the results.
        description: The description in the report.
        count: The number of samples.
        batches: Reads all samples from the start at every call; or, given indices, these samples in order.
        classes: The names of the classes, by label.
        umap: Draws solo-learn's UMAP plot into a file; None for a feature file.
        model: The network that ``batches`` runs; None for a feature file and for pixels.
        parts: The names of its backbone and its projector; empty for none.
        of: What the features are of, as for the verdict: ``features`` of unknown inputs, a ``network`` on a
            data set, or a ``reference``, which gets no verdict.
    """

    name: str
    description: str
    count: int
    batches: Callable[[Sequence[int] | None], Iterator[Batch]]
    classes: Sequence[str] = ()
    umap: Callable[[Path], None] | None = field(default=None, compare=False)
    model: nn.Module | None = field(default=None, compare=False)
    parts: tuple[str, str] = ("", "")
    of: str = FEATURES


def open_source(
    given: str,
    images: Images,
    weights: Path | None = None,
    embeddings: Path | None = None,
    labels: Path | None = None,
) -> Source:
    """Open an input that a user names on the command line.

    Args:
        given: A feature file, a checkpoint folder or ``.ckpt`` file of solo-learn, a timm model, or
            ``pixels``.
        embeddings, labels: Files that belong to a feature file.

    Raises:
        ConfigError: the input is missing or is not what its name says; names it in one line.
    """
    check_given(given, weights, embeddings, labels)
    path = Path(given).expanduser()
    if path.suffix in SUFFIXES:
        return array_source(path.name, open_arrays(path, embeddings, labels), f" of {path.name}")
    if path.exists():
        return _checkpoint(path, images)
    if given == PIXELS:
        return _pixels(images)
    return _timm_model(given, images, weights)


def distinct_names(sources: Sequence[Source], given: Sequence[str]) -> list[Source]:
    """Return the sources with distinct names: equal names become what the user typed, or get numbers."""
    names = [source.name for source in sources]
    typed = [each if names.count(name) > 1 else name for name, each in zip(names, given, strict=True)]
    numbered = [
        f"{name} ({number})" if typed.count(name) > 1 else name for number, name in enumerate(typed, 1)
    ]
    return [replace(source, name=name) for source, name in zip(sources, numbered, strict=True)]


def array_source(
    name: str,
    arrays: dict[str, Array],
    origin: str = "",
    classes: Sequence[str] = (),
    of: str = FEATURES,
) -> Source:
    """Return the source of checked arrays; ``origin`` says where they are from, in the description."""
    count = len(arrays["features"])

    def batches(indices: Sequence[int] | None) -> Iterator[Batch]:
        blocks = ((start, min(start + ROWS, count)) for start in range(0, count, ROWS))
        for start, stop in blocks if indices is None else ((index, index + 1) for index in indices):
            rows = {name: array.read(start, stop) for name, array in arrays.items()}
            for name, each in rows.items():
                if name == "labels":
                    rows[name] = each.long()
                elif not each.is_floating_point():
                    rows[name] = each.float()
            yield rows["features"], rows.get("embeddings"), rows.get("labels")

    shape = " x ".join(map(str, arrays["features"].shape))
    return Source(name, f"{shape} features{origin}", count, batches, classes, of=of)


def _checkpoint(path: Path, images: Images) -> Source:
    from solo_dimreg.solo_learn import register
    from solo_dimreg.training.evaluation import DEVICE, evaluation_transforms

    host = register()
    run = host.read_run(path)
    _, transform = evaluation_transforms(host, run.settings)
    if images.size is not None:
        raise ConfigError(
            "--size: is only for timm models and pixels; a checkpoint is diagnosed at its own resolution."
        )
    if images.path is None:
        dataset = _own_images(host, run, transform, images.split)
        place = run.settings.data.get(f"{images.split}_path") or run.settings.data.train_path
    else:
        dataset, place = image_dataset(images, transform), images.path
    method = run.method.to(DEVICE).eval()

    def forward(batch: Tensor) -> tuple[Tensor, Tensor | None]:
        out = method(batch)
        return out["feats"], out.get("z")

    name = f"{run.settings.method} ({run.folder.name})"
    described = f"checkpoint {run.checkpoint.name}{_trained(run.folder)}; measured on {place}"
    source = _of_images(name, described, dataset, images, host.backbone(method), DEVICE, forward)
    parts = nn.ModuleDict({key: each for key, each in method.named_children() if key not in SCORES})
    return replace(source, model=parts, parts=(host.encoder, ""))


def _trained(folder: Path) -> str:
    """Return how long and on which images the run of a checkpoint trained; empty if it is not recorded."""
    from solo_dimreg.solo_learn.record import counted, read_record

    record = read_record(folder)
    if not record.get("steps"):
        return ""
    data = record.get("data") or {}
    trained = f", of a run of {counted(record.get('epochs', 0), 'epoch')}, {counted(record['steps'], 'step')}"
    return f"{trained}, on {data.get('train_images')} images of {data.get('train_path')}"


def _own_images(host: Any, run: Any, transform: Callable, split: str) -> Dataset:
    from solo_dimreg.config.data import check_data
    from solo_dimreg.training.evaluation import labelled_images

    settings = run.settings
    if settings.data.get("no_labels", False):  # the folder that it was trained on, whatever its layout
        path = settings.data.get("val_path") if split == "val" else settings.data.train_path
        if path is None:
            raise ConfigError("--split: 'val' needs data.val_path, which the run does not have; use train.")
        return image_dataset(Images(Path(str(path)), split=split), transform)
    if settings.data.get("format") == "dali":
        settings.data.format = "image_folder"
    if split == "train" and settings.data.get("val_path") is None:
        settings.data.val_path = settings.data.train_path
    try:
        check_data(settings, need_val=True)
    except ConfigError as error:
        raise ConfigError(f"The images of {run.folder} are missing; give --images. {error}") from error
    train, val = labelled_images(host, settings, transform, transform)
    return train if split == "train" else val


def _timm_model(given: str, images: Images, weights: Path | None) -> Source:
    import timm
    from timm.data import create_transform, resolve_model_data_config

    from solo_dimreg.training.evaluation import DEVICE

    name = given.removeprefix(PREFIX).partition(".")[0]  # without timm's tag of pretrained weights
    if PREFIX + name not in timm_names():
        raise ConfigError(
            f"{given}: is neither a file, nor a folder, nor 'pixels', nor a timm model."
            f"{nearest(name, timm.list_models())}"
        )
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    size = images.size or (config.input_size[1] if config else 224)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = build_backbone(PREFIX + name, input_size_kwargs(PREFIX + name, size))
    model: Any = backbone.model
    if weights:
        load_weights(model, name, weights)
    settings = {**resolve_model_data_config(model), "input_size": (3, size, size), "crop_pct": 1.0}
    dataset = image_dataset(images, create_transform(**settings, is_training=False))
    backbone, example = backbone.eval(), torch.zeros(1, 3, size, size)
    with torch.no_grad(), explained_refusal(f"--size: timm's {name}", example):
        backbone(example)
    described = f"timm's {name}, {f'weights {weights.name}' if weights else 'untrained'}, {size} x {size}"
    full_name = f"{name} ({weights.name if weights else 'untrained'})"
    of = NETWORK if weights else REFERENCE
    source = _of_images(full_name, described, dataset, images, backbone.to(DEVICE), DEVICE, of=of)
    return replace(source, model=model)


def _pixels(images: Images) -> Source:
    from torchvision import transforms

    size = images.size or 32
    transform = transforms.Compose(
        [transforms.Resize(size), transforms.CenterCrop(size), transforms.ToTensor()]
    )
    described = f"raw pixels, {size} x {size}: the dimensions of the images themselves"
    pixels = image_dataset(images, transform)
    return _of_images(PIXELS, described, pixels, images, nn.Flatten(), "cpu", of=REFERENCE)


def _of_images(
    name: str,
    description: str,
    dataset: Any,
    images: Images,
    backbone: nn.Module,
    device: str,
    forward: Callable[[Tensor], tuple[Tensor, Tensor | None]] | None = None,
    of: str = NETWORK,
) -> Source:
    """Return the source of the outputs of ``forward``, or of the backbone alone, for images."""

    @torch.no_grad()
    def batches(indices: Sequence[int] | None) -> Iterator[Batch]:
        chosen = dataset if indices is None else Subset(dataset, indices)
        backbone.eval()  # solo-learn's UMAP plot leaves it in training
        for batch, labels in DataLoader(chosen, images.batch_size, num_workers=images.num_workers):
            with explained_refusal(name, batch):
                on_device = batch.to(device)
                features, embeddings = forward(on_device) if forward else (backbone(on_device), None)
            yield features.cpu(), None if embeddings is None else embeddings.cpu(), labels

    def umap(path: Path) -> None:
        from solo_dimreg.solo_learn import register

        some = Subset(dataset, range(0, len(dataset), -(-len(dataset) // UMAP_IMAGES)))
        few = DataLoader(some, images.batch_size, num_workers=images.num_workers)
        register().draw_umap(backbone, few, device, path)

    described = f"{description}, {len(dataset)} images"
    return Source(name, described, len(dataset), batches, getattr(dataset, "classes", ()), umap, of=of)
