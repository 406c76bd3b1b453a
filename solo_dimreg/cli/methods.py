"""``solo-dimreg methods``."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click

from solo_dimreg.cli.output import example, print_table

if TYPE_CHECKING:
    from solo_dimreg.plugins.manager import Registration

KINDS = ("method", "regularizer", "backbone", "metric")


@click.command("methods", epilog=example("solo-dimreg methods ldreg_byol"))
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str | None, as_json: bool) -> None:
    """List methods, regularizers, backbones and metrics, or the options of NAME with their defaults.

    The weight is the default weight of a term in the loss. The column "from" names the package that a name
    comes from, and its plugin.
    """
    from solo_dimreg.errors import ConfigError, HostError, unknown
    from solo_dimreg.solo_learn import register

    host = None
    try:
        host = register()
    except HostError as error:
        click.echo(f"Only our own methods are listed: {error}", err=True)
    rows = [*(_own_methods() if host is None else _methods(host)), *_plugin_rows()]
    if name is not None:
        known = {row["name"] for row in rows}
        if name not in known:
            raise ConfigError(f"NAME: {unknown('name', name, known)}")
        rows = [{**row, "options": _options(host, row)} for row in rows if row["name"] == name]
    if as_json:
        click.echo(json.dumps(rows, indent=2, default=str))
    elif name is None:
        _print_all(rows)
    else:
        _print_options(rows)


def _print_all(rows: list[dict[str, Any]]) -> None:
    """Print a table for each kind that there is; backbones are from plugins alone."""

    present = [kind for kind in KINDS if any(row["kind"] == kind for row in rows)]
    for number, kind in enumerate(present):
        own = [row for row in rows if row["kind"] == kind]
        weighted = any(row["weight"] != "-" for row in own)
        header = [kind, *(["weight"] if weighted else []), "from", "description"]
        cells = []
        for row in own:
            plugin = "" if row["plugin"] == "-" else f" ({row['plugin']})"
            # A short reference to arXiv fits into the column.
            text = row["description"].replace("https://arxiv.org/abs/", "arXiv:")
            weight = [row["weight"]] if weighted else []
            cells.append([row["name"], *weight, row["distribution"] + plugin, text])
        if number:
            click.echo()
        print_table(header, cells)


def _print_options(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        click.echo(f"{row['name']} ({row['kind']} from {row['distribution']}): {row['description']}.")
        if row["options"]:
            block = f"regularizers.{row['name']}" if row["kind"] == "regularizer" else "method_kwargs"
            options = row["options"].items()
            cells = [(key if "." in key else f"{block}.{key}", value) for key, value in options]
            print_table(["option", "default"], cells)


def _options(host: Any, row: dict[str, Any]) -> dict[str, Any]:
    from solo_dimreg.config.descriptions import options_of, options_of_regularizer
    from solo_dimreg.plugins import registered

    if row["kind"] == "regularizer":
        return options_of_regularizer(registered("regularizers")[row["name"]].value)
    return options_of(host, row["name"]) if row["kind"] == "method" and host is not None else {}


def _methods(host: Any) -> list[dict[str, Any]]:
    from solo_dimreg.plugins import registered
    from solo_dimreg.plugins.manager import Registration

    ours = registered("methods", host=host)
    rows = []
    for name in host.trainable:
        terms = host.terms(name, {})
        origin = (next(iter(terms)), "solo-dimreg") if terms else ("-", "solo-learn")
        origin = (ours[name].plugin, ours[name].distribution) if name in ours else origin
        weight = next((term["weight"] for term in terms.values()), "-")
        rows.append(_row(Registration(name, "methods", host.methods[name], *origin), weight))
    return rows


def _own_methods() -> list[dict[str, Any]]:
    """Return the rows of our own methods, whose names need no solo-learn."""
    from torch import nn

    from solo_dimreg.plugins import registered
    from solo_dimreg.solo_learn.registration import TERMS

    rows = [*map(_row, registered("methods", host=SimpleNamespace(Method=nn.Module)).values())]
    for prefix, what in TERMS.items():
        added = {"name": f"{prefix}<method>", "plugin": "ldreg", "distribution": "solo-dimreg"}
        rows.append({**rows[0], **added, "description": f"Any method of solo-learn with {what}"})
    return sorted(rows, key=lambda row: row["name"])


def _plugin_rows() -> list[dict[str, Any]]:
    from solo_dimreg.config.descriptions import options_of_regularizer
    from solo_dimreg.plugins import registered

    rows = []
    for kind in ("regularizers", "backbones", "metrics"):
        for _, each in sorted(registered(kind).items()):
            weight = options_of_regularizer(each.value)["weight"] if kind == "regularizers" else "-"
            rows.append(_row(each, weight))
    return rows


def _row(each: Registration, weight: Any = "-") -> dict[str, Any]:
    from solo_dimreg.config.descriptions import description

    return {
        "name": each.name,
        "kind": each.kind.removesuffix("s"),
        "weight": weight,
        "plugin": each.plugin,
        "distribution": each.distribution,
        "description": description(each.value),
    }
