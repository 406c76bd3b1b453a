"""Backbones beyond solo-learn's own: every timm model as ``timm/<name>``, and the backbones of plugins."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from solo_dimreg.config.composing import refused_keyword
from solo_dimreg.errors import ConfigError, nearest
from solo_dimreg.monitor.named_modules import evaluation_mode
from solo_dimreg.plugins import registered

PREFIX = "timm/"


class TimmBackbone(nn.Module):
    """A timm model without its classifier: images (B, 3, H, W) to pooled pre-logits features (B, D)."""

    def __init__(self, name: str, **kwargs: Any) -> None:
        import timm

        super().__init__()
        self.model = timm.create_model(name, **{"num_classes": 0, **kwargs})
        # The two widths differ if a model has a layer between pooling and classifier, as MobileNetV3 does.
        width: Any = getattr(self.model, "head_hidden_size", None) or self.model.num_features
        self.num_features: int = width

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled features before the classifier."""
        return self.model(x)


def timm_names() -> list[str]:
    """Return ``timm/<name>`` for every model that timm has."""
    import timm

    return [PREFIX + name for name in timm.list_models()]


def find_backbone(name: str) -> Callable[..., nn.Module] | None:
    """Return the builder of a timm model or a plugin's backbone; return None for any other name.

    Raises:
        ConfigError: The name starts with ``timm/``, and timm has no such model.
    """
    if name.startswith(PREFIX):
        names = timm_names()
        if name not in names:
            raise ConfigError(f"backbone.name: timm has no {name!r}.{nearest(name, names)}")
        return functools.partial(TimmBackbone, name.removeprefix(PREFIX))
    found = registered("backbones").get(name)
    return found.value if found else None


def build_backbone(name: str, kwargs: Mapping[str, Any]) -> nn.Module:
    """Return a backbone of timm or a plugin; raise a ConfigError if it refuses a kwarg or has no width."""
    build: Any = find_backbone(name)
    try:
        with naming_refused_kwargs(name, kwargs):
            backbone = build(**kwargs)
    except ConfigError:
        raise
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"backbone.kwargs: {name} refuses {dict(kwargs)!r} ({error}); ~backbone.kwargs removes them."
        ) from error
    if not isinstance(getattr(backbone, "num_features", None), int):
        raise ConfigError(f"backbone.name: {name!r} lacks num_features, the width of its output.")
    return backbone


@contextmanager
def naming_refused_kwargs(name: str, kwargs: Mapping[str, Any]) -> Iterator[None]:
    """Raise a ConfigError that names the kwarg which a constructor of a backbone does not accept."""
    try:
        yield
    except (TypeError, ValueError, AssertionError) as error:
        refused = refused_keyword(error)
        if refused is None or refused not in kwargs:
            raise
        raise ConfigError(
            f"backbone.kwargs.{refused}: {name} does not accept it (value {kwargs[refused]!r}); "
            f"~backbone.kwargs.{refused} removes it, ~backbone.kwargs all of them."
        ) from error


def check_backbone_name(name: str, own: Collection[str]) -> None:
    """Raise a ConfigError for a name that is neither solo-learn's, nor timm's, nor a plugin's."""
    if name in own or find_backbone(name) is not None:
        return
    names = [*own, *registered("backbones")]
    raise ConfigError(
        f"backbone.name: unknown backbone {name!r}.{nearest(name, [*names, *timm_names()])} "
        f"Valid: timm/<any timm model>, {', '.join(sorted(names))}."
    )


def input_size_kwargs(name: str, crop_size: int) -> dict[str, int]:
    """Return ``img_size`` for a timm model with one fixed input size, such as a ViT; else an empty dict."""
    import timm

    if not name.startswith(PREFIX):
        return {}
    config = timm.get_pretrained_cfg(name.removeprefix(PREFIX), allow_unregistered=True)
    return {"img_size": crop_size} if config is not None and config.fixed_input_size else {}


def check_input_sizes(name: str, backbone: nn.Module, sizes: set[int]) -> None:
    """Raise a ConfigError for a crop size that a backbone does not accept, by running it on each."""
    for size in sorted(sizes):
        try:
            with torch.no_grad(), evaluation_mode(backbone):
                features = backbone(torch.zeros(2, 3, size, size))
        except Exception as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise ConfigError(
                f"backbone.name: {name!r} does not accept crops of {size} x {size} ({reason})."
            ) from error
        if not isinstance(features, Tensor) or features.shape != (2, backbone.num_features):
            shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ConfigError(
                f"backbone.name: {name!r} with these kwargs makes {shape} from two images; "
                f"features must be {(2, backbone.num_features)}."
            )
