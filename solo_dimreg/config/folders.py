"""The folders of configs, ours and the user's."""

from __future__ import annotations

from pathlib import Path

from solo_dimreg.errors import ConfigError, nearest, unknown


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

    The path is absolute, or relative to the working directory or to our configs of the stage, ``"pretrain"``
    or ``"linear"``.

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


def find_config(stage: str, config_path: str, config_name: str) -> tuple[Path, str]:
    """Return the folder of a config, and the config's name without ``.yaml``.

    The config is in the folder of :func:`find_config_folder`, or in our counterpart of it.

    Raises:
        ConfigError: There is no such folder or config.
    """
    folder = find_config_folder(stage, config_path)
    folders = [folder, *([ours] if (ours := counterpart(folder)) else [])]
    names = {file.stem for each in folders for file in each.glob("*.yaml")}
    name = config_name.removesuffix(".yaml")
    if name not in names:
        raise ConfigError(f"--config-name: {unknown('config', config_name, names)} Looked in {folder}.")
    return folder, name


def shipped_studies() -> list[str]:
    """Return the names of the studies that we ship."""
    return sorted(file.stem for file in (config_root() / "studies").glob("*.yaml"))


def find_study(name: str | Path) -> Path:
    """Return the file of a study that we ship, or raise a ConfigError; return a YAML file unchanged."""
    if Path(name).suffix in (".yaml", ".yml"):
        return Path(name)
    if str(name) not in shipped_studies():
        raise ConfigError(unknown("study", str(name), shipped_studies()))
    return config_root() / "studies" / f"{name}.yaml"


def place_of_row(config: str, folder: str) -> tuple[str, str]:
    """Return the folder and the name of a row's config; the name alone means one in the study's folder.

    Raises:
        ConfigError: Neither the row nor the study names a folder.
    """
    path = Path(config)
    folder = str(path.parent) if len(path.parts) > 1 else folder
    if not folder:
        raise ConfigError(
            f"{config!r} has no folder; it must be FOLDER/NAME, such as digits/byol, or a file."
        )
    shipped = config_root() / "pretrain" / folder
    return str(shipped if shipped.is_dir() else folder), path.stem if path.suffix == ".yaml" else path.name
