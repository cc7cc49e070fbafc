import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.unlearning import Limits, iterative_first_epoch

ANY = Limits(max_retain_nats=None, max_relative_step=None)
EPS = float(np.finfo(np.float32).eps)


def still(_):
    """A retain loss that does not change."""
    return 1.0


class Examples:
    """Examples on the axes: the loss of i is what the i-th parameter is, plus leaks.

    ``leak[i][j]`` is what a step along gradient i adds to parameter j.
    """

    def __init__(self, losses, *, recorded=None, fresh=None, retain=still):
        self.start = {"wte": {"embedding": jnp.asarray(losses, jnp.float32)}}
        size = len(losses)
        self.recorded = np.eye(size) if recorded is None else np.asarray(recorded)
        self.fresh = np.eye(size) if fresh is None else np.asarray(fresh)
        self.retain = retain
        self.used = []

    def losses(self, params):
        return np.asarray(params["wte"]["embedding"], np.float64)

    def unlearn(self, *, target=1.0, limits=ANY, **options):
        def recorded(i):
            self.used.append(("recorded", i))
            return {"wte": {"embedding": jnp.asarray(self.recorded[i], jnp.float32)}}

        def fresh(params, i):
            self.used.append(("fresh", i))
            return {"wte": {"embedding": jnp.asarray(self.fresh[i], jnp.float32)}}

        return iterative_first_epoch(
            self.start,
            recorded_direction=recorded,
            fresh_direction=fresh,
            examples=range(len(self.recorded)),
            example_losses=self.losses,
            retain_loss=self.retain,
            target=target,
            layer_norm=1.0,
            limits=limits,
            **options,
        )


def test_each_example_is_lifted_once_the_best_known_first():
    examples = Examples([0.5, 0.2, 0.4])
    outcome = examples.unlearn()
    assert outcome.status == "reached"
    assert examples.used == [("recorded", 1), ("recorded", 2), ("recorded", 0)]
    losses = np.asarray(outcome.params["wte"]["embedding"])
    assert (losses >= 1).all()
    assert (losses <= 1.001).all()
    assert [t.forget for t in outcome.trials] == sorted(
        t.forget for t in outcome.trials
    )


def test_one_check_at_the_target_does_not_stop_it():
    # The first step lifts the mean over the target, though example 2 is far below.
    examples = Examples([0.1, 0.3, 0.2], recorded=[[1, 3, 0], [0, 1, 0], [0, 0, 1]])
    outcome = examples.unlearn(target=1.0)
    assert outcome.trials[0].forget > 1.0
    assert examples.used == [("recorded", 0), ("recorded", 2)]
    assert outcome.status == "reached"
    assert len(outcome.trials) == 2


