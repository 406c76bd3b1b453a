"""``solo-dimreg diagnose`` as a user has it: every kind of input, the files, and what it refuses."""

from __future__ import annotations

import json
import pickle
import re
import struct
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from support import most_slow
from torchvision.transforms.functional import to_tensor

from solo_dimreg.functional import (
    effective_rank,
    geometric_mean_lid,
    local_intrinsic_dimensionality,
    matrix_mutual_information,
)
from solo_dimreg.metrics.neighbourhoods import random_indices


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The working directory of ``here``."""
    return tmp_path


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "diagnosis.json").read_text())["inputs"]


def check_page(out: Path) -> str:
    """A page that needs nothing from outside, and PNG files beside it."""
    page = (out / "diagnosis.html").read_text()
    loaded: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            given = {name: value or "" for name, value in attrs}
            assert tag not in ("script", "iframe", "object", "embed")
            loaded.extend(given[name] for name in ("src", "srcset") if name in given)
            if tag in ("link", "image", "use"):
                loaded.append(given.get("href", ""))

    Reader().feed(page)
    assert all(address.startswith(("data:", "#")) for address in loaded)
    assert not re.search(r"@import|url\((?!#)", page)
    for name in ("spectra", "cumulative_variance", "lid", "correlation-1"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    return page


def test_features_with_embeddings_and_labels(here: Any, folder: Path) -> None:
    r, z = normal(300, 12) * torch.linspace(1, 3, 12), normal(300, 12)[:, :4] + 0.3 * normal(300, 4, seed=2)
    labels = torch.arange(300) % 3
    np.save(folder / "r.npy", r.numpy())
    np.save(folder / "z.npy", z.numpy())
    np.save(folder / "y.npy", labels.numpy())
    torch.save({"feats": r, "z": z, "targets": labels}, folder / "all.pt")
    save_file({"features": r, "embeddings": z, "labels": labels}, folder / "all.safetensors")
    runs = {
        "npy": here("diagnose", "r.npy", "--embeddings", "z.npy", "--labels", "y.npy", "--out", "npy"),
        "pt": here("diagnose", "all.pt", "--out", "pt"),
        "safetensors": here("diagnose", "all.safetensors", "--out", "safetensors"),
    }
    for name, run in runs.items():
        assert run.returncode == 0, run.stderr
        (found,) = inputs(folder / name)
        assert found["features"]["effective_rank"] == pytest.approx(
            effective_rank(r, center=True).item(), rel=1e-5
        )
        assert found["features"]["lid"] == pytest.approx(geometric_mean_lid(r, k=32).item(), rel=1e-5)
        assert found["embeddings"]["lid"] == pytest.approx(geometric_mean_lid(z, k=32).item(), rel=1e-5)
        assert found["mutual_information"] == pytest.approx(matrix_mutual_information(r, z).item(), rel=1e-4)
        assert found["verdict"]["kind"] == "healthy" == found["embeddings"]["verdict"]
        assert [line["samples"] for line in found["classes"]] == [100, 100, 100]
        # The classes are random thirds: the variance is within them.
        assert all(0.9 < line["within_variance"] < 1.1 for line in found["classes"])
        assert len(found["features"]["spectrum"]) == 12
        page = check_page(folder / name)
        assert f"{found['features']['lid']:.2f}" in page and f"{found['features']['lid']:.2f}" in run.stdout
        assert "healthy" in run.stdout and "Classes of" in page


def test_the_kinds_of_collapse_side_by_side(here: Any, folder: Path) -> None:
    """The cases that need no network: a point, 5 of 512 dimensions, 2-dimensional sheets, equal rows."""
    centres = 3 * normal(40, 1, 64)
    sheets = centres + torch.rand(40, 80, 2, generator=torch.Generator().manual_seed(1)) @ normal(
        40, 2, 64, seed=2
    )
    cases = {
        "collapsed completely": 0.7 + 1e-7 * normal(400, 32).double(),
        "collapsed globally": normal(400, 5) @ normal(5, 512, seed=1),
        "collapsed locally": sheets.flatten(0, 1),
        "cannot tell": torch.full((400, 32), 0.7),
    }
    names = []
    for kind, features in cases.items():
        names.append(f"{kind.split()[1]}.npy")
        np.save(folder / names[-1], features.numpy())
    run = here("diagnose", *names, "--out", "all")
    assert run.returncode == 0, run.stderr
    found = inputs(folder / "all")
    for each, name, title in zip(found, names, cases, strict=True):
        assert f"{name}: {title}: {each['verdict']['reason']}" in run.stdout
        assert [title.split()[0], *each["verdict"]["ways"]] == title.replace("cannot tell", "cannot").split()
    assert found[1]["features"]["effective_rank"] == pytest.approx(5, rel=0.01)
    assert 1.6 < found[2]["features"]["lid"] < 2.4 and found[2]["features"]["effective_rank"] > 30
    check_page(folder / "all")
    assert (folder / "all" / "correlation-3.png").is_file()


def test_a_checkpoint_brings_its_images(here: Any, folder: Path, few_digits: Path) -> None:
    data = [f"data.{split}_path={few_digits / split}" for split in ("train", "val")]
    options = ["max_epochs=1", "optimizer.batch_size=32", "checkpoint.dir=out", "monitor=null"]
    assert here("pretrain", "-cp", "digits", "-cn", "simclr", *data, *options).returncode == 0
    run = here("diagnose", "out")
    assert run.returncode == 0, run.stderr
    (found,) = inputs(folder / "diagnosis")
    sizes = [(found[name]["samples"], found[name]["dimensions"]) for name in ("features", "embeddings")]
    assert sizes == [(120, 256), (120, 128)]
    assert [line["class"] for line in found["classes"]] == list("0123456789")
    assert "Fewer samples (120) than dimensions (256)" in run.stdout

    val = here("diagnose", "out", "--split", "val", "--out", "val")
    images = here("diagnose", "out", "--images", str(few_digits / "val"), "--out", "images")
    assert val.returncode == images.returncode == 0
    for name in ("features", "embeddings"):
        assert inputs(folder / "val")[0][name] == inputs(folder / "images")[0][name]
    assert inputs(folder / "val")[0]["features"]["samples"] == 40

    # A run without labels has a folder of images and no classes.
    (folder / "flat").mkdir()
    for number, file in enumerate(sorted((few_digits / "train").glob("*/*.png"))):
        (folder / "flat" / f"{number:03}.png").symlink_to(file)
    (arguments,) = folder.glob("out/**/args.json")
    written = json.loads(arguments.read_text())
    written.get("config", written)["data"] |= {
        "train_path": str(folder / "flat"),
        "val_path": None,
        "no_labels": True,
    }
    arguments.write_text(json.dumps(written))
    flat = here("diagnose", "out", "--out", "flat-out")
    assert flat.returncode == 0, flat.stderr
    assert inputs(folder / "flat-out")[0]["features"] == found["features"]
    assert inputs(folder / "flat-out")[0]["classes"] == []


def test_a_timm_model_and_the_pixels(here: Any, folder: Path, few_digits: Path) -> None:
    torch.manual_seed(3)
    model = timm.create_model("test_resnet", num_classes=7).eval()  # its head is left out
    torch.save(model.state_dict(), folder / "w.pth")
    images = ("--images", str(few_digits), "--size", "32")
    assert (
        here("diagnose", "timm/test_resnet", "--weights", "w.pth", *images, "--out", "model").returncode == 0
    )
    assert here("diagnose", "pixels", "test_resnet", *images, "--out", "two").returncode == 0
    (found,) = inputs(folder / "model")
    pixels, untrained = inputs(folder / "two")

    files = sorted((few_digits / "train").glob("*/*.png"))
    raw = torch.stack([to_tensor(Image.open(file)) for file in files])
    assert pixels["features"]["lid"] == pytest.approx(
        geometric_mean_lid(raw.flatten(1), k=32).item(), rel=1e-5
    )
    settings = timm.data.resolve_model_data_config(model)
    mean, std = (torch.tensor(settings[name])[:, None, None] for name in ("mean", "std"))
    with torch.no_grad():
        r = model.forward_head(model.forward_features((raw - mean) / std), pre_logits=True)
    assert found["features"]["effective_rank"] == pytest.approx(
        effective_rank(r, center=True).item(), rel=1e-4
    )
    assert untrained["features"]["effective_rank"] != found["features"]["effective_rank"]
    assert untrained["features"]["samples"] == len(files) and "embeddings" not in untrained


def test_an_untrained_resnet_is_judged_by_its_figures(here: Any, folder: Path, digits: Path) -> None:
    """timm starts residual branches at 0: nearly all of the variance is in one direction."""
    run = here("diagnose", "resnet18", "--images", str(digits), "--split", "val", "--size", "32")
    assert run.returncode == 0, run.stderr
    (found,) = inputs(folder / "diagnosis")
    spectrum = found["features"]["spectrum"]
    assert spectrum[0] > 0.8 * sum(spectrum) and found["features"]["effective_rank"] < 0.05 * 359
    assert found["verdict"]["kind"] == "no verdict"


@pytest.mark.parametrize("factors", most_slow([1, 2, 3, 4, 5], keep=[3]))
def test_the_pixels_of_sprites_have_the_dimension_of_their_factors(
    here: Any, folder: Path, factors: int
) -> None:
    options = ("--factors", str(factors), "--images", "2000", "--size", "16", "--out", "sprites")
    assert here("data", "sprites", *options).returncode == 0
    assert here("diagnose", "pixels", "--images", "sprites", "--size", "16").returncode == 0
    (found,) = inputs(folder / "diagnosis")
    assert found["features"]["lid"] == pytest.approx(factors, rel=0.15)
    assert [line["class"] for line in found["classes"]] == ["drop", "hook", "moon"]


def test_folders_without_classes_and_torchvision_data_sets(here: Any, folder: Path) -> None:
    rows = (normal(70, 6, 6) * 40 + 128).clamp(0, 255).byte().numpy()
    flat, raw = folder / "flat", folder / "root" / "MNIST" / "raw"
    flat.mkdir()
    raw.mkdir(parents=True)
    for i, row in enumerate(rows):
        Image.fromarray(row).save(flat / f"{i:03d}.png")
    for part in ("train", "t10k"):
        images = struct.pack(">4B3I", 0, 0, 8, 3, 70, 6, 6) + rows.tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(images)
        labels = struct.pack(">4BI", 0, 0, 8, 1, 70) + bytes(i % 10 for i in range(70))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    assert here("diagnose", "pixels", "--size", "6", "--images", "flat", "--out", "a").returncode == 0
    mnist = ("--images", "root", "--dataset", "mnist", "--split", "val")
    assert here("diagnose", "pixels", "--size", "6", *mnist, "--out", "b").returncode == 0
    (one,), (other,) = inputs(folder / "a"), inputs(folder / "b")
    assert one["features"] == other["features"] and one["features"]["dimensions"] == 108
    assert one["classes"] == [] and len(other["classes"]) == 10


class Evil:
    """Unpickled, it would leave a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("EXECUTED"),)


