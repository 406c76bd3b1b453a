"""The profile of the layers: where it falls, and what it measures of feature maps and tokens."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support import small
from torch import Tensor, nn

from solo_dimreg import diagnose
from solo_dimreg.diagnosis.checkpoints import Checkpoint, Course
from solo_dimreg.diagnosis.classes import collapsed_classes, mark_collapsed
from solo_dimreg.diagnosis.layer_profile import DECIMALS, Layer, LayerProfile
from solo_dimreg.diagnosis.layers import LayerRecorder, blocks_of, diagnose_with_layers
from solo_dimreg.diagnosis.sources.opening import Source
from solo_dimreg.errors import ConfigError
from solo_dimreg.functional import dense_structure, effective_rank, mean_share, off_diagonal_correlation
from solo_dimreg.metrics.intervals import with_interval
from solo_dimreg.metrics.numbers import Space
from solo_dimreg.metrics.registry import METRICS
from solo_dimreg.monitor.named_modules import OutputRecorder, pooled_rows, positions_of
from solo_dimreg.training.pretraining import pretrain


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Block(nn.Module):
    """A residual block, or one through a bottleneck of two channels."""

    def __init__(self, narrow: bool = False) -> None:
        super().__init__()
        middle = 2 if narrow else 32
        self.first, self.second = nn.Conv2d(16, middle, 1), nn.Conv2d(middle, 16, 1)
        self.narrow = narrow

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)) if self.narrow else x + self.second(self.first(x).relu())


class Network(nn.Module):
    def __init__(self, narrow: int | None = None, out: int = 16) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        blocks = nn.Sequential(*(Block(i == narrow) for i in range(4)))
        self.backbone = nn.Sequential(stem, blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.projector = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Dropout(), nn.Linear(24, out))

    def forward(self, images: Tensor) -> Tensor:
        return self.projector(self.backbone(images))


def network(*arguments: Any) -> Network:
    torch.manual_seed(0)
    return Network(*arguments).eval()


def profile(model: nn.Module, images: Tensor) -> LayerProfile:
    found = diagnose(model, images.split(64), features="backbone", layers=True).layers
    assert found is not None
    return found


NAMES = [
    *("backbone.0.2", "backbone.1.0", "backbone.1.1", "backbone.1.2", "backbone.1.3"),
    *("projector.1", "projector.3"),
]


def test_the_sentence_names_the_layer_that_collapses() -> None:
    images = normal(300, 3, 16, 16)
    healthy = profile(network(), images)
    assert [layer.name for layer in healthy.layers] == NAMES
    assert healthy.sentence.startswith("No layer of the backbone loses half of the effective rank: ")
    fallen = profile(network(2), images)
    assert [layer.name for layer in fallen.layers] == NAMES
    assert "The backbone collapses between 1.1 and 1.2: effective rank " in fallen.sentence
    assert 1 <= fallen.layers[3].effective_rank <= 2.001
    # The projector has only these two dimensions, and none to lose.
    assert "The projector " in fallen.sentence and "projector collapses" not in fallen.sentence


def test_a_projector_that_collapses_is_named() -> None:
    model = network(None, 32)
    with torch.no_grad():
        model.projector[3].weight[1:] = model.projector[3].weight[0]
    said = profile(model, normal(300, 3, 16, 16)).sentence
    assert "The projector collapses between projector.1 and projector.3: effective rank " in said
    assert said.endswith("to 1.0 of 32.")


def test_metrics_are_those_of_the_pooled_features() -> None:
    model, images = network(), normal(300, 3, 16, 16)
    found = profile(model, images)
    assert found.samples == 300 and len(found.layers) == len(NAMES)
    with torch.no_grad():
        for layer in found.layers:
            part, _, number = layer.name.rpartition(".")
            x = model.backbone[0](images)
            if part != "backbone.0":
                x = model.backbone[1][: int(number) + 1](x) if part == "backbone.1" else model.backbone[1:](x)
            if part == "projector":
                x = model.projector[: int(number) + 1](x)
            rows = x.mean(dim=(2, 3)) if x.dim() == 4 else x
            assert (layer.dimensions, layer.attainable) == (rows.shape[1], min(299, rows.shape[1]))
            rank = effective_rank(rows, center=True).item()
            assert layer.effective_rank == pytest.approx(rank, rel=1e-4)
            assert layer.mean_share == pytest.approx(mean_share(rows).item(), rel=1e-3)
            correlation = off_diagonal_correlation(rows).item()
            assert layer.off_diagonal_correlation == pytest.approx(correlation, rel=1e-3)
            assert layer.lid == pytest.approx(METRICS["lid"].function(rows).item(), rel=1e-4)
            if x.dim() == 4:
                maps = x.flatten(2).mT
                few = [start + i * size // 8 for start, size in ((0, 64), (256, 44)) for i in range(8)]
                few += [start + 8 * i for start in (64, 128, 192) for i in range(8)]
                within = torch.stack([effective_rank(maps[i], center=True) for i in few]).mean()
                assert layer.within_rank == pytest.approx(within.item(), rel=1e-3)
            else:
                assert layer.positions == 1 and layer.within_rank is None


def test_of_more_images_some_rows_are_kept_and_no_map() -> None:
    model, maps = network(), []
    for block in model.backbone[1]:
        block.register_forward_hook(lambda m, i, output: maps.append(weakref.ref(output)))
    with LayerRecorder(model, "backbone", "projector", count=3000) as recorder, torch.no_grad():
        recorder.is_open = True
        for seed in range(6):
            model(normal(500, 3, 16, 16, seed=seed))
            recorder.take(500)
        assert len(maps) == 24 and all(each() is None for each in maps)
        kept = [rows for layer in recorder._layers.values() for rows in (*layer.rows, *layer.tokens)]
        assert all(rows.dim() == 2 for rows in kept)
    assert recorder.profile().samples == 1500  # every second
    assert not any(module._forward_hooks for module in model.projector)


def test_a_source_is_recorded_once_whatever_else_reads_it() -> None:
    """Of more than 10,000 images, the search for neighbours reads some again, and all if some are equal."""
    count, batch = 10_240, 1024
    torch.manual_seed(0)
    images, model = normal(count, 6), nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 5)).eval()
    images[-1] = images[0]
    passes = []

    @torch.no_grad()
    def batches(indices: Sequence[int] | None) -> Iterator[Any]:
        passes.append(indices is None)
        for rows in (images if indices is None else images[indices]).split(batch):
            yield model(rows), None, None

    found = diagnose_with_layers(Source("x", "x", count, batches, model=model))
    assert passes.count(True) == 2 and passes.count(False) == 2
    assert found.layers is not None and [layer.name for layer in found.layers.layers] == ["1", "2"]
    assert found.layers.samples == 2048
    with torch.no_grad():
        expected = effective_rank(model[:2](images[::5]), center=True).item()
    assert found.layers.layers[0].effective_rank == pytest.approx(expected, rel=1e-4)


def test_the_tokens_of_a_vit() -> None:
    torch.manual_seed(0)
    model, images = timm.create_model("test_vit", img_size=32, num_classes=0).eval(), normal(40, 3, 32, 32)
    found = diagnose(model, [images], layers=True).layers
    assert found is not None
    names = [layer.name for layer in found.layers]
    assert names[0] == "patch_embed" and names[-2:] == [f"blocks.{len(model.blocks) - 1}", "norm"]
    with torch.no_grad():
        tokens = model.forward_features(images)[:, model.num_prefix_tokens :]
    last = found.layers[-1]
    assert last.positions == tokens.shape[1] == 4
    expected = effective_rank(tokens.mean(dim=1), center=True).item()
    assert last.effective_rank == pytest.approx(expected, rel=1e-4)
    ranks = [effective_rank(tokens[i], center=True) for i in range(0, 40, 5)]
    assert last.within_rank == pytest.approx(torch.stack(ranks).mean().item(), rel=1e-4)
    assert last.across_rank is not None and 1 < last.across_rank <= 39
    assert found.dense["layer"] == "norm" and found.dense["images"] == 40
    assert found.dense["dse"] == pytest.approx(dense_structure(tokens).estimate.item(), rel=1e-5)
    low, high = found.dense["intervals"]["dse"]
    assert low < found.dense["dse"] < high
    assert (
        f"DSE {with_interval(found.dense['dse'], (low, high), 3)} at norm: distance" in found.dense_sentence
    )
    for layer in found.layers:
        assert all(ends is not None for ends in layer.intervals.values())
        low, high = layer.intervals["across_rank"]  # type: ignore[misc]
        assert 1 <= low < layer.across_rank < high <= layer.attainable  # type: ignore[operator]
    assert {*layer.intervals} == {*DECIMALS} and all(
        "±" in cell or "to" in cell for cell in found.rows[-1][2:]
    )


def test_pooling_stays_in_one_compiled_graph() -> None:
    model, seen = nn.Sequential(nn.Linear(6, 8)), []
    OutputRecorder("layers", model[0], lambda rows: seen.append(rows.clone()), pooled_rows)
    tokens = normal(4, 17, 6)
    with torch.no_grad():
        out = torch.compile(model, backend="eager", fullgraph=True)(tokens)
    torch.testing.assert_close(seen, [out[:, 1:].mean(dim=1)])


def test_the_outputs_that_have_positions() -> None:
    rows, maps = normal(5, 7), normal(5, 7, 3, 4)
    assert torch.equal(positions_of((rows, None)), rows[:, None])  # type: ignore[arg-type]
    assert torch.equal(positions_of(maps), maps.flatten(2).mT)  # type: ignore[arg-type]
    last = normal(5, 4, 4, 7)
    assert torch.equal(positions_of(last), last.flatten(1, 2))  # type: ignore[arg-type]
    tokens = normal(5, 1 + 16, 7)
    assert torch.equal(positions_of(tokens), tokens[:, 1:])  # type: ignore[arg-type]
    assert positions_of(normal(5)) is None and positions_of(rows.long()) is None and positions_of({}) is None


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("test_resnet", "layer2.0"),
        ("test_convnext", "stages.0.blocks.0"),
        ("test_efficientnet", "blocks.1.0"),
    ],
)
def test_the_blocks_of_timm_models(name: str, blocks: str) -> None:
    names = blocks_of(timm.create_model(name, num_classes=0))
    assert blocks in names
    assert not any(each.startswith(f"{blocks}.") for each in names)


def layer(name: str, rank: float, attainable: int = 100, part: str = "backbone") -> Layer:
    return Layer(name, part, attainable, 1, attainable, rank, 5.0, 0.1, 0.1)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([layer("a", 40), layer("b", 10)], "The backbone collapses between a and b"),
        ([layer("a", 40), layer("b", 18)], "The backbone loses most between a and b"),
        ([layer("a", 40), layer("b", 25), layer("c", 16)], "The backbone thins out from a to c"),
        # A narrow layer fills its dimensions, and wider ones after it fill no more.
        (
            [layer("a", 27.2, 32), layer("b", 2, 2), layer("c", 2, 16)],
            "The backbone collapses between a and b: effective rank 27.2 of 32 to 2.0 of 2, and c has 2.0",
        ),
        # More channels lower the share, and fewer the rank; neither alone is a loss.
        ([layer("a", 40), layer("b", 40, 1000)], "No layer of the backbone loses half"),
        ([layer("a", 40), layer("b", 8, 10)], "No layer of the backbone loses half"),
        ([layer("a", 40), layer("p.0", 22, part="p")], "The p loses 45% of what is left"),
        ([layer("a", 40), layer("p.0", 5, part="p")], "The p collapses between a and p.0"),
        ([layer("a", 40), layer("p.0", 50, part="p")], "The p keeps what is left"),
    ],
)
def test_the_rule_of_the_sentence(layers: list[Layer], said: str) -> None:
    assert said in LayerProfile(layers, 200, {}).sentence


def test_classes_with_collapsed_neighbourhoods_are_named() -> None:
    torch.manual_seed(0)
    features = torch.cat([torch.randn(100, 8) for _ in range(3)] + [9 + torch.randn(100, 1) * torch.ones(8)])
    features[300:] += 0.01 * torch.randn(100, 8)
    labels = torch.arange(4).repeat_interleave(100)
    result = diagnose(features, labels=labels)
    assert [line["collapsed"] for line in result.classes] == [False, False, False, True]
    assert collapsed_classes(result.classes).startswith("The neighbourhoods of 1 of 4 classes have collapsed")
    assert ">collapsed<" in result._repr_html_() and "neighbourhoods of 1 of 4" in result._repr_html_()
    few = mark_collapsed(
        [{"class": "a", "samples": 5, "lid": 1.0}, {"class": "b", "samples": 50, "lid": None}]
    )
    assert collapsed_classes(few) == ""


def test_what_has_no_layers_is_one_line(here: Any, tmp_path: Path) -> None:
    torch.save(torch.randn(50, 4), tmp_path / "x.pt")
    for given in (["x.pt"], ["pixels", "--images", "."]):
        run = here("diagnose", *given, "--layers")
        assert run.returncode == 2 and "--layers: " in run.stderr and "has no network" in run.stderr
    with pytest.raises(ConfigError, match="has no network"):
        diagnose(tmp_path / "x.pt", layers=True)
    with pytest.raises(ConfigError, match=r"only a torch\.nn\.Module"):
        diagnose(lambda x: x, [torch.randn(50, 4)], layers=True)
    with pytest.raises(ConfigError, match="no module of the network returns"):
        diagnose(nn.Identity(), [torch.randn(50, 4)], layers=True)


@pytest.fixture(scope="module")
def run(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with three checkpoints."""
    folder = tmp_path_factory.mktemp("run")
    settings = small(few_digits, "simclr", max_epochs=3)
    settings.checkpoint = {"enabled": True, "dir": str(folder), "frequency": 1, "keep_prev": True}
    settings.monitor = {
        "layers": ["backbone.layer3", "projector.0"],
        "metrics": ["effective_rank", "lid"],
    }
    pretrain(settings)
    return folder