def test_two_checks_in_a_row_stop_it_before_all_are_at_the_target():
    leak = [[1, 4, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    examples = Examples([0.1, 0.3, 0.2, 0.25], recorded=leak)
    outcome = examples.unlearn()
    assert outcome.status == "reached"
    assert [t.forget >= 1 for t in outcome.trials] == [True, True]
    assert float(outcome.params["wte"]["embedding"][3]) == 0.25


def test_a_check_that_fails_starts_the_count_again():
    # The second round takes back what the first gave example 1.
    leak = np.eye(6)
    leak[0, 1], leak[2, 1], leak[3, 1] = 8, -7, 8
    examples = Examples([0.1, 0.3, 0.2, 0.25, 0.26, 0.27], recorded=leak)
    outcome = examples.unlearn()
    assert [t.forget >= 1 for t in outcome.trials] == [True, False, True, True]
    assert outcome.status == "reached"
    assert float(outcome.params["wte"]["embedding"][5]) < 1


@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_a_recorded_gradient_is_used_max_exposures_times(allowed):
    # Lifting one lowers the other by half, so both come again and again.
    see_saw = [[1, -0.5], [-0.5, 1]]
    examples = Examples([0.5, 0.5], recorded=see_saw, fresh=see_saw)
    outcome = examples.unlearn(max_exposures=allowed, max_rounds=30)
    assert outcome.status == "reached"
    for i in (0, 1):
        kinds = [kind for kind, which in examples.used if which == i]
        assert len(kinds) >= 3
        assert kinds == ["recorded"] * allowed + ["fresh"] * (len(kinds) - allowed)


@pytest.mark.parametrize("allowed", [1, 3])
def test_a_stale_gradient_gives_way_to_a_fresh_one(allowed):
    examples = Examples([0.5], recorded=[[-1.0]])
    limits = ANY._replace(max_relative_step=10.0)
    outcome = examples.unlearn(limits=limits, max_exposures=allowed)
    assert outcome.status == "reached"
    assert examples.used == [("recorded", 0), ("fresh", 0)]


def test_no_direction_left_is_a_refusal(same_bits):
    examples = Examples([0.5], recorded=[[-1.0]], fresh=[[-1.0]])
    outcome = examples.unlearn(limits=ANY._replace(max_relative_step=10.0))
    assert outcome.status == "no_ascent"
    assert examples.used == [("recorded", 0), ("fresh", 0)]
    assert same_bits(outcome.params, examples.start)


def test_the_retain_limit_is_one_of_the_whole_way():
    def retain(params):
        return 1.0 + 0.1 * float(params["wte"]["embedding"].sum())

    # Each round raises it by 0.1 x 0.9, about 8 % of what it was.
    examples = Examples([0.1, 0.1, 0.1], retain=retain)
    before = retain(examples.start)
    for rise, rounds in ((0.04, 0), (0.1, 1), (0.2, 2), (0.3, 3)):
        examples.used.clear()
        outcome = examples.unlearn(limits=ANY._replace(max_retain_increase=rise))
        done = int((outcome.params["wte"]["embedding"] >= 1).sum())
        assert done == rounds
        assert outcome.status == ("reached" if rounds == 3 else "retain_limit")
        assert retain(outcome.params) <= before * (1 + rise) * (1 + EPS)


def test_what_the_retain_loss_has_gained_may_be_spent_again():
    def retain(params):
        first, second = params["wte"]["embedding"]
        return 1.0 - 0.4 * float(first) + 0.4 * float(second)

    # The first round takes 0.36 off, the second, of more than half, brings it back.
    examples = Examples([0.1, 0.2], retain=retain)
    outcome = examples.unlearn(limits=ANY._replace(max_retain_increase=0.01))
    assert outcome.status == "reached"
    assert outcome.trials[1].retain > 1.4 * outcome.trials[0].retain


def test_the_relative_step_is_one_of_the_whole_way():
    # Three steps of 0.9 at right angles, each within the limit: 0.9, 1.27, 1.56.
    examples = Examples([0.1, 0.1, 0.1])
    for limit, rounds in ((0.8, 0), (1.2, 1), (1.5, 2), (1.6, 3)):
        outcome = examples.unlearn(limits=ANY._replace(max_relative_step=limit))
        done = int((outcome.params["wte"]["embedding"] >= 1).sum())
        assert done == rounds
        assert outcome.status == ("reached" if rounds == 3 else "step_limit")


def test_a_loss_that_is_no_number_ends_it_before_that_round(same_bits):
    examples = Examples([0.1, 0.2])
    losses = examples.losses
    examples.losses = lambda p: np.where([False, losses(p)[0] > 0.9], np.nan, losses(p))
    outcome = examples.unlearn()
    assert outcome.status == "retain_limit"
    assert same_bits(outcome.params, examples.start)


def test_what_is_at_the_target_already_stays(same_bits):
    examples = Examples([1.0, 1.5])
    outcome = examples.unlearn()
    assert outcome.status == "already"
    assert examples.used == []
    assert same_bits(outcome.params, examples.start)


def test_too_few_rounds_are_told(same_bits):
    examples = Examples([0.1, 0.1])
    outcome = examples.unlearn(max_rounds=1)
    assert outcome.status == "rounds"
    assert not outcome.reached
    assert len(outcome.trials) == 1
    one = Examples([0.1]).unlearn(max_rounds=1)
    assert one.status == "reached"
    with pytest.raises(ValueError, match="max_exposures=-1: 0 or more"):
        examples.unlearn(max_exposures=-1)
