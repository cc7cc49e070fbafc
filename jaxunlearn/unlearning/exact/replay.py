"""Exact unlearning: the run again, without the forgotten examples, from a checkpoint.

A run is a pure function of (recipe, data, start). Under one rule for what takes the
place of a forgotten example, the run without it is one too, and up to the first use of
a forgotten example both are the same. So the steps from the last checkpoint before it
give, bit for bit, what training that never used these examples gives.
"""

import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from jaxunlearn.data.records import Record
from jaxunlearn.locks import LOCK
from jaxunlearn.provenance import data_hash, params_hash, versions
from jaxunlearn.training import checkpoints
from jaxunlearn.training.loop import Progress, train
from jaxunlearn.training.recipe import (
    TrainingState,
    initial_state,
    optimizer,
    steps_per_epoch,
)
from jaxunlearn.training.runs import Run, read_description
from jaxunlearn.types import Params
from jaxunlearn.unlearning.exact.proof import (
    RULE,
    Proof,
    differences,
    read_proof,
    write_proof,
)
from jaxunlearn.unlearning.exact.schedule import first_use

WORK = "replay.json"
"""Of a folder in which a replay is at work: which replay."""

PROOF = "replay_proof.json"
"""Of a folder with a finished replay: what it came to."""


class ExactResult(NamedTuple):
    """Parameters as if the forgotten examples had never been used, and the proof."""

    params: Params
    proof: Proof


class Plan(NamedTuple):
    """Which steps a replay takes, known before the first of them."""

    first_use: int
    checkpoint: int  # steps done where it begins, which are saved
    steps: int  # of the whole run

    @property
    def replayed(self) -> int:
        """How many steps are taken again."""
        return self.steps - self.checkpoint

    @property
    def share(self) -> float:
        """The steps taken again as a share of the run's, the price beside training."""
        return self.replayed / self.steps

    def __str__(self) -> str:
        """Say it in words, for who waits.

        >>> str(Plan(first_use=57, checkpoint=50, steps=120)).split(":")[0]
        "70 of the run's 120 steps are taken again (58 %) and 50 saved"
        """
        where = f"stands after step {self.checkpoint}" if self.checkpoint else "is none"
        return (
            f"{self.replayed} of the run's {self.steps} steps are taken again "
            f"({100 * self.share:.0f} %) and {self.checkpoint} saved: the forgotten "
            f"are first used in step {self.first_use + 1}, and the checkpoint before "
            f"{where}"
        )


def exact_replay(
    run: Run,
    forget: Collection[int],
    *,
    checkpoint: int | None = None,
    directory: Path | str | None = None,
    on_step: Callable[[Progress], None] | None = None,
) -> ExactResult:
    """Train a run again without some of its examples, from before their first use.

    The result is that of ``train(..., omit=forget)`` from the start, to the bit on the
    same device and versions. It does not depend on what the forgotten examples say,
    only on where in the order they stood: the rows are empty, and the shares of the
    others in a batch are what they are in a batch without them. A batch that is left
    without any example is a step of gradient 0, in which momentum and decay go on.
    The length to which the run pads stays.

    Checkpoints come from ``train(..., keep_every=)``; without one before the first use
    the whole run is taken again, and so is a run that recorded gradients in its first
    epoch, as a step that records rounds otherwise. A later request must name the
    examples of the earlier ones too, or they come back.

    Args:
      run: An open run, finished or not.
      forget: Positions in its data of what is to be forgotten, at least one.
      checkpoint: Steps done where to begin; None is the last checkpoint before the
        first use, 0 the start.
      directory: A folder for the replay alone: its checkpoints, and in the end
        ``replay_proof.json``. Interrupted and called again with the same arguments, it
        goes on where it stood, to the same bits. None keeps nothing.
      on_step: Called after each step.

    Returns:
      Parameters in the dtypes of the run's start, and the proof.

    Raises:
      ValueError: ``forget`` is empty or outside the data; ``checkpoint`` is not there
        or lies behind the first use; ``directory`` holds another replay; a file of the
        run is damaged.

    Cost: the steps from the checkpoint on; :func:`~jaxunlearn.unlearning.exact.schedule
    .expected_replayed_share` says how many. The memory of training.
    """
    plan = replay_plan(run, forget, checkpoint=checkpoint)
    told = proof_without_result(run, forget, plan)
    if directory is not None:
        directory = Path(directory)
        claim(directory, told)
    start = run.start
    trained = train(
        run.model,
        start,
        run.data,
        run.recipe,
        directory=directory,
        omit=frozenset(forget),
        state=state_at(run, start, plan.checkpoint) if plan.checkpoint else None,
        on_step=on_step,
    )
    proof = dataclasses.replace(told, params_sha256=params_hash(trained.params))
    if directory is not None:
        write_proof(directory / PROOF, proof)
    return ExactResult(trained.params, proof)


