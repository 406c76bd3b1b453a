"""The label, the meaning and the source of each metric, for plots and pages."""

from __future__ import annotations

from dataclasses import dataclass

from solo_dimreg.reports import page

ARXIV = "https://arxiv.org/abs/"


@dataclass(frozen=True)
class Explanation:
    """The label of a metric or plot, an explanation in a sentence or two, and its source.

    ``source`` is empty if none is needed, and ``address`` if no free copy is known.
    """

    label: str
    text: str = ""
    source: str = ""
    address: str = ""


ROY = ("Roy & Vetterli, EUSIPCO 2007",)
LDREG = ("Huang et al., LDReg, ICLR 2024", ARXIV + "2401.10474")
RENYI = ("Sanchez Giraldo et al., 2015", ARXIV + "1211.2459")
JING = ("Jing et al., ICLR 2022", ARXIV + "2110.09348")
HUA = ("Hua et al., ICCV 2021", ARXIV + "2105.00470")
WANG = ("Wang & Isola, ICML 2020", ARXIV + "2005.10242")
COSTA = ("Costa & Hero, IEEE TSP 2004; used by Mordacq et al., IdEst, ICML 2026", ARXIV + "2606.03338")
TSITSULIN = ("Tsitsulin et al., TAG-ML at ICML 2023", ARXIV + "2305.16562")
ADADIM = ("Kokilepersaud et al., AdaDim, 2025", ARXIV + "2505.12576")

SPECTRUM = Explanation(
    "spectrum",
    "The singular values of the features' covariance, relative to the largest. If they fall off a cliff, "
    "dimensions have collapsed.",
    *JING,
)
ACCURACY = Explanation(
    "accuracy",
    "The top-1 accuracy of solo-learn's linear probe and of its weighted k-NN classifier on the validation "
    "images. Bars reach one standard deviation over the seeds to each side.",
)
# Each explanation holds for the features and for the embeddings.
FIGURES = {
    "matrix_entropy": (
        "matrix entropy",
        "The matrix-based Rényi entropy of order 2, in nats, measures how evenly the samples spread; it is 0 "
        "if all are parallel. It hardly moves for features that are not negative, since they share the "
        "direction of their mean. The H(R) and H(Z) of AdaDim are effective ranks.",
        *RENYI,
    ),
    "effective_rank": (
        "effective rank",
        "The number of dimensions filled globally: the exponential of the entropy of the normalized singular "
        "values. A fall to a fifth of the peak is a warning, and a fall to a half is usual; more is not "
        "better by itself.",
        *ROY,
    ),
    "lid": (
        "LID",
        "Local intrinsic dimensionality: the number of dimensions filled around each point, from the "
        "distances to its nearest neighbours, as a geometric mean over the points. A low LID is a collapse "
        "only if the images have more dimensions. LDReg raises it; IdEst prefers networks with a low one.",
        *LDREG,
    ),
    "lid_mle": (
        "LID, maximum likelihood",
        "The LID by maximum likelihood with 32 neighbours, as LDReg tracks it.",
        *LDREG,
    ),
    "lid_mle_512": (
        "LID, maximum likelihood (k = 512)",
        "The LID by maximum likelihood with 512 neighbours, in wider neighbourhoods, as LDReg tracks it.",
        *LDREG,
    ),
    "alpha_req": (
        "alpha-ReQ",
        "The exponent of the power law by which the spectrum decays, at ranks 4 to 100. Values near 1 tend "
        "to go with good representations, and larger values with few dimensions.",
        "Agrawal et al., NeurIPS 2022",
    ),
    "off_diagonal_correlation": (
        "off-diagonal correlation",
        "The mean absolute correlation of two different axes: 0 if the axes are decorrelated, and near 1 if "
        "all of them are alike.",
        *HUA,
    ),
    "uniformity": (
        "uniformity",
        "Uniformity measures how unevenly the normalized samples cover the sphere: lower is more uniform, "
        "and 0 is a single point.",
        *WANG,
    ),
    "rankme": (
        "RankMe",
        "The smoothed effective rank of the features without centring.",
        *("Garrido et al., ICML 2023", ARXIV + "2210.02885"),
    ),
    "rankme_share": (
        "RankMe over the width",
        "RankMe divided by the number of dimensions, to compare networks of different widths.",
        *TSITSULIN,
    ),
    "nesum": (
        "NESum",
        "The variance, divided by the variance of the leading direction: 1 if that direction has all of it, "
        "and the number of dimensions if all are equal. Its authors find that too even is no better than too "
        "uneven.",
        "He & Ozay, ICML 2022",
    ),
    "mean_share": (
        "mean's share",
        "The part of the mean squared length that the mean of the features holds. Near 1, all features share "
        "one vector, which centred metrics (effective rank, LID, correlation, spectra) cannot see. Features "
        "after a ReLU have a large share by themselves.",
    ),
    "self_clustering": (
        "self-clustering",
        "Self-clustering measures how much more parallel the features are than on a uniform sphere: about 0 "
        "there, and 1 if all are parallel, as around a shared vector.",
        *TSITSULIN,
    ),
    "two_nn": (
        "dimension (TwoNN)",
        "The intrinsic dimension from the distances to the two nearest neighbours. Neither a high nor a low "
        "one is good by itself.",
        "Facco et al., Scientific Reports 2017",
    ),
    "mst_dimension": (
        "dimension (spanning tree)",
        "The intrinsic dimension from the growth of the minimum spanning tree with the number of points. "
        "Neither a high nor a low one is good by itself: IdEst finds lower ones in better networks, while "
        "LDReg raises the local dimension against collapse.",
        *COSTA,
    ),
    "lidar": (
        "LiDAR",
        "The effective rank of the differences between samples, relative to the differences between their "
        "views. The monitor uses two views of each sample; the paper uses more.",
        "Thilak et al., ICLR 2024",
    ),
    "alignment": (
        "alignment",
        "The mean squared distance between the normalized views of a sample: lower is more invariant. It is "
        "also 0 in a complete collapse.",
        *WANG,
    ),
}
OTHERS = {
    "mutual_information": Explanation(
        "I(R;Z)",
        "The matrix-based mutual information of features and embeddings, in nats, measures how much the "
        "projector keeps.",
        *RENYI,
    ),
    "adadim_alpha": Explanation(
        "alpha (AdaDim)",
        "AdaDim's weight of the loss that spreads the samples; the rest is the weight of the loss that fills "
        "the dimensions.",
        *ADADIM,
    ),
    "val_acc1": Explanation(
        "online accuracy (%)",
        "The top-1 validation accuracy of the classifier that solo-learn trains along with the backbone.",
    ),
}


def caption(explanation: Explanation) -> page.Html:
    """Return the explanation for an HTML page, with its source."""
    source: str = f" [{explanation.source}]" if explanation.source else ""
    if explanation.address:
        source = page.join([" [", page.link(explanation.source, explanation.address), "]"])
    return page.join(
        [page.strong(explanation.label), f". {explanation.text}" if explanation.text else "", source]
    )


def explain(name: str) -> Explanation:
    """Return the explanation of a metric by its name, which starts with ``z_`` for the embeddings.

    The label of a metric from a plugin is its name.
    """
    if name in OTHERS:
        return OTHERS[name]
    plain = name.removeprefix("z_")
    if plain not in FIGURES:
        return Explanation(name)
    label, *rest = FIGURES[plain]
    return Explanation(f"{label} of {'embeddings' if name != plain else 'features'}", *rest)
