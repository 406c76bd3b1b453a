"""The numbers from streamed moments against the functions of the whole matrix, and the verdicts."""

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solo_dimreg import functional
from solo_dimreg.diagnosis.diagnose import diagnose
from solo_dimreg.diagnosis.sources.opening import NETWORK, REFERENCE, Source
from solo_dimreg.diagnosis.verdict import judge
from solo_dimreg.functional._rows import few_indices
from solo_dimreg.metrics.explanations import explain
from solo_dimreg.metrics.neighbourhoods import random_indices
from solo_dimreg.metrics.numbers import (
    describe_space,
    mutual_information,
    representation_numbers,
)
from solo_dimreg.metrics.streaming import FeatureStatistics


def describe(features, batch=97):
    statistics = FeatureStatistics()
    for rows in features.split(batch):
        statistics.update(rows)
    return describe_space(statistics.features, statistics.sample["features"])


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


CASES = {
    "full": normal(400, 24) * torch.linspace(0.1, 2, 24) + 3,
    "fewer samples than dimensions": normal(40, 64, seed=1) + 1,
    "low rank": normal(300, 4, seed=2) @ normal(4, 30, seed=3),
    "float64": normal(200, 10, seed=4, dtype=torch.float64),
    "a constant axis": torch.cat([normal(100, 5, seed=5), torch.full((100, 1), 7.0)], dim=1),
    "constant": torch.full((50, 8), 1.7),
    "zeros": torch.zeros(50, 8),
    "two samples": normal(2, 5),
    "one dimension": normal(60, 1),
}


@pytest.mark.parametrize("features", CASES.values(), ids=CASES)
def test_streamed_figures_are_those_of_the_functions(features):
    space = describe(features)
    expected = {
        "effective_rank": functional.effective_rank(features, center=True),
        "rankme": functional.rankme(features),
        "alpha_req": functional.alpha_req(features),
        "off_diagonal_correlation": functional.off_diagonal_correlation(features),
        "lid": functional.geometric_mean_lid(features, k=32),
        "variance_rank": functional.variance_rank(features),
        "signal_rank": functional.signal_rank(features),
        "noise_share": functional.noise_share(features),
        "group_share": functional.group_share(features),
        "lid_mle": functional.geometric_mean_lid(features, k=32, estimator="mle"),
        "nesum": functional.nesum(features),
        "rankme_share": functional.rankme_share(features),
        "mean_share": functional.mean_share(features),
        "self_clustering": functional.self_clustering(features),
        "two_nn": functional.two_nn(features),
        "mst_dimension": functional.mst_dimension(features),
        "uniformity": functional.uniformity(features),
        "matrix_entropy": functional.matrix_entropy(features),
        "matrix_entropy_1": functional.matrix_entropy(features, order=1),
    }
    found = space.numbers
    for name, value in expected.items():
        known = None if math.isnan(value) else pytest.approx(value.item(), rel=2e-4, abs=2e-5)
        assert found[name] == known, name
    spectrum = functional.singular_spectrum(features).double()
    torch.testing.assert_close(space.spectrum, spectrum, rtol=1e-3, atol=2e-6 * float(spectrum[0]))
    assert (space.samples, space.dimensions) == features.shape
    assert space.lid_512 is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("spectrum", "kind"),
    [(torch.ones(256), "healthy"), (torch.arange(1.0, 257) ** -1, "partly collapsed")],
)
def test_half_precision_does_not_look_like_a_collapse(dtype, spectrum, kind):
    features = normal(1000, 256) * spectrum
    exact, rounded = describe(features), describe(features.to(dtype))
    assert judge(rounded).kind == judge(exact).kind == kind
    assert rounded.effective_rank == pytest.approx(exact.effective_rank, rel=0.15)


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_figures_do_not_depend_on_the_scale(scale):
    features = normal(300, 10) + 1
    expected = describe(features).numbers
    for name, value in describe(features * scale).numbers.items():
        assert value == (expected[name] and pytest.approx(expected[name], rel=1e-3)), name


