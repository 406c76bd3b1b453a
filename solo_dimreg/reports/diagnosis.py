"""What a diagnosis leaves behind: ``diagnosis.html``, its plots as PNG files, and ``diagnosis.json``."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from solo_dimreg import plots
from solo_dimreg.diagnostics.diagnose import Diagnosis, results
from solo_dimreg.diagnostics.figures import THRESHOLDS, judge
from solo_dimreg.diagnostics.table import summary_table
from solo_dimreg.errors import warn
from solo_dimreg.files import aside, write_bytes, write_json, write_text
from solo_dimreg.reports import page
from solo_dimreg.reports.explanations import SPECTRUM, Explanation, caption, explain

KINDS = {
    "healthy": "good",
    "local collapse": "warning",
    "global collapse": "bad",
    "complete collapse": "bad",
}
CUMULATIVE = Explanation(
    "cumulative variance",
    "The part of the variance that the leading directions hold: a curve that is at 100 % early has the rest "
    "of its dimensions empty.",
    SPECTRUM.source,
    SPECTRUM.address,
)
UMAP = Explanation(
    "UMAP",
    "solo-learn's UMAP plot of the features, coloured by class.",
    "McInnes et al., 2018",
    "https://arxiv.org/abs/1802.03426",
)
# Of the features r and the embeddings z alike.
EXPLANATIONS = {
    name: replace(explain(name), label=label)
    for name, label in {
        "lid": "LID",
        "effective_rank": "effective rank",
        "mean_share": "mean's share",
        "two_nn": "dimension (TwoNN)",
        "mst_dimension": "dimension (spanning tree)",
        "nesum": "NESum",
        "rankme": "RankMe",
        "rankme_share": "RankMe over the width",
        "alpha_req": "alpha-ReQ",
        "off_diagonal_correlation": "off-diagonal correlation",
        "matrix_entropy": "entropy H",
        "mutual_information": "I(R;Z)",
        "uniformity": "uniformity",
        "self_clustering": "self-clustering",
    }.items()
}
# Cells along each side of a heat map: more axes than these are averaged in blocks.
CELLS = 128
# What a diagnosis writes.
OWN_FILES = re.compile(
    r"diagnosis\.(html|json)|(spectra|cumulative_variance|lid|(correlation|umap)-\d+)\.png"
)
# Lines of the table of classes that the page shows.
CLASSES = 50


def write_diagnosis(diagnoses: Sequence[Diagnosis], out: Path) -> Path:
    """Writes the page, the plots and the figures of one or several inputs.

    Args:
        diagnoses: What was found out; several are shown side by side.
        out: The folder to write into. The files of an earlier diagnosis there move to ``<out>.bak``, and a
            line says so.

    Returns:
        The HTML page.
    """
    pictures = _pictures(diagnoses)
    _move_earlier(out)
    for name, (figure, _) in pictures.items():
        plots.save_png(figure, out / f"{name}.png")
    for number, each in enumerate(diagnoses, 1):
        if each.umap:
            write_bytes(out / f"umap-{number}.png", each.umap)
    write_json(out / "diagnosis.json", results(diagnoses))
    write_text(out / "diagnosis.html", _page(diagnoses, pictures))
    return out / "diagnosis.html"


def _move_earlier(out: Path) -> None:
    """Moves the files of an earlier diagnosis, and no others, out of the way."""
    earlier = [path for path in out.glob("*") if path.is_file() and OWN_FILES.fullmatch(path.name)]
    if not any(path.name in ("diagnosis.html", "diagnosis.json") for path in earlier):
        return
    target = aside(out.resolve())
    target.mkdir()
    for path in earlier:
        path.rename(target / path.name)
    warn(f"{out}: the earlier diagnosis there was moved to {target}.")


def fragment(diagnosis: Diagnosis) -> str:
    """Verdict, figures, plots and classes of one input, as a part of a page of others, such as a notebook."""
    return page.fragment(
        *_verdict(diagnosis),
        page.table(*summary_table([diagnosis]), "Figures"),
        page.figures(_cards(_pictures([diagnosis]))),
        *_classes(diagnosis),
    )


def _cards(pictures: dict[str, tuple[Figure, Explanation]]) -> list[page.Html]:
    return [page.figure(plots.svg(figure), caption(text)) for figure, text in pictures.values()]


def _pictures(diagnoses: Sequence[Diagnosis]) -> dict[str, tuple[Figure, Explanation]]:
    """The plots with their explanations, by the name of the file."""
    spaces = {
        f"{each.source.name}, {name}" if len(diagnoses) > 1 else name: space
        for each in diagnoses
        for name, space in each.spaces.items()
    }
    # Beyond what so few samples can have, a spectrum is 0 whatever the features are.
    spectra = {name: space.spectrum[: space.attainable].tolist() for name, space in spaces.items()}
    lids = {name: space.lids.tolist() for name, space in spaces.items()}
    pictures = {
        "spectra": (plots.draw_spectra(spectra), SPECTRUM),
        "cumulative_variance": (plots.draw_cumulative_variance(spectra), CUMULATIVE),
        "lid": (plots.draw_lids(lids), EXPLANATIONS["lid"]),
    }
    for number, (name, space) in enumerate(spaces.items(), 1):
        drawn = plots.draw_correlation(_blocks(space.correlation).tolist(), name)
        pictures[f"correlation-{number}"] = (drawn, EXPLANATIONS["off_diagonal_correlation"])
    return pictures


def _blocks(correlation: Tensor) -> Tensor:
    """Absolute correlations, averaged so that at most ``CELLS`` cells are along each side."""
    size = min(len(correlation), CELLS)
    return adaptive_avg_pool2d(correlation.abs()[None, None], size)[0, 0]


def _page(diagnoses: Sequence[Diagnosis], pictures: dict[str, tuple[Figure, Explanation]]) -> str:
    names = ", ".join(each.source.name for each in diagnoses)
    cards = _cards(pictures)
    cards += [_umap_card(each) for each in diagnoses if each.umap]
    return page.page(
        f"Diagnosis of {names}",
        *(part for each in diagnoses for part in _verdict(each)),
        page.section("Figures", page.table(*summary_table(diagnoses), "Figures of all inputs")),
        page.section("Plots", page.figures(cards)),
        *(part for each in diagnoses for part in _classes(each)),
        page.section(
            "What the figures mean", *(page.paragraph(caption(each)) for each in EXPLANATIONS.values())
        ),
        page.section(
            "Thresholds",
            page.table(["verdict", "if"], [[kind, rule] for kind, rule in THRESHOLDS.items()], "Thresholds"),
            page.paragraph(
                "Tested in this order. They are conventions of solo-dimreg, not of a paper: data that has "
                "few dimensions itself makes features with a low LID; 'diagnose pixels' tells what the "
                "images have."
            ),
        ),
    )


def _verdict(each: Diagnosis) -> list[str]:
    verdict = each.verdict
    title = f"{each.source.name}: {verdict.kind}"
    parts: list[str] = [page.banner(KINDS[verdict.kind], title, verdict.reason)]
    if each.embeddings is not None:
        embedded = judge(each.embeddings)
        parts.append(page.paragraph(page.strong(f"Embeddings: {embedded.kind}. "), embedded.reason))
    parts.append(page.paragraph(f"{each.source.description}. {each.caution}"))
    return parts


def _classes(each: Diagnosis) -> list[str]:
    if not each.classes:
        return []
    lowest = sorted(each.classes, key=lambda line: line["lid"] or math.inf)[:CLASSES]
    rows = [
        [
            line["class"],
            str(line["samples"]),
            "–" if line["lid"] is None else f"{line['lid']:.2f}",
            f"{line['effective_rank']:.1f}",
            f"{100 * line['within_variance']:.1f}",
        ]
        for line in lowest
    ]
    header = ["class", "samples", "LID", "effective rank", "variance within (%)"]
    text = (
        f"Of the features of the sample, lowest LID first ({len(lowest)} of {len(each.classes)} classes). "
        "The last column is the variance within the class, in percent of that of all."
    )
    heading = f"Classes of {each.source.name}"
    return [page.section(heading, page.paragraph(text), page.table(header, rows, heading))]


def _umap_card(each: Diagnosis) -> page.Html:
    content = base64.b64encode(each.umap).decode()
    picture = page.Html(
        f'<img alt="UMAP of {page.escape(each.source.name)}" src="data:image/png;base64,{content}">'
    )
    return page.figure(picture, page.join([page.strong(f"{each.source.name}: "), caption(UMAP)]))
