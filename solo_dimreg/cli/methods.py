"""``solo-dimreg methods``."""

from __future__ import annotations

import json
from types import SimpleNamespace

import click


@click.command("methods")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """List methods, regularizers, backbones and metrics: name, kind, plugin, and the package it is from."""
    from solo_dimreg.cli.output import print_table
    from solo_dimreg.errors import HostError

    try:
        rows = _methods()
    except HostError as error:
        click.echo(f"Only our own methods: {error}", err=True)
        rows = _own_methods()
    rows += _plugin_rows()
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        header = ["name", "kind", "plugin", "distribution"]
        print_table(header, [[row[key] for key in header] for row in rows])


def _methods() -> list[dict[str, str]]:
    from solo_dimreg.hosts import register
    from solo_dimreg.hosts.registration import NOT_METHODS
    from solo_dimreg.plugins import registered

    host = register()
    ours = registered("methods", host=host)
    rows = []
    for name in sorted(set(host.methods) - set(NOT_METHODS)):
        if name in ours:
            plugin, distribution = ours[name].plugin, ours[name].distribution
        elif name.startswith("ldreg"):
            plugin, distribution = "ldreg", "solo-dimreg"
        else:
            plugin, distribution = "-", "solo-learn"
        rows.append({"name": name, "kind": "method", "plugin": plugin, "distribution": distribution})
    return rows


def _own_methods() -> list[dict[str, str]]:
    """What can be said without a solo-learn, whose base class is not needed for the names."""
    from torch import nn

    from solo_dimreg.hosts.base import VARIANTS
    from solo_dimreg.plugins import registered

    ours = registered("methods", host=SimpleNamespace(Method=nn.Module))
    names = {name: each.plugin for name, each in ours.items()} | {f"{v}<method>": "ldreg" for v in VARIANTS}
    return [
        {"name": name, "kind": "method", "plugin": plugin, "distribution": "solo-dimreg"}
        for name, plugin in sorted(names.items())
    ]


def _plugin_rows() -> list[dict[str, str]]:
    from solo_dimreg.plugins import registered

    return [
        {
            "name": name,
            "kind": kind.removesuffix("s"),
            "plugin": each.plugin,
            "distribution": each.distribution,
        }
        for kind in ("regularizers", "backbones", "metrics")
        for name, each in sorted(registered(kind).items())
    ]
