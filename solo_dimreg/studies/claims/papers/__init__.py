"""The claims of the four papers, of the metrics, of the newest remedies, and of our alarm."""

from __future__ import annotations

from solo_dimreg.studies.claims.claim import Claim
from solo_dimreg.studies.claims.papers.adadim import adadim_claims
from solo_dimreg.studies.claims.papers.alarm import alarm_claims
from solo_dimreg.studies.claims.papers.decorrelation import decorrelation_claims
from solo_dimreg.studies.claims.papers.directclr import directclr_claims
from solo_dimreg.studies.claims.papers.ldreg import ldreg_claims
from solo_dimreg.studies.claims.papers.metrics import metric_claims
from solo_dimreg.studies.claims.papers.newest import newest_claims

#: The claims of ``--quick``: two pairs of rows, and the claims that need no training.
QUICK = (
    *("ldreg-lid-byol", "ldreg-accuracy-byol", "ldreg-rank-byol", "decorrelation-none", "decorrelation-bn"),
    *("directclr-augmentation", "directclr-layers", "lid-finds-the-dimension"),
)


def builtin_claims() -> list[Claim]:
    """Return all our claims by paper; the claims on metrics use the rows of the four papers."""
    papers = [*ldreg_claims(), *directclr_claims(), *decorrelation_claims(), *adadim_claims()]
    return [*papers, *metric_claims(papers), *newest_claims(), *alarm_claims()]
