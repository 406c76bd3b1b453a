"""Write the results of a diagnosis: ``diagnosis.html``, its plots as PNG files, and ``diagnosis.json``."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from solo_dimreg import plots
from solo_dimreg.diagnosis.diagnose import Diagnosis, results
from solo_dimreg.diagnosis.table import summary_table
from solo_dimreg.diagnosis.verdict import THRESHOLDS, judge
from solo_dimreg.errors import warn
from solo_dimreg.files import aside, write_bytes, write_json, write_text
from solo_dimreg.metrics.registry import METRICS, VIEWS
from solo_dimreg.reports import page
from solo_dimreg.reports.explanations import SPECTRUM, Explanation, caption, explanation_of

KINDS = {
    "healthy": "good",
    "local collapse": "warning",
    "global collapse": "bad",
    "complete collapse": "bad",
}
CUMULATIVE = Explanation(
    "cumulative variance",
    "The part of the variance that the leading directions hold. If a curve reaches 100 % early, the rest of "
    "the dimensions are empty.",
    SPECTRUM.source,
    SPECTRUM.address,
)
UMAP = Explanation(
    "UMAP",
    "solo-learn's UMAP plot of the features, coloured by class.",
    "McInnes et al., 2018",
    "https://arxiv.org/abs/1802.03426",
)
# The explanations for the page, which hold for the features and the embeddings.
EXPLANATIONS = {
    name: explanation_of(record)
    for name, record in METRICS.items()
    if record.in_diagnosis and record.inputs != VIEWS and record.explanation
}
# The number of cells along each side of a heat map; more axes are averaged in blocks.
CELLS = 128
# The names of the files that a diagnosis writes.
OWN_FILES = re.compile(
    r"diagnosis\.(html|json)|(spectra|cumulative_variance|lid|(correlation|umap)-\d+)\.png"
)
# The largest number of classes that the page shows.
CLASSES = 50


def write_diagnosis(diagnoses: Sequence[Diagnosis], out: Path) -> Path:
    """Write the page, the plots and the metrics of one or several inputs.

    Args:
        diagnoses: The diagnoses; several are shown side by side.
        out: The folder to write into. The files of an earlier diagnosis there move to ``<out>.bak``, and a
            warning says so.

    Returns:
        The path of the HTML page.
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
    """Move the files of an earlier diagnosis, and no others, to another folder."""
    earlier = [path for path in out.glob("*") if path.is_file() and OWN_FILES.fullmatch(path.name)]
    if not any(path.name in ("diagnosis.html", "diagnosis.json") for path in earlier):
        return
    target = aside(out.resolve())
    target.mkdir()
    for path in earlier:
        path.rename(target / path.name)
    warn(f"{out}: the earlier diagnosis there was moved to {target}.")


def fragment(diagnosis: Diagnosis) -> str:
    """Return verdict, metrics, plots and classes of one input, as a part of another page or a notebook."""
    return page.fragment(
        *_verdict(diagnosis),
        page.table(*summary_table([diagnosis]), "Metrics"),
        page.figures(_cards(_pictures([diagnosis]))),
        *_classes(diagnosis),
    )


def _cards(pictures: dict[str, tuple[Figure, Explanation]]) -> list[page.Html]:
    return [page.figure(plots.svg(figure), caption(text)) for figure, text in pictures.values()]


def _pictures(diagnoses: Sequence[Diagnosis]) -> dict[str, tuple[Figure, Explanation]]:
    """Return the plots with their explanations, by the name of the file."""
    spaces = {
        f"{each.source.name}, {name}" if len(diagnoses) > 1 else name: space
        for each in diagnoses
        for name, space in each.spaces.items()
    }
    # A spectrum is 0 beyond the attainable rank, whatever the features are.
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
    """Return the absolute correlations, averaged to at most ``CELLS`` cells along each side."""
    size = min(len(correlation), CELLS)
    return adaptive_avg_pool2d(correlation.abs()[None, None], size)[0, 0]


def _page(diagnoses: Sequence[Diagnosis], pictures: dict[str, tuple[Figure, Explanation]]) -> str:
    names = ", ".join(each.source.name for each in diagnoses)
    cards = _cards(pictures)
    cards += [_umap_card(each) for each in diagnoses if each.umap]
    return page.page(
        f"Diagnosis of {names}",
        *(part for each in diagnoses for part in _verdict(each)),
        page.section("Metrics", page.table(*summary_table(diagnoses), "Metrics of all inputs")),
        page.section("Plots", page.figures(cards)),
        *(part for each in diagnoses for part in _classes(each)),
        page.section(
            "Meaning of the metrics", *(page.paragraph(caption(each)) for each in EXPLANATIONS.values())
        ),
        page.section(
            "Thresholds",
            page.table(["verdict", "if"], [[kind, rule] for kind, rule in THRESHOLDS.items()], "Thresholds"),
            page.paragraph(
                "The verdicts are tested in this order. The thresholds are conventions of solo-dimreg, not "
                "of a paper. Images with few dimensions of their own give features with a low LID; "
                "'solo-dimreg diagnose pixels' measures the images themselves."
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
        f"The table has {len(lowest)} of {len(each.classes)} classes, lowest LID first, from the features of "
        "the sample. The last column is the variance within the class, in percent of the whole variance."
    )
    heading = f"Classes of {each.source.name}"
    return [page.section(heading, page.paragraph(text), page.table(header, rows, heading))]


def _umap_card(each: Diagnosis) -> page.Html:
    content = base64.b64encode(each.umap).decode()
    picture = page.Html(
        f'<img alt="UMAP of {page.escape(each.source.name)}" src="data:image/png;base64,{content}">'
    )
    return page.figure(picture, page.join([page.strong(f"{each.source.name}: "), caption(UMAP)]))
