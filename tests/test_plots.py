from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from solo_dimreg.plots import (
    COLOURS,
    INK,
    INK_ON_DARK,
    draw_accuracies,
    draw_atlas,
    draw_correlation,
    draw_cumulative_variance,
    draw_curves,
    draw_lid_by_k,
    draw_lids,
    draw_spectra,
    save_png,
    svg,
)

TEXT = "{http://www.w3.org/2000/svg}text"
NAMES = [f"method_{i}" for i in range(10)]
# To matplotlib a formula that does not parse, to XML and HTML tags and an attribute.
HOSTILE = f'$\\frac{{$ <b> & id="x" {INK}'


def lines(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    """The points behind each entry of the legend."""
    (legend,) = figure.legends
    colours = {
        text.get_text(): (line.get_color(), line.get_linestyle())
        for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)
    }
    drawn = {(line.get_color(), line.get_linestyle()): line for line in figure.axes[0].get_lines()}
    return {name: list(zip(*drawn[look].get_data(), strict=True)) for name, look in colours.items()}


def texts(figure: Figure, dark: bool = False) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg(figure)[dark]).iter(TEXT)]


def test_spectra_are_logarithms_relative_to_the_largest() -> None:
    figure = draw_spectra({"a": [100.0, 10.0, 0.0], "b": [0.5, 0.25]})
    drawn = lines(figure)
    assert drawn["a"] == [(1, 0), (2, pytest.approx(-1)), (3, pytest.approx(-9))]
    assert drawn["b"] == [(1, 0), (2, pytest.approx(math.log10(0.5)))]


def test_a_collapsed_spectrum_is_drawn() -> None:
    assert lines(draw_spectra({"a": [0.0, 0.0]}))["a"] == [(1, -9), (2, -9)]


def test_accuracies_are_where_their_axis_says() -> None:
    values = {"linear": [(90.0, 1.0), (95.0, 2.0)], "k-NN": [(80.0, 0.5), (math.nan, None)]}
    figure = draw_accuracies(["a", "b"], values)
    first, second = figure.axes[0].containers
    assert list(first.lines[0].get_xdata()) == [90, 95]
    (bars,) = first.lines[2]
    assert [tuple(segment[:, 0]) for segment in bars.get_segments()] == [(89, 91), (93, 97)]
    assert second.lines[0].get_xdata()[0] == 80 and math.isnan(second.lines[0].get_xdata()[1])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b"]


def test_curves_of_seeds_and_their_mean() -> None:
    seeds = [{0: 1.0, 1: 2.0, 2: 9.0}, {0: 3.0, 1: 6.0}]
    figure = draw_curves({"LID": {"a": seeds, "b": [{0: 5.0}]}}, ["a", "b"])
    assert lines(figure)["a"] == [(0, 2), (1, 4)]
    thin = [line for line in figure.axes[0].get_lines() if line.get_alpha()]
    assert [list(line.get_ydata()) for line in thin] == [[1, 2, 9], [3, 6]]
    assert figure.axes[0].get_title() == "LID"


def test_a_method_has_the_same_look_in_every_plot() -> None:
    all_ten = {name: [{0: 1.0, 1: float(i)}] for i, name in enumerate(NAMES)}
    looks = []
    for panel in (all_ten, {"method_7": all_ten["method_7"]}):
        figure = draw_curves({"LID": panel}, NAMES)
        (legend,) = figure.legends
        place = [text.get_text() for text in legend.get_texts()].index("method_7")
        line = legend.get_lines()[place]
        looks.append((line.get_color(), line.get_linestyle()))
    assert looks[0] == looks[1]
    assert len(lines(draw_curves({"LID": all_ten}, NAMES))) == 10


