"""What a model's name means: a folder here, or a repository on the Hugging Face hub.

A name with a path's shape, or whose first part exists here, never goes to the network:
a typo is told at once, and no stranger's repository of that name is downloaded.
"""

import difflib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxunlearn.folders import check_checksums

REPOSITORY = re.compile(r"\w[\w.-]{,95}(/\w[\w.-]{,95})?", re.ASCII)
FILE_SUFFIXES = (
    *(".json", ".jsonl", ".txt", ".model", ".safetensors", ".bin", ".msgpack"),
    *(".csv", ".tsv", ".parquet", ".arrow"),
)


def local_folder(name: str | os.PathLike[str], patterns: Sequence[str]) -> Path:
    """Return the folder that a name means, downloaded where it is one of the hub's.

    Args:
      name: A folder, or a repository on the hub (``"gpt2"``, ``"owner/name"``).
      patterns: The files of a repository to download, as ``fnmatch`` patterns.

    Raises:
      FileNotFoundError: There is no such folder, and the name is no repository's or
        the hub cannot be reached; the message names what is near.
      ValueError: The name is empty, or a file's.
    """
    name = os.fspath(name)
    if not name:
        raise ValueError("the name of a folder is empty: name a folder, or '.'")
    if os.path.isdir(name):
        return Path(name)
    if os.path.isfile(name):
        raise ValueError(f"{name} is a file: give the directory that holds it")
    if not is_repository(name):
        raise FileNotFoundError(f"no such directory: {name}{nearest(name)}")
    # Not from_pretrained or hf_hub_download: without a network they try again for half
    # a minute a file, while a snapshot fails at once and falls back on its cache.
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except Exception as error:  # of the hub's library, or of its network library
        reason = " ".join(str(error).split())
        raise FileNotFoundError(
            f"{name!r} is no directory here{nearest(name)}, and its download from the "
            f"Hugging Face hub failed ({type(error).__name__}: {reason})"
        ) from error


def check_folder(folder: Path, only: Callable[[str], bool] | None = None) -> None:
    """Compare a model's folder with its ``checksums.json``, if we wrote one there.

    Raises:
      ValueError: A file is damaged, missing or was changed; the message names it.
    """
    check_checksums(
        folder,
        only=only,
        remedy="put the written file back, or, where it was changed on purpose, delete "
        "checksums.json, which vouches for what jaxunlearn wrote",
    )


def is_repository(name: str) -> bool:
    """Say whether a name may be asked for on the hub.

    >>> [is_repository(n) for n in ("gpt2", "owner/gpt2-1.5b", "./gpt2", "a/b/c", "a/")]
    [True, True, False, False, False]
    """
    return (
        REPOSITORY.fullmatch(name) is not None
        and not name.lower().endswith(FILE_SUFFIXES)
        and not os.path.lexists(name.split("/")[0])
    )


def nearest(name: str) -> str:
    """Return ``"; "`` and the names here that resemble one that is not, or nothing."""
    missing = Path(name)
    while missing.parent != missing and not os.path.isdir(missing.parent):
        missing = missing.parent
    try:
        found = sorted(os.listdir(missing.parent))
    except OSError:  # what may not be listed has no names to tell
        return ""
    near = difflib.get_close_matches(missing.name, found, n=3, cutoff=0.5)
    if near:
        return f"; near it stands {', '.join(str(missing.parent / n) for n in near)}"
    visible = [n for n in found if not n.startswith(".")]
    if missing.parent == Path() or not visible:
        return ""
    more = ", ..." if len(visible) > 8 else ""
    return f"; {missing.parent} holds {', '.join(visible[:8])}{more}"
