import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.flax import load_file, save_file

from jaxunlearn import tree
from jaxunlearn.models.tying import tie
from jaxunlearn.sealed import UncheckedWarning
from jaxunlearn.training import gradient_store
from jaxunlearn.training.recorder import ExampleGradients
from jaxunlearn.training.replay import Exposure

EPS = float(np.finfo(np.float32).eps)
BFLOAT16_EPS = 2.0**-8


def passings(run):
    """Each stored line, its gradient from disk, and where it was taken."""
    lines = gradient_store.read_index(run.gradients)
    for line, gradient in gradient_store.read_examples(lines, run.path[0]):
        index, _, step, _ = line.exposure
        options = {"recipe": run.recipe, "step": step}
        yield line, gradient, (run.model, run.path[step], index), options


def test_each_gradient_is_that_of_the_example_alone_before_the_step(
    everything_run, slow_gradient, distance, length
):
    seen = set()
    for line, gradient, place, options in passings(everything_run):
        slow = slow_gradient(*place, **options)
        assert distance(tie(gradient), slow) < 50 * EPS
        assert line.norm == pytest.approx(length(slow), rel=50 * EPS)
        assert line.truncation == 0
        step = line.exposure.step
        if step > 0:  # the warm-up starts from 0, so the first step does not move
            model, _, index = place
            after = slow_gradient(
                model, everything_run.path[step + 1], index, **options
            )
            assert distance(tie(gradient), after) > 1e-3  # the test can tell
        seen.add((line.exposure.index, line.exposure.epoch))
    # The third epoch was not recorded.
    assert seen == {(i, e) for i in range(10) for e in (1, 2)}


def test_truncation_is_the_exact_relative_error(
    truncated_run, slow_gradient, distance, length
):
    for line, gradient, place, options in passings(truncated_run):
        slow = slow_gradient(*place, **options)["wte"]
        found = tie(gradient)
        assert 0.01 < line.truncation < 1
        assert distance(found["wte"], slow) == pytest.approx(line.truncation, rel=1e-4)
        assert line.norm == pytest.approx(length(slow), rel=50 * EPS)
        assert not any(x.any() for x in jax.tree.leaves(found["h"]))


@pytest.fixture(scope="module")
def by_hand():
    """Three examples' arrays, the last a padding row.

    Ids repeat, and some are odd and large, which bfloat16 would round.
    """
    rng = np.random.default_rng(5)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return ExampleGradients(
        index=jnp.array([7, 2, -1]),
        norm=jnp.array([3.0, 2.0, 0.0]),
        truncation=jnp.array([0.5, 0.25, 0.0]),
        dense={"ln_f/scale": draw(3, 4), "h/1/ln_1/bias": draw(3, 4)},
        lookup_ids=jnp.array([[513, 513, 2], [0, 515, 0], [0, 0, 0]]),
        lookup_rows=draw(3, 3, 4),
        head_hidden=draw(3, 2, 4),
        head_ids=jnp.array([[[0, 515], [515, 599]]] * 3),
        head_values=draw(3, 2, 2),
    )


LIKE = {
    "wte": {"embedding": jnp.zeros((600, 4))},
    "ln_f": {"scale": jnp.zeros(4), "bias": jnp.zeros(4)},
    "h": {"ln_1": {"bias": jnp.zeros((2, 4))}},
}


def write(folder, examples, *, dtype="float32", step=0, epoch=1):
    return gradient_store.write_step(
        folder,
        examples,
        np.array([0.1, 0.2, 0.0], np.float32),
        epoch=epoch,
        step=step,
        dtype=dtype,
    )


def densely(examples, row):
    """The same gradient, written out in float64."""
    lookup, head = np.zeros((600, 4)), np.zeros((600, 4))
    for token, value in zip(
        examples.lookup_ids[row], examples.lookup_rows[row], strict=True
    ):
        lookup[token] += np.asarray(value, np.float64)
    for hidden, ids, values in zip(
        examples.head_hidden[row],
        examples.head_ids[row],
        examples.head_values[row],
        strict=True,
    ):
        for token, value in zip(ids, values, strict=True):
            head[token] += float(value) * np.asarray(hidden, np.float64)
    bias = np.stack([np.zeros(4), examples.dense["h/1/ln_1/bias"][row]])
    scale = examples.dense["ln_f/scale"][row]
    return lookup, head, {"h/ln_1/bias": bias, "ln_f/scale": scale}


@pytest.mark.parametrize(
    ("dtype", "eps"), [("float32", EPS), ("bfloat16", BFLOAT16_EPS)]
)
def test_what_was_written_is_read(by_hand, tmp_path, dtype, eps):
    write(tmp_path, by_hand, dtype=dtype)
    for row, index in enumerate((7, 2)):
        gradient, (line,) = gradient_store.stored_gradient(
            tmp_path, LIKE, [index], weight="unit"
        )
        lookup, head, dense = densely(by_hand, row)
        # A product of two rounded factors is off by twice their rounding.
        read = dict(tree.named_leaves(gradient))
        np.testing.assert_allclose(
            read.pop("lm_head/kernel"), head, rtol=4 * eps, atol=8 * eps
        )
        np.testing.assert_allclose(
            read.pop("wte/embedding"), lookup, rtol=4 * eps, atol=4 * eps
        )
        for name, value in dense.items():
            np.testing.assert_allclose(read.pop(name), value, rtol=eps)
        assert not read.pop("ln_f/bias").any()
        assert not read
        assert line.exposure == Exposure(index, 1, 0, np.float32((row + 1) / 10))
        assert line.norm == by_hand.norm[row]
        assert line.truncation == by_hand.truncation[row]
        # The ids are exact whatever the dtype: no row but these is touched.
        assert np.array_equal(
            lookup.any(axis=1), gradient["wte"]["embedding"].any(axis=1)
        )


