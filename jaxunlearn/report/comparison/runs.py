"""Reading the runs that a page compares, from their directories or single files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxunlearn.json_shapes import is_number
from jaxunlearn.report.comparison.format import (
    FORMS,
    SHAPES,
    TRAINING_RUN,
    read_form,
)
from jaxunlearn.report.comparison.run import ComparedRun, Curve
from jaxunlearn.report.comparison.track_file import TRACK, read_track
from jaxunlearn.report.kit.tables import visible


def read_runs(
    paths: Sequence[str | Path], *, names: Sequence[str] | None = None
) -> list[ComparedRun]:
    """Read runs; files of different forms that carry one name are one run.

    Args:
      paths: Directories with scores.json, attack.json, unlearning.json,
        losses.jsonl or influence_track.npz, or single files of these forms under
        any name.
      names: What to call each; by default what its files say they are of, else
        the directory's or file's name, made longer where two would be the same.

    Returns:
      The runs in the order of ``paths``.

    Raises:
      ValueError: There is no path, a file is damaged or none, ``names`` has another
        length, or two files of one form carry one name.
      FileNotFoundError: A path does not exist, or a directory holds none of the
        files.
    """
    if not paths:
        raise ValueError("runs is empty: name one run directory or scores file or more")
    if names is not None and len(names) != len(paths):
        raise ValueError(
            f"names={','.join(names)}: {len(names)} names for {len(paths)} runs; give "
            f"one a run"
        )
    if names is not None and not all(names):
        raise ValueError(f"names={','.join(names)}: a name is empty")
    places = [Path(path) for path in paths]
    found = [read(path) for path in places]
    called = list(names) if names is not None else run_names(places, found)
    called = [visible(name) for name in called]
    files: dict[str, dict[str, tuple[Path, Any]]] = {}
    for name, of_run in zip(called, found, strict=True):
        known = files.setdefault(name, {})
        for form, (path, value) in of_run.items():
            if form in known:
                raise ValueError(
                    f"the run {name!r} has two files of the form {form!r}, "
                    f"{known[form][0]} and {path}: give the runs different names=NAMES"
                )
            known[form] = (path, value)
    return [compared_run(name, of_run) for name, of_run in files.items()]


def compared_run(name: str, files: Mapping[str, tuple[Path, Any]]) -> ComparedRun:
    """Return a run from the contents of its files, by form.

    Scores that only unlearning.json knows, the losses before and after, count where
    there is no scores file. A membership attack's AUC is the score ``mia_ATTACK_auc``.
    """
    contents = {form: value for form, (_, value) in files.items()}
    everything = contents.get("scores", {})
    unlearning = contents.get("unlearning", {})
    known = {key.removesuffix("?") for key in SHAPES["scores"]}
    scores = {
        k: v
        for k, v in everything.items()
        if is_number(v) or (v is None and k not in known)
    }
    blocks = {k: v for k, v in everything.items() if k not in scores}
    for attack, of_attack in (blocks.get("membership") or {}).items():
        scores.setdefault(f"mia_{attack}_auc", of_attack.get("auc"))
    losses = unlearning.get("losses")
    if losses and "scores" not in contents:
        after, before = (
            {f"{k}_loss": v for k, v in losses[when].items()}
            for when in ("after", "before")
        )
        scores, blocks = after, {"original": {"scores": before}}
    attack = contents.get("attack", {})
    about = {
        form: contents[form].get("about") or {}
        for form in ("scores", "attack")
        if form in contents
    }
    for form in ("unlearning", "run"):
        if form in contents:
            about[form] = {"versions": contents[form].get("versions") or {}}
    return ComparedRun(
        name=name,
        scores=scores,
        blocks=blocks,
        attacks=attack.get("attacks", ()),
        not_run=attack.get("not_run") or {},
        curves=run_curves(blocks, unlearning, contents.get("losses", ())),
        about=about,
        sources=tuple(str(path) for path, _ in files.values()),
        track=contents.get("track"),
    )


def read(path: Path) -> dict[str, tuple[Path, Any]]:
    """Return the files of one argument: form -> (path, contents)."""
    if not path.exists():
        raise FileNotFoundError(
            f"run={path} does not exist: name a run's directory or a scores file"
        )
    if not path.is_dir():
        if path.suffix == Path(TRACK).suffix:
            return {"track": (path, read_track(path))}
        form, value = read_form(path)
        return {form: (path, value)}
    found = {}
    for form, name in FORMS.items():
        if (path / name).exists():
            found[form] = (path / name, read_form(path / name, form)[1])
    if (path / TRACK).exists():
        found["track"] = (path / TRACK, read_track(path / TRACK))
    if not found:
        raise FileNotFoundError(
            f"run={path}: none of {', '.join((*FORMS.values(), TRACK))} is there; "
            f"`jaxunlearn evaluate` would make the first, {path / 'scores.json'}"
        )
    if (path / TRAINING_RUN).exists():
        found["run"] = (path / TRAINING_RUN, read_form(path / TRAINING_RUN, "run")[1])
    return found


def run_names(paths: Sequence[Path], found: Sequence[Mapping]) -> list[str]:
    """Return what the files say, else the path's name, else as much as it takes."""
    own = [path_parts(path) for path in paths]
    names = [
        stated(of_run) or parts[-1] for parts, of_run in zip(own, found, strict=True)
    ]
    forms = [set(of_run) for of_run in found]
    clash = {
        name
        for i, name in enumerate(names)
        for j in range(i)
        if names[j] == name and forms[i] & forms[j]
    }
    for parts in (1, 2, 3):
        shorter = {
            i: "/".join(own[i][-parts:])
            for i, name in enumerate(names)
            if name in clash
        }
        if len(set(shorter.values())) == len(shorter):
            break
    return [shorter.get(i, name) for i, name in enumerate(names)]


