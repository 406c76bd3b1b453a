from __future__ import annotations

from pathlib import Path

import pytest
from support import build, config

from solo_dimreg.config.composing import compose
from solo_dimreg.config.values import plain
from solo_dimreg.errors import ConfigError
from solo_dimreg.solo_learn import Host, register

THEIRS = {"channels": [32, 64, 128, 256], "zero_init_last": False}


def backbone(*overrides: str) -> dict:
    return plain(compose("pretrain", "digits", "simclr", overrides, register()).backbone)


@pytest.mark.parametrize(
    ("name", "left", "out"),
    [
        ("vit_tiny", {}, ["channels", "zero_init_last"]),
        ("resnet18", {}, ["channels", "zero_init_last"]),
        ("timm/convnext_atto", {}, ["channels", "zero_init_last"]),
        ("timm/regnetx_002", {"zero_init_last": False}, ["channels"]),
        ("timm/resnet34", THEIRS, []),
    ],
)
def test_another_backbone_is_not_given_what_it_does_not_take(
    name: str, left: dict, out: list[str], capsys: pytest.CaptureFixture
) -> None:
    assert backbone(f"backbone.name={name}") == {"name": name, "kwargs": left}
    said = capsys.readouterr().err.splitlines()
    assert len(said) == bool(out)
    if out:
        assert f"left out {', '.join(out)}, which timm/resnet18 had and {name} does not accept" in said[0]


def test_what_is_given_for_the_new_backbone_stays(capsys: pytest.CaptureFixture) -> None:
    given = backbone("backbone.name=vit_tiny", "backbone.kwargs.patch_size=4")
    assert given["kwargs"] == {"patch_size": 4}
    assert backbone("backbone.name=vit_tiny", "~backbone.kwargs") == {"name": "vit_tiny"}
    capsys.readouterr()
    # A mistake of the command line's own is left to be refused, as is the config's own backbone.
    mistaken = backbone("backbone.name=resnet18", "backbone.kwargs.chanels=3")
    assert mistaken["kwargs"] == {"chanels": 3}
    assert backbone("backbone.kwargs.patch_size=4")["kwargs"] == {**THEIRS, "patch_size": 4}
    assert backbone("backbone.name=resnet19")["kwargs"] == THEIRS


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny", "timm/convnext_atto"])
def test_a_config_that_gives_a_backbone_what_it_does_not_take(
    host: Host, few_digits: Path, name: str
) -> None:
    settings = config("simclr", str(few_digits / "train"))
    settings.backbone = {"name": name, "kwargs": {"channels": [1, 2]}}
    with pytest.raises(ConfigError) as refused:
        build(settings, host)
    words = ("backbone.kwargs.channels", name, "[1, 2]", "~backbone.kwargs.channels")
    assert all(word in str(refused.value) for word in words), refused.value
