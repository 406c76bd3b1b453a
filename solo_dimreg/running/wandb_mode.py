"""Whether a run can be logged to Weights & Biases, decided before the training, which never ends for it."""

from __future__ import annotations

import configparser
import netrc
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from solo_dimreg.errors import warn

SECONDS = 5
KEY_LENGTH = 40
_changed: dict[str, tuple[str | None, str | None]] = {}  # of the environment: before, and by us


def settle_wandb(settings: DictConfig) -> None:
    """Makes a run offline that has no API key or whose server does not answer, in place and with one line."""
    _restore()
    block = settings.get("wandb") or {}
    if not block.get("enabled") or block.get("offline") or os.environ.get("WANDB_MODE", "online") != "online":
        return
    if reason := _unusable():
        go_offline(settings, reason)


def go_offline(settings: DictConfig, reason: str) -> None:
    """Says it, once, and that nothing is lost."""
    OmegaConf.update(settings, "wandb.offline", True, force_add=True)
    _set("WANDB_MODE", "offline")  # before wandb reads it
    warn(f"wandb: {reason}; the run is logged offline below wandb/, `wandb sync` sends it later.")


def _set(name: str, value: str | None) -> None:
    _changed[name] = os.environ.get(name), value
    _write(name, value)


def _restore() -> None:
    """Undoes what an earlier run of the process has set, so that this one looks anew."""
    if not _changed:
        return
    while _changed:
        name, (before, ours) = _changed.popitem()
        if os.environ.get(name) == ours:
            _write(name, before)
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is None:
        wandb.teardown()  # it remembers its mode


def _write(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _unusable() -> str:
    """Why nothing can be sent; empty if something can. wandb is not asked: it remembers its mode."""
    server = os.environ.get("WANDB_BASE_URL") or _setting("base_url") or "https://api.wandb.ai"
    key = os.environ.get("WANDB_API_KEY")
    if key is not None and len(key) < KEY_LENGTH:
        _set("WANDB_API_KEY", None)  # wandb would not go offline with it either
        return f"WANDB_API_KEY is no key, which has at least {KEY_LENGTH} characters"
    if not (key or os.environ.get("WANDB_IDENTITY_TOKEN_FILE") or _setting("api_key") or _remembered(server)):
        return "there is no API key (`wandb login`, or WANDB_API_KEY)"
    try:
        urllib.request.urlopen(server, timeout=SECONDS).close()
    except urllib.error.HTTPError:  # an answer
        return ""
    except (OSError, ValueError) as error:
        return f"{server} cannot be reached ({getattr(error, 'reason', error)})"
    return ""


def _setting(name: str) -> str | None:
    """What `wandb login --host` has left in wandb's own files, of which that of the folder goes before."""
    home = Path(os.environ.get("WANDB_CONFIG_DIR") or Path.home() / ".config" / "wandb")
    files = configparser.ConfigParser(interpolation=None)
    try:
        files.read([home / "settings", Path(os.environ.get("WANDB_DIR", "."), "wandb", "settings")])
    except (configparser.Error, UnicodeDecodeError):
        return None
    return files.get("default", name, fallback=None)


def _remembered(server: str) -> bool:
    """Whether `wandb login` has left a key."""
    try:
        known = netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):
        return False
    return urllib.parse.urlsplit(server).hostname in known
