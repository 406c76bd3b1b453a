"""DirectCLR as a module."""

from __future__ import annotations

from torch import Tensor

from solo_dimreg.distributed import all_gather
from solo_dimreg.functional._checks import check_int, check_positive
from solo_dimreg.functional._precision import full_precision
from solo_dimreg.functional.directclr import directclr_loss
from solo_dimreg.nn._regularizer import WithOptions


class DirectCLR(WithOptions):
    """InfoNCE on the first entries of the features, over all processes [1, sec. 6].

    References:
        [1] Jing et al., Understanding Dimensional Collapse in Contrastive Self-Supervised Learning, ICLR
            2022.

    Args:
        dim: number of leading entries used; the paper uses 360 of the 2048 of a ResNet-50.
        temperature: temperature of the softmax, above 0.

    Raises:
        ValueError: an option is out of range.

    Example:
        >>> loss = DirectCLR(dim=16)(*torch.randn(2, 32, 64).unbind())
    """

    def __init__(self, dim: int = 360, temperature: float = 0.1) -> None:
        super().__init__()
        check_int("dim", dim, minimum=1)
        check_positive("temperature", temperature)
        self.dim = dim
        self.temperature = temperature

    @full_precision
    def forward(self, r1: Tensor, r2: Tensor) -> Tensor:
        """Compute the loss over all processes.

        Args:
            r1: features of the first view, shape (B, D).
            r2: features of the second view, shape (B, D).

        Returns:
            The loss, a scalar, the same on every process.

        Raises:
            ValueError: ``dim`` exceeds D, or the shapes do not fit.
        """
        return directclr_loss(all_gather(r1), all_gather(r2), self.dim, self.temperature)
