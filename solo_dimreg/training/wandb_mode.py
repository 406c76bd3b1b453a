"""Decide before a training whether its run can be logged to Weights & Biases.

A training never ends because of Weights & Biases.
"""

from __future__ import annotations

import configparser
import http.client
import netrc
import os
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from solo_dimreg.errors import warn

SECONDS = 5
KEY_LENGTH = 40


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
    if reason := _unusable():
        go_offline(settings, reason)


def go_offline(settings: DictConfig, reason: str) -> None:
    """Set the run offline, and say in one line that nothing is lost."""
    OmegaConf.update(settings, "wandb.offline", True, force_add=True)
    os.environ["WANDB_MODE"] = "offline"  # before wandb reads it
    warn(f"wandb: {reason}; the run is logged offline below wandb/; `wandb sync` uploads it later.")


def _unusable() -> str:
    """Return why nothing can be sent, or "" if the server can be used.

    wandb itself is not asked, because it remembers its mode.
    """
    server = os.environ.get("WANDB_BASE_URL") or _setting("base_url") or "https://api.wandb.ai"
    key = os.environ.get("WANDB_API_KEY")
    if key is not None and len(key) < KEY_LENGTH:
        del os.environ["WANDB_API_KEY"]  # wandb would not go offline with it either
        return f"WANDB_API_KEY is not a key: a key has at least {KEY_LENGTH} characters"
    if not (key or os.environ.get("WANDB_IDENTITY_TOKEN_FILE") or _setting("api_key") or _remembered(server)):
        return "there is no API key (`wandb login`, or WANDB_API_KEY)"
    try:
        urllib.request.urlopen(server, timeout=SECONDS).close()
    except urllib.error.HTTPError:  # the server has answered
        return ""
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(getattr(error, "reason", None), ssl.SSLError):
            return ""  # the server is there, and wandb has its own certificates
        return f"{server} cannot be reached ({getattr(error, 'reason', error)})"
    return ""


def _setting(name: str) -> str | None:
    """Return a setting from wandb's own files, which `wandb login --host` writes.

    The file in the working folder has priority.
    """
    home = Path(os.environ.get("WANDB_CONFIG_DIR") or Path.home() / ".config" / "wandb")
    files = configparser.ConfigParser(interpolation=None)
    try:
        files.read([home / "settings", Path(os.environ.get("WANDB_DIR", "."), "wandb", "settings")])
    except (configparser.Error, UnicodeDecodeError):
        return None
    return files.get("default", name, fallback=None)


def _remembered(server: str) -> bool:
    """Return whether `wandb login` has saved a key for the server."""
    try:  # give the path: without it, Python checks the file's permissions, which wandb does not
        known = netrc.netrc(os.environ.get("NETRC") or Path.home() / ".netrc").hosts
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return False
    place = urllib.parse.urlsplit(server)
    return place.netloc in known or place.hostname in known
