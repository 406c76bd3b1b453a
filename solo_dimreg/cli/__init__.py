"""The command ``solo-dimreg``, with one module a sub-command, imported when it is called."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path

import click

from solo_dimreg.cli.output import show_similar_characters
from solo_dimreg.errors import DimregError, one_line, write_last_line
from solo_dimreg.quiet import silence

COMMANDS = {
    "init": "Write a first config for your own images.",
    "pretrain": "Pretrain a method on images.",
    "linear": "Evaluate a checkpoint with solo-learn's linear probe.",
    "knn": "Evaluate a checkpoint with solo-learn's k-NN classifier.",
    "diagnose": "Tell whether a representation has collapsed, and write a page about it.",
    "compare": "Tell whether a method is better on your images, over several seeds.",
    "status": "Say how far a comparison has come that runs in another terminal or on a cluster.",
    "bench": "Measure the time and memory of losses, regularizers and the monitor.",
    "benchmark": "Train several methods alike and compare their accuracy.",
    "claims": "Test claims of the papers over several seeds, each by a rule fixed beforehand.",
    "report": "Compare finished runs on one page, as HTML and as Markdown.",
    "sprites": "Compare the LID of representations with the true dimension of drawn images.",
    "toy": "Show why contrastive learning collapses dimensions, in seconds.",
    "run": "Run one of solo-learn's own scripts with our methods registered.",
    "data": "Write a data set as image folders.",
    "methods": "List methods, regularizers, backbones and metrics, and their packages.",
    "doctor": "Check this environment and say what is missing.",
}


class LazyGroup(click.Group):
    """A group that imports a sub-command only when it is asked for, so that --help needs no torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of a user's work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the sub-command of that name, or None."""
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f"solo_dimreg.cli.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the sub-commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


EXAMPLE = """\b
A first run, on data that needs no download:
  solo-dimreg data digits --out datasets/digits
  solo-dimreg pretrain --config-path digits --config-name ldreg_simclr
  solo-dimreg linear trained_models/ldreg_simclr
  solo-dimreg knn trained_models/ldreg_simclr
"""


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    epilog=EXAMPLE,
)
@click.version_option(package_name="solo-dimreg")
def cli() -> None:
    """Train and diagnose models with methods against dimensional collapse, on top of solo-learn."""


def main() -> None:
    """Run the command line.

    The exit status is 2 for an error that the user can fix, 3 for a training that diverged or collapsed, and
    130 after Ctrl-C. HYDRA_FULL_ERROR=1 shows where an error comes from, as in solo-learn's scripts.
    """
    if Path("solo", "methods", "__init__.py").is_file():
        sys.path.insert(0, str(Path.cwd()))  # inside a clone of solo-learn, as for its own scripts
    silence()
    show_similar_characters()
    # SIGTERM works like an interruption: half-written files are removed, and started processes end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        status = cli.main(standalone_mode=False)
    except DimregError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        write_last_line(f"error: {one_line(error)}")
        status = error.status
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        write_last_line("Interrupted. Finished results are kept.")
        status = 130
    sys.exit(status if isinstance(status, int) else 0)
