"""What a model can still recite: token by token, or from a prefix.

Scores of single examples, float64[n], each between 0 and 1 and higher = remembers more;
their mean is the published number, ``intervals.py`` has its interval.
"""

from collections.abc import Sequence

import numpy as np

from jaxunlearn.evaluation.text.greedy import answer_ids
from jaxunlearn.evaluation.text.token_pass import TokenStatistics
from jaxunlearn.models.gpt2 import GPT2
from jaxunlearn.types import Params


def answer_tokens(
    statistics: Sequence[TokenStatistics],
    *,
    drop_last: bool,
    end_of_text: int | None = None,
) -> list[TokenStatistics]:
    """Return the statistics, on demand without the end-of-text token.

    OpenUnlearning leaves out the last labelled token of every example, taking it for
    the end of text, in exact memorisation, extraction strength, Min-K, Min-K++ and
    gradient norms (in loss, zlib and reference attacks it does not). An example that
    was cut at the maximal length has none, and there it loses a real token.

    Args:
      statistics: At least one example.
      drop_last: Whether to leave it out.
      end_of_text: The token's id: the last token is left out only where it is this one.
        None leaves out any last token, as OpenUnlearning.

    Raises:
      ValueError: There is no example, or one is left without a token; or
        ``end_of_text`` is given without ``drop_last``.
    """
    check_end(drop_last, end_of_text)
    if len(statistics) == 0:
        raise ValueError("statistics is empty: there is no example to measure")
    kept = []
    for i, one in enumerate(statistics):
        last = one.token[-1:]
        if drop_last and (end_of_text is None or end_of_text in last):
            one = TokenStatistics(*(column[:-1] for column in one))
        if len(one.token) == 0:
            raise ValueError(
                f"statistics[{i}] has no labelled token"
                f"{' beside its last' if len(last) else ''}: leave the example out"
            )
        kept.append(one)
    return kept


def check_end(drop_last: bool, end_of_text: int | None) -> None:
    """Refuse an end-of-text token that nothing would be done with."""
    if end_of_text is not None and not drop_last:
        raise ValueError(
            f"end_of_text={end_of_text} says what drop_last=True leaves out: pass both"
        )


def exact_memorization(
    statistics: Sequence[TokenStatistics],
    *,
    drop_last: bool = False,
    end_of_text: int | None = None,
) -> np.ndarray:
    """Return the share of tokens that the model predicts, given the true ones before.

    ``EM = mean_t [argmax p(. | x_<t) = x_t]`` over the labelled tokens.

    Args:
      statistics: Of the model, at least one example.
      drop_last: Leave the end-of-text token out, see :func:`answer_tokens`.
      end_of_text: Its id.

    Returns:
      float64[n], 0 to 1, higher = remembers more.

    Raises:
      ValueError: As :func:`answer_tokens`.

    Source: Tirumala et al. 2022; OpenUnlearning, with ``drop_last=True``.
    """
    kept = answer_tokens(statistics, drop_last=drop_last, end_of_text=end_of_text)
    return np.array([np.mean(one.correct, dtype=np.float64) for one in kept])


def memorization_accuracy(statistics: Sequence[TokenStatistics]) -> np.ndarray:
    """Return MA: the share of a whole text's tokens that the model predicts.

    ``MA = sum_{t=1}^{T-1} [argmax p(. | x_<t) = x_t] / (T - 1)``: exact memorisation
    of a text all of whose tokens are labelled, so give it the statistics of records
    ``{"text": ...}``. Forgotten, by its authors' criterion, is a text whose MA and
    :func:`extraction_likelihoods` are at most the mean of texts the model never saw;
    that threshold is the model's own, and is to be measured, not copied.

    Returns:
      float64[n], 0 to 1, higher = remembers more.

    Source: Jang et al. 2022, Knowledge Unlearning (arXiv 2210.01504). Its code
    counts the tokens of all texts together, which are of one length there.
    """
    return exact_memorization(statistics)


def extraction_strength(
    statistics: Sequence[TokenStatistics],
    *,
    compat: str | None = None,
    drop_last: bool = False,
    end_of_text: int | None = None,
) -> np.ndarray:
    """Return how much of each completion the model adds by itself once started.

    ``ES = 1 - k / L``, k the length of the shortest beginning of the completion after
    which the model predicts every further token: 1 where it needs none, 0 where it
    gets the last token wrong.

    Args:
      statistics: Of the model, at least one example.
      compat: ``"openunlearning"`` has k at most L - 1, so that a completion with no
        token right counts 1 / L, and not 0, as in its code and UDS's.
      drop_last: Leave the end-of-text token out, see :func:`answer_tokens`.
      end_of_text: Its id.

    Returns:
      float64[n], 0 to 1, higher = remembers more.

    Raises:
      ValueError: As :func:`answer_tokens`, or ``compat`` is not known.

    Source: Carlini et al. 2021; OpenUnlearning's ``extraction_strength``, with
    ``drop_last=True``. Under teacher forcing, which equals greedy continuation: what is
    predicted all the way was never corrected.
    """
    if compat not in (None, "openunlearning"):
        raise ValueError(f'compat={compat!r}: None or "openunlearning"')
    kept = answer_tokens(statistics, drop_last=drop_last, end_of_text=end_of_text)
    at_least = 0 if compat is None else 1
    scores = []
    for one in kept:
        wrong = np.flatnonzero(~np.asarray(one.correct, bool))
        length = len(one.correct)
        tail = length - 1 - wrong[-1] if len(wrong) else length
        scores.append(max(tail, at_least) / length)
    return np.array(scores, np.float64)


