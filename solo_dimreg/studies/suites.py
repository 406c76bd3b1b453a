"""The comparisons of ``solo-dimreg benchmark``: rows of configs under the same conditions."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """A row of a comparison: a config and its changes."""

    name: str
    config: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Suite:
    """A comparison: the folder of its configs, its rows, and the data that the user has to provide."""

    folder: str
    rows: tuple[Row, ...]
    overrides: tuple[str, ...] = ()
    data: dict[str, str] = field(default_factory=dict)


QUICK = tuple(
    Row(name, name)
    for name in (
        *("simclr", "ldreg_simclr", "byol", "ldreg_byol", "infonce", "directclr"),
        *("vicreg", "adadim", "bn", "shuffled_dbn"),
    )
)


def _rows_beside_solo_learn() -> tuple[Row, ...]:
    """Return rows for the data sets for which solo-learn has the baselines.

    A baseline is our config without the regularizers.
    """

    def baseline(method: str) -> Row:
        return Row(method, f"ldreg_{method}", (f"method={method}", f"name={method}", "~regularizers"))

    infonce = Row("infonce", "directclr", ("name=infonce", "method_kwargs.mode=baseline"))
    ours = [Row(name, name) for name in ("ldreg_simclr", "ldreg_byol", "directclr")]
    return (baseline("simclr"), ours[0], baseline("byol"), ours[1], infonce, ours[2])


def _cifar(name: str, folder: str) -> Suite:
    paths = (f"data.dataset={name}", "data.train_path=datasets", "data.val_path=datasets")
    where = f"{name.upper()}: the folder {folder} of its Python version"
    return Suite("cifar", _rows_beside_solo_learn(), paths, {f"datasets/{folder}": where})


def _imagenet(name: str) -> Suite:
    data = {
        f"datasets/{name}/{split}": f"{name}: its {split} images, a folder per class"
        for split in ("train", "val")
    }
    paths = (f"data.train_path=datasets/{name}/train", f"data.val_path=datasets/{name}/val")
    return Suite(name, _rows_beside_solo_learn(), paths, data)


SUITES = {
    "quick": Suite("digits", QUICK),
    "cifar10": _cifar("cifar10", "cifar-10-batches-py"),
    "cifar100": _cifar("cifar100", "cifar-100-python"),
    "imagenet100": _imagenet("imagenet100"),
    "imagenet": _imagenet("imagenet"),
}