def test_layers_over_the_checkpoints_of_a_run(here: Any, run: Path, few_digits: Path, tmp_path: Path) -> None:
    images = str(few_digits / "val")
    done = here("diagnose", str(run), "--layers", "--checkpoints", "--no-umap", "--images", images)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "diagnosis" / "diagnosis.json").read_text())
    course = found["training"]["checkpoints"]
    assert [each["epoch"] for each in course] == [0, 1, 2]
    last = found["inputs"][0]
    assert course[2]["features"]["effective_rank"] == last["features"]["effective_rank"]
    assert course[0]["features"]["effective_rank"] != last["features"]["effective_rank"]
    assert course[2]["layers"] == last["layers"]
    assert last["layers"]["sentence"] in done.stdout and found["training"]["sentence"] in done.stdout
    # The last layers are the features and the embeddings of the same diagnosis.
    parts = {layer["part"]: layer for layer in last["layers"]["profile"]}
    assert [*parts] == ["backbone", "projector"]
    for part, kind in (("backbone", "features"), ("projector", "embeddings")):
        assert parts[part]["effective_rank"] == pytest.approx(last[kind]["effective_rank"], rel=1e-3)
        assert parts[part]["lid"] == pytest.approx(last[kind]["lid"], rel=1e-3)
    assert not any("classifier" in layer["name"] for layer in last["layers"]["profile"])
    python = diagnose(run, layers=True).layers  # of the last checkpoint, on its own images
    assert python is not None and python.samples == 120
    assert [each.name for each in python.layers] == [each["name"] for each in last["layers"]["profile"]]
    page = (tmp_path / "diagnosis" / "diagnosis.html").read_text()
    assert "Over the training" in page and "Layers of simclr" in page
    for name in ("training", "layers-1"):
        assert (tmp_path / "diagnosis" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def space_of(rank: float, moved: torch.Tensor | None = None) -> Space:
    none, deviations = torch.empty(0), {} if moved is None else {"effective_rank": moved * rank}
    return Space({"effective_rank": float(rank)}, none, none, none, none, {}, deviations, 0.0)


@pytest.mark.parametrize(
    ("ranks", "said"),
    [
        (
            [30, 60, 40],
            "The features keep their effective rank: 30.0 at epoch 0, 60.0 at epoch 1, 40.0 at epoch 2.",
        ),
        ([30, 60, 50, 24], "The features lose 60% of their effective rank after epoch 1: "),
        ([60, 55, 9, 3], "it falls most from 55.0 at epoch 1 to 9.0 at epoch 2."),
        (
            [60, 9, 8],
            "The features collapse after epoch 0: effective rank 60.0 at epoch 0 and 8.0 at epoch 2;",
        ),
    ],
)
def test_the_sentence_over_the_training(ranks: list[float], said: str) -> None:
    course = [
        Checkpoint("x.ckpt", epoch, "healthy", {"features": space_of(rank)}, None)
        for epoch, rank in enumerate(ranks)
    ]
    assert said in Course(course).sentence


@pytest.mark.parametrize(
    ("ranks", "spread", "said"),
    [
        (
            (200.1, 172.3),
            0.1,
            " fell from 200.1 at epoch 0 to 172.3 at epoch 1 (86% of its peak is left",
        ),
        ((172.3, 200.1), 0.1, " rose from 172.3 at epoch 0 to 200.1 at epoch 1."),
        ((200.1, 172.3), 1, "The features keep their effective rank: "),
    ],
)
def test_a_certain_change_is_said(ranks: tuple[float, float], spread: float, said: str) -> None:
    moved = spread * torch.linspace(-1, 1, 50)
    course = [
        Checkpoint("x.ckpt", epoch, "healthy", {"features": space_of(rank, moved)}, None)
        for epoch, rank in enumerate(ranks)
    ]
    assert said in Course(course).sentence


def test_runs_without_several_checkpoints_are_refused(here: Any, run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "one").mkdir()
    (arguments,) = run.rglob("args.json")
    (tmp_path / "one" / "args.json").symlink_to(arguments)
    (tmp_path / "one" / "a-ep=0.ckpt").symlink_to(next(run.rglob("*ep=0.ckpt")))
    for given, reason in (
        (["one"], "one checkpoint only"),
        (["one/a-ep=0.ckpt"], "is a file; give the folder of a run"),
        (["nowhere"], "does not exist"),
        (["empty"], "must hold one run"),
        (["one", "empty"], "takes one run, not 2 inputs"),
    ):
        done = here("diagnose", *given, "--checkpoints")
        assert done.returncode == 2 and reason in done.stderr and done.stderr.count("\n") == 1


def test_the_monitor_looks_at_named_layers(run: Path) -> None:
    (table,) = run.rglob("dimensionality.csv")
    header = table.read_text().splitlines()[0].split(",")
    for name in ("backbone.layer3/effective_rank", "projector.0/lid", "effective_rank", "z_lid"):
        assert name in header


def test_a_layer_that_is_not_there_is_refused_before_the_training(few_digits: Path, tmp_path: Path) -> None:
    settings = small(few_digits, "simclr", monitor={"layers": ["backbone.layre3"]})
    settings.checkpoint = {"enabled": True, "dir": str(tmp_path), "frequency": 1, "keep_prev": False}
    with pytest.raises(
        ConfigError, match=r"monitor\.layers: .*'backbone\.layre3' is not .*Did you mean 'backbone\.layer3'"
    ):
        pretrain(settings)
    assert not [*tmp_path.rglob("*.ckpt")]