def test_colours_are_seen_on_white_and_on_dark() -> None:
    """At least 2 : 1 on both; the ink has another colour on dark."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in set(COLOURS) - {INK}:
        assert 1.05 / (luminance(colour) + 0.05) > 2
        assert (luminance(colour) + 0.05) / (luminance("#1d2127") + 0.05) > 2
    assert INK in COLOURS and luminance(INK_ON_DARK) > 0.7


def test_nothing_is_cut_off_and_the_legend_covers_no_data() -> None:
    names = ["a" * 60, *NAMES]
    for figure in (
        draw_curves({"x": {name: [{0: 1.0, 1: 2.0}] for name in names}}, names),
        draw_spectra({name: [2.0, 1.0] for name in names}),
        draw_accuracies(names, {"linear": [(50.0, None)] * len(names)}),
    ):
        figure.draw_without_rendering()
        whole = figure.bbox
        (legend,) = figure.legends
        for box in (legend.get_window_extent(), *(axes.get_tightbbox() for axes in figure.axes)):
            assert box.x0 >= whole.x0 and box.y0 >= whole.y0 and box.x1 <= whole.x1 and box.y1 <= whole.y1
        assert legend.get_window_extent().y1 <= min(axes.get_tightbbox().y0 for axes in figure.axes)


def test_svg_is_transparent_with_text_that_shows_on_its_page() -> None:
    figure = draw_curves({"effective rank": {"a": [{0: 1.0, 1: 2.0}]}}, ["a", "b"])
    assert {"effective rank", "epoch", "a"} <= set(texts(figure))
    for dark, ink, other in ((False, INK, INK_ON_DARK), (True, INK_ON_DARK, INK)):
        drawing = svg(figure)[dark].decode()
        assert ink in drawing and other not in drawing and "#ffffff" not in drawing
    assert figure.get_label() == "effective rank over the epochs"


def test_a_hostile_name_is_shown_as_it_is() -> None:
    assert HOSTILE[:28] in texts(draw_spectra({HOSTILE[:28]: [2.0, 1.0]}))
    assert HOSTILE[:20] in texts(draw_accuracies([HOSTILE[:20]], {"linear": [(50.0, None)]}))
    for dark in (False, True):
        assert HOSTILE in texts(draw_curves({HOSTILE: {"a": [{0: 1.0}]}}, ["a"]), dark)


def test_png(tmp_path: Path) -> None:
    save_png(draw_spectra({"a": [2.0, 1.0]}), tmp_path / "new" / "a.png")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["a.png"]
    with Image.open(tmp_path / "new" / "a.png") as image:
        assert image.format == "PNG" and image.width == 720
        assert np.asarray(image.convert("L"))[0, 0] == 255


SPECTRA = {"_a": [4.0, 2.0, 1.0, 1.0], "b": [1.0, 0.0, 0.0, 0.0]}


def legend(figure: Figure) -> dict[str, Any]:
    """The colour of each name."""
    (box,) = figure.legends
    handles = zip(box.get_texts(), box.legend_handles, strict=True)
    return {text.get_text(): handle.get_color() for text, handle in handles}


@pytest.mark.parametrize("draw", [draw_spectra, draw_cumulative_variance, draw_lids])
def test_every_name_is_in_the_legend_in_the_colour_of_its_line(draw: Any) -> None:
    figure = draw(SPECTRA)
    assert legend(figure) == {"_a": COLOURS[0], "b": COLOURS[1]}
    (axes,) = figure.axes
    lines = [each.get_color() for each in axes.lines] or [each.get_edgecolor() for each in axes.patches]
    assert lines == [COLOURS[0], COLOURS[1]]


def test_a_name_without_a_spectrum_keeps_its_colour() -> None:
    assert legend(draw_spectra({"b": [1.0, 0.5]}, ["a", "b"])) == {"b": COLOURS[1]}


def test_cumulative_variance_adds_up() -> None:
    (axes,) = draw_cumulative_variance(SPECTRA).axes
    assert axes.lines[0].get_ydata().tolist() == [50, 75, 87.5, 100]
    assert axes.lines[1].get_ydata().tolist() == [100, 100, 100, 100]


def test_lids_are_counted_in_percent_with_a_line_at_their_geometric_mean() -> None:
    (axes,) = draw_lids({"x": [1.0, 4.0, 16.0]}).axes
    assert axes.lines[0].get_xdata()[0] == pytest.approx(4)
    heights = axes.patches[0].get_xy()[:, 1]
    assert heights.max() == pytest.approx(100 / 3)


def test_a_few_lids_far_from_the_others_are_counted_and_left_out() -> None:
    near = [2.0 + i / 50 for i in range(200)]
    (axes,) = draw_lids({"x": [*near, *[1.2e7] * 3], "y": [30.0, 31.0, 32.0]}).axes
    assert axes.get_title().startswith("3 points are outside 1.9")
    low, high = axes.get_xlim()
    assert low < 2 and 32 < high < 300  # those of the other input are shown
    assert "outside" not in draw_lids({"x": near}).axes[0].get_title()
    figure = draw_lids({"x": [*near, *[1.2e7] * 100]})
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert axes.get_xlim()[1] > 1e7  # not a few
    boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))


def test_a_few_points_have_no_curve_over_their_neighbours() -> None:
    (axes,) = draw_lid_by_k({"x": {8: (3.0, 2.5, 3.5), 16: (2.0, 1.8, 2.2)}, "few": {}}).axes
    assert axes.lines[0].get_ydata().tolist() == [3, 2] and len(axes.lines[1].get_ydata()) == 0
    assert axes.collections[0].get_paths()[0].get_extents().y1 == 3.5
    draw_lid_by_k({"few": {}}).draw_without_rendering()
    (axes,) = draw_lid_by_k({"x": {8: (3.0, 2.5, 3.5)}}, [{8: 2.0, 32: 1.0}]).axes
    assert axes.lines[0].get_ydata().tolist() == [2, 1] and list(axes.get_xticks()) == [8, 32]


def test_the_diagnosed_networks_are_bold_among_the_known_ones() -> None:
    groups = {
        "published": {"a": (0.2,) * 3},
        "trained here": {"b": (0.6,) * 3},
        "diagnosed": {"c": (0.4, 0.3, 0.5)},
    }
    (axes,) = draw_atlas(groups).axes
    labels = [(label.get_text(), label.get_fontweight()) for label in axes.get_yticklabels()]
    assert labels == [("b", "normal"), ("c", "bold"), ("a", "normal")]
    assert list(axes.lines[2].get_xdata()) == [0.3, 0.5]


def test_correlations_are_shown_from_0_to_1() -> None:
    picture = draw_correlation([[1.0, 0.25], [0.25, 1.0]], "x").axes[0].images[0]
    assert picture.get_array().tolist() == [[1.0, 0.25], [0.25, 1.0]] and picture.get_clim() == (0, 1)
