import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.influence.truth.subset_training import random_subsets, train_subsets

TARGET = np.arange(5, dtype=np.float32)


def train(weights, seed):
    """A closed form in place of training: what went in is what comes out."""
    return jnp.stack([weights @ TARGET, weights.sum() + 10.0 * seed])


def test_every_model_has_its_own_weights_and_seed():
    weights = np.array([[1, 1, 0, 0, 1], [0, 0, 1, 1, 0], [1, 1, 1, 1, 1.5]])
    for group in (1, 2, 4, 100):
        found = train_subsets(train, weights, seeds=(3, 0), group=group)
        assert found.shape == (3, 2, 2)
        for m in range(3):
            for r, seed in enumerate((3, 0)):
                expected = [weights[m] @ TARGET, weights[m].sum() + 10 * seed]
                np.testing.assert_allclose(found[m, r], expected)


def test_a_killed_run_goes_on_where_it_stood(tmp_path):
    weights = np.eye(5, dtype=np.float32)
    path = tmp_path / "deep" / "outcomes.npz"

    def killed(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_subsets(train, weights, group=2, path=path, progress=killed)
    assert [p.name for p in path.parent.iterdir()] == ["outcomes.npz"]
    seen = []
    found = train_subsets(
        train, weights, group=2, path=path, progress=lambda *a: seen.append(a)
    )
    assert seen == [(4, 5), (5, 5)]
    np.testing.assert_array_equal(found, train_subsets(train, weights))
    # A finished file answers alone.
    seen.clear()
    train_subsets(train, weights, path=path, progress=lambda *a: seen.append(a))
    assert seen == [(5, 5)]


def test_a_file_of_anything_else_is_refused(tmp_path):
    weights = np.eye(5, dtype=np.float32)
    path = tmp_path / "outcomes.npz"
    train_subsets(train, weights, path=path)

    def other_data(weights, seed):
        return jnp.stack([weights @ (TARGET + 1), weights.sum() + 10.0 * seed])

    def other_program(weights, seed):
        return jnp.stack([weights @ TARGET, weights.sum() + 11.0 * seed])

    for other in (other_data, other_program):
        with pytest.raises(ValueError, match="another program"):
            train_subsets(other, weights, path=path)
    with pytest.raises(ValueError, match="another program"):
        train_subsets(train, 2 * weights, path=path)
    with pytest.raises(ValueError, match="another program"):
        train_subsets(train, weights, seeds=(1,), path=path)


def test_a_model_that_diverges_is_named():
    def fragile(weights, seed):
        return jnp.stack([1.0 / weights[2] + seed])

    weights = np.ones((3, 5))
    weights[1, 2] = 0
    with pytest.raises(ValueError, match=r"weights\[1\] with seed 7"):
        train_subsets(fragile, weights, seeds=(7,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": np.ones(5)}, r"weights of shape \(5,\)"),
        ({"weights": np.ones((0, 5))}, r"weights of shape \(0, 5\)"),
        ({"weights": np.full((1, 5), np.nan)}, "finite"),
        ({"seeds": ()}, r"seeds=\(\)"),
        ({"group": 0}, "group=0"),
    ],
)
def test_misuse_is_named(options, message):
    arguments = {"weights": np.ones((2, 5)), **options}
    with pytest.raises(ValueError, match=message):
        train_subsets(train, **arguments)


def test_subsets_have_one_size_and_every_example_its_chance():
    masks = random_subsets(400, 10, fraction=0.3, seed=1)
    assert masks.dtype == bool
    assert (masks.sum(axis=1) == 3).all()
    # 400 draws at 0.3 have a standard deviation of 0.023.
    assert np.abs(masks.mean(axis=0) - 0.3).max() < 4 * 0.023
    np.testing.assert_array_equal(masks, random_subsets(400, 10, fraction=0.3, seed=1))
    assert (masks != random_subsets(400, 10, fraction=0.3, seed=2)).any()
    for fraction in (0.0, 0.01, 0.99, 1.0):
        with pytest.raises(ValueError, match="at least 1 and less than all"):
            random_subsets(3, 10, fraction=fraction)
