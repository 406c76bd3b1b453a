"""Evaluate a pretrained run with solo-learn's linear probe and k-NN, at the resolution of its training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

from solo_dimreg.config.blocks import ClassifierSettings
from solo_dimreg.config.data import check_data
from solo_dimreg.config.loading import load_linear_settings
from solo_dimreg.config.steps import check_steps, lower_batch
from solo_dimreg.datasets.downloads import explained_download
from solo_dimreg.datasets.images import read_with_us
from solo_dimreg.errors import ConfigError
from solo_dimreg.solo_learn import Host, Run
from solo_dimreg.solo_learn.base import CLASSES
from solo_dimreg.solo_learn.next_steps import ONE_FOLDER
from solo_dimreg.solo_learn.record import evaluated_as_trained

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# solo-learn always computes top-5 accuracy; with at most five classes it is 100 %.
TOP = 5


def evaluation_transforms(
    host: Host, settings: DictConfig, other_data: bool = False
) -> tuple[Callable, Callable]:
    """Return the transforms to train and to test a probe with, at the resolution of the pretraining crops.

    solo-learn's own transforms are used if they have that resolution, and the images are those of the
    pretraining. Otherwise both are the whole image, resized: for a custom data set it is unknown which crops
    and flips keep the class (a flipped 2 is no 2).
    """
    if evaluated_as_trained(settings) and not other_data:
        return host.evaluation_transforms(settings.data.dataset)
    whole = host.whole_image(settings)
    return whole, whole


def labelled_images(host: Host, settings: DictConfig, train: Callable, val: Callable) -> tuple[Any, Any]:
    """Return solo-learn's labelled data sets, which read their files with our loader."""
    with explained_download(settings.data.dataset, settings.data.train_path):
        first, second = host.evaluation_datasets(settings.data, train, val)
    return read_with_us(first), read_with_us(second)


@dataclass(frozen=True)
class Features:
    """The outputs of a method on a data set: features (N, D), embeddings (N, d) or None, labels (N,)."""

    features: Tensor
    embeddings: Tensor | None
    labels: Tensor


@torch.no_grad()
def _extract(run: Run, dataset: Any, num_workers: int, description: str) -> Features:
    """Return the outputs of a run's method in evaluation mode for labelled images, on a GPU if possible."""
    method = run.method.to(DEVICE).eval()
    loader = DataLoader(dataset, batch_size=256, num_workers=num_workers, pin_memory=True)
    features, embeddings, labels = [], [], []
    for images, targets in tqdm(loader, desc=description, leave=False):
        out = method(images.to(DEVICE))
        features.append(out["feats"].cpu())
        if "z" in out:
            embeddings.append(out["z"].cpu())
        labels.append(targets)
    return Features(torch.cat(features), torch.cat(embeddings) if embeddings else None, torch.cat(labels))


def extract_splits(host: Host, run: Run, settings: DictConfig | None = None) -> tuple[Features, Features]:
    """Return the features of the training and of the validation images, without augmentation.

    The images are those of the run, or of the ``data`` in other settings.
    """
    settings = run.settings if settings is None else settings
    if settings.data.get("format") == "dali":
        settings.data.format = "image_folder"
    settings.data.no_labels = False  # the pretraining may leave labels out, but the evaluation needs them
    _check_labelled(settings)
    _, transform = evaluation_transforms(host, run.settings)
    datasets = labelled_images(host, settings, transform, transform)
    return _extract_both(run, datasets, settings.data.num_workers)


def _check_labelled(settings: DictConfig) -> None:
    """Refuse data that cannot be used for an evaluation; torchvision's test images are in the same folder."""
    data = settings.data
    if data.get("val_path") is None and data.dataset in ONE_FOLDER:
        data.val_path = data.train_path
    check_data(settings, need_val=True)


def _extract_both(run: Run, datasets: Sequence[Any], num_workers: int) -> tuple[Features, Features]:
    train, val = datasets
    first = _extract(run, train, num_workers, "train features")
    return first, _extract(run, val, num_workers, "val features")


def knn_accuracy(
    host: Host, train: Features, val: Features, feature: str, k: int, temperature: float, distance: str
) -> dict[str, float]:
    """Return ``acc1`` in percent, solo-learn's weighted k-NN on one kind of feature, and the ``classes``.

    With more than five classes, ``acc5`` is returned too.

    Raises:
        ConfigError: The method has no such features, or k exceeds the number of training images.
    """
    memory, queries = (
        split.embeddings if feature == "projector" else split.features for split in (train, val)
    )
    if memory is None or queries is None:
        raise ConfigError("--feature: this method has no projector; use backbone.")
    if not 1 <= k <= len(train.labels):
        raise ConfigError(
            f"--k: {k} is not allowed; it must be from 1 to {len(train.labels)}, the training images."
        )
    if distance == "cosine":
        # solo-learn 1.0.2 does not normalize the features, and the exponential of their product overflows.
        memory, queries = functional.normalize(memory, dim=1), functional.normalize(queries, dim=1)
    if temperature <= 0:
        raise ConfigError(f"--temperature: {temperature} is not allowed; it must be > 0.")
    classifier = host.knn(k, temperature, distance)
    classifier(
        train_features=memory.to(DEVICE),
        train_targets=train.labels.to(DEVICE),
        test_features=queries.to(DEVICE),
        test_targets=val.labels.to(DEVICE),
    )
    classifier._to_sync = False  # every process has all the features: after a gather, each would count twice
    top1, top5 = classifier.compute()
    classes = len(torch.cat([train.labels, val.labels]).unique())
    accuracies = {"acc1": round(float(top1), 3), "acc5": round(float(top5), 3), "classes": classes}
    return _without_idle_top5(accuracies, classes)


