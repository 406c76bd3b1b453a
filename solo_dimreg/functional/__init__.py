"""Pure functions on ``(B, D)`` tensors: the mathematics, with neither state nor options of its own."""

from solo_dimreg.functional.directclr import directclr_loss, info_nce_loss
from solo_dimreg.functional.ldreg import ldreg_loss, ldreg_penalty
from solo_dimreg.functional.lid import geometric_mean_lid, local_intrinsic_dimensionality
from solo_dimreg.functional.spectrum import effective_rank, singular_spectrum

__all__ = [
    "directclr_loss",
    "effective_rank",
    "geometric_mean_lid",
    "info_nce_loss",
    "ldreg_loss",
    "ldreg_penalty",
    "local_intrinsic_dimensionality",
    "singular_spectrum",
]
