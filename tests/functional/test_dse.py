"""DSE against NumPy with the true clusters, the authors' code, and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from solo_dimreg.functional import dense_structure, dse

LOCAL, IMAGES, TOKENS, WIDTH = 3, 16, 30, 48


def clustered() -> tuple[torch.Tensor, np.ndarray]:
    """Images of three tight clusters each; no two images of a group of eight share one."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(IMAGES * LOCAL, WIDTH, generator=generator)
    own = torch.arange(IMAGES)[:, None] * LOCAL + torch.arange(TOKENS) % LOCAL
    x = centres[own] + 0.001 * torch.randn(IMAGES, TOKENS, WIDTH, generator=generator)
    return x, own.numpy()


def radius(tokens: np.ndarray) -> float:
    singular = np.linalg.svd(tokens - tokens.mean(0), compute_uv=False)
    return singular.sum() / max(len(tokens) - 1, tokens.shape[1]) ** 0.5


def test_terms_against_numpy_and_the_released_code() -> None:
    x, own = clustered()
    found = dense_structure(x)
    unit = x.numpy().astype(np.float64)
    unit /= np.linalg.norm(unit, axis=2, keepdims=True)
    scale = np.linalg.norm(unit - unit.mean((0, 1)), axis=2).mean()
    radii = [radius(unit[own == each]) for each in range(IMAGES * LOCAL)]
    distances = []
    for start in (0, 8):
        tokens, labels = unit[start : start + 8].reshape(-1, WIDTH), own[start : start + 8].ravel()
        centres = {each: tokens[labels == each].mean(0) for each in np.unique(labels)}
        for token, label in zip(tokens, labels, strict=True):
            others = (np.linalg.norm(token - c) for each, c in centres.items() if each != label)
            distances.append(min(others))
    assert float(found.distance) == pytest.approx(np.mean(distances) / scale, rel=1e-5)
    for value in (found.radius_image, found.radius_group):
        assert float(value) == pytest.approx(np.mean(radii) / scale, rel=1e-4)
    # compute_DSE of github.com/EldercatSAM/SSL-Degradation at b75fd51, normalize=True, seed 0, printed these.
    released = [1.22173, 0.00127, 0.00127, 0.9561, 2.17656]
    terms = [found.distance, found.radius_image, found.radius_group, found.dimension, found.estimate]
    assert [float(each) for each in terms] == pytest.approx(released, rel=2e-3, abs=1e-5)
    assert float(dse(x)) == float(found.estimate)


def test_the_dimension_is_the_effective_rank_over_images() -> None:
    basis = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))[0]
    same_at_every_place = basis[:, None].expand(8, 5, 8)
    assert float(dense_structure(same_at_every_place).dimension) == pytest.approx(1, rel=1e-5)
    assert float(dense_structure(same_at_every_place[:4]).dimension) == pytest.approx(1, rel=1e-5)
    two = same_at_every_place[torch.arange(8) % 2]
    assert float(dense_structure(two).dimension) == pytest.approx(2 / 8, rel=1e-5)


def test_scale_and_rotation_change_nothing() -> None:
    x, _ = clustered()
    turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1)))[0]
    torch.testing.assert_close(dse(100 * x @ turn), dse(x), rtol=1e-3, atol=0)


def test_constant_tokens_and_wrong_shapes() -> None:
    assert torch.isfinite(dse(torch.ones(4, 6, 5)))
    assert torch.isfinite(dse(clustered()[0].bfloat16()))
    for wrong in (torch.ones(4, 5), torch.ones(1, 5, 3), torch.ones(4, 1, 3), torch.ones(4, 5, 3).long()):
        with pytest.raises(ValueError, match="tokens"):
            dense_structure(wrong)
