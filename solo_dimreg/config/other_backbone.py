"""Drop the kwargs of a config's backbone when the command line names another backbone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from solo_dimreg.config.values import plain
from solo_dimreg.errors import warn
from solo_dimreg.quiet import without_logs

if TYPE_CHECKING:
    from solo_dimreg.solo_learn import Host


def drop_kwargs_of_other(host: Host, settings: DictConfig, before: DictConfig) -> None:
    """Remove from ``backbone.kwargs`` the old backbone's kwargs that the new one does not accept, in place.

    The accepted kwargs are found by building the backbone: most backbones pass their arguments on, so that
    their signatures do not tell. Any other fault is left to the checks of the config. ``before`` is the same
    config without the overrides of its backbone.
    """
    old, new = before.get("backbone"), settings.get("backbone")
    if not (OmegaConf.is_dict(old) and OmegaConf.is_dict(new)) or old.get("name") == new.get("name"):
        return
    theirs, given = plain(old.get("kwargs")), plain(new.get("kwargs"))
    if not (isinstance(theirs, dict) and isinstance(given, dict)):
        return
    dropped = []
    with without_logs():  # solo-learn logs the constructor of a ViT each time
        while set(theirs) & set(given):
            name = _refused(host, settings, given)
            if name is None or given[name] != theirs.get(name):
                break
            dropped.append(name)
            del given[name]
    if dropped:
        new.kwargs = given
        warn(
            f"backbone.kwargs: left out {', '.join(dropped)}, which {old.name} had and {new.name} does not "
            "accept."
        )


def _refused(host: Host, settings: DictConfig, kwargs: dict[str, Any]) -> str | None:
    """Return the first keyword argument that the backbone of a config does not accept, or None."""
    try:
        host.bare_backbone(str(settings.backbone.name), settings.get("method"), kwargs)
    except Exception as error:
        name = refused_keyword(error)
        return name if name in kwargs else None
    return None


def refused_keyword(error: BaseException | None) -> str | None:
    """Return the keyword argument that a call did not accept, from the ``TypeError`` behind an error."""
    while error is not None:
        found = re.search(r"got an unexpected keyword argument '(\w+)'", str(error))
        if isinstance(error, TypeError) and found:
            return found.group(1)
        error = error.__cause__
    return None
