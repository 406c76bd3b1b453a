"""What each figure is called and says, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass

from solo_dimreg.reports import page

ARXIV = "https://arxiv.org/abs/"


@dataclass(frozen=True)
class Explanation:
    """The name of a figure in plots and tables, what it says in a sentence, and its source.

    ``source`` is empty for figures that need none, ``address`` where no free copy is known.
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
    "Singular values of the features' covariance relative to the largest: a spectrum that falls off a cliff "
    "has collapsed dimensions.",
    *JING,
)
ACCURACY = Explanation(
    "accuracy",
    "Top-1 accuracy on the validation images of solo-learn's linear probe and of its weighted k-NN "
    "classifier; bars reach one standard deviation over the seeds to each side.",
)
# What is said of the features r holds for the embeddings z too.
FIGURES = {
    "matrix_entropy": (
        "entropy H",
        "Matrix-based Rényi entropy of order 2, in nats: how evenly the samples spread; 0 if all are "
        "parallel. Of features that are not negative, all of which share the direction of their mean, it "
        "hardly moves: AdaDim's H(R) is the effective rank.",
        *RENYI,
    ),
    "effective_rank": (
        "effective rank",
        "The number of dimensions filled globally: the exponential of the entropy of the normalized singular "
        "values. A fall to a fifth of its peak is a warning, one to a half is usual; more is not better by "
        "itself.",
        *ROY,
    ),
    "lid": (
        "LID",
        "Local intrinsic dimensionality, the number of dimensions filled around each point, from the "
        "distances to its nearest neighbours; the geometric mean over the points. A low one is a collapse "
        "only where the images have more dimensions: LDReg raises it, IdEst prefers networks with a low one.",
        *LDREG,
    ),
    "lid_mle": (
        "LID, maximum likelihood",
        "The LID by maximum likelihood with 32 neighbours, as LDReg tracks it.",
        *LDREG,
    ),
    "lid_mle_512": (
        "LID, maximum likelihood (k = 512)",
        "The LID by maximum likelihood with 512 neighbours, as LDReg tracks it: of wider neighbourhoods.",
        *LDREG,
    ),
    "alpha_req": (
        "alpha-ReQ",
        "The exponent of the power law that the spectrum decays with, at ranks 4 to 100; values near 1 tend "
        "to go with good representations, larger ones with few dimensions.",
        "Agrawal et al., NeurIPS 2022",
    ),
    "off_diagonal_correlation": (
        "off-diagonal correlation",
        "The mean absolute correlation of two different axes: 0 if they are decorrelated, near 1 if they all "
        "say the same.",
        *HUA,
    ),
    "uniformity": (
        "uniformity",
        "How unevenly the normalized samples cover the sphere: lower is more uniform, 0 is a single point.",
        *WANG,
    ),
    "rankme": (
        "RankMe",
        "The smoothed effective rank of the features as they are, not centred.",
        *("Garrido et al., ICML 2023", ARXIV + "2210.02885"),
    ),
    "rankme_share": (
        "RankMe over the width",
        "RankMe over the number of dimensions, to compare networks of different widths.",
        *TSITSULIN,
    ),
    "nesum": (
        "NESum",
        "The variance in units of that of the leading direction: 1 if that has all, the number of dimensions "
        "if all are equal. Too even is no better than too uneven, its authors find.",
        "He & Ozay, ICML 2022",
    ),
    "mean_share": (
        "mean's share",
        "The part of the mean squared length that the features' mean holds: near 1, all features share one "
        "vector, which centred figures (effective rank, LID, correlation, spectra) cannot see. Features "
        "after a ReLU have a large share by themselves.",
    ),
    "self_clustering": (
        "self-clustering",
        "How much more parallel the features are than on a uniform sphere: about 0 there, 1 if all are "
        "parallel, as around a shared vector.",
        *TSITSULIN,
    ),
    "two_nn": (
        "dimension (TwoNN)",
        "The intrinsic dimension by the distances to the two nearest neighbours. Neither a high nor a low "
        "one is good by itself.",
        "Facco et al., Scientific Reports 2017",
    ),
    "mst_dimension": (
        "dimension (spanning tree)",
        "The intrinsic dimension by the growth of the minimum spanning tree with the number of points. "
        "Neither a high nor a low one is good by itself: IdEst finds the lower ones with the better "
        "networks, LDReg raises the local dimension against collapse.",
        *COSTA,
    ),
    "lidar": (
        "LiDAR",
        "The effective rank of what tells samples apart beyond the differences between their views: of two "
        "views a sample where the monitor takes it, the paper takes more.",
        "Thilak et al., ICLR 2024",
    ),
    "alignment": (
        "alignment",
        "The mean squared distance between the normalized views of a sample: lower is more invariant, 0 also "
        "in a complete collapse.",
        *WANG,
    ),
}
OTHERS = {
    "mutual_information": Explanation(
        "I(R;Z)",
        "Matrix-based mutual information of features and embeddings, in nats: how much the projector keeps.",
        *RENYI,
    ),
    "adadim_alpha": Explanation(
        "alpha (AdaDim)",
        "AdaDim's weight of the loss that spreads the samples; the rest goes to the one that fills the "
        "dimensions.",
        *ADADIM,
    ),
    "val_acc1": Explanation(
        "online accuracy (%)",
        "Top-1 validation accuracy of the classifier that solo-learn trains along with the backbone.",
    ),
}


def caption(explanation: Explanation) -> page.Html:
    """The explanation for an HTML page, with its source."""
    source: str = f" [{explanation.source}]" if explanation.source else ""
    if explanation.address:
        source = page.join([" [", page.link(explanation.source, explanation.address), "]"])
    return page.join(
        [page.strong(explanation.label), f". {explanation.text}" if explanation.text else "", source]
    )


def explain(name: str) -> Explanation:
    """The explanation of a figure by its name, which starts with ``z_`` for one of the embeddings.

    A figure that a plugin added is called by its name.
    """
    if name in OTHERS:
        return OTHERS[name]
    plain = name.removeprefix("z_")
    if plain not in FIGURES:
        return Explanation(name)
    label, *rest = FIGURES[plain]
    if plain == "matrix_entropy":
        return Explanation("H(Z)" if name != plain else "H(R)", *rest)
    return Explanation(f"{label} of {'z' if name != plain else 'r'}", *rest)
