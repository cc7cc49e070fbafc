"""What every experiment shares: options, intervals over seeds, verdicts, files."""

import dataclasses
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments.paper.laboratory import SIZES, WORLDS, Lab, build
from jaxunlearn.files import write_json
from jaxunlearn.intervals import Interval, mean_interval
from jaxunlearn.provenance import versions

HERE = Path(__file__).parent
CACHE = Path("jaxunlearn-paper-cache")
VERDICTS = ("reproduces", "partly", "does not reproduce", "undecided")


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of every experiment.

    Attributes:
      size: smoke (a check that it runs), tiny (minutes on two cores) or small (GPT-2
        124M in shape, for a GPU).
      worlds: synthetic needs nothing; tofu needs JAXUNLEARN_DATA.
      seed: Of the world, the pretraining and the runs.
      out: Directory for CLAIM.json and CLAIM.png.
      cache: Where trained models are kept, and found by the other experiments.
    """

    size: Literal["smoke", "tiny", "small"] = "tiny"
    worlds: tuple[Literal["synthetic", "tofu"], ...] = WORLDS
    seed: int = 0
    out: Path = HERE / "results"
    cache: Path = CACHE


def labs(
    options: Options, optimisers: Sequence[str] = ("adamw",)
) -> dict[tuple[str, str], Lab]:
    """Return the runs of every world and optimiser, by both names."""
    return {
        (world, optimiser): build(
            world,
            optimiser,
            SIZES[options.size],
            seed=options.seed,
            cache=options.cache,
        )
        for world in options.worlds
        for optimiser in optimisers
    }


def summary(values: Any) -> dict[str, Any]:
    """Return values over seeds as JSON: mean, 95 % t interval, and each of them.

    Seeds without a value (NaN: the target was not reached) are counted and left out.
    """
    values = np.asarray(values, np.float64)
    there = values[np.isfinite(values)]
    if len(there) == 0:
        return {"mean": None, "low": None, "high": None, "missing": len(values)}
    found = mean_interval(there)
    return {
        "mean": found.value,
        "low": number(found.low),
        "high": number(found.high),
        "missing": int(len(values) - len(there)),
        "seeds": [number(x) for x in values],
    }


def number(value: float) -> float | None:
    """Return a JSON number, None where it is not finite."""
    return float(value) if np.isfinite(value) else None


def difference(a: Any, b: Any) -> Interval | None:
    """Return ``a - b`` over seeds with its paired t interval; None without 2 pairs."""
    pairs = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    pairs = pairs[np.isfinite(pairs)]
    return mean_interval(pairs) if len(pairs) > 1 else None


def sign_of(interval: Interval | None) -> int:
    """Return 1 or -1 where an interval lies on one side of 0, else 0."""
    if interval is None:
        return 0
    return int(interval.low > 0) - int(interval.high < 0)


def command_of(options: Options, claim: str) -> str:
    """Return the command that makes these results again, without folders."""
    words = ["python", "-m", f"experiments.paper.{claim}", "--size", options.size]
    if options.seed:
        words += ["--seed", str(options.seed)]
    if tuple(options.worlds) != WORLDS:
        words += ["--worlds", *options.worlds]
    return shlex.join(words)


def finish(
    options: Options,
    claim: str,
    *,
    statement: str,
    verdicts: Mapping[str, tuple[str, str]],
    results: Mapping[str, Any],
    draw: Callable[[Mapping[str, Any]], Any],
    started: float,
) -> dict[str, Any]:
    """Write CLAIM.json, CLAIM.png and CLAIM.svg, and print the verdicts.

    Args:
      options: Of the experiment.
      claim: Its name, which the files get.
      statement: What the paper claims, in our words.
      verdicts: Setting (world, optimiser) -> one of ``VERDICTS`` and why, in a sentence
        with its numbers.
      results: JSON values that the verdicts follow from.
      draw: ``results -> matplotlib figure``.
      started: ``time.perf_counter()`` at the beginning.
    """
    from jaxunlearn.report.kit.drawing import save_figure

    for verdict, _ in verdicts.values():
        if verdict not in VERDICTS:
            raise ValueError(f"verdict={verdict!r}: one of {', '.join(VERDICTS)}")
    found = {
        "claim": claim,
        "statement": statement,
        "verdicts": {
            setting: {"verdict": verdict, "because": because}
            for setting, (verdict, because) in verdicts.items()
        },
        "size": dataclasses.asdict(SIZES[options.size]) | {"name": options.size},
        "seed": options.seed,
        "results": results,
        "command": command_of(options, claim),
        "seconds": time.perf_counter() - started,
        "versions": versions(),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / f"{claim}.json", found)
    save_figure(draw(results), options.out / claim)
    print(f"\n{statement}")
    for setting, (verdict, because) in verdicts.items():
        print(f"  {setting}: {verdict.upper()}. {because}")
    print(f"{options.out / claim}.json, .png, .svg; {found['seconds']:.0f} s")
    return found
