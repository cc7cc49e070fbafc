import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.data import Example, TokenizedData, subset
from jaxunlearn.evaluation.retrained.retraining import (
    TrainingParts,
    even_size,
    group_size,
    retrain,
)
from jaxunlearn.files import WRITING
from jaxunlearn.models import GPT2Config
from jaxunlearn.training import Recipe, create_run, train
from jaxunlearn.training import together as training_together

PAD = 96
EPS = float(np.finfo(np.float32).eps)
FORGET = [7, 0, 4]  # the longest among them: the batches become shorter too
KEPT = [1, 2, 3, 5, 6, 8, 9]
SEEDS = [5, 0, 2**32 - 1]
RECIPE = Recipe(
    epochs=2,
    batch_size=4,
    learning_rate=0.1,
    optimizer="momentum",
    schedule="linear",
    warmup_steps=1,
    clip_norm=0.5,
    seed=9,
)


@dataclasses.dataclass(frozen=True)
class Bigram:
    """Logistic regression of a token on the one before, with dropout of its logits."""

    config: GPT2Config

    @property
    def has_dropout(self):
        return self.config.resid_pdrop > 0

    def per_example_loss(self, params, batch, *, key=None):
        logits = params["wte"]["embedding"][batch["input_ids"][:, :-1]]
        if key is not None:
            keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(batch["index"])
            shape = logits.shape[1:]
            keep = jax.vmap(lambda k: jax.random.bernoulli(k, 0.8, shape))(keys)
            logits = jnp.where(keep, logits / 0.8, 0.0)
        labels = batch["labels"][:, 1:]
        picked = jnp.take_along_axis(logits, jnp.maximum(labels, 0)[..., None], 2)
        losses = jax.nn.logsumexp(logits, axis=-1) - picked[..., 0]
        return jnp.where(labels >= 0, losses, 0.0).sum(-1) / (labels >= 0).sum(-1).clip(
            1
        )


def bigram(dropout=0.0):
    return Bigram(
        GPT2Config(resid_pdrop=dropout, embd_pdrop=0.0, attn_pdrop=0.0, n_layer=1)
    )


def table(seed):
    values = np.random.default_rng(seed).normal(size=(97, 97))
    return {"wte": {"embedding": jnp.asarray(values, jnp.float32)}}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    examples = []
    for i, size in enumerate((12, 4, 7, 9, 5, 11, 8, 4, 11, 6)):
        ids = rng.integers(PAD, size=size).astype(np.int32)
        labels = ids.copy()
        labels[: (i % 3) * size // 4] = -100
        examples.append(Example(ids, labels, i))
    return TokenizedData(tuple(examples), 0, 0, PAD)


@pytest.fixture(scope="module")
def run(data):
    return TrainingParts(bigram(), RECIPE, data, table(2))


def flat(params):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(params)])


def apart(a, b, start):
    """The distance of two models, relative to the way from the start."""
    a, b, start = (flat(x).astype(np.float64) for x in (a, b, start))
    return np.linalg.norm(a - b) / np.linalg.norm(b - start)


def same(a, b):
    return flat(a).tobytes() == flat(b).tobytes()


def alone(run, seed, start=None):
    return train(
        run.model,
        run.start if start is None else start,
        subset(run.data, KEPT),
        dataclasses.replace(run.recipe, seed=seed),
    ).params


@pytest.mark.parametrize(
    ("change", "dropout"),
    [({}, 0.2), ({}, 0.0), ({"optimizer": "adamw", "weight_decay": 0.1}, 0.2)],
)
def test_each_model_is_what_training_alone_makes_of_the_rest(run, change, dropout):
    run = run._replace(
        model=bigram(dropout), recipe=dataclasses.replace(RECIPE, **change)
    )
    expected = {seed: alone(run, seed) for seed in SEEDS}
    before = flat(run.start).copy()
    for group in (1, 2, None):
        found = list(retrain(run, FORGET, SEEDS, group=group))
        assert [seed for seed, _ in found] == SEEDS
        for seed, params in found:
            assert apart(params, expected[seed], run.start) < 100 * EPS
    np.testing.assert_array_equal(flat(run.start), before)  # not donated
    # Every seed is a model of its own, and none is that of all the data.
    whole = train(run.model, run.start, run.data, run.recipe).params
    models = [*expected.values(), whole]
    for i, model in enumerate(models):
        assert all(apart(model, x, run.start) > 0.01 for x in models[:i])


