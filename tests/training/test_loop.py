import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxunlearn import tree
from jaxunlearn.provenance import params_hash
from jaxunlearn.training import Recipe, Recording, checkpoints, loop, train
from jaxunlearn.training.recipe import (
    batch_at,
    initial_state,
    make_step,
    optimizer,
)

EPS = float(np.finfo(np.float32).eps)
RECIPE = Recipe(epochs=2, batch_size=4, learning_rate=0.1, seed=5)


class Interrupted(Exception):
    """What stops a run on the way."""


def by_hand(model, params, data, recipe):
    """Train with a plain loop over the batches."""
    total = recipe.epochs * -(-len(data.examples) // recipe.batch_size)
    transform = optimizer(recipe, total)
    step = jax.jit(make_step(model, recipe, transform))
    state, losses = initial_state(params, transform), []
    for number in range(total):
        state, metrics = step(state, batch_at(recipe, data, number))
        losses.append(float(metrics.loss))
    return state.params, losses


def test_training_is_its_steps_one_after_another(bigram, data, same_bits):
    model, params = bigram
    before = jax.tree.map(jnp.copy, params)
    told = []
    result = train(model, params, data, RECIPE, on_step=told.append)
    expected, losses = by_hand(model, params, data, RECIPE)
    assert same_bits(result.params, expected)
    assert same_bits(params, before)  # not donated
    assert [x["loss"] for x in result.losses] == losses
    assert [x["step"] for x in result.losses] == [1, 2, 3, 4, 5, 6]
    assert [x["epoch"] for x in result.losses] == [1, 1, 1, 2, 2, 2]
    assert [tuple(x) for x in told] == [(i + 1, 6, losses[i]) for i in range(6)]
    assert result.evaluations == []
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("every", "steps"),
    [(None, [0, 3, 6]), (1, [0, 1, 2, 3, 4, 5, 6]), (4, [0, 4, 6]), (100, [0, 6])],
)
def test_evaluation_is_at_the_start_at_intervals_and_at_the_end(
    bigram, data, same_bits, every, steps
):
    model, params = bigram
    seen = []

    def evaluate(params):
        seen.append(jax.tree.map(jnp.copy, params))
        return {"count": len(seen)}

    result = train(
        model,
        params,
        data,
        RECIPE,
        evaluate=evaluate,
        evaluate_every=every,
    )
    assert [x["step"] for x in result.evaluations] == steps
    assert [x["count"] for x in result.evaluations] == list(range(1, len(steps) + 1))
    assert same_bits(seen[0], params)
    assert same_bits(seen[-1], result.params)


@pytest.mark.parametrize("reduction", ["token", "example"])
def test_an_epoch_does_not_depend_on_the_microbatches(
    bigram, data, distance, reduction
):
    model, params = bigram
    whole = dataclasses.replace(RECIPE, optimizer="sgd", reduction=reduction)
    result = train(model, params, data, whole)
    moved = tree.subtract(result.params, params)
    for size in (1, 2, 4):
        recipe = dataclasses.replace(whole, microbatch_size=size)
        cut = train(model, params, data, recipe)
        assert distance(tree.subtract(cut.params, params), moved) < 100 * EPS
        for one, other in zip(cut.losses, result.losses, strict=True):
            assert one == pytest.approx(other, rel=20 * EPS)


def resumed(run, stop):
    """Interrupt a run, told where by ``stop``, and resume it: where, and its end."""
    with pytest.raises(Interrupted):
        run(stop)
    told = []
    return told, run(lambda place, step: told.append((place, step)))


def stopping(place, step):
    """Return the callback that interrupts there."""

    def stop(*here):
        if here == (place, step):
            raise Interrupted

    return stop


