"""The folders of configs, ours and the user's."""

from __future__ import annotations

from pathlib import Path

from solo_dimreg.errors import ConfigError, nearest


def config_root() -> Path:
    """Return the folder with ``pretrain/`` and ``linear/``, in a wheel or an editable install."""
    package = Path(__file__).parents[1]
    shipped = package / "configs"
    return shipped if shipped.is_dir() else package.parent / "configs"


def shipped_folders(stage: str = "pretrain") -> list[str]:
    """Return the names of our config folders, which ``--config-path`` takes beside the user's own folders."""
    return sorted(folder.name for folder in (config_root() / stage).iterdir() if folder.is_dir())


def counterpart(folder: Path) -> Path | None:
    """Return our config folder for the stage and data set of a user's, such as ``scripts/pretrain/cifar``."""
    ours = config_root() / folder.parent.name / folder.name.replace("-", "")
    return ours if ours.is_dir() else None


def find_config_folder(stage: str, config_path: str) -> Path:
    """Return the folder that ``--config-path`` means: the user's, or one of ours such as ``digits``.

    Args:
        stage: ``"pretrain"`` or ``"linear"``, the folder of our configs.
        config_path: A folder, absolute or relative to the working directory or to our configs.

    Raises:
        ConfigError: There is no such folder; the message names those that we ship.
    """
    root = config_root()
    candidates = (
        Path(config_path),
        root / stage / config_path,
        root / config_path,
        root.parent / config_path,
    )
    folders = [folder for folder in candidates if folder.is_dir()]
    # A data folder may have the same name as one of our config folders.
    with_configs = [folder for folder in folders if any(folder.glob("*.yaml"))]
    if folders:
        return (with_configs or folders)[0].resolve()
    shipped = shipped_folders(stage)
    raise ConfigError(
        f"--config-path: {config_path!r} is not a folder.{nearest(config_path, shipped)} "
        f"Give the folder of your configs, or one that we ship: {', '.join(shipped)}."
    )
