"""Metrics of dimensionality: a record for each, and ``torchmetrics.Metric`` classes made of the records.

The classes need ``pip install 'solo-dimreg[torchmetrics]'``; torchmetrics is imported when a class is asked
for. They work like torchmetrics' own: in a ``MetricCollection``, in Lightning's ``self.log``, and
synchronized over processes when they are computed. No direction of theirs is better by itself.
"""

from importlib import import_module
from typing import Any

from solo_dimreg.metrics.registry import METRICS

__all__ = sorted({record.torchmetrics for record in METRICS.values() if record.torchmetrics})


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("solo_dimreg.metrics.torchmetrics_classes"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
