"""Load the plugins, and list what each plugin and its package registers."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from solo_dimreg.errors import PluginError
from solo_dimreg.metrics.registry import METRICS, MetricRecord
from solo_dimreg.plugins import hookspecs
from solo_dimreg.plugins.built_in import BUILT_IN

GROUP = "solo_dimreg"
PACKAGE = "solo-dimreg"


@dataclass(frozen=True)
class Registration:
    """One method, regularizer, backbone, metric or claim that a plugin registers."""

    name: str
    kind: str
    value: Any
    plugin: str
    distribution: str


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "an unknown package"


def load_plugins(entries: list[EntryPoint]) -> pluggy.PluginManager:
    """Register the built-in plugins, and import and register those that ``entries`` name.

    Raises:
        PluginError: a plugin fails to import, has an unknown hook or takes another's name; the message
            names its package.
    """
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    # They have no entry points, so that a checkout on the path has them too.
    for name, plugin in BUILT_IN.items():
        manager.register(plugin, name)
    packages = dict.fromkeys(BUILT_IN, PACKAGE)
    for entry in entries:
        package = _distribution(entry)
        if entry.name in packages:
            raise PluginError(
                f"Two plugins are named {entry.name!r}: one of {packages[entry.name]}, one of {package}. "
                "Uninstall one of the two packages."
            )
        packages[entry.name] = package
        try:
            manager.register(entry.load(), name=entry.name)
            manager.check_pending()
        except Exception as error:
            raise PluginError(
                f"The plugin {entry.name!r} of the package {package} cannot be loaded "
                f"({type(error).__name__}: {error}). Fix or uninstall {package}."
            ) from error
    manager.packages = packages  # type: ignore[attr-defined]
    return manager


@functools.cache
def get_manager() -> pluggy.PluginManager:
    """Return the manager with the built-in plugins and every installed one, loaded once."""
    # A package can be found twice on the path, for example beside its own editable install. An older install
    # of solo-dimreg still names the built-ins.
    found = {(e.name, e.value, _distribution(e)): e for e in entry_points(group=GROUP)}
    others = [e for e in found.values() if not e.module.startswith("solo_dimreg.plugins.")]
    return load_plugins(sorted(others, key=lambda e: e.name))


def registered(
    kind: str, manager: pluggy.PluginManager | None = None, **arguments: Any
) -> dict[str, Registration]:
    """Return everything of one kind that the plugins register, by name.

    The kind is "methods", "regularizers", "backbones", "metrics" or "claims". The manager is that of the
    installed plugins by default. The arguments are those of the hook; ``register_methods`` takes the host.

    Raises:
        PluginError: two plugins register the same name, or a hook fails; the message names the packages.
    """
    manager = manager or get_manager()
    found: dict[str, Registration] = {}
    for implementation in getattr(manager.hook, f"register_{kind}").get_hookimpls():
        plugin = implementation.plugin_name
        package = manager.packages[plugin]  # type: ignore[attr-defined]
        try:
            brought = implementation.function(*(arguments[name] for name in implementation.argnames))
            items = list(brought.items())
        except Exception as error:
            raise PluginError(
                f"register_{kind} of the plugin {plugin!r} of the package {package} failed "
                f"({type(error).__name__}: {error}). Fix or uninstall {package}."
            ) from error
        for name, value in items:
            if name in found:
                other = found[name]
                raise PluginError(
                    f"Both {other.distribution} (plugin {other.plugin!r}) and {package} (plugin {plugin!r}) "
                    f"register {name!r} among the {kind}. Uninstall one of the two packages."
                )
            found[name] = Registration(name, kind, value, plugin, package)
    return found


def monitored_metrics() -> dict[str, MetricRecord]:
    """Return the record of every metric that a ``monitor:`` block can name.

    A plugin gives a function of features or embeddings, whose record has defaults.
    """
    ours = {name: record for name, record in METRICS.items() if record.in_monitor}
    given = registered("metrics").items()
    return ours | {name: MetricRecord(name, each.value) for name, each in given if name not in ours}
