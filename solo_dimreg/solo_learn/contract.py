"""List the names of solo-learn and its Lightning that we use, and find what is missing, of them and for them.

The tests on real methods show how they behave. Nothing is built here, so that ``solo-dimreg doctor`` can name
what a newer solo-learn has changed, and every package that solo-learn lacks at once.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from operator import attrgetter

# The names by module, separated by spaces. ``pl`` is the Lightning of either solo-learn; what its classes are
# known for is left out.
BOTH = {
    "solo.methods": "METHODS",
    "solo.methods.base": """
        BaseMethod.training_step BaseMethod.learnable_params BaseMethod.forward
        BaseMethod.configure_optimizers BaseMomentumMethod.training_step pl.Callback pl.LightningModule
        pl.Trainer pl.callbacks.LearningRateMonitor pl.loggers.CSVLogger pl.loggers.WandbLogger
        pl.seed_everything
    """,
    "solo.methods.linear": "LinearModel",
    "solo.utils.checkpointer": "Checkpointer.save Checkpointer.save_args Checkpointer.initial_setup",
    "solo.utils.knn": "WeightedKNNClassifier.update WeightedKNNClassifier.compute",
    "solo.utils.momentum": "MomentumUpdater.update_tau initialize_momentum_params",
}
CLASSIFICATION = "prepare_datasets prepare_transforms prepare_dataloaders"
OWN = {
    "current": {
        "solo.methods.base": "BaseMethod._BACKBONES BaseMethod.add_and_assert_specific_cfg "
        "BaseMomentumMethod.add_and_assert_specific_cfg pl.strategies.DDPStrategy",
        "solo.args.linear": "parse_cfg",
        "solo.args.pretrain": "parse_cfg",
        "solo.data.classification_dataloader": CLASSIFICATION,
        "solo.data.pretrain_dataloader": "FullTransformPipeline NCropAugmentation build_transform_pipeline "
        "prepare_dataloader prepare_datasets",
        "solo.utils.auto_resumer": "AutoResumer.find_checkpoint",
        "solo.utils.misc": "make_contiguous",
    },
    "published": {
        "solo.methods.base": "BaseMethod._SUPPORTED_ENCODERS BaseMethod.add_model_specific_args "
        "BaseMomentumMethod.add_model_specific_args pl.LightningModule.clip_gradients "
        "pl.LightningModule.lr_scheduler_step",
        "solo.utils.backbones": "vit_tiny vit_small vit_base vit_large swin_tiny swin_small swin_base "
        "swin_large",
        "solo.utils.classification_dataloader": CLASSIFICATION,
        "solo.utils.pretrain_dataloader": "prepare_transform prepare_n_crop_transform prepare_dataloader "
        "prepare_datasets",
    },
}
# The modules that a solo-learn imports, beside those of the packages that we require ourselves.
PACKAGES = {
    "current": ("lightning", "torchmetrics"),
    "published": ("einops", "pl_bolts", "pytorch_lightning", "torchmetrics"),
}


def missing_names(generation: str) -> list[str]:
    """Return what the importable solo-learn lacks of these names, one sentence each, without a full stop."""
    tables = BOTH, OWN[generation]
    return [
        fault
        for table in tables
        for module, names in table.items()
        for fault in _missing_in(module, names.split())
    ]


def _missing_in(module: str, names: list[str]) -> Iterator[str]:
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        yield f"{module} does not import ({error})"
        return
    for name in names:
        try:
            attrgetter(name)(found)
        except AttributeError:
            yield f"{module} has no {name}"


def missing_packages(generation: str) -> list[str]:
    """Return the packages that a solo-learn imports, that we do not require, and that are not installed."""
    return [name for name in PACKAGES[generation] if importlib.util.find_spec(name) is None]
