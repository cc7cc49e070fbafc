"""The table of unlearning methods: a method is one function and one row here.

The runner, the command line, the reports and the contract test read this table, and
nothing else knows a method by name.
"""

from jaxunlearn.unlearning.edits import ascent, one_by_one, recorded
from jaxunlearn.unlearning.edits.ssd import dampen_synapses
from jaxunlearn.unlearning.edits.task_vector import subtract_task_vector
from jaxunlearn.unlearning.exact.replay import exact_replay
from jaxunlearn.unlearning.forms import Method, Objective, Sets
from jaxunlearn.unlearning.limits import Limits
from jaxunlearn.unlearning.objectives.difference import grad_diff
from jaxunlearn.unlearning.objectives.preference_losses import npo, simnpo
from jaxunlearn.unlearning.wrappers.offset import whp

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
    "ssd": Method(
        "edit",
        dampen_synapses,
        frozenset({"retain"}),
        "Foster et al. 2024, arXiv 2308.07707; ours squares example by example, the "
        "official code a mini-batch's mean",
        "a gradient over both sets, then 10 to 20 evaluations",
        removes=True,
    ),
    "task_vector": Method(
        "edit",
        subtract_task_vector,
        frozenset(),
        "Ilharco et al. 2023, arXiv 2212.04089; defaults of MUSE",
        "ten epochs on the forget set, then 10 to 20 evaluations",
        removes=True,
    ),
    "whp": Method(
        "wrapper",
        whp,
        frozenset({"outputs"}),
        "Eldan and Russinovich 2023, arXiv 2310.02238; the form at inference, defaults "
        "of MUSE",
        "ten epochs on the forget set; two models at inference",
        removes=False,
    ),
    "exact_replay": Method(
        "exact",
        exact_replay,
        frozenset({"run", "indices"}),
        "arXiv 2508.12220 (abstract only); bit-identical under a stated rule",
        "the run from the last checkpoint before the first use of an example",
        removes=True,
    ),
}
"""By name; a name is an option value of the command line."""
