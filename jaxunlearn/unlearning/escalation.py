"""A cheap method first, and exact replay where an audit finds something left."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jaxunlearn.training.runs import Run
from jaxunlearn.types import Params, PerExampleLoss
from jaxunlearn.unlearning.exact.replay import replay_plan
from jaxunlearn.unlearning.forms import Method, Progress, Sets
from jaxunlearn.unlearning.methods import METHODS
from jaxunlearn.unlearning.outcome import Outcome
from jaxunlearn.unlearning.requirements import method_named
from jaxunlearn.unlearning.runner import unlearn


class Verdict(NamedTuple):
    """What an audit came to.

    Attributes:
      passed: Whether it found nothing left.
      reasons: What it found, such as the attacks that recover.
    """

    passed: bool
    reasons: tuple[str, ...] = ()


class Escalation(NamedTuple):
    """Which of two ways was kept, and why.

    Attributes:
      outcome: Of the way that was kept, with its parameters.
      kept: Which one.
      reason: Why.
      approximate: The outcome of the method, kept or not.
      verdict: The audit of its parameters; None where it came to none worth one.
    """

    outcome: Outcome
    kept: Literal["approximate", "exact"]
    reason: str
    approximate: Outcome
    verdict: Verdict | None


def escalate(
    task: PerExampleLoss,
    params: Params,
    sets: Sets,
    method: str | Method,
    *,
    audit: Callable[[Params], Verdict | bool],
    run: Run,
    indices: Sequence[int],
    origin: Path | str | Outcome | None = None,
    replay_directory: Path | str | None = None,
    on_step: Callable[[Progress], None] | None = None,
    **settings: Any,
) -> Escalation:
    """Unlearn by a method, audit it, and replay exactly where the audit fails.

    The replay is kept without an audit: it is what training without the examples gives.
    An audit that fails for it as well asks for more than never having seen them.

    Args:
      task: The task, as for :func:`~jaxunlearn.unlearning.runner.unlearn`.
      params: Trained parameters; not changed.
      sets: Examples to forget, to keep and never seen.
      method: The approximate method.
      audit: From parameters to a verdict, or only whether they pass; such as attacks
        beside a reference. What a wrapper hides is still in its parameters, so that
        it fails an audit that is any good.
      run: The training run, which both ways may use.
      indices: Positions in its data of what is to be forgotten.
      origin: Where ``params`` come from, as for ``unlearn``.
      replay_directory: A folder for the replay, to take up and to keep the proof in.
      on_step: Called on either way.
      settings: Of ``unlearn``, and the method's own options.

    Raises:
      ValueError: As by ``unlearn``; the run cannot be replayed, which is said before
        any work; or the audit gives something else.

    Cost: the method and the audit, and the replay where it comes to it;
    :func:`~jaxunlearn.unlearning.exact.replay.replay_plan` tells its steps.
    """
    if method_named(method, METHODS).form == "exact":
        raise ValueError(
            f"method={method!r:.80} is exact itself: call unlearn, or name an "
            f"approximate method"
        )
    replay_plan(run, indices)
    given = {"run": run, "indices": indices, "origin": origin, "on_step": on_step}
    approximate = unlearn(task, params, sets, method, **given, **settings)
    verdict, reason = None, f"the method ended short, with status {approximate.status}"
    if approximate.reached:
        verdict = verdict_from(audit(approximate.params))
        found = f": {'; '.join(verdict.reasons)}" if verdict.reasons else ""
        if verdict.passed:
            reason = f"the method's parameters passed the audit{found}"
            return Escalation(approximate, "approximate", reason, approximate, verdict)
        reason = f"the method's parameters failed the audit{found}"
    exact = unlearn(
        task, params, sets, "exact_replay", **given, directory=replay_directory
    )
    return Escalation(exact, "exact", reason, approximate, verdict)


def verdict_from(found: Any) -> Verdict:
    """Return what an audit gave as a verdict.

    Raises:
      ValueError: It is neither a verdict nor a truth value.
    """
    if isinstance(found, Verdict):
        return found
    if found in (True, False):
        return Verdict(bool(found))
    raise ValueError(
        f"audit gave {found!r:.80}: return a Verdict, or whether the parameters pass"
    )
