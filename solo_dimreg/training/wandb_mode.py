"""Decide before a training whether its run can be logged to Weights & Biases.

A training never ends because of Weights & Biases.
"""

from __future__ import annotations

import inspect
import os
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from omegaconf import DictConfig, OmegaConf

from solo_dimreg.errors import warn

SECONDS = 5
NO_KEY = "there is no API key (`wandb login`, or WANDB_API_KEY)"


@contextmanager
def own_wandb_run(settings: DictConfig) -> Iterator[None]:
    """Settle the logging before a training, and end its run afterwards.

    A later training in the process then has its own run. Lightning would continue the existing run, and it
    leaves its mode in the environment.
    """
    before = {name: os.environ.get(name) for name in ("WANDB_MODE", "WANDB_API_KEY")}
    given = _current_run()
    settle_wandb(settings)
    failed = 1
    try:
        yield
        failed = 0
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if given is None and (settings.get("wandb") or {}).get("enabled"):
            _end(failed)


def _end(status: int) -> None:
    wandb = sys.modules.get("wandb")
    if wandb is None:
        return
    try:
        if wandb.run is not None:
            wandb.finish(status)
        wandb.teardown()  # it remembers its mode
    except Exception as error:  # the service has ended; the logged values are in the run's folder
        warn(f"wandb: the run cannot be ended ({type(error).__name__}: {error}).")


def _current_run() -> Any:
    return getattr(sys.modules.get("wandb"), "run", None)


def settle_wandb(settings: DictConfig) -> None:
    """Set a run offline, in place and with one line, if it has no API key or its server does not answer."""
    block = settings.get("wandb") or {}
    if not block.get("enabled") or block.get("offline") or os.environ.get("WANDB_MODE", "online") != "online":
        return
    if find_spec("wandb") and _current_run() is None and (reason := _unusable()):
        go_offline(settings, reason)


def go_offline(settings: DictConfig, reason: str) -> None:
    """Set the run offline, and say in one line that nothing is lost."""
    OmegaConf.update(settings, "wandb.offline", True, force_add=True)
    os.environ["WANDB_MODE"] = "offline"  # before wandb reads it
    warn(f"wandb: {reason}; the run is logged offline below wandb/; `wandb sync` uploads it later.")


def _unusable() -> str:
    """Return why nothing can be sent, or "" if the server answers and wandb finds a key."""
    import wandb

    try:
        server = wandb.setup().settings.base_url
        if unreachable := _unreachable(server):
            return unreachable
        # An older wandb cannot be kept from asking, so that it is asked for the key alone.
        silent = "prompt" in inspect.signature(wandb.login).parameters
        return "" if (wandb.login(prompt=False) if silent else wandb.api.api_key) else NO_KEY
    except Exception as error:  # a key or an address that is none
        os.environ.pop("WANDB_API_KEY", None)  # wandb would not go offline with it either
        return " ".join(str(error).split())[:200].rstrip(".")
    finally:
        _end(0)


def _unreachable(server: str) -> str:
    try:
        urllib.request.urlopen(server, timeout=SECONDS).close()
    except urllib.error.HTTPError:
        pass  # the server has answered
    except OSError as error:
        reason = getattr(error, "reason", error)
        if not isinstance(reason, ssl.SSLError):  # the server is there, and wandb has its own certificates
            return f"{server} cannot be reached ({reason})"
    return ""
