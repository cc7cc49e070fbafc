"""All that is measured of one model on the sets of an evaluation, and its scores."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxunlearn.data import (
    Batches,
    TokenizedData,
    in_order,
    prompt_and_completion,
    tokenize,
)
from jaxunlearn.evaluation.membership import signals
from jaxunlearn.evaluation.text.answer_log import AnswerLog
from jaxunlearn.evaluation.text.greedy import answers
from jaxunlearn.evaluation.text.log_columns import ROUGES
from jaxunlearn.evaluation.text.rouge_scores import rouge
from jaxunlearn.evaluation.text.token_pass import (
    TokenStatistics,
    token_statistics,
)
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.types import Params

HOLDOUT = "holdout"
SHORTEST_ANSWER = 8  # tokens of room below which a prompt is too long to be asked


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a model is measured.

    Attributes:
      max_length: Most tokens of an example.
      max_new_tokens: Most tokens of a greedy answer; less where the model is full.
      batch_size: Examples at a time; changes nothing beyond rounding.
      gradient_norms: Also take the gradient-norm membership score: a backward pass an
        example.
      words: What counts as a word of ROUGE, see :func:`~.rouge_scores.rouge_l`.
    """

    max_length: int
    max_new_tokens: int = 200
    batch_size: int = 16
    gradient_norms: bool = False
    words: str = "unicode"


class PreparedSet(NamedTuple):
    """A set of records as every model reads it.

    Attributes:
      records: The records.
      texts: Their true texts.
      paraphrased: The records with their paraphrased answers, of those that have one.
      wrong: The records with each of their wrong answers, of those that have some.
    """

    records: Sequence[dict]
    texts: Batches
    paraphrased: Batches | None = None
    wrong: Batches | None = None


def prepared_sets(
    sets: Mapping[str, Sequence[dict]], tokenizer: Any, settings: Settings
) -> dict[str, PreparedSet]:
    """Tokenize sets, once for all models, into batches of one shape.

    So the passes over them are compiled once a model, and not once a set.

    Args:
      sets: Set name (forget, retain, real_authors, world_facts, holdout) -> records.
      tokenizer: Of every model.
      settings: How models are measured.
    """
    data: dict[tuple[str, str], TokenizedData] = {}
    for name, records in sets.items():
        kinds = {"texts": records}
        if name != HOLDOUT:
            kinds |= {
                "paraphrased": paraphrased_records(records),
                "wrong": wrong_records(records),
            }
        for kind, some in kinds.items():
            if some or kind == "texts":  # an empty set is refused
                data[name, kind] = tokens_of(some, tokenizer, settings)
    length = max(one.length for one in data.values())
    batches = {
        key: in_order(one, batch_size=settings.batch_size, length=length)
        for key, one in data.items()
    }
    return {
        name: PreparedSet(
            records,
            batches[name, "texts"],
            batches.get((name, "paraphrased")),
            batches.get((name, "wrong")),
        )
        for name, records in sets.items()
    }


def paraphrased_records(records: Sequence[dict]) -> list[dict]:
    """Return the records that have a paraphrased answer, with it for the answer."""
    return [
        {**record, "answer": record["paraphrased_answer"]}
        for record in records
        if record.get("paraphrased_answer")
    ]


def wrong_records(records: Sequence[dict]) -> list[dict]:
    """Return a record for each wrong answer of the records that have some."""
    return [
        {**record, "answer": text}
        for record in records
        for text in record.get("perturbed_answer") or ()
    ]


class Measured(NamedTuple):
    """What one model gave on every set.

    Attributes:
      logs: Set name -> per-question measurements.
      statistics: Set name -> token statistics of the true texts.
      texts: Set name -> the true completions.
      gradient_norms: Set name -> float64[n], where asked for.
    """

    logs: dict[str, AnswerLog]
    statistics: dict[str, list[TokenStatistics]]
    texts: dict[str, list[str]]
    gradient_norms: dict[str, np.ndarray]


