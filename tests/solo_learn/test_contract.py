"""The names of solo-learn that we rely on exist, and behave as we need where no other test shows that.

Shown elsewhere, with real methods: ``out["loss"]`` joins the loss of every method, each of which calls
``super().training_step`` (test_every_method.py); the constructors take blocks that they do not know
(test_registration.py); ``save_checkpoint`` of a trainer and ``save`` of a checkpointer may be replaced on the
object (test_divergence.py); auto-resume finds what the checkpointer wrote (tests/training/test_resume.py).
"""

from __future__ import annotations

import ast
import importlib
import json
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import torch
from support import BATCH, build, small, train_steps
from torch.utils.data import TensorDataset

import solo_dimreg
from solo_dimreg.files import checkpoint_epoch
from solo_dimreg.solo_learn import Host
from solo_dimreg.solo_learn.contract import BOTH, OWN, missing_names

PACKAGE = Path(solo_dimreg.__file__).parent
# Modules that import the optional packages for DALI and UMAP.
EXTRAS = {
    "current": {
        "solo.utils.auto_umap": "OfflineUMAP.plot",
        "solo.data.dali_dataloader": "build_transform_pipeline_dali PretrainDALIDataModule",
    },
    "published": {"solo.utils.auto_umap": "AutoUMAP.plot", "solo.methods.dali": "PretrainABC"},
}


def test_the_solo_learn_that_is_here_has_all_names(host: Host) -> None:
    assert missing_names(host.generation) == []


@pytest.mark.parametrize(("package", "number"), [("umap", 0), ("nvidia.dali", 1)])
def test_the_modules_of_an_installed_extra_have_all_names(host: Host, package: str, number: int) -> None:
    pytest.importorskip(package)
    module, names = list(EXTRAS[host.generation].items())[number]
    for name in names.split():
        attrgetter(name)(importlib.import_module(module))


def test_every_name_that_the_package_imports_is_listed() -> None:
    tables = (BOTH, *OWN.values(), *EXTRAS.values())
    listed = {f"{module}.{name}" for table in tables for module in table for name in table[module].split()}
    prefixes = {name[:end] for name in listed for end, letter in enumerate(name) if letter == "."} | listed
    imported = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "solo":
                imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    assert len(imported) > 15 and imported <= prefixes


def test_a_name_that_is_gone_is_noticed(host: Host, monkeypatch: pytest.MonkeyPatch, here: Any) -> None:
    monkeypatch.delattr("solo.utils.knn.WeightedKNNClassifier")
    faults = missing_names(host.generation)
    assert faults == [
        "solo.utils.knn has no WeightedKNNClassifier.update",
        "solo.utils.knn has no WeightedKNNClassifier.compute",
    ]
    done = here("doctor")
    assert done.returncode == 1 and all(f"{fault}. To fix it: " in done.stdout for fault in faults)


@pytest.mark.parametrize("reason", ["No module named 'x'", "cannot import name 'x' from 'solo.utils.misc'"])
def test_a_module_that_does_not_import_is_noticed(
    host: Host, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    def without(name: str, *rest: Any) -> Any:
        if name == "solo.utils.knn":
            raise ImportError(reason)
        return load(name, *rest)

    load = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", without)
    assert missing_names(host.generation) == [f"solo.utils.knn does not import ({reason})"]


def test_the_methods_are_one_table(host: Host) -> None:
    assert importlib.import_module("solo.methods").METHODS is host.methods
    assert {"simclr", "byol", "base", "linear"} <= set(host.methods)


@pytest.mark.parametrize("name", ["simclr", "byol"])
def test_what_the_base_class_returns_and_a_method_has(
    host: Host, few_digits: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Our hooks read it: features of each view, and the classifier's loss, once a step."""
    momentum = name == "byol"
    base = host.momentum_method if momentum else host.base_method
    original, seen = base.training_step, []

    def watched(self: Any, batch: Any, batch_idx: int) -> Any:
        seen.append(original(self, batch, batch_idx))
        return seen[-1]

    monkeypatch.setattr(base, "training_step", watched)
    model = build(small(few_digits, name), host)
    assert (model.batch_size, model.num_large_crops) == (BATCH, 2)
    train_steps(host, model, steps=2)
    assert len(seen) == 2
    for out in seen:
        assert out["loss"].ndim == 0 and out["loss"].requires_grad
        assert [view.shape for view in out["feats"]] == [(BATCH, model.features_dim)] * 2
        if momentum:
            assert not any(view.requires_grad for view in out["momentum_feats"])
    learned = {id(parameter) for group in model.learnable_params for parameter in group["params"]}
    for module in (host.backbone(model), model.classifier, model.projector):
        assert {id(parameter) for parameter in module.parameters()} <= learned
    assert hasattr(model, "momentum_updater") is momentum
    if momentum:
        assert 0.9 < model.momentum_updater.cur_tau <= 1 and model.last_step == 2


def test_the_checkpointer_writes_weights_and_arguments(host: Host, few_digits: Path, tmp_path: Path) -> None:
    settings = small(few_digits, checkpoint={"enabled": True, "dir": str(tmp_path), "frequency": 1})
    arguments = host.pretraining_arguments(settings)
    method, saver = host.build_method(arguments), host.checkpointer(arguments, tmp_path / "simclr")
    trainer = host.pl.Trainer(
        max_epochs=2, accelerator="cpu", devices=1, callbacks=[saver], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, logger=False, limit_train_batches=1,
    )  # fmt: skip
    trainer.fit(method, **host.training_data(arguments))
    folder = Path(saver.path)
    assert (folder.parent, saver.frequency) == (tmp_path / "simclr", 1)
    (checkpoint,) = folder.glob("*.ckpt")  # the one before is removed
    assert checkpoint_epoch(checkpoint) == 1
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert torch.equal(state["classifier.weight"], method.classifier.weight)
    assert json.loads((folder / "args.json").read_text())["method"] == "simclr"


def test_the_loaders_of_the_evaluation(host: Host) -> None:
    """A probe is validated with the second, which neither shuffles nor drops; the first does both."""
    images = TensorDataset(torch.arange(65.0), torch.arange(65))
    train, val = host.evaluation_loaders(images, images, batch_size=2, num_workers=0)
    drawn, read = (torch.cat([x for x, _ in loader]) for loader in (train, val))
    assert torch.equal(read, torch.arange(65.0))
    assert len(drawn) == 64 and not torch.equal(drawn, read[:64])
