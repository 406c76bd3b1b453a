"""Find solo-learn and add our methods to its table of methods."""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from solo_dimreg.config.values import base_name
from solo_dimreg.errors import HostError, PluginError
from solo_dimreg.plugins import registered
from solo_dimreg.solo_learn.base import Host
from solo_dimreg.solo_learn.hooks import with_hooks
from solo_dimreg.solo_learn.mixins import Mixin

# The paper's weights. Methods that it does not try use SimCLR's, or BYOL's if they have a momentum encoder.
# For MoCo the paper has 0.05 and k = 128; its released configuration has 0.005 and k = 32 to 128. These are
# the paper's values, because results are compared with the paper.
LDREG_WEIGHTS = {
    **{"momentum": 0.005, "other": 0.01},
    **{"vicreg": 0.025, "barlow_twins": 1.0, "mocov2plus": 0.05, "mocov3": 0.05, "mae": 5e-6},
}
LDREG_NEIGHBOURS = {"mocov2plus": 128, "mocov3": 128}
# The first weight of the paper's demonstration.
MINLID_WEIGHT = 0.01

# The prefixes of our variants of every method, and what each adds to it.
TERMS = {
    "ldreg_": "LDReg, which raises the local intrinsic dimensionality",
    "minlid_": "LDReg of the opposite sign, which lowers the local intrinsic dimensionality",
}

MISSING = (
    "No solo-learn is importable. Clone the current one (github.com/vturrisi/solo-learn) and put its folder "
    "on PYTHONPATH, or install the published one: pip install --no-deps solo-learn==1.0.2"
)


def generation() -> str | None:
    """Return ``"current"`` or ``"published"`` by what can be imported; return None without a solo-learn."""
    spec = importlib.util.find_spec("solo")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        # Look for the files: to import a sub-package would import all of solo-learn.
        for kind, module in (("current", "data"), ("published", "utils")):
            if Path(folder, module, "pretrain_dataloader.py").is_file():
                return kind
    return None


def find_host() -> Host:
    """Return the host of the importable solo-learn, or raise a HostError that says what to install."""
    kind = generation()
    try:
        # solo-learn's imports warn that it and its Lightning are old, which a user cannot fix.
        with warnings.catch_warnings(record=True):
            if kind == "current":
                from solo_dimreg.solo_learn.current import CurrentHost

                return CurrentHost()
            if kind == "published":
                from solo_dimreg.solo_learn.published import PublishedHost

                return PublishedHost()
    except Exception as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise HostError(f"solo-learn ({kind}) does not import ({reason}).") from error
    raise HostError(MISSING)


def _with_term(prefix: str, method: type, defaults: Mapping[str, Any]) -> type:
    """Return the method with the regularizer ``ldreg``, whose settings ``defaults`` a config can override."""
    adds = TERMS[f"{prefix.lower()}_"]
    own = {"adds": adds, "defaults_of_term": defaults, "__doc__": f"{method.__name__} with {adds}."}
    return type(f"{prefix}{method.__name__}", (WithTerm, method), {**own, "__module__": __name__})


class WithTerm(Mixin):
    """A method with the regularizer ``ldreg``."""

    host: Host
    adds: str
    defaults_of_term: Mapping[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        block = self.with_term(self.host.read_block(args, kwargs, "regularizers") or {})
        super().__init__(*args, **self.host.write_block(args, kwargs, "regularizers", block))

    @classmethod
    def with_term(cls, block: Any) -> Any:
        """Return a ``regularizers:`` block with the term in it; a wrong one is left for its reader."""
        own: Any = block.get("ldreg") if isinstance(block, Mapping) else None
        if not isinstance(block, Mapping) or not isinstance(own, Mapping | None):
            return block
        return {**block, "ldreg": {**cls.defaults_of_term, **(own or {})}}


@functools.cache
def register() -> Host:
    """Register our methods in solo-learn's ``METHODS``, in place, once.

    Afterwards, every method accepts a ``regularizers:`` block; without one it trains as before, to the bit.

    Raises:
        HostError: There is no solo-learn.
        PluginError: A plugin is broken, or registers a name that solo-learn or another plugin has.
    """
    host = find_host()
    host.add_backbones()
    own = {name: method for name, method in host.methods.items() if name in host.own_methods}
    brought = registered("methods", host=host)
    for name, registration in brought.items():
        if name in host.methods or base_name(name) in own:
            raise PluginError(
                f"{registration.distribution} (plugin {registration.plugin!r}) registers the method "
                f"{name!r}, a name that solo-learn or LDReg has. Uninstall or fix that package."
            )
    for name, method in {**own, **{n: r.value for n, r in brought.items()}}.items():
        host.methods[name] = with_hooks(host, method)
    for name in own:
        method = host.methods[name]
        kind = "momentum" if issubclass(method, host.momentum_method) else "other"
        weight = LDREG_WEIGHTS.get(name, LDREG_WEIGHTS[kind])
        papers = {"weight": weight, "k": LDREG_NEIGHBOURS.get(name), "warmup_epochs": 10}
        host.methods[f"ldreg_{name}"] = _with_term("LDReg", method, papers)
        minimal = {"direction": "min", "weight": MINLID_WEIGHT, "warmup_epochs": 10}
        host.methods[f"minlid_{name}"] = _with_term("MinLID", method, minimal)
    host.methods["ldreg"] = host.methods["ldreg_simclr"]
    return host
