from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from omegaconf.errors import MissingMandatoryValue
from support import build_small, config

from solo_dimreg.hosts import Host, plain
from solo_dimreg.hosts.announce import describe_terms, evaluation_commands
from solo_dimreg.running.settings import compose


@pytest.mark.parametrize(
    ("ldreg", "says"),
    [
        ({"weight": 0.01, "warmup_epochs": 0}, "ldreg of the features, weight 0.01, k = 16"),
        ({"weight": 0.01, "k": 8, "warmup_epochs": 2}, "weight 0.01, k = 8, from epoch 3 of 5"),
        # 16 images in two views: each feature has 31 others.
        ({"weight": 1, "k": 64, "warmup_epochs": 0}, "weight 1, k = 31 instead of 64, which the batch lacks"),
        ({"weight": 1, "warmup_epochs": 5}, "NEVER: warmup_epochs 5 of 5 epochs"),
    ],
)
def test_terms_as_they_will_be(few_digits: Path, ldreg: dict, says: str) -> None:
    method = build_small(few_digits, "simclr", False, regularizers={"ldreg": ldreg})
    (said,) = describe_terms(method, 1, 5)
    assert said.endswith(says)


def test_momentum_features_are_neighbours_too(few_digits: Path) -> None:
    method = build_small(
        few_digits, "byol", False, regularizers={"ldreg": {"weight": 1, "k": 64, "warmup_epochs": 0}}
    )
    (said,) = describe_terms(method, 1, 5)
    assert "k = 63 instead of 64" in said


def test_the_printed_command_of_main_linear_composes(host: Host, few_digits: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "simclr-ab12cd34-ep=3.ckpt"
    checkpoint.touch()
    settings = config("simclr", str(few_digits / "train"))
    settings.backbone = {"name": "timm/resnet18", "kwargs": {"channels": [8, 8, 8, 8]}}
    (tmp_path / "args.json").write_text(json.dumps(plain(settings)))
    *ours, theirs = evaluation_commands(host, tmp_path)
    assert [line.split()[:2] for line in ours[:2]] == [["solo-dimreg", "linear"], ["solo-dimreg", "knn"]]
    if host.generation == "published":  # has no such script
        assert theirs.startswith("solo-dimreg diagnose")
        return
    words = shlex.split(theirs, comments=True)
    assert words[:2] == ["python", "main_linear.py"]
    linear = compose("linear", words[3], words[5], words[6:])
    assert linear.pretrained_feature_extractor == str(checkpoint)
    assert plain(linear.backbone) == plain(settings.backbone)
    assert linear.data.train_path == settings.data.train_path
    with pytest.raises(MissingMandatoryValue):  # the pretraining had no validation images
        _ = linear.data.val_path
    assert "224" in theirs
