"""The data on which claims are tested, and the length of the trainings there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from solo_dimreg.datasets.digits import write_digits, write_mnist
from solo_dimreg.datasets.patches import write_patches
from solo_dimreg.datasets.sprites import write_sprites
from solo_dimreg.errors import ConfigError
from solo_dimreg.studies.suites import Row

DATASETS = Path("datasets")
WRITERS: dict[str, Callable[..., Path]] = {
    "digits": write_digits,
    "mnist": write_mnist,
    "patches": write_patches,
    "claims-sprites": lambda out: write_sprites(out, factors=8, images=2_400),
}


@dataclass(frozen=True)
class Setting:
    """The data and the training conditions of the rows.

    Attributes:
        folder: The folder of the configs.
        why: What was chosen, and why.
        overrides: Changes to every config of the pretraining.
        of_rows: Changes to some of the rows, by their names.
        writes: The embedded data that is written below ``datasets``.
        other: The embedded data on which transfer is measured.
        needs: Data that the user provides: its path and its description.
        shared: The benchmark that trains some of the same runs.
    """

    folder: str
    why: str
    overrides: tuple[str, ...] = ()
    of_rows: dict[str, tuple[str, ...]] = field(default_factory=dict)
    writes: str = ""
    other: str = "patches"
    needs: tuple[str, str] = ("", "")
    shared: str = ""

    def row(self, row: Row) -> Row:
        """Return a row as it is trained in this setting."""
        return replace(row, overrides=(*row.overrides, *self.of_rows.get(row.name, ())))

    def write_data(self, transfer: bool) -> None:
        """Write the embedded data that is missing.

        Raises:
            ConfigError: The user's data is missing.
        """
        path, what = self.needs
        if path and not Path(path).exists():
            raise ConfigError(f"--data needs {what}. Put it into {path}/ (below {Path.cwd()}).")
        for name in {self.writes, self.other if transfer else ""} - {""}:
            WRITERS[name](DATASETS / name)


# 90 steps of 64 images, validated once.
SHORT = (
    "max_epochs=6",
    "+limit_train_batches=15",
    "+check_val_every_n_epoch=6",
    "scheduler.warmup_epochs=1",
    "optimizer.batch_size=64",
    "optimizer.lr=1.6e-2",
)
WHY_SHORT = (
    "90 steps of only 64 images at eight times the learning rate of our configs. This was chosen because "
    "BYOL visibly loses dimensions and accuracy there, so that a remedy can matter: at 1, 4 and 8 times the "
    "learning rate, its effective rank is 139, 60 and 26 and its linear accuracy 53, 51 and 45 % (means of "
    "two to four of the seeds 100 to 103)"
)
# At the full learning rate, Shuffled-DBN failed on seeds 102 and 103: 14 % linear accuracy.
HALF: dict[str, tuple[str, ...]] = dict.fromkeys(
    ("none", "bn", "dbn", "shuffled_dbn"), ("optimizer.lr=8e-3",)
)


def _short(name: str, crop: int) -> Setting:
    """Return the setting of the patches with other images."""
    paths = tuple(f"data.{split}_path={DATASETS / name / split}" for split in ("train", "val"))
    overrides = (*SHORT, *paths, f"augmentations.0.crop_size={crop}")
    return Setting("patches", f"as for the patches: {WHY_SHORT}", overrides, HALF, writes=name)


SETTINGS = {
    "patches": Setting("patches", WHY_SHORT, SHORT, HALF, writes="patches", other="digits"),
    "digits": Setting(
        "digits",
        "the configs of the quick benchmark, with which runs are shared",
        writes="digits",
        shared="quick",
    ),
    "mnist": _short("mnist", 28),
    "sprites": _short("claims-sprites", 32),
    "cifar10": Setting(
        "patches",
        "a full ResNet-18 for 100 epochs, for a GPU; no setting was chosen on it",
        (
            "data.dataset=cifar10",
            "data.train_path=datasets",
            "data.val_path=datasets",
            "~backbone.kwargs.channels",
            "max_epochs=100",
            "scheduler.warmup_epochs=10",
            "optimizer.batch_size=256",
            "augmentations.0.crop_size=32",
            "data.num_workers=8",
        ),
        {"directclr": ("method_kwargs.dim=90",)},  # the paper's share of 512 dimensions
        needs=("datasets/cifar-10-batches-py", "CIFAR10, the folder of that name of its Python version"),
    ),
}