@pytest.mark.parametrize("place", ["on_step", "evaluate"])
@pytest.mark.parametrize("step", [1, 3, 5])
def test_an_interrupted_run_resumes_to_the_same_bits(
    bigram, data, same_bits, tmp_path, monkeypatch, place, step
):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    recipe = dataclasses.replace(RECIPE, schedule="cosine", weight_decay=0.1)

    def run(folder, tell):
        def evaluate(params):
            tell("evaluate", len(evaluated))
            evaluated.append(0)
            return {"norm": float(tree.norm(params))}

        evaluated = []
        return train(
            *bigram,
            data,
            recipe,
            directory=folder,
            evaluate=evaluate,
            evaluate_every=1,
            on_step=lambda progress: tell("on_step", progress.step),
        )

    whole = run(tmp_path / "whole", lambda *_: None)
    told, end = resumed(
        lambda tell: run(tmp_path / "parts", tell), stopping(place, step)
    )
    # A step whose evaluation was interrupted is done again, others are not.
    first = step + 1 if place == "on_step" else step
    assert [s for p, s in told if p == "on_step"] == list(range(first, 7))
    assert same_bits(end.params, whole.params)
    assert end[1:] == whole[1:]
    files = [tmp_path / name / "losses.jsonl" for name in ("whole", "parts")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_resumed_recording_is_that_of_an_uninterrupted_run(
    truncated_run, params, data, same_bits, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    whole = truncated_run

    def run(tell):
        return train(
            whole.model,
            params,
            data,
            whole.recipe,
            directory=tmp_path,
            recording=whole.recording,
            evaluate=lambda p: {"norm": float(tree.norm(p))},
            evaluate_every=1,
            on_step=lambda progress: tell("on_step", progress.step),
        )

    with pytest.raises(Interrupted):
        run(stopping("on_step", 2))
    # What came after the last checkpoint may stand there, older or half done.
    (tmp_path / "gradients" / "step-00000002.safetensors").write_bytes(b"half")
    end = run(lambda *_: None)
    assert same_bits(end.params, whole.path[-1])
    mine, theirs = tmp_path, whole.directory
    losses = "losses.jsonl"
    assert (mine / losses).read_bytes() == (theirs / losses).read_bytes()
    files = sorted(path.name for path in whole.gradients.iterdir())
    assert files == [f"step-{step:08d}.safetensors" for step in range(3)]
    assert sorted(path.name for path in (mine / "gradients").iterdir()) == files
    for file in files:
        stored = load_file(mine / "gradients" / file)
        assert same_bits(stored, load_file(whole.gradients / file))


def test_a_finished_run_is_only_read(truncated_run, params, data, same_bits):
    def never(*_):
        raise Interrupted

    run = truncated_run
    again = train(
        run.model,
        params,
        data,
        run.recipe,
        directory=run.directory,
        recording=run.recording,
        evaluate=never,
        on_step=never,
    )
    assert same_bits(again.params, run.path[-1])
    lines = (run.directory / "losses.jsonl").read_text().splitlines()
    assert [json.loads(x)["loss"] for x in lines[:3]] == again.losses
    assert [json.loads(x)["evaluation"] for x in lines[3:-1]] == again.evaluations
    assert [x["step"] for x in again.evaluations] == list(range(4))


def test_a_loss_that_is_no_number_stops_the_run_with_a_remedy(
    bigram, data, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    model, params = bigram
    batches = [batch_at(RECIPE, data, step)["input_ids"] for step in range(3)]
    token = next(
        t for t in batches[2].ravel() if not (np.stack(batches[:2]) == t).any()
    )
    table = params["wte"]["embedding"].at[token].set(jnp.inf)
    message = "loss is nan .* at step 3: lower learning_rate=0.1, or raise warmup_step"
    with pytest.raises(ValueError, match=message):
        train(
            model,
            {"wte": {"embedding": table}},
            data,
            RECIPE,
            directory=tmp_path,
        )
    # The last checkpoint is from before.
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["1", "2"]


def test_a_gradient_that_is_no_number_stops_the_run(bigram, data):
    @dataclasses.dataclass(frozen=True)
    class Kink(type(bigram[0])):
        def per_example_loss(self, params, batch, *, key=None):
            losses = super().per_example_loss(params, batch)
            zero = jnp.sum(params["wte"]["embedding"]) * 0.0
            return losses + jnp.sqrt(zero)  # 0, with an infinite slope times 0

    with pytest.raises(ValueError, match="gradient's norm nan at step 1"):
        train(Kink(), bigram[1], data, RECIPE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"evaluate_every": 0}, "evaluate_every=0: at least 1"),
        ({"recording": Recording()}, "recording needs directory="),
    ],
)
def test_options_that_make_no_sense_are_refused(bigram, data, options, message):
    model, params = bigram
    with pytest.raises(ValueError, match=message):
        train(model, params, data, RECIPE, **options)


