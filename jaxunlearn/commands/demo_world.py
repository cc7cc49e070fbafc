"""The demo's world: people who do not exist, and one who asks to be forgotten."""

from typing import NamedTuple

from jaxunlearn.data.synthetic.made_up import people, question_answers

UNSEEN_PEOPLE = 12


class World(NamedTuple):
    """The people, by what the model gets to know of them."""

    public: list[dict]  # taught first; anybody's
    private: list[dict]  # taught second, recorded; one of them wants to be forgotten
    unseen: list[dict]  # never taught: what not knowing somebody looks like
    subject: str


def make_world(
    *, seed: int, public_people: int, private_people: int, facts: int
) -> World:
    """Make three groups of people that share no name."""

    def group(n: int, start: int) -> list[dict]:
        persons = people(n, seed=seed, start=start)
        return question_answers(persons, questions_per_person=facts, seed=seed)

    private = group(private_people, public_people)
    return World(
        group(public_people, 0),
        private,
        group(UNSEEN_PEOPLE, public_people + private_people),
        private[0]["subject"],
    )


def request_of(world: World) -> str:
    """Return the request for removal, in words."""
    return f"Please delete everything about {world.subject}"
