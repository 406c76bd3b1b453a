"""Small readings of a config that every layer above needs."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import OmegaConf

# The blocks that we add to solo-learn's config.
OWN_BLOCKS = ("regularizers", "monitor", "projector", "divergence")
# Our variants of every method of solo-learn: LDReg, and the same with the opposite sign.
VARIANTS = ("ldreg_", "minlid_")
# Stands for the default of an option that has none.
REQUIRED = "required"


def base_name(method: str) -> str:
    """Return the solo-learn method behind the variant ``method``; return any other name unchanged."""
    for prefix in VARIANTS:
        method = method.removeprefix(prefix)
    return method


def plain(block: Any) -> Any:
    """Return an OmegaConf node as plain containers; return anything else unchanged."""
    return OmegaConf.to_container(block, resolve=True) if OmegaConf.is_config(block) else block


def device_count(devices: Any) -> int:
    """Return the number of devices that ``devices:`` asks for: a list, a number, or either as a string."""
    if isinstance(devices, str) and "," in devices:
        return len([part for part in devices.split(",") if part.strip()])
    if isinstance(devices, str | int):
        count = -1 if devices == "auto" else int(devices)
        return max(1, torch.cuda.device_count()) if count == -1 else count
    return len(devices)