@pytest.mark.parametrize(
    ("recording", "message"),
    [
        (Recording(layers="embed_tokens"), "Nearest names: .*wte/embedding"),
        (Recording(layers="("), "not a regular expression"),
        (Recording(epochs=(3,)), r"epochs=\(3,\), but the run has epochs 1 to 2"),
    ],
)
def test_a_recording_that_does_not_fit_is_refused_before_any_work(
    bigram, data, tmp_path, recording, message
):
    model, params = bigram
    with pytest.raises(ValueError, match=message):
        train(
            model,
            params,
            data,
            RECIPE,
            directory=tmp_path,
            recording=recording,
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_finished_run_keeps_the_hash_of_the_model_that_it_returns(
    model, params, data, tmp_path, dtype
):
    start = jax.tree.map(lambda x: x.astype(dtype), params)
    recipe = Recipe(epochs=1, batch_size=10)
    end = train(model, start, data, recipe, directory=tmp_path)
    told = json.loads((tmp_path / "trained.json").read_text())
    assert told["params_sha256"] == params_hash(end.params)


def test_checkpoints_of_the_cadence_stay_and_change_nothing(
    bigram, data, same_bits, tmp_path
):
    recipe = dataclasses.replace(RECIPE, epochs=3)
    settings = {"directory": tmp_path, "keep_every": 2}
    kept = train(*bigram, data, recipe, **settings)
    assert checkpoints.steps(tmp_path / "checkpoints") == [2, 4, 6, 8, 9]
    assert same_bits(kept.params, train(*bigram, data, recipe).params)


@pytest.mark.parametrize(("every", "place"), [(0, True), (1, False)])
def test_a_cadence_needs_a_number_and_a_place(bigram, data, tmp_path, every, place):
    with pytest.raises(ValueError, match=f"keep_every={every}: at least 1, and direc"):
        train(
            *bigram,
            data,
            RECIPE,
            keep_every=every,
            directory=tmp_path if place else None,
        )


def test_what_is_omitted_is_never_seen(bigram, data, same_bits):
    """Other texts in the omitted examples' place change no bit; in others' they do."""
    forget = {0, 3, 8}
    rng = np.random.default_rng(7)
    ids = rng.integers(data.pad_id, size=12).astype(np.int32)

    def other(changed):
        examples = [
            e._replace(input_ids=ids, labels=ids) if i in changed else e
            for i, e in enumerate(data.examples)
        ]
        return dataclasses.replace(data, examples=tuple(examples))

    recipe = dataclasses.replace(RECIPE, weight_decay=0.1, microbatch_size=2)
    ends = [
        train(*bigram, d, recipe, omit=forget).params
        for d in (data, other(forget), other({1}))
    ]
    assert same_bits(ends[0], ends[1])
    assert not same_bits(ends[0], ends[2])
    assert not same_bits(ends[0], train(*bigram, data, recipe).params)


def test_a_run_goes_on_from_a_state_that_it_is_given(bigram, data, same_bits, tmp_path):
    whole = train(*bigram, data, RECIPE, directory=tmp_path, keep_every=2)
    like = initial_state(bigram[1], optimizer(RECIPE, 6))
    state = checkpoints.restore(tmp_path / "checkpoints", 4, like)
    rest = [train(*bigram, data, RECIPE, state=state) for _ in range(2)]
    assert [x["step"] for x in rest[0].losses] == [5, 6]
    assert all(same_bits(one.params, whole.params) for one in rest)