def replay_plan(
    run: Run, forget: Collection[int], *, checkpoint: int | None = None
) -> Plan:
    """Return which steps :func:`exact_replay` takes, before any of them is taken.

    Args:
      run: An open run.
      forget: Positions in its data of what is to be forgotten, at least one.
      checkpoint: As for :func:`exact_replay`.

    Raises:
      ValueError: As by :func:`exact_replay`, where it does not depend on the work.

    Cost: one sort of the data's numbers; no file is read.
    """
    size = len(run.data.examples)
    first = first_use(run.recipe, size, forget)
    total = run.recipe.epochs * steps_per_epoch(run.recipe, size)
    there = checkpoints.steps(run.directory / "checkpoints")
    if run.recording is not None and 1 in run.recording.epochs:
        there = []  # a step that records rounds otherwise than one that does not
    before = [0, *(step for step in there if step <= first)]
    if checkpoint is not None and checkpoint not in before:
        raise ValueError(
            f"checkpoint={checkpoint}: the run has {before} up to step {first}, the "
            f"first that uses a forgotten example; name one of these, or None"
        )
    return Plan(first, max(before) if checkpoint is None else checkpoint, total)


def state_at(run: Run, start: Params, step: int) -> TrainingState:
    """Return the state of a run after ``step`` steps: its start's, or a checkpoint."""
    total = run.recipe.epochs * steps_per_epoch(run.recipe, len(run.data.examples))
    state = initial_state(start, optimizer(run.recipe, total))
    if step == 0:
        return state
    return checkpoints.restore(run.directory / "checkpoints", step, state)


def proof_without_result(run: Run, forget: Collection[int], plan: Plan) -> Proof:
    """Return what is known of a replay before it is made."""
    told = read_description(run.directory)
    gone = {run.data.examples[i].record for i in forget}
    retained: list[Record] = [
        record for i, record in enumerate(run.records) if i not in gone
    ]
    return Proof(
        rule=RULE,
        forget=tuple(sorted(set(forget))),
        first_use=plan.first_use,
        checkpoint=plan.checkpoint,
        steps=plan.steps,
        steps_replayed=plan.replayed,
        steps_saved=plan.checkpoint,
        run={
            "data_sha256": told.data_sha256,
            "tokenizer_sha256": told.tokenizer_sha256,
            "start_sha256": told.start_sha256,
            "settings_sha256": data_hash(
                [dataclasses.asdict(told.config), dataclasses.asdict(told.recipe)]
            ),
        },
        retained_sha256=data_hash(retained),
        params_sha256="",
        versions=versions(),
    )


def claim(directory: Path, told: Proof) -> None:
    """Make a folder that of one replay, or make sure that it is.

    Raises:
      ValueError: It holds another one.
    """
    path = directory / WORK
    if path.exists():
        other = differences(read_proof(path), told)
        if other:
            raise ValueError(
                f"directory={directory} holds another replay (its {', '.join(other)} "
                f"differ): choose another directory, or delete that one"
            )
    elif directory.exists() and any(x.name != LOCK for x in directory.iterdir()):
        raise ValueError(
            f"directory={directory} holds other files and no replay: choose a folder "
            f"that is empty or not there"
        )
    write_proof(path, told)


def verify_proof(
    path: Path | str,
    run: Run,
    *,
    params: Params | None = None,
    checkpoint: int | None = None,
    on_step: Callable[[Progress], None] | None = None,
) -> Proof:
    """Replay again what a proof tells of, and compare.

    Args:
      path: The proof.
      run: The run that it is of, with the forgotten records still in it.
      params: Parameters that are claimed to be the result; None takes the hash in the
        proof for it.
      checkpoint: Where to begin; None is where the proof's replay began. 0, the start,
        trusts no checkpoint either.
      on_step: Called after each step.

    Returns:
      The proof, which holds.

    Raises:
      ValueError: The file was edited, or is of another run; ``params`` are not those
        that it tells of; or the replay comes to others.

    Cost: that of :func:`exact_replay`.
    """
    proof = read_proof(path)
    if params is not None and params_hash(params) != proof.params_sha256:
        raise ValueError(
            f"params are not the parameters that {path} tells of (their hash differs): "
            f"pass those of the same replay"
        )
    plan = replay_plan(run, proof.forget, checkpoint=proof.checkpoint)
    expected = proof_without_result(run, proof.forget, plan)
    wrong = differences(proof, expected, but=("params_sha256", "versions"))
    if wrong:
        raise ValueError(
            f"{path} does not go with run={run.directory} (its {', '.join(wrong)} "
            f"differ): pass the run that was replayed"
        )
    begin = proof.checkpoint if checkpoint is None else checkpoint
    found = exact_replay(run, proof.forget, checkpoint=begin, on_step=on_step)
    if found.proof.params_sha256 != proof.params_sha256:
        other = [k for k, v in proof.versions.items() if expected.versions.get(k) != v]
        raise ValueError(
            f"{path} does not hold: the replay comes to other parameters"
            + (
                f"; versions differ too ({', '.join(other)}): use those"
                if other
                else ""
            )
        )
    return proof