def test_figures_do_not_depend_on_the_order():
    """As those of all pairs, which are taken of 2,048 samples, would on data sorted by class."""
    features = torch.cat([normal(500, 8, seed=i) + 6 * normal(1, 8, seed=100 + i) for i in range(8)])
    mixed = features[torch.randperm(len(features), generator=torch.Generator().manual_seed(1))]
    one, other = describe(features), describe(mixed)
    for name in ("uniformity", "matrix_entropy", "matrix_entropy_1", "lid", "effective_rank"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=0.05), name


def test_many_samples_are_compared_with_all_of_them():
    """Clusters of 40 points: of 10,000 of them, or in a batch, 32 neighbours would be elsewhere."""
    features = sheets(2, clusters=300, points=40, width=24)
    indices = random_indices(len(features))
    expected = functional.geometric_mean_lid(features[indices], features, k=32, self_indices=indices)
    assert len(indices) == 1000
    assert representation_numbers(features)["lid"] == pytest.approx(expected.item(), rel=1e-3)


def test_the_lid_with_many_neighbours_needs_many_samples():
    features = normal(2048, 3)
    found = describe(features)
    assert found.lid_512 == pytest.approx(functional.geometric_mean_lid(features, k=512).item(), rel=1e-5)
    assert describe(features[:-1]).lid_512 is None


def test_directions_and_spread_have_closed_forms():
    # Axes of variance 1, 1e-4 and 1e-8 around a mean of length 2: two count as filled.
    signs = torch.tensor(
        [[a, b, c] for a in (-1.0, 1) for b in (-1.0, 1) for c in (-1.0, 1)], dtype=torch.float64
    )
    space = describe(signs * torch.tensor([1, 1e-2, 1e-4]) + torch.tensor([0, 0, 2.0]))
    assert space.filled == 2
    assert space.spread == pytest.approx(1.00010001 / 5.00010001, rel=1e-9)
    assert space.attainable == 3


def sheets(dimension, clusters=40, points=80, width=64):
    """Clusters far apart that fill ``width`` dimensions, each a sheet of ``dimension`` dimensions."""
    generator = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(clusters, 1, width, generator=generator)
    frames = torch.randn(clusters, dimension, width, generator=generator)
    within = torch.rand(clusters, points, dimension, generator=generator) @ frames
    return (centres + 0.5 * within).flatten(0, 1)


def turned(values, rows, seed=0):
    """Normal features with these standard deviations along random directions, in float64."""
    turn = torch.linalg.qr(normal(len(values), len(values), seed=seed + 1, dtype=torch.float64)).Q
    return (normal(rows, len(values), seed=seed, dtype=torch.float64) * values) @ turn


def groups(count, width, within=0.05, rows=2_000):
    """Tight groups whose points fill all dimensions within each."""
    return normal(count, width, seed=4)[torch.arange(rows) % count] + within * normal(rows, width)


def signal(rank, width, noise=0.01, rows=1_000):
    return normal(rows, rank) @ normal(rank, width, seed=1) + noise * normal(rows, width, seed=2)


VERDICTS = {
    "collapsed completely": [
        5 + 1e-7 * normal(500, 64, dtype=torch.float64),
    ],
    "collapsed globally": [
        *(signal(rank, width) for rank in (2, 3, 4, 6, 8) for width in (32, 64)),
        normal(500, 5) @ normal(5, 512, seed=1),
        signal(4, 512, rows=64),  # few rows tell a collapse, and nothing else
        torch.nn.functional.normalize(signal(6, 64) + 20),
        groups(2, 128, 1e-3),
        groups(5, 128),
        turned(torch.arange(1.0, 129) ** -4, 1_000),  # steep, without a floor
    ],
    "collapsed locally": [sheets(1), sheets(2), sheets(1, clusters=200, points=20)],
    "partly collapsed": [
        signal(24, 64),
        normal(500, 64) * (torch.arange(64) < 32),  # half of the axes are dead
        normal(500, 24) @ normal(24, 64, seed=1),
        turned(torch.arange(1.0, 257) ** -1, 2_000),  # nine tenths of the variance in five directions
    ],
    "healthy": [
        normal(500, 64),
        normal(500, 2),  # two dimensions of two
        sheets(8),
        *(turned(torch.arange(1.0, 129) ** -exponent, 1_000) for exponent in (0.125, 0.25, 0.5)),
        normal(500, 64) * torch.logspace(0, -1.5, 64) + 1,
        groups(10, 64),
        groups(10, 512),
        groups(100, 256),
        groups(1_000, 128, rows=8_000),
        (normal(1_000, 64) @ normal(64, 64, seed=1)).relu() + 100,
        torch.nn.functional.normalize(normal(1_000, 64) + 1),
    ],
    "cannot tell": [
        normal(20, 512),
        normal(20, 4),
        (1_000 + normal(500, 64)).half(),  # of the size of the rounding
        normal(500, 64) * torch.tensor([1e4] + [1.0] * 499)[:, None],  # one row of large norm
        normal(1_000, 64) / normal(1_000, 1, seed=1).abs(),  # heavy tails: no moments at all
        normal(200, 512),
        normal(300, 12).repeat(4, 1),
        torch.full((500, 64), 0.3),
        torch.zeros(500, 64),
    ],
}


