"""The label, the meaning and the source of each metric and plot, for pages."""

from __future__ import annotations

from dataclasses import dataclass

from solo_dimreg.metrics.registry import ARXIV, FEATURES_AND_EMBEDDINGS, METRICS, MetricRecord


@dataclass(frozen=True)
class Explanation:
    """The label of a metric or plot, an explanation in a sentence or two, and its source.

    ``source`` is empty if none is needed, and ``address`` if no free copy is known.
    """

    label: str
    text: str = ""
    source: str = ""
    address: str = ""


SPECTRUM = Explanation(
    "spectrum",
    "The singular values of the features' covariance, relative to the largest. If they fall off a cliff, "
    "dimensions have collapsed.",
    "Jing et al., ICLR 2022",
    ARXIV + "2110.09348",
)
ACCURACY = Explanation(
    "accuracy",
    "The top-1 accuracy of solo-learn's linear probe and of its weighted k-NN classifier on the validation "
    "images. Bars reach one standard deviation over the seeds to each side.",
)
OTHERS = {
    "adadim_alpha": Explanation(
        "alpha (AdaDim)",
        "AdaDim's weight of the loss that spreads the samples; the rest is the weight of the loss that fills "
        "the dimensions.",
        "Kokilepersaud et al., AdaDim, 2025",
        ARXIV + "2505.12576",
    ),
    "val_acc1": Explanation(
        "online accuracy (%)",
        "The top-1 validation accuracy of the classifier that solo-learn trains along with the backbone.",
    ),
}


def explain(name: str) -> Explanation:
    """Return the explanation of a metric by its name, which starts with ``z_`` for the embeddings.

    The label of a metric from a plugin is its name.
    """
    if name in OTHERS:
        return OTHERS[name]
    record = METRICS.get(name.removeprefix("z_"))
    if record is None or not record.explanation:
        return Explanation(name)
    whose = "" if record.inputs == FEATURES_AND_EMBEDDINGS else " of features"
    return explanation_of(record, " of embeddings" if name.startswith("z_") else whose)


def explanation_of(record: MetricRecord, whose: str = "") -> Explanation:
    """Return the explanation of a metric; ``whose`` is added to its label."""
    return Explanation(record.label + whose, record.explanation, *record.source)
