"""Files that others saved, and models that do not take what they are given."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from solo_dimreg import diagnose
from solo_dimreg.diagnosis.sources.names import check_given
from solo_dimreg.diagnosis.sources.weights import load_weights
from solo_dimreg.errors import ConfigError


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def prefixed(prefix: str, state: dict[str, Any], offset: float = 0.0) -> dict[str, Any]:
    return {f"{prefix}{key}": value + offset for key, value in state.items()}


WRAPPINGS: dict[str, Any] = {
    "plain": lambda s: s,
    "DataParallel": lambda s: prefixed("module.", s),
    "MoCo v2": lambda s: {
        "state_dict": prefixed("module.encoder_k.", s, 1) | prefixed("module.encoder_q.", s),
        "epoch": 3,
    },
    "MoCo v3": lambda s: {
        "state_dict": prefixed("module.base_encoder.", s) | prefixed("module.momentum_encoder.", s, 1)
    },
    "DINO": lambda s: {
        "student": prefixed("module.backbone.", s, 1),
        "teacher": prefixed("backbone.", s) | {"head.mlp.0.weight": torch.ones(3)},
        "args": argparse.Namespace(lr=0.1),
    },
    "solo-learn": lambda s: {"state_dict": prefixed("momentum_backbone.", s, 1) | prefixed("backbone.", s)},
    "a wrapper of timm's": lambda s: {"model": prefixed("encoder.model.", s), "args": {"lr": 1}},
    "without counts": lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_weights_are_found_in_what_others_saved(wrap: Any, tmp_path: Path) -> None:
    saved = timm.create_model("test_resnet", num_classes=7)
    for value in saved.state_dict().values():
        value.copy_(torch.rand(value.shape))
    torch.save(wrap(saved.state_dict()), tmp_path / "w.pth")
    model = timm.create_model("test_resnet", num_classes=0)
    load_weights(model, "test_resnet", tmp_path / "w.pth")
    for key, value in model.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(value, saved.state_dict()[key]), key


def test_weights_of_another_model_are_refused_with_a_few_keys(tmp_path: Path) -> None:
    model = timm.create_model("test_resnet", num_classes=0)
    state = model.state_dict()
    save_file({"net.conv.weight": torch.ones(2), "net.conv.bias": torch.ones(2)}, tmp_path / "a.safetensors")
    with pytest.raises(ConfigError, match=r"0 of its \d+ keys.*Missing keys: bn1.bias.*file: net.conv.*bias"):
        load_weights(model, "test_resnet", tmp_path / "a.safetensors")
    torch.save(prefixed("module.", dict(list(state.items())[:4])), tmp_path / "b.pth")
    with pytest.raises(ConfigError, match=r"keys are there under 'module.'. Missing keys"):
        load_weights(model, "test_resnet", tmp_path / "b.pth")
    torch.save(state | {"layer1.9.conv1.weight": torch.ones(1)}, tmp_path / "c.pth")
    with pytest.raises(ConfigError, match=r"keys in the file: layer1.9.conv1.weight"):
        load_weights(model, "test_resnet", tmp_path / "c.pth")
    torch.save(state | {"bn1.bias": torch.ones(1)}, tmp_path / "d.pth")
    with pytest.raises(ConfigError, match=r"bn1.bias has shape \(1,\), not \(\d+,\)"):
        load_weights(model, "test_resnet", tmp_path / "d.pth")


def test_npz_of_one_array_or_of_named_ones(tmp_path: Path) -> None:
    x, z, y = normal(90, 6), normal(90, 3, seed=1), torch.arange(90) % 3
    np.savez(tmp_path / "one.npz", x)
    np.savez_compressed(tmp_path / "all.npz", features=x, embeddings=z, labels=y)
    one, everything = diagnose(tmp_path / "one.npz"), diagnose(tmp_path / "all.npz")
    # Arrays that no metric needs are not read, and other files may hold the same names.
    np.savez(tmp_path / "more.npz", features=x, labels=y, files=np.array([Path("a.png")], dtype=object))
    assert diagnose(tmp_path / "more.npz").classes == everything.classes
    assert diagnose(x, labels=tmp_path / "more.npz").classes == everything.classes
    expected = diagnose(x, embeddings=z, labels=y)
    assert one.lid == everything.lid == expected.lid and everything.embeddings is not None
    assert everything.classes == expected.classes


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "1,2", r"suffix .csv are not read; features come as .npy, .npz"),
        ("a", "1,2", "without a suffix are not read"),
        ("a.npz", "no archive", "cannot be read as .npz"),
        ("a.pt", [torch.ones(3), torch.ones(3)], r"holds a list of 2 tensors; .*torch.cat\(parts\)"),
        ("b.pt", "a string", r"holds a str; it must be one tensor"),
        ("c.pt", b"nonsense", r"c.pt: is not a file that torch.save wrote"),
        ("d.pth", b"hello", r"d.pth: is not a file that torch.save wrote"),
        ("a.npy", "nonsense", r"cannot be read as .npy: it is not a file that numpy.save wrote"),
        (
            "c.npz",
            {"a": np.ones(3), "b": np.ones(3)},
            r"no array named features \(found a, b\); save the .*numpy.savez\('c.npz', features=...\)\.$",
        ),
    ],
)
def test_other_files_are_refused_by_what_they_are(
    name: str, content: Any, words: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if isinstance(content, dict):
        np.savez(path, **content)
    elif isinstance(content, bytes):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=f"^--weights: .*{words}"):
            load_weights(nn.Linear(2, 2), "x", path)
    elif path.suffix == ".pt":
        torch.save(content, path)
    else:
        path.write_text(content)
    with pytest.raises(ConfigError, match=words):
        diagnose(path)
    if path.suffix == ".csv":
        with pytest.raises(ConfigError, match=r"suffix .csv are not read"):
            diagnose(normal(9, 3), labels=path)


def test_a_path_that_is_not_there_is_refused_before_the_imports() -> None:
    for given in ("nosuch.ckpt", "trained_models/byol", "./nosuch", "nosuch.pth.tar"):
        with pytest.raises(ConfigError, match=f"^{given}: no such file or folder"):
            check_given(given, None, None, None)
    for name in ("resnet18", "timm/resnet18", "timm/resnet18.a1_in1k", "pixels"):
        check_given(name, None, None, None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_images_come_in_the_dtype_of_the_model(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8))
    images = [normal(50, 3, 2, 2), normal(40, 3, 2, 2, seed=1)]
    expected = diagnose(model, images)
    found = diagnose(model.to(dtype), images)
    assert found.effective_rank == pytest.approx(expected.effective_rank, rel=0.02)
    assert found.lid == pytest.approx(expected.lid, rel=0.05)


@pytest.mark.parametrize(
    "images", [torch.ones(4, 1, 8, 8), torch.ones(4, 3, 5, 5), torch.ones(4, 3, 8, 8).byte()]
)
def test_images_that_a_model_does_not_take_are_one_line(images: torch.Tensor) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 8))
    with pytest.raises(ConfigError) as caught:
        diagnose(model, [images])
    shape, text = str(tuple(images.shape)), str(caught.value)
    assert text.startswith("model: Sequential does not take images of shape " + shape) and "\n" not in text


def test_an_earlier_diagnosis_moves_aside(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found, folder = diagnose(normal(70, 4)), tmp_path / "diagnosis"
    found.save(folder)
    (folder / "notes.txt").touch()  # not of a diagnosis: it stays
    first = (folder / "diagnosis.json").read_bytes()
    assert "moved" not in capfd.readouterr().err
    for aside in ("diagnosis.bak", "diagnosis.bak2"):
        diagnose(normal(80, 4)).save(folder)
        assert f"moved to {tmp_path / aside}" in capfd.readouterr().err
        names = {path.name for path in folder.iterdir()}
        assert names == {path.name for path in (tmp_path / aside).iterdir()} | {"notes.txt"}
    assert (tmp_path / "diagnosis.bak" / "diagnosis.json").read_bytes() == first
