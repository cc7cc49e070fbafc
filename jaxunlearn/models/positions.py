"""How long an example may be, known before any weights are read."""

from collections.abc import Sequence
from pathlib import Path

from jaxunlearn.models.checkpoints.config_file import load_config


def check_max_length(max_length: int | None, models: Sequence[str | Path]) -> None:
    """Refuse a length that a model has no positions for.

    Args:
      max_length: As given; None is nothing to check.
      models: Directories; what is none, a name on the hub, is passed over.

    Raises:
      ValueError: It is below 2, or above the least ``n_positions``.
    """
    if max_length is None:
        return
    local = [Path(model) for model in models if Path(model).is_dir()]
    positions = min((load_config(path).n_positions for path in local), default=None)
    if max_length < 2 or positions is not None and max_length > positions:
        most = "" if positions is None else f" to {positions}"
        raise ValueError(
            f"max_length={max_length}: must be 2{most}, the positions that the models "
            f"have"
        )
