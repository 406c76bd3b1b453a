"""``solo-dimreg run``."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import click

from solo_dimreg.cli.output import example


@click.command(
    "run",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog=example(
        "solo-dimreg run solo-learn/main_knn.py \\\n"
        "      --pretrained_checkpoint_dir trained_models/adadim/offline-ab12cd34 --dataset cifar10 \\\n"
        "      --train_data_path datasets --val_data_path datasets --k 20 --temperature 0.07 \\\n"
        "      --distance_function cosine --feature_type backbone"
    ),
)
@click.argument("script", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(script: Path, arguments: tuple[str, ...]) -> None:
    """Run one of solo-learn's own scripts, unmodified, with our methods registered.

    The command is for your own scripts, and for those that do not use Hydra, such as main_knn.py and
    main_umap.py. main_pretrain.py and main_linear.py use Hydra, and find our methods without this command,
    which only keeps the warnings of solo-learn's imports from being printed.
    """
    import torch

    from solo_dimreg.errors import ConfigError
    from solo_dimreg.solo_learn import register

    if script.name == "main_knn.py" and not torch.cuda.is_available():
        raise ConfigError(
            f"{script}: moves its images to a GPU, and there is none here; on a CPU use solo-dimreg knn."
        )

    sys.path.insert(0, str(script.resolve().parent))
    register()  # it imports solo-learn without its warnings, so that the script prints none either
    sys.argv = [str(script), *arguments]
    runpy.run_path(str(script), run_name="__main__")