@pytest.mark.parametrize(
    ("title", "features"), [(title, each) for title, examples in VERDICTS.items() for each in examples]
)
def test_verdicts(title, features):
    verdict = judge(describe(features))
    assert verdict.title == title, verdict.reason
    assert verdict.kind == verdict.title.partition("ed ")[0] + "ed" if verdict.ways else title
    assert verdict.rule
    if title != "cannot tell" and title != "collapsed completely":
        assert f"effective rank {describe(features).effective_rank:.1f} of" in verdict.reason


INVARIANT = {title: VERDICTS[title][-1] for title in VERDICTS if title != "collapsed completely"}


@settings(max_examples=15, deadline=None)
@given(
    title=st.sampled_from([*INVARIANT]),
    seed=st.integers(0, 1000),
    scale=st.floats(-6, 6).map(lambda power: 10**power),
    shift=st.floats(-1000, 1000),
)
def test_scale_rotation_and_shift_do_not_change_the_verdict(title, seed, scale, shift):
    x = INVARIANT[title].double()
    turn = torch.linalg.qr(normal(x.shape[1], x.shape[1], seed=seed, dtype=torch.float64)).Q
    assert judge(describe(scale * (x @ turn + shift * normal(x.shape[1], seed=seed + 1)))).title == title


def test_a_few_rows_of_large_norm_neither_hide_nor_feign_a_collapse():
    """As they add directions to a rank of 2, and may be missing among the rows in which groups are sought."""
    rows = torch.arange(6_000)
    two = normal(6_000, 32) * torch.tensor([1.0] * 2 + [0.01] * 30)
    hidden = describe(torch.where(rows < 10, 600.0, 1.0)[:, None] * two)
    assert hidden.signal_rank > 32 / 4 and judge(hidden).title == "collapsed globally"
    for place in (few_indices(6_000)[0], few_indices(6_000).bincount(minlength=6_000).argmin()):
        outlying = torch.where(rows == place, 1e4, 1.0)[:, None] * normal(6_000, 64)
        verdict = judge(describe(outlying))
        assert verdict.kind == "cannot tell" and "a few rows of large norm" in verdict.reason
    assert describe(outlying).group_share is None  # of the last, which is not among them


def test_more_rows_change_only_whether_one_can_tell():
    for values in (torch.ones(64), torch.arange(1.0, 65) ** -0.5, torch.tensor([1.0] * 4 + [0.05] * 60)):
        kinds = [judge(describe(turned(values, rows))).kind for rows in (16, 24, 64, 256, 2_000, 8_000)]
        assert kinds[:2] == ["cannot tell"] * 2 and len({*kinds} - {"cannot tell"}) == 1, kinds


def test_equal_features_of_different_inputs_are_a_complete_collapse():
    """In a file of features, the inputs may be equal too."""
    constant = describe(torch.full((400, 32), 0.7))
    assert judge(constant, NETWORK).title == "collapsed completely"
    assert judge(constant).kind == "cannot tell" and "if their inputs differ" in judge(constant).reason


