"""The documentation: its site builds strictly, and its numbers are those of the result files."""

from __future__ import annotations

import inspect
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from solo_dimreg.nn.normalization import normalization_layer
from solo_dimreg.plugins import registered
from solo_dimreg.solo_learn import Host

ROOT = Path(__file__).parents[1]
DOCS, README = ROOT / "docs", ROOT / "README.md"
DATA = DOCS / "data"
PACKAGE = ROOT / "solo_dimreg" / "__init__.py"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)(?: \"[^\"]*\")?\)")
# Each page with measured tables, and the command that writes them; a second command is given after "and".
WRITTEN = {
    "costs.md": (
        *("bench", "--from", "bench-avx512.json", "--from", "bench-avx2.json", "and"),
        *("bench", "--peers", "--from", "bench-peers.json"),
    ),
    "monitor.md": ("toy", "caught", "--from", "caught.json", "--from", "caught-seed6.json"),
    "compare.md": ("benchmark", "quick", "--from", "quick.json"),
}


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    """A broken link, a missing reference, or a parameter that is documented and not there is an error."""
    pytest.importorskip("mkdocs", reason="mkdocs comes with the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", tmp_path / "site"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = [path.read_text() for path in (tmp_path / "site").rglob("*.html")]
    assert len(pages) >= len(PAGES) - 1
    loaded = {
        address
        for page in pages
        for address in re.findall(r"<(?:script|link|img)[^>]*?(https?://[^\"']*)", page)
    }
    assert not loaded, "the site loads something from another host"


def test_the_readme_is_short() -> None:
    text = README.read_text()
    assert len(text.split()) <= 1300 and len(text.encode()) <= 14 * 1024


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    """MkDocs checks the links of the site; on GitHub those of the README have to work too."""
    for _, target in LINK.findall(page.read_text()):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        if anchor and found.suffix == ".md":
            text = found.read_text()
            headings = {_slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
            assert anchor in headings | set(re.findall(r'<a id="([^"]+)"', text)), target


def _slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("name", WRITTEN)
def test_a_page_has_the_tables_of_its_results(name: str, here: Any, tmp_path: Path) -> None:
    page = tmp_path / name
    text = (DOCS / name).read_text()
    page.write_text(re.sub(r"(<!-- (\w+) -->\n).*?(<!-- /\2 -->)", r"\1\3", text, flags=re.DOTALL))
    assert page.read_text() != text
    arguments = [str(DATA / word) if word.endswith(".json") else word for word in WRITTEN[name]]
    for is_and, command in itertools.groupby(arguments, key="and".__eq__):
        if not is_and:
            done = here(*command, "--page", str(page))
            assert done.returncode == 0, done.stderr
    assert page.read_text() == text


def test_a_page_without_the_marks_or_with_another_file_is_refused(here: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Nothing\n")
    done = here("benchmark", "quick", "--page", str(page), "--from", str(DATA / "quick.json"))
    assert done.returncode == 2 and "<!-- quick -->" in done.stderr
    shutil.copy(DOCS / "compare.md", page)
    done = here("benchmark", "quick", "--page", str(page), "--from", str(DATA / "claims.json"))
    assert done.returncode == 2 and "claims.json" in done.stderr
    assert page.read_text() == (DOCS / "compare.md").read_text()


@pytest.mark.slow
def test_the_pages_have_what_the_record_of_the_evidence_says(tmp_path: Path, host: Host) -> None:
    """``./reproduce.sh evidence --recorded`` makes the same pages from emptied ones."""
    if host.generation != "published":
        pytest.skip("the runs that decide are on the published solo-learn")
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(README, tmp_path)
    pages = [tmp_path / "README.md", *sorted((tmp_path / "docs").glob("*.md"))]
    expected = {page: page.read_text() for page in pages}
    for page, text in expected.items():
        text = re.sub(
            r"(<!-- (claims|early|headlines|label_free|trainings|verdicts) -->\n).*?(<!-- /\2 -->)",
            r"\1\3",
            text,
            flags=re.S,
        )
        page.write_text(re.sub(r"\[[^\]]*\](\([^)\s]+ \"(?:measured|verdict)[ \d]*\"\))", r"[]\1", text))
    assert sum(page.read_text() != text for page, text in expected.items()) >= 5
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    script = tmp_path / "docs" / "hooks" / "claims.py"
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page, text in expected.items():
        assert page.read_text() == text, f"./reproduce.sh evidence --recorded changes {page.name}"
    drawn = [{path.name for path in (docs / "images/claims").iterdir()} for docs in (DOCS, tmp_path / "docs")]
    assert drawn[0] == drawn[1]


def claims(page: str) -> dict[str, dict[str, Any]]:
    """The recorded outcomes that a page of claims has: those of 90 steps, or what trains no network."""
    outcomes = json.loads((DATA / "claims.json").read_text())["outcomes"]
    return {each["name"]: each for each in outcomes if bool(each["rows"]) == (page == "early.md")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_numbers_of_a_claim_are_its_own(page: Path) -> None:
    """The text of a link to a claim may hold its effect and its interval, rounded."""
    for text, target in LINK.findall(page.read_text()):
        path, _, name = target.partition("#")
        known = claims(path.rpartition("/")[2])
        if not path.endswith(("claims.md", "early.md")) or name not in known:
            continue
        estimates = [[each["mean"], each["low"], each["high"]] for each in known[name]["numbers"][:3]]
        shown = re.findall(r"[+-]?\d+(?:\.\d+)?", text.replace("−", "-"))
        assert not shown or any(_same(shown, numbers) for numbers in estimates), (text, name)


def _same(shown: list[str], numbers: list[float]) -> bool:
    """Return whether the numbers in a text are these, at as many decimals as it shows."""
    return all(
        abs(float(text) - number) <= 0.5 * 10 ** -len(text.partition(".")[2]) + 1e-9
        for text, number in zip(shown, numbers, strict=False)
    )


def test_the_caption_of_the_picture_has_its_numbers() -> None:
    rows = json.loads((DATA / "caught.json").read_text())["rows"]
    (caption,) = re.findall(r"^\*(.*solo-dimreg toy caught.*)\*$", README.read_text(), re.MULTILINE)
    for row in rows.values():
        assert f"{row['loss'][-1]:.2f}".replace("-", "−") in caption
        assert f"rank of {row['effective_rank'][-1]:.0f}" in caption
        assert f"{row['linear_acc1']:.0f} %" in caption
    assert f"step {rows['high_rate']['alarm']}" in caption
    assert rows["low_rate"]["alarm"] is rows["remedy"]["alarm"] is None


def options_of(section: str) -> dict[str, str]:
    """The options and defaults of a section's table in the page of the methods."""
    text = (DOCS / "methods.md").read_text().partition(f"### Options of {section}\n")[2].partition("\n#")[0]
    return dict(re.findall(r"^\| `(\w+)` \| `?([^|`]+?)`? \|", text, re.MULTILINE))


def defaults_of(callable_: Any) -> dict[str, str]:
    parameters = inspect.signature(callable_).parameters.values()
    named = [p for p in parameters if p.default is not p.empty]
    return {p.name: str(p.default) for p in named}


def ours() -> list[str]:
    return [name for name, each in registered("regularizers").items() if each.distribution == "solo-dimreg"]


@pytest.mark.parametrize("name", ours())
def test_the_options_of_a_regularizer_are_documented(name: str) -> None:
    own = defaults_of(registered("regularizers")[name].value)
    assert options_of(f"`{name}`") == own


@pytest.mark.parametrize("name", ours())
def test_the_readme_has_the_weight_and_the_place_of_a_regularizer(name: str) -> None:
    defaults = getattr(registered("regularizers")[name].value, "defaults", {})
    (row,) = re.findall(rf"^\|`{name}`\|.*\|(.*)\|(.*)\|.*\|$", README.read_text(), re.MULTILINE)
    assert row == (str(defaults.get("weight", "none")), defaults.get("where", "features"))


def test_each_regularizer_of_ours_is_compared() -> None:
    headings = re.findall(r"^### Options of `(\w+)`$", (DOCS / "methods.md").read_text(), re.MULTILINE)
    without_options = {name for name in ours() if not options_of(f"`{name}`")}
    assert {*headings, *without_options} == set(ours()) and headings


def test_the_options_of_the_projector_are_documented() -> None:
    assert options_of("`projector:`") == defaults_of(normalization_layer)


def test_every_metric_is_in_the_glossary() -> None:
    text = (DOCS / "metrics.md").read_text()
    for name, each in registered("metrics").items():
        if each.distribution == "solo-dimreg":
            assert f"| `{name}` |" in text


def test_the_version_is_the_same_everywhere() -> None:
    (version,) = re.findall(r'^__version__ = "(.+)"$', PACKAGE.read_text(), re.MULTILINE)
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    (date,) = re.findall(r"^date-released: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert f"\n## [{version}] - {date}\n" in (ROOT / "CHANGELOG.md").read_text()
