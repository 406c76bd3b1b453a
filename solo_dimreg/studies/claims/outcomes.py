"""Decide the claims of a finished study, and write their page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from solo_dimreg.files import write_json, write_text
from solo_dimreg.plots import save_png
from solo_dimreg.studies.claims.claim import RULE, Claim, Outcome, decide
from solo_dimreg.studies.claims.numbers import Results
from solo_dimreg.studies.claims.page import claims_page
from solo_dimreg.studies.claims.pictures import draw_claims


def by_seed(content: Mapping[str, Any]) -> list[Results]:
    """Return the results of each seed, by row and experiment, from the content of ``results.json``."""
    found: dict[int, dict[str, Any]] = {seed: {} for seed in content["planned_seeds"]}
    for run in content["runs"]:
        found[run["seed"]][run["row"]] = run
    for name, measured in content["experiments"].items():
        for seed in found:
            found[seed][name] = measured[str(seed)]
    return list(found.values())


def write_outcomes(
    out: Path,
    content: Mapping[str, Any],
    claims: Sequence[Claim],
    known: Sequence[Claim],
    about: Mapping[str, Any],
    command: str,
) -> list[Outcome]:
    """Decide claims, and write ``claims.json``, ``claims.md``, ``claims.png`` and ``claims.html``.

    Args:
        out: The folder to write into.
        content: The content of ``results.json``.
        claims: The claims to decide.
        known: All known claims, see :func:`solo_dimreg.studies.claims.claim.decide`.
        about: What ``claims.json`` says of the setting: ``why``, ``options`` and ``overrides``.
        command: The command line that repeats the run, with ``NAME`` for the name of a claim.
    """
    results, seeds = by_seed(content), content["planned_seeds"]
    outcomes = decide(claims, results, known)
    written = [outcome.as_dict() for outcome in outcomes]
    write_json(out / "claims.json", {"rule": RULE, "seeds": seeds, **about, "outcomes": written})
    save_png(draw_claims(outcomes), out / "claims.png")
    for kind in ("md", "html"):
        page = claims_page(kind, outcomes, results, seeds, str(about["why"]), command)
        write_text(out / f"claims.{kind}", page)
    return outcomes