def test_what_lies_beyond_half_of_the_width_is_named():
    """33 of 64 directions are no collapse, and the others are known to be empty."""
    space = describe(signal(33, 64, noise=1e-3))
    assert space.signal_rank == 33 and judge(space).kind == "healthy"
    assert "33 of 64 directions stand out" in judge(space).reason and space.noise_share < 1e-3


def test_points_that_see_others_at_one_distance_have_no_lid():
    """Half of the rows are near one point, all of whose distances to a far point are equal."""
    rows = normal(600, 64) * torch.where(torch.arange(600) < 400, 1e-3, 1.0)[:, None]
    assert describe(rows).lid_in_groups == pytest.approx(describe(normal(400, 64)).lid_in_groups, rel=0.1)
    assert describe(10 * torch.eye(100)).lid_in_groups is None
    assert "LID within groups undefined" in judge(describe(torch.eye(100))).reason
    assert describe(normal(60, 8)).lid_in_groups is None


def test_a_reference_gets_numbers_and_no_verdict():
    for features in (signal(4, 64), normal(500, 64)):
        verdict = judge(describe(features), REFERENCE)
        assert verdict.kind == "no verdict" and "effective rank" in verdict.reason and not verdict.ways


def test_a_higher_dimension_is_no_better_verdict():
    """From the least that is healthy up, more dimensions change neither the verdict nor what it praises."""
    found = [judge(describe(normal(400, width))) for width in (8, 64)]
    found += [judge(describe(sheets(dimension, clusters=20))) for dimension in (8, 24)]
    assert {verdict.kind for verdict in found} == {"healthy"}
    assert all("A higher rank would not be better by itself" in verdict.reason for verdict in found)


def test_a_low_dimension_is_not_bad_by_itself():
    """Two of two are healthy; where few are a local collapse, the sentence names the other cause."""
    assert judge(describe(normal(500, 2))).kind == "healthy"
    local = judge(describe(sheets(2)))
    assert "Images with few dimensions of their own cause a low LID without a collapse" in local.reason
    for name in ("lid", "two_nn", "mst_dimension", "effective_rank", "nesum"):
        text = explain(name).text
        assert re.search("by itself|prefers|no better than", text), name
        assert not re.search("(higher|lower|more|less) is better", text.replace("more is not better", "")), (
            name
        )
    assert "IdEst" in explain("lid").text and "LDReg raises" in explain("mst_dimension").text


def test_a_shared_vector_is_told_of():
    x = normal(500, 16)
    shared = x + 40 * torch.eye(16)[0]
    plain, moved = describe(x), describe(shared)
    assert moved.effective_rank == pytest.approx(plain.effective_rank, rel=1e-4)
    assert moved.mean_share == pytest.approx(1 - moved.spread, rel=1e-6)
    assert moved.mean_share > 0.98 > 0.1 > plain.mean_share
    source = Source("x", "", 500, lambda indices: iter([(shared, None, None)]))
    assert "they share one vector" in diagnose(source).caution


def test_two_dimensional_sheets_are_seen_as_such():
    space = describe(sheets(2))
    assert 1.6 < space.lid < 2.4
    assert space.effective_rank > 0.5 * 64


def test_mutual_information_of_both_orders():
    r, z = normal(50, 6), normal(50, 3, seed=1)
    found = mutual_information(r, z)
    assert found["mutual_information"] == pytest.approx(
        functional.matrix_mutual_information(r, z).item(), rel=1e-4
    )
    expected = functional.matrix_mutual_information(r, z, order=1).item()
    assert found["mutual_information_1"] == pytest.approx(expected, rel=1e-4)


def test_figures_of_the_benchmark():
    features, embeddings = normal(300, 16), normal(300, 4, seed=1) @ normal(4, 8, seed=2)
    found = representation_numbers(features, embeddings)
    assert found["z_correlation"] == pytest.approx(
        functional.off_diagonal_correlation(embeddings).item(), rel=1e-4
    )
    assert found["effective_rank"] == pytest.approx(
        functional.effective_rank(features, center=True).item(), rel=1e-4
    )
    assert found["lid"] == pytest.approx(functional.geometric_mean_lid(features, k=32).item(), rel=1e-4)
    assert len(found["spectrum"]) == 16
    assert representation_numbers(features)["z_correlation"] is None
