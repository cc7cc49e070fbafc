"""What a descent leaves on disk, so that it can be taken up bit for bit."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from jaxunlearn.journal import differing, fingerprint
from jaxunlearn.sealed import read_sealed, write_sealed
from jaxunlearn.training import checkpoints
from jaxunlearn.unlearning.outcome import PathPoint

State = TypeVar("State", bound=NamedTuple)

FILE = "unlearning_run.json"
"""Says which descent a folder is of, and holds its history."""


@dataclasses.dataclass(frozen=True)
class DescentFiles:
    """A folder of checkpoints, or none.

    Attributes:
      directory: The folder; None keeps nothing.
      about: What the descent is a function of, as JSON values.
    """

    directory: Path | None
    about: Mapping[str, Any]

    def resume(self, state: State) -> tuple[State, list[PathPoint]]:
        """Return the state and history to go on from: those given, or those saved.

        Raises:
          ValueError: The folder is of another descent, or damaged.
        """
        if self.directory is None or not (self.directory / FILE).exists():
            return state, []
        remedy = "delete the folder to begin anew, or choose another"
        told = read_sealed(self.directory / FILE, remedy=remedy)
        if names := differing(told["about"], fingerprint(self.about)):
            raise ValueError(
                f"directory={self.directory} holds another unlearning run, of other "
                f"{', '.join(names)}: {remedy}"
            )
        step = checkpoints.latest_step(self.directory / "checkpoints")
        if step is None:
            return state, []
        saved = checkpoints.restore_params(
            self.directory / "checkpoints" / str(step), state._asdict()
        )
        history = [PathPoint(**point) for point in told["history"]]
        return type(state)(**saved), [p for p in history if p.step <= step]

    def save(self, state: Any, history: list[PathPoint]) -> None:
        """Write the history, then the checkpoint that makes it count."""
        if self.directory is None:
            return
        write_sealed(
            self.directory / FILE,
            {
                "about": fingerprint(self.about),
                "history": [point._asdict() for point in history],
            },
        )
        checkpoints.save(self.directory / "checkpoints", state)
