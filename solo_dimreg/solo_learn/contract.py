"""List every name and signature of solo-learn and its Lightning that we use, and check that it exists.

The file ``tests/solo_learn/test_contract.py`` tests their behaviour. The checks here build nothing, so that
``solo-dimreg doctor`` can name what a newer solo-learn has changed.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from operator import attrgetter
from typing import Any, NamedTuple


class Use(NamedTuple):
    """A name that we use, and the arguments of our calls.

    Attributes:
        module: The module that has the name.
        name: The dotted path of the attribute.
        positional: Names of the arguments that we give by position; None if we do not call it.
        keywords: Names of the arguments that we give by keyword.
    """

    module: str
    name: str
    positional: str | None = None
    keywords: str = ""


LIGHTNING = "solo.methods.base"  # whose ``pl`` is the Lightning of either solo-learn
HOOKS = (
    *("on_fit_start", "on_fit_end", "on_train_start", "on_train_end", "on_exception", "on_save_checkpoint"),
    *("on_train_epoch_start", "on_train_epoch_end", "on_train_batch_start", "on_train_batch_end"),
    *("on_validation_batch_start", "on_validation_batch_end", "on_validation_epoch_end"),
    *("on_validation_epoch_start", "on_before_backward", "setup", "state_dict", "load_state_dict"),
)
# Used by guard.py, tap.py, announce.py, base.py, monitor/block.py, training/pretraining.py, evaluation.py.
BOTH = (
    Use("solo.methods", "METHODS"),
    *(Use("solo.methods.base", f"{kind}.{name}") for kind in ("BaseMethod", "BaseMomentumMethod")
      for name in ("learnable_params", "forward", "configure_optimizers", "configure_callbacks")),
    Use("solo.methods.base", "BaseMethod.training_step", "self batch batch_idx"),
    Use("solo.methods.base", "BaseMomentumMethod.training_step", "self batch batch_idx"),
    Use("solo.utils.knn", "WeightedKNNClassifier", "", "k T distance_fx"),
    Use("solo.utils.knn", "WeightedKNNClassifier.update", "self",
        "train_features train_targets test_features test_targets"),
    Use("solo.utils.knn", "WeightedKNNClassifier.compute", "self"),
    Use("solo.utils.checkpointer", "Checkpointer.save", "self trainer"),
    Use("solo.utils.checkpointer", "Checkpointer.initial_setup", "self trainer"),
    Use("solo.utils.momentum", "MomentumUpdater.update_tau", "self cur_step max_steps"),
    *(Use(LIGHTNING, f"pl.Callback.{hook}") for hook in HOOKS),
    *(Use(LIGHTNING, f"pl.Trainer.{name}") for name in
      ("estimated_stepping_batches", "callback_metrics", "is_last_batch", "log_dir", "sanity_checking",
       "world_size", "interrupted", "global_step", "current_epoch", "max_epochs", "max_steps", "loggers",
       "lr_scheduler_configs", "optimizers", "enable_validation")),
    Use(LIGHTNING, "pl.Trainer", "", "max_epochs accelerator devices strategy precision logger callbacks "
        "enable_checkpointing num_sanity_val_steps log_every_n_steps num_nodes sync_batchnorm"),
    Use(LIGHTNING, "pl.Trainer.fit", "self model", "train_dataloaders val_dataloaders ckpt_path"),
    Use(LIGHTNING, "pl.Trainer.fit", "self model", "datamodule ckpt_path"),
    Use(LIGHTNING, "pl.Trainer.save_checkpoint", "self filepath"),
    Use(LIGHTNING, "pl.LightningModule.log", "self name value", "on_epoch sync_dist"),
    Use(LIGHTNING, "pl.LightningModule.log_dict", "self dictionary", "on_step on_epoch sync_dist batch_size "
        "logger"),
    Use(LIGHTNING, "pl.LightningModule.on_fit_start", "self"),
    Use(LIGHTNING, "pl.seed_everything", "seed"),
    Use(LIGHTNING, "pl.loggers.CSVLogger", "save_dir", "name version"),
    Use(LIGHTNING, "pl.loggers.WandbLogger", "", "name project entity offline"),
    Use(LIGHTNING, "pl.callbacks.LearningRateMonitor", "", "logging_interval"),
)  # fmt: skip

CLASSIFICATION = "classification_dataloader"
# Used by solo_learn/current.py.
CURRENT = (
    Use("solo.methods.base", "BaseMethod", "cfg"),
    Use("solo.methods.base", "BaseMomentumMethod", "cfg"),
    Use("solo.methods.base", "BaseMethod._BACKBONES"),
    Use("solo.args.pretrain", "parse_cfg", "cfg"),
    Use("solo.args.linear", "parse_cfg", "cfg"),
    Use("solo.utils.misc", "make_contiguous", "module"),
    Use("solo.data.pretrain_dataloader", "build_transform_pipeline", "dataset cfg"),
    Use("solo.data.pretrain_dataloader", "FullTransformPipeline", "transforms"),
    Use("solo.data.pretrain_dataloader", "NCropAugmentation", "transform num_crops"),
    Use("solo.data.pretrain_dataloader", "prepare_datasets", "dataset transform",
        "train_data_path data_format no_labels data_fraction"),
    Use("solo.data.pretrain_dataloader", "prepare_dataloader", "train_dataset", "batch_size num_workers"),
    Use(f"solo.data.{CLASSIFICATION}", "prepare_datasets", "dataset T_train T_val",
        "train_data_path val_data_path data_format"),
    Use(f"solo.data.{CLASSIFICATION}", "prepare_transforms", "dataset"),
    Use(f"solo.data.{CLASSIFICATION}", "prepare_dataloaders", "train_dataset val_dataset",
        "batch_size num_workers"),
    Use("solo.utils.checkpointer", "Checkpointer", "cfg", "logdir frequency keep_prev"),
    Use("solo.utils.auto_resumer", "AutoResumer", "", "checkpoint_dir"),
    Use("solo.utils.auto_resumer", "AutoResumer.find_checkpoint", "self cfg"),
    Use("solo.methods.linear", "LinearModel", "backbone", "cfg loss_func"),
    Use(LIGHTNING, "pl.strategies.DDPStrategy", "", "find_unused_parameters"),
)  # fmt: skip
# Used by solo_learn/published.py, published_arguments.py and published_mends.py.
PUBLISHED = (
    Use("solo.methods.base", "BaseMethod", "", "encoder num_classes backbone_args max_epochs batch_size "
        "optimizer lars lr weight_decay classifier_lr exclude_bias_n_norm accumulate_grad_batches "
        "extra_optimizer_args scheduler min_lr warmup_start_lr warmup_epochs num_large_crops "
        "num_small_crops eta_lars grad_clip_lars lr_decay_steps knn_eval knn_k"),
    Use("solo.methods.base", "BaseMomentumMethod", "",
        "base_tau_momentum final_tau_momentum momentum_classifier"),
    Use("solo.methods.base", "BaseMethod._SUPPORTED_ENCODERS"),
    Use("solo.methods.base", "BaseMethod.add_model_specific_args", "parent_parser"),
    Use("solo.methods.base", "BaseMomentumMethod.add_model_specific_args", "parent_parser"),
    Use("solo.utils.momentum", "initialize_momentum_params", "online_net momentum_net"),
    *(Use("solo.utils.backbones", name, "", "patch_size img_size")
      for name in ("vit_tiny", "vit_small", "vit_base", "vit_large")),
    *(Use("solo.utils.backbones", name, "", "window_size img_size")
      for name in ("swin_tiny", "swin_small", "swin_base", "swin_large")),
    Use("solo.utils.pretrain_dataloader", "prepare_transform", "dataset"),
    Use("solo.utils.pretrain_dataloader", "prepare_n_crop_transform", "transforms num_crops_per_aug"),
    Use("solo.utils.pretrain_dataloader", "prepare_datasets", "dataset transform",
        "data_dir train_dir no_labels"),
    Use("solo.utils.pretrain_dataloader", "prepare_dataloader", "train_dataset", "batch_size num_workers"),
    Use(f"solo.utils.{CLASSIFICATION}", "prepare_datasets", "dataset T_train T_val",
        "data_dir train_dir val_dir"),
    Use(f"solo.utils.{CLASSIFICATION}", "prepare_transforms", "dataset"),
    Use(f"solo.utils.{CLASSIFICATION}", "prepare_dataloaders", "train_dataset val_dataset",
        "batch_size num_workers"),
    Use("solo.utils.checkpointer", "Checkpointer", "args", "logdir frequency keep_previous_checkpoints"),
    Use("solo.methods.linear", "LinearModel", "backbone", "num_classes max_epochs optimizer lars batch_size "
        "lr weight_decay exclude_bias_n_norm extra_optimizer_args scheduler lr_decay_steps"),
    Use(LIGHTNING, "pl.LightningModule.clip_gradients",
        "self optimizer gradient_clip_val gradient_clip_algorithm"),
    Use(LIGHTNING, "pl.LightningModule.lr_scheduler_step", "self scheduler optimizer_idx metric"),
)  # fmt: skip
# Modules that import the optional packages for DALI and UMAP.
EXTRAS = {
    "current": (
        Use("solo.utils.auto_umap", "OfflineUMAP", ""),
        Use("solo.utils.auto_umap", "OfflineUMAP.plot", "self device model dataloader plot_path"),
        Use("solo.data.dali_dataloader", "build_transform_pipeline_dali", "dataset cfg", "dali_device"),
        Use("solo.data.dali_dataloader", "PretrainDALIDataModule", "", "dataset train_data_path transforms "
            "num_large_crops num_small_crops num_workers batch_size no_labels data_fraction dali_device "
            "encode_indexes_into_labels"),
    ),
    "published": (
        Use("solo.utils.auto_umap", "AutoUMAP", "args"),
        Use("solo.utils.auto_umap", "AutoUMAP.plot", "self trainer module"),
        Use("solo.methods.dali", "PretrainABC"),
    ),
}  # fmt: skip
CONTRACT = {"current": (*BOTH, *CURRENT), "published": (*BOTH, *PUBLISHED)}


def broken(generation: str, extras: bool = False) -> list[str]:
    """Return the differences of the importable solo-learn from the contract, one sentence each, no full stop.

    Args:
        generation: ``"current"`` or ``"published"``.
        extras: Also check the modules that need the packages of our extras, if they are installed. Their
            import takes seconds.
    """
    uses = (*CONTRACT[generation], *(EXTRAS[generation] if extras else ()))
    optional = {use.module for use in EXTRAS[generation]}
    return [fault for use in uses for fault in _faults(use, use.module in optional)]


def _faults(use: Use, optional: bool) -> Iterator[str]:
    try:
        found = attrgetter(use.name)(importlib.import_module(use.module))
    except ImportError as error:
        if not optional or str(error.name).startswith("solo"):
            yield f"{use.module} does not import ({error})"
    except AttributeError:
        yield f"{use.module} has no {use.name}"
    else:
        if use.positional is not None:
            yield from _wrong_call(use, found)


def _wrong_call(use: Use, found: Any) -> Iterator[str]:
    """Yield each difference from our call: a name, the order, or a new required argument."""
    name = f"{use.module}.{use.name}"
    wanted, keywords = str(use.positional).split(), use.keywords.split()
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        yield f"{name} is not a function"
        return
    order = list(signature.parameters)[: len(wanted)]
    if order != wanted:
        yield f"{name} takes ({', '.join(order)}) where it took ({', '.join(wanted)})"
        return
    try:
        signature.bind(*wanted, **dict.fromkeys(keywords))
    except TypeError as error:
        yield f"{name} cannot be called as before ({error})"
