"""The options of ``jaxunlearn influence``, checked before anything is read."""

import dataclasses
from pathlib import Path
from typing import Literal

from jaxunlearn.commands.arguments import TrainingRecords
from jaxunlearn.commands.outputs import check_output
from jaxunlearn.influence import method_name
from jaxunlearn.influence.options import USED_BY, goes_with
from jaxunlearn.ranges import check_number

FROM_PYTHON = {
    "source": "influence.scores(..., method='source', checkpoints=[Checkpoint(...)])",
    "unrolled": "influence.scores(..., method='unrolled', run=TrainingRun(...))",
}
"""Methods that need more than a model directory, and how they are called."""

FLAGS = {
    "damping": "damping",
    "damping_share": "damping",
    "curvature": "curvature",
    "rank": "rank",
    "max_steps": "max_steps",
    "aggregate": "aggregate",
    "seed": "key",
}
"""Options that only some methods use, by their names in ``influence.scores``."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of ``jaxunlearn influence``.

    Attributes:
      model: Hugging Face directory, or a run directory of `jaxunlearn train`.
      train: Training records: JSON, JSON Lines, text, parquet or a hub name.
      out: The .npz file for the scores, [queries, train].
      query: Records whose loss is to be explained; none for self_influence.
      method: gradient_dot, cosine; ekfac, kfac, cg, ekfac_cg, lissa, lanczos, nystroem,
        diagonal, woodbury, datainf (influence functions by that inverse); relatif,
        self_influence, trak, logra, act_act, act_grad; tracin, of a run directory.
      layers: Regular expression of the parameters that count; by default all.
      damping: Added to the curvature; by default --damping-share 0.1.
      damping_share: The damping as a share of the curvature's mean eigenvalue.
      curvature: Of cg, ekfac_cg, lissa, lanczos and nystroem; by default fisher.
      rank: Eigenpairs of lanczos and nystroem; by default 50.
      max_steps: At which cg, ekfac_cg and lissa stop; by default 100.
      aggregate: All queries as one.
      batch_size: Examples at a time.
      max_length: Most tokens of an example; by default what the model takes.
      top: How many proponents and opponents of each query are shown.
      page: An .html file with the same, the training tokens coloured by contribution.
      tokens: Of how many proponents, and opponents, a query the tokens are coloured.
      seed: Of cg, ekfac_cg, lissa, lanczos and nystroem; by default 0.
    """

    model: str
    train: TrainingRecords
    out: Path
    query: str | None = None
    method: str = "ekfac"
    layers: str | None = None
    damping: float | None = None
    damping_share: float | None = None
    curvature: Literal["fisher", "gauss_newton", "hessian"] | None = None
    rank: int | None = None
    max_steps: int | None = None
    aggregate: Literal["sum", "mean"] | None = None
    batch_size: int = 16
    max_length: int | None = None
    top: int = 5
    page: Path | None = None
    tokens: int = 3
    seed: int | None = None

    def check(self) -> str:
        """Refuse options that contradict one another; return the method's own name."""
        method = method_name(self.method)
        if method in FROM_PYTHON:
            raise ValueError(
                f"--method {self.method} needs the training run's states, which no "
                f"model directory holds: call jaxunlearn.{FROM_PYTHON[method]}"
            )
        if (self.query is None) != (method == "self_influence"):
            raise ValueError(
                "--method self_influence scores each example on itself: leave --query "
                "out"
                if self.query is not None
                else f"--method {self.method} needs --query FILE"
            )
        for option, low in (
            ("rank", 1),
            ("max_steps", 1),
            ("top", 1),
            ("tokens", 0),
            ("seed", 0),
            ("damping", 0),
            ("damping_share", 0),
        ):
            check_number(option, getattr(self, option), low)
        given = [x for x in (self.damping, self.damping_share) if x is not None]
        if len(given) == 2:
            raise ValueError("give one of --damping and --damping-share")
        for option, name in FLAGS.items():
            if getattr(self, option) is not None and not goes_with(name, method):
                raise ValueError(
                    f"--{option.replace('_', '-')} does not go with --method "
                    f"{self.method}, where it changes nothing: leave it out, or take "
                    f"one of {', '.join(USED_BY[name])}"
                )
        check_output("out", self.out, ".npz")
        check_output("page", self.page, ".html")
        return method
