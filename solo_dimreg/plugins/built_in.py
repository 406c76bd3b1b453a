"""The built-in plugins: each returns from the hooks what a third party's module would return."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from solo_dimreg import nn
from solo_dimreg.metrics.registry import METRICS, ROWS
from solo_dimreg.plugins.hookspecs import hookimpl


@dataclass(frozen=True, eq=False)
class BuiltIn:
    """A plugin of ours.

    Attributes:
        method: The name of its method; a function ``make_<method>`` makes it in ``solo_dimreg.methods``.
        regularizers: Its regularizers, whose defaults in a config are the class attribute ``defaults``.
        metrics: The names of its metrics, which have records in :mod:`solo_dimreg.metrics.registry`.
    """

    method: str = ""
    regularizers: Mapping[str, type] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()

    @hookimpl
    def register_methods(self, host: Any) -> dict[str, type]:
        """Return the method for this solo-learn."""
        if not self.method:
            return {}
        module = import_module(f"solo_dimreg.methods.{self.method}")
        return {self.method: getattr(module, f"make_{self.method}")(host.Method)}

    @hookimpl
    def register_regularizers(self) -> dict[str, type]:
        """Return the regularizers."""
        return dict(self.regularizers)

    @hookimpl
    def register_metrics(self) -> dict[str, Callable[..., Any]]:
        """Return the functions of the metrics that look at one set of features (B, D)."""
        return {name: METRICS[name].function for name in self.metrics}  # type: ignore[misc]


LIDS = ("lid", "lid_mle", "lid_mle_512")
OTHERS = tuple(
    name
    for name, record in METRICS.items()
    if record.in_monitor and record.inputs == ROWS and name not in LIDS
)
BUILT_IN = {
    "adadim": BuiltIn("adadim"),
    "decorrelation": BuiltIn("shuffled_dbn", {"decorrelation": nn.Decorrelation}),
    "directclr": BuiltIn("directclr"),
    "effective_rank": BuiltIn("", {"effective_rank": nn.EffectiveRank}, OTHERS),
    "ldreg": BuiltIn("", {"ldreg": nn.LDReg}, LIDS),
    "lejepa": BuiltIn("lejepa", {"sigreg": nn.SIGReg}),
    "t_regs": BuiltIn("", {"t_regs": nn.TREGS}),
    "uniformity": BuiltIn(
        "",
        {
            "koleo": nn.KoLeo,
            "uniformity": nn.Uniformity,
            "wasserstein_uniformity": nn.WassersteinUniformity,
        },
    ),
    "visreg": BuiltIn("", {"visreg": nn.VISReg}),
}
