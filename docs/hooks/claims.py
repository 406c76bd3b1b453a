"""Write what is known of the claims into README.md and the pages in docs/, at any moment of the long study.

``python docs/hooks/claims.py`` takes the runs of the study ``evidence`` from docs/data/evidence.jsonl, those
of replications on other machines from docs/data/evidence-*.jsonl, and from docs/data/claims.json the outcomes
in 90 steps and of the claims that train nothing.

Two comments mark the place of a block, ``<!-- claims -->`` and ``<!-- /claims -->``. The text of a link to a
claim with the title ``measured`` or ``verdict``, ``[...](claims.md#NAME "verdict")``, becomes the outcome;
``"measured 2"`` takes its second number alone.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

from solo_dimreg.errors import ConfigError
from solo_dimreg.files import write_text
from solo_dimreg.plots import save_png
from solo_dimreg.solo_learn import register
from solo_dimreg.studies.claims.claim import HOLDS, OPPOSITE, UNFINISHED, Outcome
from solo_dimreg.studies.claims.page import (
    COUNTED,
    SHOWN,
    Told,
    by_seed,
    counted,
    effects,
    last_fifth,
    measured,
    published,
    regime,
    says,
    state,
    word,
    write_outcomes,
)
from solo_dimreg.studies.claims.pictures import main_plot
from solo_dimreg.studies.engine import run_study
from solo_dimreg.studies.pages import markdown_table
from solo_dimreg.studies.study import read_study

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- /\2 -->)", re.DOTALL)
SLOT = re.compile(r"\[[^\]]*\]\(((?:[\w/.-]*?(\w+)\.md)?#([\w.-]+)) \"((measured|verdict)(?: (\d+))?)\"\)")
EARLY = "early"  # the page of the outcomes in 90 steps, early.md
TRAINED, OURS = "of papers, on trained networks", "of our alarm and diagnosis"
ASKED = "that we ask and no paper makes"
UNTRAINED = "without a training, such as formulas"
# What README.md says of those that it does not count.
BESIDE = {OURS: "our own rule", ASKED: "our question", UNTRAINED: "no training"}
LISTED = 10  # rows whose training has not come to rest
PICTURES = Path("images", "claims")  # beside a page


@dataclass(frozen=True)
class Known:
    """Hold what pages are filled with.

    Attributes:
        here: The outcomes.
        headlines: The names of those with which a page begins.
        state: The sentences on how far the study is.
        early: The outcomes of another study, for ``early.md``.
        lost: For each claim of a tau within one method, the accuracy that a choice by the metric loses, in
            each method.
        runs: The trainings that are finished.
    """

    here: Sequence[Told]
    headlines: Sequence[str] = ()
    state: str = ""
    early: Sequence[Told] = field(default=())
    lost: Mapping[str, Sequence[float]] = field(default_factory=dict)
    runs: Sequence[Mapping[str, Any]] = ()


def fill_pages(pages: Sequence[Path], known: Known) -> None:
    """Replace the blocks and the texts of links in Markdown pages."""
    for page in pages:
        text = page.read_text(encoding="utf-8")
        if (made := fill(text, page, known)) != text:
            write_text(page, made)


def fill(text: str, page: Path, known: Known) -> str:
    """Return the text of a page with its blocks and links replaced.

    Raises:
        ConfigError: A link leads to no claim.
    """
    blocks: dict[str, Callable[[], str]] = {
        "claims": lambda: claims_tables(known.here),
        "early": lambda: claims_tables(known.early),
        "headlines": lambda: headlines(known, page.parent),
        "label_free": lambda: label_free(known),
        "trainings": lambda: trainings(known),
        "verdicts": lambda: verdicts(known),
    }

    def block(match: re.Match[str]) -> str:
        if match[2] not in blocks:
            return match[0]
        return f"{match[1]}\n{blocks[match[2]]().strip()}\n\n{match[3]}"

    def link(match: re.Match[str]) -> str:
        outcomes = known.early if (match[2] or page.stem) == EARLY else known.here
        told = {each["name"]: each for each in outcomes}
        if match[3] not in told:
            raise ConfigError(f"{page}: there is no outcome of {match[3]!r} for {match[0]}.")
        outcome = told[match[3]]
        whole = match[6] is None or word(outcome) == UNFINISHED
        shown = says(outcome) if whole else effects(outcome)[int(match[6]) - 1]
        if match[4] == "measured" and outcome["verdict"] == HOLDS:
            shown = shown.partition(": ")[2]
        return f'[{shown}]({match[1]} "{match[4]}")'

    return SLOT.sub(link, BLOCK.sub(block, text))


def grouped(outcomes: Sequence[Told]) -> dict[str, list[Told]]:
    """Return the outcomes by what they are about, which bears differently on the papers."""
    groups: dict[str, list[Told]] = {name: [] for name in (TRAINED, ASKED, OURS, UNTRAINED)}
    for each in outcomes:
        asked = ASKED if each["place"] == "our question" else TRAINED
        trained = OURS if "solo-dimreg" in each["paper"] else asked
        groups[trained if each["rows"] else UNTRAINED].append(each)
    return groups


def counted_of(name: str, outcomes: Sequence[Told]) -> str:
    """Return how many claims of a group there are, and how many have each verdict."""
    return counted(outcomes).replace(":", f" {name}:", 1)


def headlines(known: Known, folder: Path) -> str:
    """Return how far the study is, and the sentences with which its page begins, each with its picture."""
    told = {each["name"]: each for each in known.here}
    groups = [counted_of(name, own) for name, own in grouped(known.here).items() if own]
    lines = [f"{'. '.join(groups)}. {known.state}"]
    for place, outcome in enumerate(map(told.__getitem__, known.headlines), 1):
        verdict = outcome["verdict"][0].upper() + outcome["verdict"][1:]
        pairs = zip(outcome["numbers"][:SHOWN], effects(outcome), strict=False)
        shown = "; ".join(f"{number['says']}: {effect}" for number, effect in pairs)
        lines += [
            "",
            f"{place}. **{verdict}**: [{outcome['sentence']}](#{outcome['name']})"
            f"{'' if word(outcome) == UNFINISHED else f' Measured: {shown}.'} "
            f"Published: {outcome['published']}.",
        ]
        picture = PICTURES / f"{outcome['name']}.png"
        if (folder / picture).is_file():
            lines += ["", f"    ![{outcome['name']}: {verdict}]({picture.as_posix()})"]
    return "\n".join(lines)


def verdicts(known: Known) -> str:
    """Return the same sentences and all that are opposite, without numbers, one line for each verdict."""
    told = {each["name"]: each for each in known.here}
    groups = grouped(known.here)
    lines = [f"{counted_of(TRAINED, groups[TRAINED])}. The main ones and all opposite ones:", ""]
    opposite = [each["name"] for each in groups[TRAINED] if word(each) == OPPOSITE]
    shown = dict.fromkeys([*known.headlines, *opposite])
    texts = {name: each["sentence"] for name, each in told.items()}
    for group, words in BESIDE.items():
        texts |= {each["name"]: f"{each['sentence'].rstrip('.')} ({words})." for each in groups[group]}
    for verdict in COUNTED:
        own = [texts[name] for name in shown if word(told[name]) == verdict]
        label = "Not yet known" if verdict == UNFINISHED else verdict.capitalize()
        lines += [f"- **{label}**: {' '.join(own)}"] if own else []
    return "\n".join(lines)


def label_free(known: Known) -> str:
    """Return the taus within each method and over all methods, and what a choice by the metric loses."""
    over_all = {each["name"]: effects(each)[0] for each in known.early}
    rows = [
        [
            f"[{each['name']}](#{each['name']})",
            *effects(each),
            over_all.get(each["name"].replace("within", "orders"), "–"),
            ", ".join(f"{points:.1f}" for points in known.lost[each["name"]]),
        ]
        for each in known.here
        if each["name"] in known.lost
    ]
    header = ["claim", "tau, SimCLR", "tau, BYOL", "tau, all methods, 90 steps", "points lost: SimCLR, BYOL"]
    return "\n".join(markdown_table(header, rows)) if rows else "The table follows with the trainings."


def trainings(known: Known) -> str:
    """Return how long the trainings took, and the rows whose last fifth changes a metric by 1 % or more."""
    took: dict[str, list[float]] = {}
    for run in known.runs:
        if run.get("pretrain_seconds"):  # None if it was resumed
            took.setdefault(run["environment"]["processor"], []).append(run["pretrain_seconds"] / 60)
    texts = [
        f"- On {processor}, {len(minutes)} timed trainings took {min(minutes):.0f} to {max(minutes):.0f} "
        f"minutes of a core, {median(minutes):.0f} in the median and {sum(minutes) / 60:.0f} hours in all."
        for processor, minutes in sorted(took.items())
    ]
    changes = last_fifth([{run["row"]: run} for run in known.runs])
    for place, metric in enumerate(("online accuracy", "effective rank")):
        found = {row: each[place].mean for row, each in changes.items() if each[place] is not None}
        large = sorted((row for row in found if abs(found[row]) >= 1), key=lambda row: -abs(found[row]))
        listed = ", ".join(f"{row} {found[row]:+.1f}".replace("-", "−") for row in large[:LISTED])
        listed += f" and {len(large) - LISTED} more" if len(large) > LISTED else ""
        if found:
            texts.append(f"- The last fifth changes the {metric} by, in percent: {listed or 'less than 1'}.")
    return "\n".join(texts) or "The numbers follow with the trainings."


def lost(outcomes: Sequence[Outcome], results: Sequence[Any]) -> dict[str, list[float]]:
    """Return :attr:`Known.lost`, the means over the seeds, of the claims that are decided."""
    found = {}
    for outcome in outcomes:
        numbers = [number for number in outcome.claim.numbers if number.of_rows and number.score]
        if numbers and word(outcome.as_dict()) != UNFINISHED:
            done = results[: len(outcome.values[0])]
            found[outcome.claim.name] = [fmean(map(number.lost, done)) for number in numbers]
    return found


def claims_tables(outcomes: Sequence[Told]) -> str:
    """Return the outcomes as Markdown, with a heading and a table for each paper.

    The head of a table has the paper's usual setting and ours. A note of several claims stands once.
    """
    lines = [f"{counted(outcomes)}."]
    for paper in dict.fromkeys(outcome["paper"] for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome["paper"] == paper]
        settings = Counter(each["differs"] for each in own if each["differs"])
        usual = settings.most_common(1)[0][0] if settings else ""
        first: dict[str, str] = {}  # the claim with which a note stands
        rows = []
        for each in own:
            name, note = each["name"], each["note"]
            if (place := first.setdefault(note, name)) != name and note:
                note = f"See the note of [{place}](#{place})."
            trains = each["rows"] or not regime(own)
            rows.append(
                [
                    f'<a id="{name}"></a>{each["sentence"]} {note}'.strip(),
                    published({**each, "differs": "" if each["differs"] == usual else each["differs"]}),
                    measured(each) + ("" if trains else ". No network is trained"),
                    f"**{each['verdict']}**",
                    each.get("again") or "–",
                    f"`solo-dimreg claims {name}{each.get('study', '')}`",
                ]
            )
        theirs = f" ({usual})" if usual else ""
        header = ["claim", f"published{theirs}", f"here{regime(own)}", "verdict", "again", "command"]
        lines += ["", f"### {paper}", "", *markdown_table(header, rows)]
    return "\n".join(lines)


def draw(folder: Path, outcomes: Sequence[Outcome], content: Mapping[str, Any], names: Sequence[str]) -> None:
    """Draw the pictures of the named claims from the runs that are finished, and remove those without any."""
    results = by_seed(content)
    for outcome in (each for each in outcomes if each.claim.name in names):
        picture = folder / f"{outcome.claim.name}.png"
        if card := main_plot(outcome, results):
            save_png(card.figure, picture)
        else:
            picture.unlink(missing_ok=True)


def main(root: Path = ROOT, study_name: str = "evidence") -> None:
    """Draw the pictures and fill the pages of a checkout, and write the HTML page below its ``results``."""
    data, study = root / "docs" / "data", read_study(study_name)
    with tempfile.TemporaryDirectory() as out:  # not that of the study, which may be training
        content = run_study(
            study,
            Path(out),
            record=data / "evidence.jsonl",
            train=False,
            beside=sorted(data.glob("evidence-*.jsonl")),
            say=lambda text: print(text, file=sys.stderr),
        )
    claims, about = study.claims(), {"why": study.why, "headlines": study.headlines}
    again = f"solo-dimreg claims NAME --study {study_name}"
    outcomes = write_outcomes(root / "results" / study.name, content, claims, claims, about, again)
    draw(root / "docs" / PICTURES, outcomes, content, study.headlines)
    here = {each.claim.name: {**each.as_dict(), "study": f" --study {study_name}"} for each in outcomes}
    early = []
    for each in json.loads((data / "claims.json").read_text(encoding="utf-8"))["outcomes"]:
        if each["rows"]:
            early.append(each)
        else:  # it trains nothing, so that its regime does not matter
            here.setdefault(each["name"], each)
    chosen = lost(outcomes, by_seed(content))
    known = Known(list(here.values()), study.headlines, state(content), early, chosen, content["runs"])
    fill_pages([root / "README.md", *sorted((root / "docs").glob("*.md"))], known)


if __name__ == "__main__":
    if register().generation != "published":
        sys.exit("The published solo-learn decides: ./reproduce.sh evidence --recorded without SOLO_LEARN.")
    main()
