"""VISReg against NumPy and SciPy, and its gradient under collapse against SIGReg's."""

import numpy as np
import pytest
import torch
from numeric import check_against, normal
from numeric import directions as slices
from scipy import stats

from solo_dimreg.functional import sigreg_loss, visreg_loss


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, 0.0, 0.0), (0.0, 2.0, 0.0), (0.0, 0.0, 3.0)])
def test_it_is_scale_shape_and_centre(weights):
    directions, start = slices(4, 7), 1.5 * normal(6, 4) + 0.3
    constant = start.numpy().std(axis=0)  # to the gradient

    def in_numpy(x):
        standardized = (x - x.mean(axis=0)) / (constant + 1e-4)
        quantiles = stats.norm.ppf(np.arange(1, 7) / 7)
        projected = np.sort(standardized @ directions.numpy(), axis=0)
        terms = (
            np.mean((1 - x.std(axis=0)) ** 2),
            np.mean((projected - quantiles[:, None]) ** 2),
            np.mean(x.mean(axis=0) ** 2),
        )
        return np.dot(weights, terms)

    check_against(lambda x: visreg_loss(x, directions, *weights), in_numpy, start)


def test_its_gradient_stays_under_collapse_where_that_of_sigreg_vanishes():
    directions = slices(32, 64)

    def gradient(loss, scale):
        x = (scale * normal(64, 32)).requires_grad_()
        return float(torch.autograd.grad(loss(x, directions), x)[0].norm())

    assert gradient(sigreg_loss, 1e-4) < 1e-2 * gradient(sigreg_loss, 0.1)
    assert gradient(visreg_loss, 1e-4) > gradient(visreg_loss, 0.1)

    # That of the scale alone tends to a constant.
    def scale_alone(x, directions):
        return visreg_loss(x, directions, shape_weight=0, center_weight=0)

    assert gradient(scale_alone, 1e-3) == pytest.approx(gradient(scale_alone, 1e-6), rel=1e-2)
    assert gradient(scale_alone, 1e-6) > 0
