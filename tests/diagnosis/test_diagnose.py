"""``diagnose`` as a notebook uses it: arrays, files, models and loaders in, figures, html and files out."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from solo_dimreg import diagnose
from solo_dimreg.errors import ConfigError
from solo_dimreg.functional import effective_rank, geometric_mean_lid, matrix_mutual_information, rankme


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_singular_values(values: torch.Tensor, rows: int) -> torch.Tensor:
    """Centred features with these singular values."""
    x = normal(rows, len(values)).double()
    basis, _ = torch.linalg.qr(x - x.mean(dim=0))
    turn, _ = torch.linalg.qr(normal(len(values), len(values), seed=1).double())
    return (basis * values) @ turn


def test_figures_of_a_tensor_are_attributes() -> None:
    values = torch.linspace(1, 4, 12).double()
    x = with_singular_values(values, 400) + 3
    result = diagnose(x)
    p = values / values.sum()
    assert result.effective_rank == pytest.approx((-(p * p.log()).sum()).exp().item(), rel=1e-6)
    assert result.rankme == pytest.approx(rankme(x).item(), rel=1e-5)
    assert result.lid == pytest.approx(geometric_mean_lid(x, k=32).item(), rel=1e-5)
    expected = (values**2).flip(0) / 399
    torch.testing.assert_close(result.spectrum, expected, rtol=1e-6, atol=0)
    assert (result.samples, result.dimensions, len(result.lids)) == (400, 12, 400)
    assert result.embeddings is None and result.mutual_information is None and result.classes == []
    assert str(result) == f"features: healthy: {result.verdict.reason} {result.caution}"
    assert "share one vector" in result.caution  # which was added


def test_the_same_of_every_kind_of_input(tmp_path: Path) -> None:
    r, z, labels = normal(300, 12) * torch.linspace(1, 3, 12), normal(300, 4, seed=2), torch.arange(300) % 3
    np.save(tmp_path / "r.npy", r.numpy())
    np.save(tmp_path / "z.npy", z.numpy())
    save_file({"features": r, "embeddings": z, "labels": labels}, tmp_path / "all.safetensors")
    mapped = np.load(tmp_path / "r.npy", mmap_mode="r")
    expected = diagnose(r, embeddings=z, labels=labels, name="r").as_dict()
    assert expected.pop("description") == "300 x 12 features"
    assert expected["embeddings"]["lid"] == pytest.approx(geometric_mean_lid(z, k=32).item(), rel=1e-5)
    assert expected["mutual_information"] == pytest.approx(matrix_mutual_information(r, z).item(), rel=1e-4)
    assert [line["samples"] for line in expected["classes"]] == [100, 100, 100]
    for given in (
        diagnose(r.requires_grad_(), embeddings=z, labels=labels, name="r"),
        diagnose(r.tolist(), embeddings=z.numpy(), labels=labels.tolist(), name="r"),
        diagnose(mapped, embeddings=tmp_path / "z.npy", labels=labels.numpy(), name="r"),
        diagnose(str(tmp_path / "r.npy"), embeddings=z, labels=labels, name="r"),
        diagnose(tmp_path / "all.safetensors", name="r"),
    ):
        found = given.as_dict()
        assert found.pop("description").startswith("300 x 12 features")
        assert found == expected


@pytest.mark.parametrize(
    ("kind", "features"),
    [
        ("cannot tell", torch.full((100, 16), 0.7)),
        ("collapsed", normal(200, 4) @ normal(4, 100, seed=1)),
        ("healthy", normal(200, 16)),
    ],
)
def test_verdicts(kind: str, features: torch.Tensor) -> None:
    assert diagnose(features).verdict.kind == kind


class Encoder(nn.Module):
    """As a reader writes one: the features are not what it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(48, 10), nn.BatchNorm1d(10))
        self.projector = nn.Linear(10, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.projector(self.backbone(images))


def loader(**options: Any) -> DataLoader:
    images = normal(150, 3, 4, 4)
    dataset = TensorDataset(images, torch.arange(150) % 2)
    dataset.classes = ["cat", "dog"]  # type: ignore[attr-defined]
    return DataLoader(dataset, batch_size=40, **options)


def test_a_model_and_a_loader() -> None:
    torch.manual_seed(0)
    model = Encoder()
    model.projector.eval()
    result = diagnose(model, loader(), features="backbone", embeddings="projector")
    # It is left as it was found, hooks and modes.
    assert model.training and model.backbone.training and not model.projector.training
    assert not model.backbone._forward_hooks and not model.projector._forward_hooks
    with torch.no_grad():
        r = model.eval().backbone(loader().dataset.tensors[0])  # type: ignore[attr-defined]
        z = model.projector(r)
    assert result.effective_rank == pytest.approx(effective_rank(r, center=True).item(), rel=1e-5)
    assert result.embeddings is not None
    assert result.embeddings.effective_rank == pytest.approx(effective_rank(z, center=True).item(), rel=1e-5)
    assert result.mutual_information == pytest.approx(matrix_mutual_information(r, z).item(), rel=1e-4)
    assert [line["class"] for line in result.classes] == ["cat", "dog"]
    first, second = model.backbone, model.projector

    def pair(x: torch.Tensor) -> Any:
        return first(x), second(first(x))

    def mapping(x: torch.Tensor) -> Any:
        return {"feats": first(x), "z": second(first(x)), "logits": None}

    for returns in (pair, mapping):
        assert diagnose(returns, loader(), name="Encoder").as_dict() == result.as_dict()
    # Embeddings by name, features as returned; of the images alone, and of some of them.
    assert diagnose(model.backbone, loader()).lid == result.lid
    images = [normal(150, 3, 4, 4)[:100], normal(150, 3, 4, 4)[100:]]
    assert diagnose(model, images, features="backbone").lid == result.lid
    some = diagnose(model, loader(), features="backbone", max_samples=90)
    assert some.samples == 90 and some.lid == diagnose(r[:90]).lid


def test_of_a_timm_model_it_is_the_features_before_the_head() -> None:
    torch.manual_seed(0)
    with_head = timm.create_model("test_resnet", num_classes=7)
    images = [normal(64, 3, 32, 32)]
    result = diagnose(with_head, images)
    with_head.reset_classifier(0)
    with torch.no_grad():
        features = with_head.eval()(images[0])
    assert result.dimensions == with_head.num_features == features.shape[1]
    assert result.effective_rank == pytest.approx(effective_rank(features, center=True).item(), rel=1e-5)


def test_a_notebook_shows_the_plots() -> None:
    result = diagnose(normal(150, 8), embeddings=normal(150, 4), labels=torch.arange(150) % 2)
    shown = result._repr_html_()
    opened: list[str] = []
    plots: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag not in ("script", "html", "body", "link", "iframe")
            if tag == "img":
                plots.append(dict(attrs)["alt"] or "")
            if tag not in ("img", "source", "br", "meta", "wbr"):
                opened.append(tag)

        def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Reader().feed(shown)
    assert not opened
    assert [label.split()[0] for label in plots] == [
        *("Spectra", "Cumulative", "Local", "LID", "Effective", "Absolute", "Absolute")
    ]
    assert f"features: {result.verdict.title}" in shown and f"{result.lid:.2f}" in shown
    assert "Classes of features" in shown
    # The style holds for this output alone: all of its rules are within one for its class.
    style = shown.partition("<style>")[2].partition("</style>")[0]
    assert style.startswith(".solo-dimreg {") and ":root" not in style
    depths = [style[:i].count("{") - style[:i].count("}") for i in range(15, len(style))]
    assert min(depths) == 1 and style.count("{") == style.count("}")


def test_save_writes_what_the_command_writes(here: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "r.npy", normal(200, 8).numpy())
    assert here("diagnose", "r.npy", "--out", "command").returncode == 0
    page = diagnose("r.npy").save("saved/here")
    assert page == Path("saved/here/diagnosis.html")
    written, expected = (sorted(Path(folder).iterdir()) for folder in ("saved/here", "command"))
    assert [path.name for path in written] == [path.name for path in expected]
    assert all(one.read_bytes() == other.read_bytes() for one, other in zip(written, expected, strict=True))
    with pytest.raises(ConfigError, match=r"folder: 'r.npy/x' cannot be used"):
        diagnose("r.npy").save("r.npy/x")


def test_a_checkpoint_of_solo_learns(here: Any, tmp_path: Path, few_digits: Path) -> None:
    data = [f"data.{split}_path={few_digits / split}" for split in ("train", "val")]
    options = ["max_epochs=1", "optimizer.batch_size=32", "checkpoint.dir=out", "monitor=null"]
    assert here("pretrain", "-cp", "digits", "-cn", "simclr", *data, *options).returncode == 0
    result = diagnose(tmp_path / "out")
    assert (result.samples, result.dimensions) == (120, 256) and result.embeddings is not None
    assert result.embeddings.dimensions == 128


class Maps(Encoder):
    """Returns feature maps, in a mapping."""

    def forward(self, images: torch.Tensor) -> Any:
        return {"maps": images}


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((normal(9),), {}, r"features have shape \(9,\)"),
        ((normal(2, 3),), {}, "2 samples are too few"),
        ((torch.full((9, 3), torch.nan),), {}, "features are not finite .*row 0"),
        (([["a", "b"]],), {}, "list: is not an array of numbers"),
        ((normal(9, 3),), {"labels": torch.arange(8)}, "8 labels for 9 features"),
        ((normal(9, 3),), {"features": "backbone"}, "only allowed with a model and a loader"),
        ((normal(9, 3), [normal(9, 3)]), {}, "loader: only allowed with a model; Tensor is not a model"),
        (("nowhere.npy",), {}, "nowhere.npy: no such file"),
        (("resnet18",), {}, r"resnet18: no such file or folder.*diagnose\(model, loader\)"),
        ((Encoder(),), {}, r"loader: missing.*diagnose\(model, loader\)"),
        ((Encoder(), []), {}, "loader: yields no batch"),
        ((Encoder(), [{"image": normal(2, 3)}]), {}, r"loader: yields dict, not images.*batch\['image'\]"),
        ((Encoder(), [(torch.arange(4), normal(4, 48))]), {}, r"loader: yields a tensor of shape \(4,\)"),
        ((Encoder(), loader()), {"labels": torch.arange(150)}, "labels: not used with a loader"),
        ((Encoder(), loader()), {"embeddings": normal(150, 4)}, "embeddings: with a model, give the name"),
        (
            (Encoder(), loader()),
            {"features": "bakbone"},
            "'bakbone' is not a module.*Did you mean 'backbone'",
        ),
        ((Maps(), loader()), {}, "model: returns maps, and no features.*features='backbone'"),
        ((Maps(), loader()), {"features": "projector"}, "features: 'projector' is not called by Maps"),
        ((nn.Identity(), loader()), {}, r"model \(features\): returns shape \(40, 3, 4, 4\).*pools them"),
        ((lambda x: x, loader()), {"features": "backbone"}, "name modules, which only a torch.nn.Module"),
    ],
)
def test_what_cannot_be_diagnosed_says_why(arguments: Any, options: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        diagnose(*arguments, **options)