def test_in_one_batch_without_dropout_the_seeds_are_one_model(run):
    run = run._replace(recipe=dataclasses.replace(RECIPE, batch_size=16))
    (_, one), *others = retrain(run, FORGET, SEEDS)
    for _, other in others:
        assert apart(other, one, run.start) < 100 * EPS


def test_microbatches_do_not_change_the_models(run):
    cut = run._replace(recipe=dataclasses.replace(RECIPE, microbatch_size=2))
    for (_, a), (_, b) in zip(
        retrain(run, FORGET, SEEDS), retrain(cut, FORGET, SEEDS), strict=True
    ):
        assert apart(a, b, run.start) < 100 * EPS


def test_every_seed_may_have_a_start_of_its_own(run, tmp_path):
    for directory in (None, tmp_path):
        for seed, params in retrain(
            run, FORGET, [5, 6], start=table, directory=directory
        ):
            expected = alone(run, seed, table(seed))
            assert apart(params, expected, table(seed)) < 100 * EPS


@pytest.mark.slow
@pytest.mark.parametrize("change", [{}, {"optimizer": "adamw"}])
def test_an_open_run_of_a_transformer_with_dropout(small, tmp_path, change):
    recipe = dataclasses.replace(RECIPE, learning_rate=0.01, **change)
    run = create_run(
        tmp_path,
        model=dataclasses.replace(
            small.model,
            config=dataclasses.replace(small.model.config, attn_pdrop=0.1),
        ),
        params=small.params,
        records=small.records,
        tokenizer=small.tokenizer,
        recipe=recipe,
        max_length=48,
    )
    found = dict(retrain(run, [2, 3], [0, 1], group=2))
    expected = train(
        run.model,
        run.start,
        subset(run.data, [0, 1, 4, 5, 6]),
        dataclasses.replace(recipe, seed=1),
    ).params

    def without_key_bias(params):
        # It moves no attention weight: its gradient is rounding, which Adam enlarges.
        bias = np.asarray(params["h"]["attn"]["c_attn"]["bias"]).copy()
        bias.reshape(2, 3, -1)[:, 1] = 0
        attn = params["h"]["attn"] | {"c_attn": params["h"]["attn"]["c_attn"] | {}}
        attn["c_attn"]["bias"] = bias
        return params | {"h": params["h"] | {"attn": attn}}

    pair = [without_key_bias(x) for x in (found[1], expected, run.start)]
    assert apart(*pair) < (1e4 if change else 200) * EPS
    assert apart(found[0], found[1], run.start) > 0.01


def test_models_are_trained_when_they_are_asked_for(run):
    told = []
    models = retrain(run, FORGET, [3, 1, 4], group=2, progress=told.append)
    assert told == []
    next(models)
    assert [(p.finished, p.models, p.seeds, p.step, p.total) for p in told] == [
        (0, 3, (3, 1), step, 4) for step in (1, 2, 3, 4)
    ]
    assert all(p.losses.shape == (2,) for p in told)
    next(models)
    assert len(told) == 4
    next(models)
    assert told[-1][:5] == (2, 3, (4,), 4, 4)
    losses = train(
        run.model,
        run.start,
        subset(run.data, KEPT),
        dataclasses.replace(RECIPE, seed=1),
    ).losses
    for row, progress in zip(losses, told, strict=False):
        assert progress.losses[1] == pytest.approx(row["loss"], rel=20 * EPS)


class Interrupted(Exception):
    """What stops retraining on the way."""