@pytest.fixture
def damaged(folder: Path) -> Path:
    """Files with everything that can be wrong with a feature file, or with weights."""
    x = normal(100, 8).numpy()
    np.save(folder / "ok.npy", x)
    whole = (folder / "ok.npy").read_bytes()
    (folder / "truncated.npy").write_bytes(whole[:-40])
    (folder / "header.npy").write_bytes(whole[:30])
    (folder / "empty.npy").touch()
    (folder / "text.npy").write_text("no array")
    np.save(folder / "no-rows.npy", x[:0])
    np.save(folder / "cube.npy", x[None])
    np.save(folder / "complex.npy", x + 1j)
    np.save(folder / "words.npy", np.array([["a"]]))
    np.save(folder / "two.npy", x[:2])
    np.save(folder / "nan.npy", np.where(np.arange(800).reshape(100, 8) == 563, np.nan, x))
    np.save(folder / "inf.npy", np.where(np.arange(800).reshape(100, 8) == 563, np.inf, x))
    np.save(folder / "labels99.npy", np.arange(99))
    np.save(folder / "huge.npy", x.astype(np.float64) * 1e200)
    torch.save(torch.zeros(9, 4).to(torch.float8_e4m3fn), folder / "float8.pt")
    (folder / "broken" / "c").mkdir(parents=True)
    for name in ("a", "b", "bad"):
        Image.new("RGB", (64, 64), "red").save(folder / "broken" / "c" / f"{name}.png")
    (folder / "broken" / "c" / "bad.png").write_bytes((folder / "broken" / "c" / "a.png").read_bytes()[:90])
    save_file({"features": torch.from_numpy(x)}, folder / "ok.safetensors")
    (folder / "truncated.safetensors").write_bytes((folder / "ok.safetensors").read_bytes()[:-50])
    torch.save(torch.from_numpy(x), folder / "ok.pt")
    (folder / "truncated.pt").write_bytes((folder / "ok.pt").read_bytes()[:-300])
    torch.save({"conv.weight": torch.ones(3, 3), "conv.bias": torch.ones(3)}, folder / "weights.pt")
    torch.save({"features": torch.from_numpy(x), "more": Evil()}, folder / "evil.pt")
    with (folder / "plain.pt").open("wb") as file:
        pickle.dump(Evil(), file)
    np.save(folder / "evil.npy", np.array([Evil(), 1], dtype=object), allow_pickle=True)
    torch.save({"state_dict": Evil()}, folder / "evil.ckpt")
    (folder / "args.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.npy"], ["nowhere.npy: no such file"]),
        (["empty.npy"], ["empty.npy: is empty"]),
        (["truncated.npy"], ["truncated.npy: cannot be read"]),
        (["header.npy"], ["header.npy: cannot be read"]),
        (["text.npy"], ["text.npy: cannot be read"]),
        (["truncated.safetensors"], ["truncated.safetensors: cannot be read"]),
        (["truncated.pt"], ["truncated.pt: cannot be read"]),
        (["no-rows.npy"], ["features have shape (0, 8)"]),
        (["cube.npy"], ["features have shape (1, 100, 8)"]),
        (["complex.npy"], ["complex.npy", "floating-point numbers"]),
        (["words.npy"], ["words.npy: cannot be read"]),
        (["two.npy"], ["2 samples are too few"]),
        (["nan.npy"], ["nan.npy: features are not finite", "row 70"]),
        (["ok.npy", "inf.npy"], ["inf.npy: features are not finite", "row 70"]),
        (["ok.npy", "--embeddings", "nan.npy"], ["embeddings are not finite", "row 70"]),
        (["ok.npy", "--labels", "labels99.npy"], ["labels99.npy: 99 labels for 100 features"]),
        (["ok.npy", "--labels", "ok.npy"], ["ok.npy: labels are torch.float32", "integers"]),
        (["ok.npy", "--embeddings", "two.npy"], ["two.npy: 2 embeddings for 100 features"]),
        (["ok.npy", "ok.pt", "--labels", "labels99.npy"], ["belong to one input"]),
        (["huge.npy"], ["huge.npy: features are not finite", "row 0"]),
        (["float8.pt"], ["float8", "floating-point numbers"]),
        (["ok.npy", "--weights", "weights.pt"], ["--weights: is for a timm model"]),
        (["ok.npy", "--images", "DIGITS"], ["--images", "needs no images"]),
        (["pixels", "--images", "broken"], ["broken/c/bad.png: cannot be read as an image"]),
        (["pixels", "--images", "broken", "--num-workers", "1"], ["broken/c/bad.png: cannot be read"]),
        (["weights.pt"], ["weights.pt: has no tensor named features", "--weights"]),
        (["evil.pt"], ["evil.pt", "could run code"]),
        (["plain.pt"], ["plain.pt", "could run code"]),
        (["evil.npy"], ["evil.npy: cannot be read"]),
        (["evil.ckpt"], ["args.json"]),
        (["resnte18", "--images", "."], ["neither a file", "Did you mean"]),
        (["resnet18"], ["--images: is missing; resnet18 is no file or folder"]),
        (["resnet18", "--images", "nowhere"], ["--images: 'nowhere' does not exist"]),
        (["resnet18", "--images", "ok.npy"], ["--images: 'ok.npy' is a file"]),
        (
            ["resnet18", "--images", "DIGITS", "--weights", "weights.pt"],
            ["--weights: weights.pt", "Missing key"],
        ),
        (["resnet18", "--images", "DIGITS", "--weights", "plain.pt"], ["--weights: plain.pt"]),
        (["resnet18", "--images", "DIGITS", "--labels", "ok.npy"], ["--labels: is for a feature file"]),
        (["pixels", "--images", "DIGITS", "--dataset", "cifr10"], ["'cifr10'", "Did you mean 'cifar10'"]),
        (["pixels", "--images", "DIGITS", "--dataset", "cifar10"], ["cifar10 is not intact"]),
    ],
)
def test_what_cannot_be_diagnosed_is_one_line(
    here: Any, damaged: Path, few_digits: Path, arguments: list[str], words: list[str]
) -> None:
    given = [str(few_digits) if argument == "DIGITS" else argument for argument in arguments]
    run = here("diagnose", *given, "--out", "out")
    assert run.returncode == 2
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in run.stderr
    for word in words:
        assert word in errors[0]
    assert not (damaged / "out").exists() and not (damaged / "EXECUTED").exists()


