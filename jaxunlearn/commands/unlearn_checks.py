"""What ``jaxunlearn unlearn`` refuses before it reads anything."""

import math
from typing import Any

from jaxunlearn.commands.unlearn_methods import ignored_options
from jaxunlearn.commands.unlearn_options import Options
from jaxunlearn.ranges import check_number

COUNTS = ("batch_size", "retain_size", "max_steps", "max_exposures", "evaluate_every")


def check(options: Options) -> None:
    """Refuse options that are missing, out of range, or without effect.

    Raises:
      ValueError: Names the option, its value and the remedy.
    """
    check_named(options)
    check_numbers(options)
    if options.list_matches:
        return
    for name in ("model", "retain", "out", "method"):
        if getattr(options, name) is None:
            raise ValueError(f"--{name} is missing; only --list-matches needs none")
    check_method(options)
    limits_of(options)
    given_target(options)


def check_named(options: Options) -> None:
    """Refuse what names nothing, or says twice what is to be forgotten."""
    named = (options.forget is not None, options.request is not None, options.ids != ())
    if sum(named) != 1:
        raise ValueError(
            "name what to forget by exactly one of --forget, --request and --ids "
            "(unlearning.json keeps no texts and no names: where it has no positions "
            "either, name it beside --config again, such as by a file of --keep-texts)"
        )
    if options.run is not None and options.data is not None:
        raise ValueError(
            f"data={options.data} has no effect beside run={options.run}, which holds "
            f"its training data: leave one of them out"
        )
    known = options.run is not None or options.data is not None
    if not known and options.forget is None:
        raise ValueError(
            "--request and --ids are looked up in the training data: pass --run RUN, "
            "or --data FILE"
        )
    how = "ids" if options.ids else "training data"
    for name in ("match_by", "threshold"):
        value = getattr(options, name)
        if value is not None and (options.ids or not known):
            reason = "beside ids" if how == "ids" else "without run or data to match in"
            raise ValueError(f"{name}={value} has no effect {reason}: leave it out")
    if options.threshold is not None and not 0 < options.threshold <= 1:
        raise ValueError(f"threshold={options.threshold} is not in (0, 1]")


def check_method(options: Options) -> None:
    """Refuse a method that is not there, or whose needs no option meets."""
    from jaxunlearn.unlearning.methods import METHODS
    from jaxunlearn.unlearning.requirements import method_named

    row = method_named(options.row, METHODS)
    if options.mode is not None and options.method != "first_epoch":
        raise ValueError(
            f"mode={options.mode} has no effect with --method {options.method}: leave "
            f"it out, or use --method first_epoch"
        )
    if "run" in row.needs and options.run is None:
        raise ValueError(
            f"--method {options.method} replays the training run: pass --run RUN, a "
            f"directory made by `jaxunlearn train`; or use --method gradient_ascent, "
            f"which works on any model"
        )
    if "unseen" in row.needs and options.unseen is None:
        raise ValueError(f"--method {options.method} needs --unseen FILE")
    for name in sorted(ignored_options(row, options.method or "")):
        if getattr(options, name) is not None:
            raise ValueError(
                f"{name}={getattr(options, name)} has no effect with --method "
                f"{options.method}, whose form is {row.form}: leave it out"
            )


def check_numbers(options: Options) -> None:
    """Refuse numbers that are out of range."""
    values = vars(options)
    for name in COUNTS:
        check_number(name, values.get(name), 1)
    for name in ("scale", "learning_rate"):
        value = values.get(name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name}={value}: must be a finite number above 0")
    for name, value in options.own.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name}={value}: must be a finite number")
    step = options.max_relative_step
    if step is not None and not 0 <= step < math.inf:
        raise ValueError(
            f"max_relative_step={step}: must be a finite number of at least 0"
        )
    epochs = values.get("epochs")
    for name, given, least in (
        ("ids", options.ids, 0),
        ("epochs", epochs if isinstance(epochs, tuple) else (), 1),
    ):
        if any(value < least for value in given) or len(set(given)) < len(given):
            raise ValueError(
                f"{name}={' '.join(map(str, given))}: must be different whole numbers "
                f"of at least {least}"
            )


def given_target(options: Options) -> float | None:
    """Return the forget loss to reach where it was given as a number."""
    if options.target in (None, "before", "unseen"):
        if options.target == "before" and options.run is None:
            raise ValueError("--target before needs --run, whose start it measures")
        if options.target == "unseen" and options.unseen is None:
            raise ValueError("--target unseen needs --unseen FILE")
        return None
    try:
        value = float(options.target)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(
            f"target={options.target!r}: a number above 0 (nats a token), before or "
            f"unseen"
        )
    return value


def limits_of(options: Options) -> Any:
    """Return what the step must not pass."""
    from jaxunlearn.unlearning.limits import price_limit
    from jaxunlearn.unlearning.methods import METHODS

    usual = METHODS[options.row].limits
    limits = usual._replace(max_relative_step=options.max_relative_step)
    text = options.max_retain_increase
    return limits if text is None else limits._replace(**price_limit(text))
