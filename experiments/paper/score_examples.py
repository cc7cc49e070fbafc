"""What really removing a group does to each example, against scores before that."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from experiments.paper.laboratory import Lab
from experiments.paper.matched import (
    forget_losses,
    kept_rows,
    retain_losses,
    unseen_losses,
)
from experiments.paper.score_programs import Scorer, picked
from experiments.paper.score_verdict import ALL, GROUP, LOSS
from jaxunlearn.influence.methods.lexical import bm25
from jaxunlearn.influence.truth.validation import spearman
from jaxunlearn.types import Batch, Params

GROUPS = 3  # as many near and as many unseen examples as so many groups have
RANDOM_SCORES = 999


def of_examples(lab: Lab, scorer: Scorer) -> tuple[dict, dict, dict]:
    """Return correlations by set of examples, the noise of the data's order, chance.

    The second is, by set, how far the losses of two models trained on everything in
    different orders lie apart, over how far removing the group moves them (root mean
    squares): near 1 the truth itself is mostly noise.
    """
    count = lab.sets.forget.shape[1]
    kept = kept_rows(lab)
    near = nearest(lab, kept, taken(count, kept.shape[1]))
    total = len(lab.sets.unseen["index"])
    far = np.linspace(0, total - 1, taken(count, total)).astype(int)

    def losses(params: Params) -> dict[str, np.ndarray]:
        return {
            "forget": forget_losses(lab, params),
            "near": np.take_along_axis(retain_losses(lab, params), near, axis=1),
            "unseen": unseen_losses(lab, params)[:, far],
        }

    before, after = losses(lab.trained), losses(lab.retrained)
    reordered = losses(jax.tree.map(lambda x: np.roll(x, 1, axis=0), lab.trained))
    change = {name: after[name] - before[name] for name in before}
    noise = {
        name: rms(reordered[name] - before[name]) / rms(x) for name, x in change.items()
    }
    batches = {
        "forget": picked(lab, lab.sets.forget),
        "near": picked(lab, np.take_along_axis(kept, near, axis=1)),
        "unseen": {
            name: np.stack([np.asarray(x)[far]] * len(kept))
            for name, x in lab.sets.unseen.items()
        },
    }
    queries = [part for batch in batches.values() for part in parts(batch, count)]
    found = scorer.of_examples(lab.trained, queries)
    found[LOSS] = -np.concatenate(list(before.values()), axis=1)
    found[GROUP] = np.zeros_like(found[LOSS])
    found[GROUP][:, :count] = 1.0
    places = np.cumsum([x.shape[1] for x in change.values()])[:-1]
    change[ALL] = np.concatenate(list(change.values()), axis=1)
    parted = {name: [*np.split(x, places, axis=1), x] for name, x in found.items()}
    by_set = {
        subset: {score: correlations(x[i], truth) for score, x in parted.items()}
        for i, (subset, truth) in enumerate(change.items())
    }
    return by_set, noise, {name: chance_of(truth) for name, truth in change.items()}


def rms(x: np.ndarray) -> np.ndarray:
    """Return the root mean square of each seed."""
    return np.sqrt(np.mean(np.asarray(x, np.float64) ** 2, axis=1))


def taken(group: int, available: int) -> int:
    """Return how many examples to take: as many as some groups have."""
    return min(GROUPS, available // group) * group


def parts(batch: Batch, size: int) -> list[dict]:
    """Return [seeds, n, ...] as batches of ``size`` examples."""
    count = batch["index"].shape[1]
    return [
        {name: x[:, i : i + size] for name, x in batch.items()}
        for i in range(0, count, size)
    ]


def nearest(lab: Lab, rows: np.ndarray, count: int) -> np.ndarray:
    """Return the places in ``rows`` of those most like the group in words (BM25)."""
    data: Mapping = lab.sets.train
    ids, mask = np.asarray(data["input_ids"]), np.asarray(data["attention_mask"])

    def likeness(own: np.ndarray, group: np.ndarray) -> np.ndarray:
        texts, queries = ([ids[i][mask[i] > 0] for i in x] for x in (own, group))
        return bm25(texts, queries).sum(axis=0)

    return np.stack(
        [
            np.argsort(-likeness(own, group), kind="stable")[:count]
            for own, group in zip(rows, lab.sets.forget, strict=True)
        ]
    )


def correlations(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> np.ndarray:
    """Return Spearman's correlation in each seed; NaN of less than four pairs."""
    return np.array(
        [
            spearman(x[None], y[None])[0] if len(x) > 3 else np.nan
            for x, y in zip(a, b, strict=True)
        ],
        np.float64,
    )


def chance_of(truth: Sequence[np.ndarray]) -> float:
    """Return below which size 99 % of random scores' mean correlations stay."""
    draws = np.random.default_rng(0)
    found = [
        spearman(draws.random((RANDOM_SCORES, len(x))), np.tile(x, (RANDOM_SCORES, 1)))
        for x in truth
        if len(x) > 3
    ]
    return float(np.quantile(np.abs(np.mean(found, axis=0)), 0.99)) if found else 1.0
