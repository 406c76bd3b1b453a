"""timm's models as backbones, on both solo-learns."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from support import AUGMENTATION, build, config, most_slow, train_steps
from torch import nn

from solo_dimreg.config.composing import compose, evaluation_settings, fit_to_machine
from solo_dimreg.errors import ConfigError
from solo_dimreg.solo_learn import Host
from solo_dimreg.solo_learn.backbone import TimmBackbone
from solo_dimreg.training.evaluation import extract_splits, knn_accuracy, linear_accuracy
from solo_dimreg.training.pretraining import pretrain

# A ResNet, a ConvNeXt, a ViT, and two of EfficientNet's kind, one with a layer after the pooling.
WIDTHS = {
    "resnet10t": 512,
    "convnext_atto": 320,
    "vit_tiny_patch16_224": 192,
    "mobilenetv3_small_050": 1024,
    "tf_efficientnet_lite0": 1280,
}
NEAREST = {
    "timm/resnet10": "timm/resnet10t",
    "timm/convnext_ato": "timm/convnext_atto",
    "convnext_atto": "timm/convnext_atto",
    "resnet81": "resnet18",
}


def settings(few_digits: Path, backbone: str, method: str = "simclr", **kwargs: Any) -> Any:
    made = config(method, str(few_digits / "train"))
    made.data.val_path = str(few_digits / "val")
    made.backbone = {"name": f"timm/{backbone}", "kwargs": kwargs}
    return made


def momentum_backbone(host: Host, method: Any) -> nn.Module:
    return method.momentum_backbone if host.generation == "current" else method.momentum_encoder


def small_crops(made: Any, size: int) -> None:
    made.augmentations = [copy.deepcopy(AUGMENTATION), {**copy.deepcopy(AUGMENTATION), "crop_size": size}]


@pytest.mark.parametrize("name", most_slow(WIDTHS, keep=["resnet10t"]))
def test_a_step_with_every_kind_of_model(host: Host, few_digits: Path, name: str) -> None:
    model = build(settings(few_digits, name))
    backbone = host.backbone(model)
    assert isinstance(backbone, TimmBackbone)
    assert model.features_dim == backbone.num_features == WIDTHS[name]
    before = copy.deepcopy(backbone.state_dict())
    logged = train_steps(host, model, steps=1)
    assert all(torch.isfinite(torch.tensor(value)) for value in logged.values())
    # DDP hangs or fails at a parameter without a gradient, as that of a classifier left in place would be.
    assert [key for key, value in backbone.named_parameters() if value.grad is None] == []
    assert any(not torch.equal(value, before[key]) for key, value in backbone.named_parameters())
    assert model(torch.randn(2, 3, 32, 32))["feats"].shape == (2, WIDTHS[name])


@pytest.mark.parametrize("name", most_slow(WIDTHS, keep=["resnet10t"]))
def test_the_momentum_copy_starts_equal_and_follows(host: Host, few_digits: Path, name: str) -> None:
    model = build(settings(few_digits, name, method="byol"))
    online, copied = host.backbone(model), momentum_backbone(host, model)
    assert type(copied) is type(online)
    start = copy.deepcopy(copied.state_dict())
    for (key, value), other in zip(online.named_parameters(), copied.parameters(), strict=True):
        assert torch.equal(value, other), key
        assert not other.requires_grad
    train_steps(host, model, steps=1)
    for (key, value), other in zip(online.named_parameters(), copied.parameters(), strict=True):
        torch.testing.assert_close(other, 0.9 * start[key] + 0.1 * value, rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(value, start[key]) for key, value in copied.named_parameters())


@pytest.mark.parametrize("name", most_slow(WIDTHS, keep=["resnet10t"]))
def test_trained_saved_read_back_and_evaluated(
    host: Host, few_digits: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = settings(few_digits, name, method="byol" if name == "vit_tiny_patch16_224" else "simclr")
    made.optimizer.batch_size = 40
    made.checkpoint = {"enabled": True, "dir": str(tmp_path), "frequency": 1, "keep_prev": False}
    built: list[Any] = []
    build_method = type(host).build_method
    monkeypatch.setattr(
        type(host), "build_method", lambda self, given: built.append(build_method(self, given)) or built[-1]
    )
    run = host.read_run(pretrain(made))
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    trained = built[0].eval()
    trained.trainer = None
    with torch.no_grad():
        # The layout alone rounds differently.
        read_back = run.method.to(memory_format=torch.channels_last)
        assert torch.equal(read_back(images)["feats"], trained(images)["feats"])

    train, val = extract_splits(host, run)
    assert train.features.shape == (120, WIDTHS[name]) and val.features.shape == (40, WIDTHS[name])
    knn = knn_accuracy(host, train, val, feature="backbone", k=5, temperature=0.07, distance="cosine")
    assert 0 <= knn["acc1"] <= 100
    linear = compose("linear", "digits", "linear", ("max_epochs=1", "optimizer.batch_size=40"))
    fit_to_machine(linear)
    accuracy = linear_accuracy(host, run, evaluation_settings(linear, run))
    assert 0 <= accuracy["acc1"] <= 100


def test_kwargs_are_handed_on(host: Host, few_digits: Path) -> None:
    model = build(settings(few_digits, "convnext_atto", depths=[1, 1, 1, 1], drop_path_rate=0.1))
    stages = host.backbone(model).model.stages
    assert [len(stage.blocks) for stage in stages] == [1, 1, 1, 1]


@pytest.mark.parametrize("size", [32, 48])
def test_a_model_of_fixed_size_is_built_for_the_crops(host: Host, few_digits: Path, size: int) -> None:
    made = settings(few_digits, "vit_tiny_patch16_224")
    made.augmentations[0].crop_size = size
    model = build(made)
    assert host.backbone(model).model.patch_embed.img_size == (size, size)
    assert model(torch.randn(2, 3, size, size))["feats"].shape == (2, 192)


def test_small_crops_on_a_vit_that_is_told_so(host: Host, few_digits: Path) -> None:
    made = settings(few_digits, "vit_tiny_patch16_224", method="byol", dynamic_img_size=True)
    small_crops(made, 16)
    logged = train_steps(host, build(made), steps=1, sizes=(32, 32, 16, 16))
    assert all(torch.isfinite(torch.tensor(value)) for value in logged.values())


@pytest.mark.parametrize("name", NEAREST)
def test_an_unknown_name_is_refused_with_the_nearest(few_digits: Path, name: str) -> None:
    made = settings(few_digits, name)
    made.backbone.name = name
    with pytest.raises(ConfigError) as error:
        pretrain(made)
    words = ("backbone.name", repr(name), f"Did you mean {NEAREST[name]!r}")
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    "kwargs", [{"depth": [1, 1, 1, 1]}, {"conv_mlp": True, "no_such_argument": 3}, {"global_pool": "none"}]
)
def test_wrong_kwargs_are_refused(few_digits: Path, kwargs: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="backbone") as error:
        pretrain(settings(few_digits, "convnext_atto", **kwargs))
    assert any(key in str(error.value) for key in kwargs), str(error.value)


@pytest.mark.parametrize(
    ("name", "sizes", "words"),
    [
        # Five halvings leave nothing of 16 pixels.
        ("convnext_atto", (16,), ["'timm/convnext_atto'", "16 x 16"]),
        ("vit_tiny_patch16_224", (32, 24), ["'timm/vit_tiny_patch16_224'", "24 x 24"]),
        ("vit_tiny_patch16_224", (8,), ["'timm/vit_tiny_patch16_224'", "8"]),
    ],
)
def test_impossible_crops_are_refused_before_training(
    few_digits: Path, tmp_path: Path, name: str, sizes: tuple[int, ...], words: list[str]
) -> None:
    made = settings(few_digits, name, method="byol")
    made.augmentations = [{**copy.deepcopy(AUGMENTATION), "crop_size": size} for size in sizes]
    made.checkpoint = {"enabled": True, "dir": str(tmp_path), "frequency": 1, "keep_prev": False}
    with pytest.raises(ConfigError) as error:
        pretrain(made)
    assert all(word in str(error.value) for word in ("backbone", *words)), str(error.value)
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("method", ["mae", "ldreg_mae"])
def test_mae_keeps_solo_learns_vit(host: Host, few_digits: Path, method: str) -> None:
    made = settings(few_digits, "vit_tiny_patch16_224", method=method)
    if "mae" not in host.methods:
        assert host.generation == "published"
        return
    with pytest.raises(ConfigError, match=r"backbone.name: 'timm/vit_tiny_patch16_224'.*MAE"):
        pretrain(made)


def test_the_weights_do_not_depend_on_what_was_built_before(host: Host, few_digits: Path) -> None:
    first, second = (build(settings(few_digits, "resnet10t")).state_dict() for _ in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_features_are_those_of_timm_itself(host: Host, few_digits: Path) -> None:
    import timm

    for name in ("mobilenetv3_small_050", "vit_tiny_patch16_224"):
        model = build(settings(few_digits, name)).eval()
        size = {"img_size": 32} if name.startswith("vit") else {}
        plain = timm.create_model(name, **size).eval()
        own = host.backbone(model).model.state_dict()
        plain.load_state_dict(own, strict=False)
        images = torch.randn(2, 3, 32, 32)
        with torch.no_grad():
            expected = plain.forward_head(plain.forward_features(images), pre_logits=True)
            torch.testing.assert_close(model(images)["feats"], expected)
