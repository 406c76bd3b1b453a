"""Silences what solo-learn's and Lightning's own code says on every run and no user can act on.

One list for our commands and for solo-learn's scripts. What solo-learn warns of while it is imported is
printed before a script has imported us. Each message is named: nothing of a user's own code is hidden.
"""

from __future__ import annotations

import logging
import re
import warnings

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
    """Filters those messages in this process; everything else is still said."""
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message)
    for name in LOGGERS:
        logging.getLogger(name).addFilter(lambda record: not LINES.match(record.getMessage()))
