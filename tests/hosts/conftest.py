from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def cholesky(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts back ``torch.cholesky``, gone from today's torch, which W-MSE of solo-learn 1.0.2 calls."""
    monkeypatch.setattr(torch, "cholesky", torch.linalg.cholesky)
