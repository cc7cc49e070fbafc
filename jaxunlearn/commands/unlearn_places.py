"""Where ``jaxunlearn unlearn`` writes, and what it must not overwrite there."""

from pathlib import Path

from jaxunlearn.commands.outputs import check_output
from jaxunlearn.commands.unlearn_options import Options
from jaxunlearn.files import within
from jaxunlearn.folders import file_names, named_checksums
from jaxunlearn.locks import LOCK
from jaxunlearn.unlearning.origin import RESULT

CARD = "README.md"
"""The model card."""


def check_places(options: Options) -> None:
    """Refuse places in which something that is needed would be overwritten.

    Raises:
      ValueError: ``out`` is, holds or lies in the model or the run; or it is a file or
        in use; or the file for the texts lies in it or exists.
    """
    out = Path(options.out)
    sources = {"model": options.model, "run": options.run}
    for name, place in sources.items():
        if place is None or not Path(place).exists():
            continue
        if within(place, out) or within(out, place):
            raise ValueError(
                f"out={out} and {name}={place} are, or lie in, one folder: choose an "
                f"--out apart from it, so that nothing of it is overwritten"
            )
    check_vacant(out, overwrite=options.overwrite)
    texts = options.keep_texts
    if texts is None:
        return
    for name, place in {"out": out, **sources}.items():
        if place is not None and within(place, texts):
            raise ValueError(
                f"keep_texts={texts} lies in {name}={place}: choose a file elsewhere, "
                f"so that the texts do not travel with the model"
            )
    inputs = {n: getattr(options, n) for n in ("forget", "retain", "unseen", "data")}
    check_output("keep-texts", texts, ".json", inputs=inputs)
    if texts.exists() and not options.overwrite:
        raise ValueError(
            f"keep_texts={texts} exists: choose another file, or replace it with "
            f"--overwrite"
        )


def check_vacant(out: Path, *, overwrite: bool) -> None:
    """Refuse a used folder: only an earlier result may be replaced, when asked for."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"out={out} is a file: choose a folder that is not there yet")
    used = (
        sorted(p.name for p in out.iterdir() if p.name != LOCK) if out.exists() else []
    )
    if not used:
        return
    if RESULT not in used:
        raise ValueError(
            f"out={out} holds other things ({', '.join(used[:3])}): choose a folder "
            f"that is empty or not there"
        )
    if not overwrite:
        raise ValueError(
            f"out={out} holds an earlier result: choose another folder, or replace it "
            f"with --overwrite"
        )
    others = sorted(set(file_names(out)) - named_checksums(out) - {CARD})
    if others:
        raise ValueError(
            f"out={out} holds files that are not of the earlier result "
            f"({', '.join(others[:3])}): move them elsewhere, or choose another folder"
        )


def refusal_of(out: Path) -> Path:
    """Return the file beside ``out`` that says why nothing was written there."""
    return out.with_name(f"{out.name}.refused.json")