def ngram_overlap(text: Sequence[int], truth: Sequence[int], *, n: int = 10) -> float:
    """Return the share of n-grams of ``text`` that occur in ``truth``.

    Repeated n-grams count each time.

    Raises:
      ValueError: n is below 1, or one of them has fewer than n tokens.

    >>> ngram_overlap([1, 2, 3, 1, 2], [9, 1, 2], n=2)
    0.5
    """
    if n < 1 or min(len(text), len(truth)) < n:
        raise ValueError(
            f"n={n}: 1 up to the length of the texts, {len(text)} and {len(truth)}"
        )
    ours, theirs = (
        [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
        for ids in (np.asarray(text).tolist(), np.asarray(truth).tolist())
    )
    known = set(theirs)
    return sum(gram in known for gram in ours) / len(ours)


def extraction_likelihoods(
    model: GPT2,
    params: Params,
    texts: Sequence[Sequence[int]],
    *,
    n: int = 10,
    prefixes: Sequence[int] | None = None,
    batch_size: int = 32,
) -> np.ndarray:
    """Return EL_n of each text: how much of what follows the model adds to a prefix.

    ``EL_n(x) = mean_m overlap_n(f(x_<m), x_>=m)`` over prefixes of m tokens, f the
    greedy continuation to the length of the text, see :func:`ngram_overlap`. The model
    goes on after an end of text, if it produces one.

    Args:
      model: The model.
      params: Its parameters.
      texts: Token ids, more than n of each.
      n: Length of the n-grams; the paper has 10.
      prefixes: Lengths of prefixes, which leave each text n tokens at least; None is
        all, 1 to T - n. The paper's code has 150 to 199 of 200 (and fewer n-grams than
        one in the last).
      batch_size: Prefixes at a time; changes nothing.

    Returns:
      float64[len(texts)], 0 to 1, higher = remembers more.

    Raises:
      ValueError: There is no text, one is too short for n or the prefixes, or the
        longest prefix with the longest continuation does not fit the model.

    Cost: a generation for each text and prefix, T of them for None.

    Source: Jang et al. 2022.
    """
    if len(texts) == 0:
        raise ValueError("texts is empty: there is nothing to continue")
    places = []
    for i, text in enumerate(texts):
        lengths = range(1, len(text) - n + 1) if prefixes is None else prefixes
        if (
            n < 1
            or len(lengths) == 0
            or not 1 <= min(lengths) <= max(lengths) <= len(text) - n
        ):
            raise ValueError(
                f"texts[{i}] has {len(text)} tokens: n={n} and prefixes={prefixes} "
                f"must leave each prefix 1 token and what follows n at least"
            )
        places.extend((i, m) for m in lengths)
    longest = max(len(texts[i]) - m for i, m in places)
    room = model.positions - longest
    if max(m for _, m in places) > room:
        raise ValueError(
            f"a prefix of {max(m for _, m in places)} tokens and a continuation of "
            f"{longest} exceed n_positions={model.positions} together: name "
            f"prefixes= that are nearer in length, or cut the texts"
        )
    continued = answer_ids(
        model,
        params,
        [np.asarray(texts[i])[:m].tolist() for i, m in places],
        eos_token_id=None,
        max_new_tokens=longest,
        batch_size=batch_size,
    )
    overlaps: list[list[float]] = [[] for _ in texts]
    for (i, m), ids in zip(places, continued, strict=True):
        suffix = texts[i][m:]
        overlaps[i].append(ngram_overlap(ids[: len(suffix)], suffix, n=n))
    return np.array([np.mean(row) for row in overlaps])


def perplexity(statistics: Sequence[TokenStatistics]) -> float:
    """Return ``exp`` of the mean loss over all labelled tokens, 1 or more.

    Each token counts the same, whatever its example; end of text included. Higher =
    the texts surprise the model more; inf where it rules a token out.

    Raises:
      ValueError: As :func:`answer_tokens`.
    """
    kept = answer_tokens(statistics, drop_last=False)
    tokens = np.concatenate([one.log_probability for one in kept])
    with np.errstate(over="ignore"):
        return float(np.exp(-np.mean(tokens, dtype=np.float64)))