def test_a_split_that_is_not_there_is_refused(here: Any, folder: Path, few_digits: Path) -> None:
    (folder / "images").mkdir()
    (folder / "images" / "train").symlink_to(few_digits / "train")
    run = here("diagnose", "pixels", "--images", "images", "--split", "val")
    assert run.returncode == 2 and "--split: 'images' has no folder 'val', only 'train'" in run.stderr


def test_inputs_of_one_name_are_told_apart(here: Any, folder: Path) -> None:
    for name in ("a", "b"):
        (folder / name).mkdir()
        np.save(folder / name / "features.npy", normal(60, 5, seed=ord(name)).numpy())
    assert here("diagnose", "a/features.npy", "b/features.npy", "a/features.npy").returncode == 0
    out = folder / "diagnosis"
    names = ["a/features.npy (1)", "b/features.npy", "a/features.npy (3)"]
    assert [each["name"] for each in inputs(out)] == names
    assert (out / "correlation-3.png").is_file()


def test_more_samples_than_are_kept(here: Any, folder: Path) -> None:
    """The LID is that among all 12,000, and the classes have theirs from the points that were chosen."""
    features = torch.cat([normal(6000, 3) @ normal(3, 8, seed=1), 50 + normal(6000, 8, seed=2)])
    labels = torch.arange(12_000) // 6000
    save_file({"features": features, "labels": labels}, folder / "many.safetensors")
    assert here("diagnose", "many.safetensors").returncode == 0
    (found,) = inputs(folder / "diagnosis")
    chosen = random_indices(12_000)
    lids = local_intrinsic_dimensionality(features[chosen], features, k=32, self_indices=chosen)
    assert found["features"]["lid"] == pytest.approx(lids.log().mean().exp().item(), rel=1e-3)
    for line, label in zip(found["classes"], (0, 1), strict=True):
        own = lids[labels[chosen] == label].log().mean().exp().item()
        assert line["lid"] == pytest.approx(own, rel=1e-3)
    assert sum(line["samples"] for line in found["classes"]) == 10_000


