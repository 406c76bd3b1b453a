from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from support import small
from torch.utils.data import DataLoader

from solo_dimreg.solo_learn import Host


@pytest.mark.parametrize("name", ["simclr", "byol"])
def test_a_training_without_labels_has_a_finite_loss(host: Host, tmp_path: Path, name: str) -> None:
    for number in range(32):
        Image.new("L", (32, 32), 8 * number).save(tmp_path / f"{number}.png")
    settings = small(tmp_path, name)
    settings.data.update(train_path=str(tmp_path), no_labels=True)
    arguments = host.pretraining_arguments(settings)
    method, loader = host.build_method(arguments), host.training_data(arguments)["train_dataloaders"]
    assert isinstance(loader, DataLoader)
    method.log_dict = method.log = lambda *args, **kwargs: None
    loss = method.training_step(next(iter(loader)), 0)
    assert torch.isfinite(loss)
    loss.backward()
    assert not method.classifier.weight.grad.any()  # it has a gradient, as DDP needs, and learns nothing