@pytest.mark.parametrize("checkpoints", [True, False])
def test_finished_models_are_kept_and_an_interrupted_group_goes_on(
    run, tmp_path, monkeypatch, checkpoints
):
    if checkpoints:
        monkeypatch.setattr(training_together, "CHECKPOINT_SECONDS", -1.0)
    seeds = [3, 1, 4, 15, 9]
    told = []

    def stop(progress):
        if (progress.finished, progress.step) == (2, 3):
            raise Interrupted

    options = {"group": 2, "directory": tmp_path}
    with pytest.raises(Interrupted):
        dict(retrain(run, FORGET, seeds, progress=stop, **options))
    names = {"retraining.json", "seed-3", "seed-1"}
    # A model that was being written when the process died is not taken for one.
    (tmp_path / f"{WRITING}seed-4").mkdir()
    found = dict(retrain(run, FORGET, seeds, progress=told.append, **options))
    first = 4 if checkpoints else 1
    assert [(p.finished, p.seeds, p.step) for p in told] == [
        *((2, (4, 15), step) for step in range(first, 5)),
        *((4, (9,), step) for step in range(1, 5)),
    ]
    names |= {"seed-4", "seed-15", "seed-9"}
    assert {x.name for x in tmp_path.iterdir()} == names
    expected = dict(retrain(run, FORGET, seeds, group=2))
    assert list(found) == seeds
    assert all(same(found[seed], expected[seed]) for seed in seeds)
    # All is there: nothing is trained, in any order and with any group.
    told.clear()
    options["group"] = 1
    for seed, params in retrain(run, FORGET, [15, 3], progress=told.append, **options):
        assert same(params, expected[seed])
    assert told == []
    # Further seeds join them.
    more = dict(retrain(run, FORGET, [2, 3], progress=told.append, **options))
    assert {p.seeds for p in told} == {(2,)}
    assert same(more[3], expected[3])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"recipe": dataclasses.replace(RECIPE, epochs=1)}, "recipe"),
        ({"start": table(3)}, "start"),
        ({"model": bigram(0.2)}, "config"),
        ({"data": "shuffled"}, "data_sha256"),
    ],
)
def test_a_directory_of_other_models_is_refused(run, tmp_path, change, what):
    dict(retrain(run, FORGET, [1], directory=tmp_path))
    if "data" in change:
        change = {"data": subset(run.data, [1, 0, *range(2, 10)])}
    with pytest.raises(ValueError, match=rf"another retraining \(its {what} differ\)"):
        retrain(run._replace(**change), FORGET, [1], directory=tmp_path)


def test_a_directory_of_another_forget_set_or_start_is_refused(run, tmp_path):
    def refused(what, forget=FORGET, folder="shared", **options):
        with pytest.raises(ValueError, match=rf"\(its {what} differ\)"):
            retrain(run, forget, [1], directory=tmp_path / folder, **options)

    dict(retrain(run, FORGET, [1], directory=tmp_path / "shared"))
    dict(retrain(run, FORGET, [1], directory=tmp_path / "own", start=table))
    refused("forget", FORGET[:2])
    refused("start", start=table)
    refused("start", folder="own")
    refused("start", folder="own", start=lambda seed: table(seed + 1))
    # A start is remembered when further seeds have joined.
    retrain(run, FORGET, [2], directory=tmp_path / "own", start=table)
    refused("start", folder="own", start=lambda seed: table(seed + 1))
    # The seed of the run itself and the order of forget do not matter.
    seed = run._replace(recipe=dataclasses.replace(RECIPE, seed=1))
    retrain(seed, FORGET[::-1], [1], directory=tmp_path / "shared")


def test_a_directory_that_does_not_say_what_it_holds_is_refused(run, tmp_path):
    dict(retrain(run, FORGET, [1], directory=tmp_path))
    (tmp_path / "retraining.json").write_text("{")
    with pytest.raises(ValueError, match=r"retraining.json is damaged"):
        retrain(run, FORGET, [1], directory=tmp_path)
    (tmp_path / "retraining.json").unlink()
    with pytest.raises(ValueError, match="is not empty and holds no retraining.json"):
        retrain(run, FORGET, [1], directory=tmp_path)