def test_an_output_folder_that_cannot_be_is_refused_at_once(here: Any, damaged: Path) -> None:
    run = here("diagnose", "ok.npy", "--out", "ok.npy/x")
    assert run.returncode == 2 and "--out: 'ok.npy/x' cannot be used" in run.stderr
    assert "sample" not in run.stderr  # nothing was read


def test_a_checkpoint_of_another_architecture(here: Any, folder: Path, few_digits: Path) -> None:
    data = [f"data.{split}_path={few_digits / split}" for split in ("train", "val")]
    options = [
        "max_epochs=1",
        "optimizer.batch_size=32",
        "checkpoint.dir=out",
        "backbone.name=timm/test_resnet",
        "~backbone.kwargs",
    ]
    assert here("pretrain", "-cp", "digits", "-cn", "simclr", *data, *options).returncode == 0
    (checkpoint,) = folder.glob("out/*/*/*.ckpt")
    arguments = checkpoint.with_name("args.json")
    arguments.write_text(arguments.read_text().replace("timm/test_resnet", "timm/resnet10t"))
    run = here("diagnose", "out", "--out", "found")
    assert run.returncode == 2 and "is not an intact checkpoint of the simclr" in run.stderr
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    run = here("diagnose", "out", "--out", "found")
    assert run.returncode == 2 and "is not an intact checkpoint" in run.stderr
    assert not (folder / "found").exists()


def test_solo_learns_umap_joins_the_page(here: Any, folder: Path, few_digits: Path) -> None:
    pytest.importorskip("umap", reason="needs the extra umap")
    options = ("--images", str(few_digits), "--size", "32")
    assert here("diagnose", "test_resnet", *options, "--out", "with").returncode == 0
    assert here("diagnose", "test_resnet", *options, "--no-umap", "--out", "without").returncode == 0
    colours = Image.open(folder / "with" / "umap-1.png").convert("RGB").getcolors(2**24)
    assert colours is not None and len(colours) > 50  # points of ten classes, not an empty plot
    assert '<img alt="UMAP of test_resnet' in check_page(folder / "with")
    assert not list((folder / "without").glob("umap*"))
    assert inputs(folder / "with") == inputs(folder / "without")
