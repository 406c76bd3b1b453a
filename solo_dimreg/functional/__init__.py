"""Pure functions on ``(B, D)`` tensors: the mathematics, without state."""

from solo_dimreg.functional.adadim import adadim_loss, ntxent_loss, vicreg_loss
from solo_dimreg.functional.decorrelation import (
    covariance_penalty,
    decorrelation_loss,
    off_diagonal_correlation,
    variance_hinge,
    zca_whiten,
)
from solo_dimreg.functional.dimension import mst_dimension, two_nn
from solo_dimreg.functional.directclr import directclr_loss, info_nce_loss
from solo_dimreg.functional.dse import dense_structure, dse
from solo_dimreg.functional.information import (
    alignment,
    matrix_entropy,
    matrix_mutual_information,
    uniformity,
    wasserstein_uniformity,
)
from solo_dimreg.functional.koleo import koleo_loss
from solo_dimreg.functional.ldreg import ldreg_loss, ldreg_penalty
from solo_dimreg.functional.lid import geometric_mean_lid, local_intrinsic_dimensionality
from solo_dimreg.functional.signal import group_share, noise_share, signal_rank, variance_rank
from solo_dimreg.functional.sigreg import sigreg_loss
from solo_dimreg.functional.spectrum import alpha_req, effective_rank, lidar, rankme, singular_spectrum
from solo_dimreg.functional.spread import mean_share, nesum, rankme_share, self_clustering
from solo_dimreg.functional.t_regs import t_reg_loss
from solo_dimreg.functional.visreg import visreg_loss

__all__ = [
    "adadim_loss",
    "alignment",
    "alpha_req",
    "covariance_penalty",
    "decorrelation_loss",
    "dense_structure",
    "directclr_loss",
    "dse",
    "effective_rank",
    "geometric_mean_lid",
    "group_share",
    "info_nce_loss",
    "koleo_loss",
    "ldreg_loss",
    "ldreg_penalty",
    "lidar",
    "local_intrinsic_dimensionality",
    "matrix_entropy",
    "matrix_mutual_information",
    "mean_share",
    "mst_dimension",
    "nesum",
    "noise_share",
    "ntxent_loss",
    "off_diagonal_correlation",
    "rankme",
    "rankme_share",
    "self_clustering",
    "signal_rank",
    "sigreg_loss",
    "singular_spectrum",
    "t_reg_loss",
    "two_nn",
    "uniformity",
    "variance_hinge",
    "variance_rank",
    "vicreg_loss",
    "visreg_loss",
    "wasserstein_uniformity",
    "zca_whiten",
]
