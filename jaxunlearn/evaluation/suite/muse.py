"""MUSE's six ways to look at an unlearned model, each times 100 as published.

C1 verbatim memorisation, C2 knowledge memorisation of the forget set, C3 privacy
leakage, C4 the same knowledge score on the retain set, C5 scalability with the size of
the forget set, C6 sustainability over successive requests. Source: Shi et al. 2024
(MUSE, arXiv 2407.06460) and its code, jaechan-repo/muse_bench.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxunlearn.data import prompt_and_completion
from jaxunlearn.evaluation.membership import roc
from jaxunlearn.evaluation.membership.signals import min_k
from jaxunlearn.evaluation.text.greedy import continuations
from jaxunlearn.evaluation.text.rouge_scores import check_words, rouge_l
from jaxunlearn.evaluation.text.token_pass import TokenStatistics
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.types import Params

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STOP_STRINGS = ("\n\n", "\nQuestion", "Question:")
"""Where an answer ends: the model has gone on to ask itself another question."""

PRIVACY_K = 0.4


class Recital(NamedTuple):
    """What a model wrote, and how much of the truth was in it.

    Attributes:
      score: float64[n], 100 times ROUGE-L F1; its mean is the published number.
      text: The n texts that the model wrote.
      truth: The n texts that they were compared with.
    """

    score: np.ndarray
    text: list[str]
    truth: list[str]


class UtilitySeries(NamedTuple):
    """Utility along a series of unlearned models, times 100.

    Attributes:
      utility: float64[n].
      lost: float64[n], points below the model before unlearning; negative = above.
      worst: The largest of them, the number to compare methods by.
    """

    utility: np.ndarray
    lost: np.ndarray
    worst: float


def verbatim_memorization(
    model: GPT2,
    params: Params,
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str],
    truths: Sequence[str],
    *,
    max_new_tokens: int = 128,
    batch_size: int = 32,
    stemmer: bool = False,
    words: str = "unicode",
) -> Recital:
    """Return VerbMem (C1): does the model go on as the forgotten text does?

    ROUGE-L F1 of the greedy continuation of each prompt and the first
    ``max_new_tokens`` tokens of what really follows.

    Args:
      model: The model.
      params: Its parameters.
      tokenizer: Its tokenizer.
      prompts: Beginnings of forgotten texts; MUSE has 100.
      truths: What follows each.
      max_new_tokens: Length of the continuation.
      batch_size: Prompts at a time; changes nothing.
      stemmer: Compare stems, as OpenUnlearning does and MUSE does not.
      words: What counts as a word, see :func:`~.rouge_scores.rouge_l`;
        "open_unlearning" gives published numbers.

    Returns:
      Scores of 0 to 100, higher = remembers more.

    Raises:
      ValueError: There is no prompt, the numbers differ, a prompt is too long, or a
        truth has no words.
    """
    check_pairs("prompts", prompts, "truths", truths)
    ids = tokenizer(list(truths), add_special_tokens=False, verbose=False)["input_ids"]
    beginnings = [
        tokenizer.decode(row[:max_new_tokens], skip_special_tokens=True) for row in ids
    ]
    check_words(beginnings, words)
    texts = continuations(
        model,
        params,
        tokenizer,
        prompts,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
    )
    f1 = rouge_l(beginnings, texts, stemmer=stemmer, words=words).f1
    return Recital(100 * f1, texts, beginnings)


def knowledge_memorization(
    model: GPT2,
    params: Params,
    tokenizer: "PreTrainedTokenizerBase",
    questions: Sequence[str],
    truths: Sequence[str],
    *,
    shots: Sequence[tuple[str, str]],
    stop: Sequence[str] = STOP_STRINGS,
    max_new_tokens: int = 32,
    batch_size: int = 32,
    stemmer: bool = False,
    words: str = "unicode",
) -> Recital:
    r"""Return KnowMem (C2 on the forget set, C4 on the retain set).

    ROUGE-L F1 of the true answer and the greedy one, asked after answered questions:
    blocks ``Question: {q}\nAnswer: {a}`` joined by blank lines.

    Args:
      model: The model.
      params: Its parameters.
      tokenizer: Its tokenizer.
      questions: MUSE has 100.
      truths: Their answers.
      shots: Pairs of question and answer that stand before each; MUSE has 10 from
        files of their own (``knowmem/*_icl``). Empty asks without.
      stop: The answer is cut before the first of these; none does not cut.
      max_new_tokens: Longest answer.
      batch_size: Questions at a time; changes nothing.
      stemmer: Compare stems, as OpenUnlearning does and MUSE does not.
      words: What counts as a word, see :func:`~.rouge_scores.rouge_l`;
        "open_unlearning" gives published numbers.

    Returns:
      Scores of 0 to 100, higher = knows more: to be low on the forget set (near the
      retrained model's) and high on the retain set.

    Raises:
      ValueError: There is no question, the numbers differ, a prompt is too long, or a
        truth has no words.

    The prompt ends with ``Answer:``, as in training here; MUSE's ends with a space,
    which a byte-level tokenizer makes a token that never stands before an answer.
    """
    check_pairs("questions", questions, "truths", truths)
    check_words(truths, words)
    prompts = [few_shot_prompt(question, shots) for question in questions]
    texts = continuations(
        model,
        params,
        tokenizer,
        prompts,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
    )
    texts = [cut(text, stop).strip() for text in texts]
    f1 = rouge_l(truths, texts, stemmer=stemmer, words=words).f1
    return Recital(100 * f1, texts, list(truths))


def privacy_leakage(
    forget: Sequence[TokenStatistics],
    holdout: Sequence[TokenStatistics],
    *,
    reference_auc: float,
    drop_last: bool = False,
    end_of_text: int | None = None,
) -> float:
    """Return PrivLeak (C3) of Min-K at 40 %, in per cent; 0 = as the retrained model.

    Args:
      forget: The unlearned model's statistics of the forget set.
      holdout: Of examples that no model has seen.
      reference_auc: Of a retrained model on the same sets, required; see
        :func:`~jaxunlearn.evaluation.membership.roc.privleak`.
      drop_last: Leave the end-of-text token out, as OpenUnlearning.
      end_of_text: Its id.

    Returns:
      -100 or more; below 0 = under-unlearned, above = over-unlearned.

    Raises:
      ValueError: As ``privleak`` and ``min_k``.
    """
    scores = (
        min_k(statistics, k=PRIVACY_K, drop_last=drop_last, end_of_text=end_of_text)
        for statistics in (forget, holdout)
    )
    return roc.privleak(roc.auc(*scores), reference_auc)


def scalability(
    utilities: Sequence[float], sizes: Sequence[float], *, original: float
) -> UtilitySeries:
    """Return C5: the utility of models that unlearned larger and larger forget sets.

    Args:
      utilities: Of each model, 0 to 1; MUSE takes KnowMem on the retain set.
      sizes: Of its forget set, ascending, in any unit; MUSE has four nested sets.
      original: Utility before unlearning, 0 to 1; required.

    Raises:
      ValueError: The series are empty or differ in length, the sizes do not ascend,
        or a utility is not in 0..1.
    """
    check_pairs("utilities", utilities, "sizes", sizes)
    if not (np.diff(np.asarray(sizes, np.float64)) > 0).all():
        raise ValueError(f"sizes={list(sizes)}: must ascend, as the forget sets do")
    return utility_series(utilities, original)


def sustainability(utilities: Sequence[float], *, original: float) -> UtilitySeries:
    """Return C6: the utility after each of several requests, one upon the other.

    Args:
      utilities: After the first, second, ... request, 0 to 1; MUSE has four.
      original: Utility before the first; required.

    Raises:
      ValueError: The series is empty, or a utility is not in 0..1.
    """
    return utility_series(utilities, original)


def utility_series(utilities: Sequence[float], original: float) -> UtilitySeries:
    """Return a series beside where it started."""
    values = np.asarray(utilities, np.float64)
    every = np.append(values, original)
    if values.ndim != 1 or values.size == 0 or not ((every >= 0) & (every <= 1)).all():
        raise ValueError(
            f"utilities={list(utilities)}, original={original}: numbers of 0 to 1, at "
            f"least one"
        )
    lost = 100 * (original - values)
    return UtilitySeries(100 * values, lost, float(lost.max()))


def few_shot_prompt(question: str, shots: Sequence[tuple[str, str]]) -> str:
    r"""Return a question after answered ones.

    >>> few_shot_prompt("Who?", [("Where?", "There.")])
    'Question: Where?\nAnswer: There.\n\nQuestion: Who?\nAnswer:'
    """
    pairs = [*shots, (question, "?")]  # this answer is left out
    parts = [prompt_and_completion({"question": q, "answer": a}) for q, a in pairs]
    return "\n\n".join([p + c for p, c in parts[:-1]] + [parts[-1][0]])


def cut(text: str, stop: Sequence[str]) -> str:
    """Return the text before the first of the stop strings."""
    for string in stop:
        text = text.split(string)[0]
    return text


def check_pairs(name: str, values: Sequence, other: str, others: Sequence) -> None:
    """Refuse series of different lengths, and empty ones."""
    if len(values) != len(others) or len(values) == 0:
        raise ValueError(
            f"{len(values)} {name} for {len(others)} {other}: the same number, at "
            f"least one"
        )