@pytest.mark.parametrize(
    ("forget", "seeds", "options", "message"),
    [
        ([], [1], {}, "forget is empty"),
        (
            [0, 10],
            [1],
            {},
            r"forget=\[10\]: not in the data, whose examples are 0 to 9",
        ),
        ([-1], [1], {}, r"forget=\[-1\]"),
        ([1.5], [1], {}, "whole numbers"),
        ([True], [1], {}, "whole numbers"),
        (range(10), [1], {}, "forget names all 10 examples"),
        ([1], [], {}, "seeds is empty"),
        ([1], [3, 4, 3], {}, r"seeds=\[3\] are named twice"),
        ([1], [-1], {}, "seed=-1"),
        ([1], [0.5], {}, "whole numbers"),
        ([1], [1], {"group": 0}, "group=0: at least 1"),
        ([1], [1], {"memory": 0}, "memory=0: at least 1"),
    ],
)
def test_what_cannot_be_retrained_is_refused_at_once(
    run, tmp_path, forget, seeds, options, message
):
    with pytest.raises(ValueError, match=message):
        retrain(run, forget, seeds, directory=tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_a_model_that_diverges_is_named_by_its_seed(run, tmp_path):
    def start(seed):
        params = table(seed)
        return jax.tree.map(lambda x: x * jnp.inf, params) if seed == 4 else params

    models = retrain(run, FORGET, [3, 4, 5], start=start, directory=tmp_path, group=3)
    with pytest.raises(
        ValueError, match="^seed=4: the loss is nan .* at step 1: no weight has moved"
    ):
        next(models)
    assert not list(tmp_path.glob("seed-*"))


def test_the_group_is_what_fits_in_memory():
    params = {"a": jnp.zeros((5, 7)), "b": jnp.zeros(3, jnp.bfloat16)}
    size = 4 * (35 + 3)  # in training all are held in float32
    # Parameters, gradient, optimiser; as much again; the counters are a few bytes.
    for name, trees in (("sgd", 2), ("momentum", 3), ("adam", 4)):
        recipe = Recipe(optimizer=name)
        for models in (1, 2, 50):
            need = 2 * models * (trees * size + 8)
            assert group_size(recipe, params, memory=need) == models
    assert group_size(recipe, params, memory=1) == 1
    assert group_size(recipe, params) > 1


@pytest.mark.parametrize("models", range(1, 30))
def test_groups_are_about_equal(models):
    for group in range(1, 12):
        size = even_size(models, group)
        sizes = [min(size, models - i) for i in range(0, models, size)]
        assert size <= group
        assert len(sizes) == -(-models // group)
        if group >= models:
            assert sizes == [models]


SCRIPT = """
import sys
import jax, numpy as np
sys.path.insert(0, sys.argv[1])
from test_retraining import FORGET, PAD, RECIPE, TrainingParts, bigram, flat, retrain
from test_retraining import Interrupted, data, table, training_together

training_together.CHECKPOINT_SECONDS = -1.0
run = TrainingParts(bigram(0.2), RECIPE, data.__wrapped__(), table(2))

def stop(progress):
    if progress.step == 2:
        raise Interrupted

options = {"group": 4, "directory": sys.argv[2] + "/models"}
try:
    dict(retrain(run, FORGET, [1, 2, 3, 4], progress=stop, **options))
except Interrupted:
    pass
resumed = dict(retrain(run, FORGET, [1, 2, 3, 4], **options))
models = dict(retrain(run, FORGET, [1, 2, 3, 4], group=4))
spread = len(jax.tree.leaves(models[1])[0].sharding.device_set)
stack = lambda m: np.stack([flat(m[seed]) for seed in (1, 2, 3, 4)])
np.savez(
    sys.argv[2] + "/out.npz", spread=spread, new=stack(models), resumed=stack(resumed)
)
"""


@pytest.mark.slow
def test_models_do_not_depend_on_the_number_of_devices(tmp_path):
    found = []
    for count in (1, 2):
        # In a process of its own: the number of devices is fixed when JAX starts.
        folder = tmp_path / str(count)
        folder.mkdir()
        flags = f"--xla_force_host_platform_device_count={count}"
        subprocess.run(
            [sys.executable, "-c", SCRIPT, os.path.dirname(__file__), str(folder)],
            env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            check=True,
            timeout=300,
        )
        found.append(np.load(folder / "out.npz"))
    assert [int(x["spread"]) for x in found] == [1, 2]
    start = flat(table(2))
    moved = np.linalg.norm(found[0]["new"] - start)
    for other in (found[1]["new"], found[0]["resumed"], found[1]["resumed"]):
        assert np.linalg.norm(other - found[0]["new"]) < 100 * EPS * moved