def _without_idle_top5(accuracies: dict[str, float], classes: int) -> dict[str, float]:
    return {name: value for name, value in accuracies.items() if name != "acc5" or classes > TOP}


def classifier_head(linear: nn.Linear, settings: ClassifierSettings | None) -> nn.Module:
    """Return the classifier of a probe that the ``classifier:`` block of a linear config asks for.

    LDReg's protocol [1, released ``models/resnet.py``] is ``{normalization: bn, init_std: 0.01}``.

    References:
        [1] Huang et al., LDReg: Local Dimensionality Regularized Self-Supervised Learning, ICLR 2024.
    """
    if settings is None:
        return linear
    if settings.init_std is not None:
        nn.init.normal_(linear.weight, std=settings.init_std)
        nn.init.zeros_(linear.bias)
    if settings.normalization == "none":
        return linear
    return nn.Sequential(nn.BatchNorm1d(linear.in_features, affine=False), linear)


def linear_accuracy(
    host: Host,
    run: Run,
    settings: DictConfig,
    other_data: bool = False,
    extracted: tuple[Features, Features] | None = None,
    smaller_batch: int | None = None,
) -> dict[str, float]:
    """Train solo-learn's linear probe on the run's frozen backbone and return its accuracy.

    Args:
        settings: A config from :func:`solo_dimreg.config.composing.evaluation_settings`; it is fitted to
            the machine, in place.
        other_data: Whether the images are others than those of the pretraining, of any size and kind.
        extracted: The result of :func:`extract_splits` on the same images. It is used if the probe sees them
            without random crops.
        smaller_batch: The batch size to lower the config's to if no batch would be full, or None to refuse.

    Returns:
        ``acc1``, with more than five classes ``acc5`` (in percent), and the ``loss``, on the validation
        images after the last epoch. ``classes``, ``epochs``, ``steps``, ``train_images`` and ``val_images``
        say what they are based on.

    Raises:
        ConfigError: The config cannot work, or asks for something that only ``main_linear.py`` does.
        KeyboardInterrupt: The user stopped the training.
    """
    classifier = load_linear_settings(host, settings).classifier
    for key in ("mixup", "cutmix", "auto_augment", "finetune"):
        if settings.get(key):
            raise ConfigError(
                f"{key}: {settings[key]!r} is for solo-learn's main_linear.py; leave it out here."
            )
    _check_labelled(settings)
    train_transform, val_transform = evaluation_transforms(host, run.settings, other_data)
    train, val = labelled_images(host, settings, train_transform, val_transform)
    classes = max(len(getattr(train, "classes", ())), CLASSES.get(settings.data.dataset, 0))
    counts = {"train_images": len(train), "val_images": len(val)}
    backbone: Any = host.backbone(run.method)
    if smaller_batch:
        lower_batch(settings, counts["train_images"], smaller_batch)
    check_steps(settings, counts["train_images"], "linear probe")
    if train_transform is val_transform:  # nothing is random, so every epoch would compute the same features
        splits = extracted or _extract_both(run, (train, val), settings.data.num_workers)
        train, val = (TensorDataset(split.features[:, :, None, None], split.labels) for split in splits)
        backbone = nn.Flatten()  # a stand-in for the frozen backbone, which has computed the features
        backbone.inplanes = backbone.num_features = splits[0].features.shape[1]
    loaders = host.evaluation_loaders(train, val, settings.optimizer.batch_size, settings.data.num_workers)
    host.seed(settings.get("seed", 5))
    probe = host.build_probe(backbone, settings, max(TOP, classes))
    probe.classifier = classifier_head(probe.classifier, classifier)
    chosen = {"log_every_n_steps": 10, **host.trainer_settings(settings)}
    chosen.update(logger=False, enable_checkpointing=False, num_sanity_val_steps=0)
    trainer = host.pl.Trainer(**chosen)
    trainer.fit(probe, *loaders)
    if trainer.interrupted:
        raise KeyboardInterrupt
    measured = {name: float(trainer.callback_metrics[f"val_{name}"]) for name in ("acc1", "acc5", "loss")}
    trained = {"classes": classes, "epochs": trainer.current_epoch, "steps": trainer.global_step}
    return _without_idle_top5({**measured, **trained, **counts}, classes)