def measure(
    model: GPT2,
    params: Params,
    tokenizer: Any,
    sets: Mapping[str, PreparedSet],
    settings: Settings,
    *,
    progress: Callable[[str], None] | None = None,
) -> Measured:
    """Measure a model on sets of records.

    Args:
      model: The model.
      params: Its parameters.
      tokenizer: Its tokenizer.
      sets: As :func:`prepared_sets` makes them. ``paraphrased_answer`` and
        ``perturbed_answer`` are measured of the records that have them, and those with
        a prompt are answered; of the others they are NaN.
      settings: How.
      progress: Called with what is measured next.

    Raises:
      ValueError: A loss is NaN, so the model is broken.

    Cost: a forward pass over every true, paraphrased and wrong answer, and a generation
    for each prompt.
    """
    found = Measured({}, {}, {}, {})
    for name, prepared in sets.items():
        records = prepared.records
        tell(progress, f"{name}: losses of {len(records)} records")
        statistics = token_statistics(model, params, prepared.texts)
        found.statistics[name] = statistics
        found.texts[name] = [prompt_and_completion(r)[1].strip() for r in records]
        if settings.gradient_norms and name in ("forget", HOLDOUT):
            tell(progress, f"{name}: gradient norms")
            found.gradient_norms[name] = signals.gradient_norm(
                model.per_example_loss,
                params,
                prepared.texts,
                drop_last=True,
                end_of_text=tokenizer.eos_token_id,
            )
        if name != HOLDOUT:
            tell(progress, f"{name}: answers")
            found.logs[name] = measured_answers(
                model, params, tokenizer, prepared, settings, statistics
            )
    return found


def measured_answers(
    model: GPT2,
    params: Params,
    tokenizer: Any,
    prepared: PreparedSet,
    settings: Settings,
    statistics: Sequence[TokenStatistics],
) -> AnswerLog:
    """Return the log of a set whose true answers were measured already."""

    def losses(variants: Batches) -> np.ndarray:
        return signals.loss(token_statistics(model, params, variants))

    records = prepared.records
    log: dict[str, Any] = {
        "loss": signals.loss(statistics),
        "tokens": np.array([float(len(one.token)) for one in statistics]),
    }
    size = len(records)
    if prepared.paraphrased is not None:
        at = [i for i, r in enumerate(records) if r.get("paraphrased_answer")]
        values = losses(prepared.paraphrased)
        log["paraphrased_loss"] = spread(values, at, size)
    if prepared.wrong is not None:
        at = [i for i, r in enumerate(records) if r.get("perturbed_answer")]
        ends = np.cumsum([len(records[i]["perturbed_answer"]) for i in at])
        values = losses(prepared.wrong)
        rows = dict(zip(at, np.split(values, ends[:-1]), strict=True))
        unknown = np.array([np.nan])
        log["wrong_losses"] = tuple(rows.get(i, unknown) for i in range(size))
    pairs = [prompt_and_completion(r) for r in records]
    at = [i for i, (prompt, _) in enumerate(pairs) if prompt]
    if at:
        prompts = [pairs[i][0] for i in at]
        truths = [pairs[i][1].strip() for i in at]
        texts = greedy_answers(model, params, tokenizer, prompts, settings)
        for name, column in (
            ("prompts", prompts),
            ("answers", texts),
            ("truths", truths),
        ):
            known = dict(zip(at, column, strict=True))
            log[name] = tuple(known.get(i) for i in range(size))
        for kind, part, name in ROUGES:
            scores = rouge(kind, truths, texts, words=settings.words)
            log[name] = spread(getattr(scores, part), at, size)
    return AnswerLog(tuple(map(str, range(len(records)))), **log)


def spread(values: np.ndarray, at: Sequence[int], size: int) -> np.ndarray:
    """Return float64[size] with values at some places, and NaN at the others."""
    column = np.full(size, np.nan)
    column[at] = values
    return column


def greedy_answers(
    model: GPT2,
    params: Params,
    tokenizer: Any,
    prompts: Sequence[str],
    settings: Settings,
) -> list[str]:
    """Return greedy answers as long as asked for, or as the model has room for."""
    longest = max(len(ids) for ids in tokenizer(list(prompts))["input_ids"])
    room = model.positions - longest
    if room < SHORTEST_ANSWER:
        raise ValueError(
            f"the longest prompt has {longest} tokens of n_positions="
            f"{model.positions}: too little room for an answer; leave it out"
        )
    return answers(
        model,
        params,
        tokenizer,
        prompts,
        max_new_tokens=min(settings.max_new_tokens, room),
        batch_size=settings.batch_size,
    )


def tokens_of(
    records: Sequence[dict], tokenizer: Any, settings: Settings
) -> TokenizedData:
    """Return records tokenised as in training."""
    return tokenize(records, tokenizer, max_length=settings.max_length)


def tell(progress: Callable[[str], None] | None, what: str) -> None:
    """Say what comes next."""
    if progress is not None:
        progress(what)
