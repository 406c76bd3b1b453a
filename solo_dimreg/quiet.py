"""Silence messages of solo-learn and Lightning that come with every run and that no user can act on.

Our commands and solo-learn's scripts share one list. Each message is named, so nothing from a user's own code
is hidden. A script prints solo-learn's warnings at import before it imports us.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

WARNINGS = (
    "The feature .* is currently marked under review",
    "'pin_memory' argument is set as true",
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated",
    "The '?\\w*dataloader,?.*does not have many workers",
    "The number of training batches .* is smaller than the logging interval",
    "Starting from v1.9.0, `tensorboardX` has been removed",
)
LINES = re.compile(
    "(GPU|TPU|IPU|HPU) available: False|Loading `train_dataloader`|Using scheduler_interval=step"
)
LOGGERS = ("", "pytorch_lightning.utilities.rank_zero", "lightning.pytorch.utilities.rank_zero")


def silence() -> None:
    """Filter the listed messages in this process; all others are still printed."""
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message)
    for name in LOGGERS:
        logging.getLogger(name).addFilter(lambda record: not LINES.match(record.getMessage()))


@contextmanager
def without_logs() -> Iterator[None]:
    """Log nothing that is less than an error, such as the greeting of Lightning's trainer."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)
