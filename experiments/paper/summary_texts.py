"""The words of the page: what each claim is and how far its experiment reaches.

No number stands here: those of the page come from the JSON files.
"""

from typing import NamedTuple

PAPER = "https://arxiv.org/abs/2406.09391"


class Text(NamedTuple):
    """What is said of a claim apart from its numbers.

    Attributes:
      title: Its heading.
      abstract: What the paper's abstract says, in our words.
      run: What the experiment does.
      limits: What it does not show.
    """

    title: str
    abstract: str
    run: str
    limits: str


TEXTS = {
    "epochs": Text(
        "First-epoch gradients unlearn better than those of several epochs",
        "Adding back only the gradients that the unwanted examples gave in the first "
        "epoch of training unlearns better than adding back those of several epochs.",
        "The gradients recorded in each single epoch and in all of them are added "
        "back, on the embedding and on all parameters: literally, with the weight "
        "that each had in training, and calibrated, so that the forget loss is the "
        "retrained model's. What is compared is the price, the rise of the loss on "
        "kept examples, paired by seed; whole-model ascent and the retrained model "
        "stand beside.",
        "Longer training, in which first and last epochs differ more; gradients "
        "transformed by the optimiser; mixtures of a few chosen epochs.",
    ),
    "layers": Text(
        "The embedding is crucial, the last blocks do nothing",
        "In GPT-2 the embedding layer is the one that matters; gradients of the "
        "output layers had no effect at all; the embedding alone serves, in half the "
        "space.",
        "The recorded gradients of each group of layers alone, and of everything but "
        "that group, are added back at the literal scale, at a common scale, and at "
        "matched forget loss; the tied embedding also by its input and its output "
        "part. Bytes are those of the stored arrays.",
        "Whether the same shares hold in a deep model, whose blocks hold most "
        "parameters; models whose output layer is not tied to the embedding.",
    ),
    "scores": Text(
        "Hessian-vector and dot products quantify unlearning",
        "A Hessian-vector product, and dot products of activations and tensors, are "
        "explored as measures of how much has been unlearned.",
        "Six scores against what retraining says, by rank correlation within each "
        "seed. Before unlearning: which examples' losses change when the group is "
        "really removed. Before and after: how much is left in models that were "
        "unlearned in several ways and strengths, by relearning, extraction and the "
        "distance from the retrained model's losses; and the same among models of "
        "equal forget loss, where that loss says nothing. A score has to be clear of "
        "what random scores reach, and better than the loss of the forgotten and of "
        "the kept examples.",
        "Which reading of the abstract's words is the paper's own: each score is a "
        "reconstruction. Where `order noise` in the file is near one, as it tends to "
        "be on kept and unseen examples, the truth itself is mostly the noise of "
        "another order of the data. Models of equal forget loss differ by the damage "
        "done; a score that follows no better than the loss on kept examples may see "
        "nothing else. "
        "Taking the best of several scores flatters them.",
    ),
    "calibration": Text(
        "Calibration is needed; over-exposure ends unlearning early",
        "Exposing the model too much to the target during ascent is a danger: without "
        "care one may stop while it is in an optimum that still knows the data.",
        "Scale, number of exposures and stopping rules are swept; forget loss, retain "
        "loss, membership and extraction are followed along the path, and what half "
        "of the group, relearned, brings back of the other half tells a false stop.",
        "That no other stopping rule would serve; paths of other optimisers.",
    ),
    "fuzzy": Text(
        "Fuzzy matching moves to a new optimum; iterative unlearning is more complete",
        "Removing what matches fuzzily is a heuristic that can move the model to a "
        "new optimum; iterative unlearning is unbiased and may be more complete.",
        "The same group is removed by exact match, by fuzzy match at several "
        "thresholds, by near-duplicates, and one after the other with re-scoring, all "
        "to the retrained model's forget loss; then come the distance to the original "
        "and to the retrained model, the loss along the line between, and how fast "
        "half of the group is relearned.",
        "Requests in natural language, which match less cleanly than the templates "
        "here; barriers along paths that are not straight.",
    ),
}

LIMITS = (
    "**The models are tiny.** What depends on depth, width or the amount of text may "
    "differ in GPT-2 itself.",
    "**It is a reconstruction.** Of the paper its abstract alone was at hand: no code, "
    "no table, no setting. No number on this page is the paper's, and a verdict is one "
    "on the claim as we read it.",
    "**Intervals are over the seeds only**: who is forgotten and the order of the "
    "data. There is one pretrained model a world. Many comparisons were made, and the "
    "intervals are not corrected for their number.",
    "**Some rules of judging were set after a first run was seen**: that a score has "
    "to beat the loss of the kept examples too (the reasons of that claim say its "
    "verdict without), has to point one way, and what chance is; that the claims on "
    "calibration and on fuzzy matching are judged in parts, that more than half of a "
    "rule's stops have to be false, what counts as a new optimum, and the "
    "comparison of first-epoch gradients with ascent. What is measured did not change.",
)
TOFU_LIMIT = (
    "**TOFU's answers are cut at the model's length**, so that extraction is of their "
    "beginnings."
)
