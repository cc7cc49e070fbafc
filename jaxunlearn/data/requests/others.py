"""Records named beside those to be forgotten: to keep, and never seen."""

import warnings
from collections.abc import Sequence

from jaxunlearn.data.records import record_text
from jaxunlearn.data.requests.matching import match_near_duplicate


class NearDuplicateWarning(UserWarning):
    """Records that should be others say nearly the same."""


def without_forgotten(
    retain: Sequence[dict], forget: Sequence[dict], *, name: str = "retain"
) -> list[dict]:
    """Return the retain records without those that are to be forgotten.

    Args:
      retain: Records to keep.
      forget: Records to forget.
      name: How the user calls the former.

    Raises:
      ValueError: None is left.
    """
    unwanted = set(map(saying, forget))
    rest = [record for record in retain if saying(record) not in unwanted]
    if not rest:
        raise ValueError(
            f"every record of {name} is to be forgotten: pass records to keep"
        )
    return rest


def check_unseen(
    unseen: Sequence[dict],
    forget: Sequence[dict],
    training: Sequence[dict],
    *,
    name: str = "unseen",
) -> None:
    """Refuse look-alikes that the model has seen: their loss says nothing.

    Args:
      unseen: Records like the forgotten ones.
      forget: Those to be forgotten.
      training: The training data, where known.
      name: How the user calls the first.

    Raises:
      ValueError: Some are to be forgotten, or training data.

    Warns:
      NearDuplicateWarning: Some say nearly what is to be forgotten.
    """
    for what, records in (("to be forgotten", forget), ("training data", training)):
        seen = set(map(saying, records))
        count = sum(saying(record) in seen for record in unseen)
        if count:
            raise ValueError(
                f"{count} of the {len(unseen)} records of {name} are {what}: give "
                f"records like the forgotten ones that the model never saw"
            )
    near = match_near_duplicate(forget, unseen)
    if near:
        warnings.warn(
            f"{len(near)} of the {len(unseen)} records of {name} say nearly what is "
            f"to be forgotten, so that their loss may be too low a target",
            NearDuplicateWarning,
            stacklevel=2,
        )


def saying(record: dict) -> str:
    """Return what a record says, whatever its case and white space."""
    return " ".join(record_text(record).casefold().split())