def test_padding_rows_are_not_stored(by_hand, tmp_path):
    write(tmp_path, by_hand)
    index = gradient_store.read_index(tmp_path)
    assert [line.exposure.index for line in index] == [7, 2]


def test_the_sum_is_weighted_by_the_updates_or_not(by_hand, tmp_path, distance):
    write(tmp_path, by_hand)
    write(tmp_path, by_hand._replace(head_values=-by_hand.head_values), step=4, epoch=2)

    def read(indices, **options):
        return gradient_store.stored_gradient(tmp_path, LIKE, indices, **options)[0]

    parts = [
        tree.scaled(rate, read([index], weight="unit"))
        for index, rate in ((7, 0.1), (2, 0.2))
    ]
    total = tree.add_scaled(parts[0], 1.0, parts[1])
    assert distance(total, read([2, 7])) < 4 * EPS
    both = read([2, 7], epochs=(1, 2))
    assert float(jnp.abs(both["lm_head"]["kernel"]).max()) < 4 * EPS
    twice = tree.scaled(2.0, total | {"lm_head": both["lm_head"]})
    assert distance(twice, both) < 4 * EPS


def test_a_file_written_again_is_the_same_and_replaces_the_old(by_hand, tmp_path):
    from safetensors.numpy import load_file

    first = load_file(write(tmp_path, by_hand))
    again = load_file(write(tmp_path, by_hand))
    assert len(list(tmp_path.iterdir())) == 1
    assert first.keys() == again.keys()
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_a_norm_spike_is_more_than_five_times_the_median(by_hand, tmp_path):
    norms = [1.0, 1.0, 1.0, 4.9, 5.1]
    for step, norm in enumerate(norms):
        one = by_hand._replace(
            index=jnp.array([step, -1, -1]), norm=jnp.array([norm, 0, 0])
        )
        write(tmp_path, one, step=step)
    index = gradient_store.read_index(tmp_path)
    assert [x.exposure.index for x in gradient_store.norm_spikes(index)] == [4]
    assert gradient_store.summary(tmp_path) == {
        "gradients": 5,
        "bytes": sum(f.stat().st_size for f in tmp_path.iterdir()),
        "largest_truncation": 0.5,
        "norm_spikes": [4],
    }


def test_what_is_not_stored_is_an_error(by_hand, tmp_path):
    def read(indices=(7,), epochs=(1,), weight="sgd"):
        return gradient_store.stored_gradient(
            tmp_path, LIKE, indices, epochs=epochs, weight=weight
        )

    with pytest.raises(ValueError, match="holds no recorded gradients: train with"):
        read()
    write(tmp_path, by_hand)
    with pytest.raises(ValueError, match=r"lacks .* 1 requested .* \[\(5, 1\)\]"):
        read([7, 5])
    with pytest.raises(ValueError, match=r"lacks .* \[\(7, 2\)\]: record those epochs"):
        read(epochs=(1, 2))
    with pytest.raises(ValueError, match="name at least one example"):
        read([])
    with pytest.raises(ValueError, match="weight='adam': one of sgd, unit"):
        read(weight="adam")


@pytest.mark.parametrize("left", [0, 4, 100, -1])
def test_a_damaged_file_is_an_error_that_names_it(by_hand, tmp_path, left):
    path = write(tmp_path, by_hand)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(
        ValueError, match=r"step-00000000.safetensors is damaged .*replayed"
    ):
        gradient_store.read_index(tmp_path)


def test_every_flipped_bit_is_found_or_changes_nothing(by_hand, same_bits, tmp_path):
    path = write(tmp_path, by_hand)
    whole, expected = path.read_bytes(), gradient_store.read_arrays(path)
    found = 0
    for bit in range(0, 8 * len(whole), 37):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            read = gradient_store.read_arrays(path)
        except ValueError as error:
            found += "step-00000000.safetensors is damaged" in str(error)
        else:
            assert same_bits(read[0], expected[0])
            assert read[1:] == expected[1:]
            found += 1
    assert found == len(range(0, 8 * len(whole), 37))


def test_a_store_without_hashes_is_read_with_a_warning(by_hand, tmp_path):
    path = write(tmp_path, by_hand)
    expected = gradient_store.read_index(tmp_path)
    save_file(load_file(path), path, {"epoch": "1", "step": "0"})
    with pytest.warns(UncheckedWarning, match="written without hashes"):
        assert gradient_store.read_index(tmp_path) == expected
