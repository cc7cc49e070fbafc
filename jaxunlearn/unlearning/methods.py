"""The table of unlearning methods: a method is one function and one row here.

The runner, the command line, the reports and the contract test read this table, and
nothing else knows a method by name.
"""

from jaxunlearn.unlearning.calibration import Limits
from jaxunlearn.unlearning.edits import ascent, one_by_one, recorded
from jaxunlearn.unlearning.forms import Method, Objective, Sets
from jaxunlearn.unlearning.objectives.difference import grad_diff
from jaxunlearn.unlearning.objectives.preference import npo, simnpo

__all__ = ["METHODS", "Method", "Objective", "Sets"]

RECORDED = "Zagardo 2024, arXiv 2406.09391 (abstract only; equations reconstructed)"

METHODS: dict[str, Method] = {
    "first_epoch": Method(
        "edit",
        recorded.add_back,
        frozenset({"retain", "run", "indices"}),
        RECORDED,
        "the run replayed to the last epoch asked for, then 10 to 20 evaluations",
        removes=True,
        layers="^wte/",
        limits=Limits(),
    ),
    "iterative": Method(
        "edit",
        one_by_one.unlearn_one_by_one,
        frozenset({"retain", "run", "indices"}),
        RECORDED,
        "as first_epoch; a gradient, and 10 to 20 evaluations, for each example",
        removes=True,
        layers="^wte/",
        limits=Limits(),
    ),
    "gradient_ascent": Method(
        "edit",
        ascent.climb,
        frozenset({"retain"}),
        "Jang et al. 2023, arXiv 2210.01504; ours takes steps of constant relative "
        "length and shortens the last one to meet the target",
        "a gradient and an evaluation a step",
        removes=True,
    ),
    "grad_diff": Method(
        "objective",
        grad_diff,
        frozenset({"retain"}),
        "Liu et al. 2022, arXiv 2203.12817; as in open-unlearning, padding left out",
        "two gradients a step, on a forget and a retain batch",
        removes=True,
    ),
    "npo": Method(
        "objective",
        npo,
        frozenset({"retain"}),
        "Zhang et al. 2024, arXiv 2404.05868, eq. 3; defaults of open-unlearning",
        "two gradients a step; one pass over the forget set at the start",
        removes=True,
    ),
    "simnpo": Method(
        "objective",
        simnpo,
        frozenset({"retain"}),
        "Fan et al. 2024, arXiv 2410.07163; defaults of open-unlearning",
        "two gradients a step",
        removes=True,
    ),
}
"""By name; a name is an option value of the command line."""