def path_parts(path: Path) -> tuple[str, ...]:
    """Return a path's parts, without what says no more than the form of a file."""
    whole = path.resolve()
    if whole.is_dir():
        return whole.parts
    usual = whole.name in (*FORMS.values(), TRACK)
    return whole.parent.parts if usual else (*whole.parent.parts, whole.stem)


def stated(of_run: Mapping[str, tuple[Path, Any]]) -> str | None:
    """Return the name that a file of the run states, if one does."""
    for form in ("scores", "attack"):
        if form in of_run:
            name = (of_run[form][1].get("about") or {}).get("name")
            if isinstance(name, str) and name:
                return name
    return None


def run_curves(blocks: Mapping, unlearning: Mapping, lines: Sequence[Mapping]) -> dict:
    """Return the curves of the scores, of training and of the calibration."""
    curves = {
        name: Curve("step", "step", rows)
        for name, rows in (blocks.get("curves") or {}).items()
        if rows
    }
    for kind, title in (("evaluation", "evaluation in training"), ("loss", "training")):
        rows = [line[kind] for line in lines if kind in line]
        hidden = ("epoch", "gradient_norm")
        rows = [{k: v for k, v in row.items() if k not in hidden} for row in rows]
        if rows and title not in curves:
            curves[title] = Curve("step", "training step", rows)
    trials = unlearning.get("trials", ())
    if len(trials) > 1 and "calibration" not in curves:
        x = "relative_step" if "relative_step" in trials[0] else "scale"
        kept = (x, "forget", "retain")
        rows = [{k: trial[k] for k in kept if k in trial} for trial in trials]
        rows = sorted(
            (row for row in rows if is_number(row.get(x))), key=lambda row: row[x]
        )
        label = {
            "relative_step": "length of the change / length of the parameters",
            "scale": "scale of the step",
        }[x]
        curves["calibration"] = Curve(x, label, rows)
    return curves
