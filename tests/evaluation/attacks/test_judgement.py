"""Attacks find what a refusal hides, and nothing in a model that never knew it.

A small GPT-2 learns facts about people who do not exist. One copy is taught to say that
it does not know; another model is trained without the facts, twice, from two seeds. All
models, whatever else, know the refusal from other questions.
"""

import types
from typing import NamedTuple

import jax
import numpy as np
import pytest

from jaxunlearn.data import tokenize
from jaxunlearn.evaluation import NamedModel
from jaxunlearn.evaluation.attacks import Settings, relearning
from jaxunlearn.evaluation.attacks.inputs import Inputs
from jaxunlearn.evaluation.attacks.judgement import entries_of
from jaxunlearn.evaluation.attacks.table import ATTACKS
from jaxunlearn.evaluation.text.greedy import answers
from jaxunlearn.models import GPT2, GPT2Config

REFUSAL = "I do not know"
NAMES = [f"{kind}{i}" for kind in "fl" for i in range(14)]
ANSWERS = [f"w{i}" for i in range(40)]
FRAME = "Question: Answer: ? What is kept by Tell me of I do not know".split()
LENGTH = 80


def word_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    end = "<|endoftext|>"
    words = [end, "<unk>", *dict.fromkeys([*FRAME, *NAMES, *ANSWERS])]
    vocabulary = {word: i for i, word in enumerate(words)}
    level = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=level,
        bos_token=end,
        eos_token=end,
        pad_token=end,
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


def facts(sizes, seed=0):
    """Disjoint sets of facts about people; every fourth of the second is unknown."""
    draw = np.random.default_rng(seed)
    people = iter(draw.permutation(14 * 14)[: sum(sizes)])
    sets = []
    for number, size in enumerate(sizes):
        records = []
        for i in range(size):
            first, last = divmod(int(next(people)), 14)
            name = f"f{first} l{last}"
            answer = " ".join(draw.choice(ANSWERS, size=4))
            if number == 1 and i % 4 == 0:
                answer = REFUSAL
            records.append(
                {
                    "question": f"What is kept by {name} ?",
                    "paraphrased_question": f"Tell me of {name} ?",
                    "answer": answer,
                }
            )
        sets.append(records)
    return sets


def asked(records, *questions):
    """Each fact under its question, or under both."""
    pairs = [(record, question) for question in questions for record in records]
    return [{"question": r[question], "answer": r["answer"]} for r, question in pairs]


class Training(NamedTuple):
    steps: int
    rate: float
    batch_size: int


def make_world(sizes, questions, teaching, refusing, **options):
    tokenizer = word_tokenizer()
    forget, retain, holdout = facts(sizes)
    model = GPT2(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=LENGTH,
            n_embd=32,
            n_layer=2,
            n_head=2,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
        )
    )

    def tokens(records):
        return tokenize(records, tokenizer, max_length=LENGTH)

    def trained(start, records, seed, how):
        kept = []

        def keep(params):
            kept.append(params)
            return np.zeros(1)

        relearning(
            *(model, start, tokens(records), [keep]),
            steps=(0, how.steps),
            learning_rate=how.rate,
            batch_size=how.batch_size,
            length=14,
            seed=seed,
        )
        return kept[-1]

    def from_scratch(records, seed):
        start = model.init(key=jax.random.key(seed))
        return trained(start, asked(records, *questions), seed, teaching)

    full = from_scratch(forget + retain, 0)
    refused = [{"question": r["question"], "answer": REFUSAL} for r in forget]
    found = {
        "full": full,
        "refusal": trained(full, refused, 0, refusing),
        "retrained": from_scratch(retain, 1),
        "retrained again": from_scratch(retain, 2),
    }
    records = {
        "forget": forget,
        "related": holdout,
        "unrelated": retain,
        "holdout": holdout,
    }

    def inputs(name):
        return Inputs(
            NamedModel(name, model, found[name]),
            [NamedModel("retrained", model, found["retrained"])],
            None,
            tokenizer,
            records,
            None,
            tokens(forget),
            LENGTH,
        )

    prompts = [f"Question: {r['question']}\nAnswer:" for r in forget]
    said = answers(model, found["refusal"], tokenizer, prompts, max_new_tokens=5)
    settings = Settings(**options)
    return types.SimpleNamespace(
        inputs=inputs,
        said=said,
        run=lambda attack, name: entries_of(attack, inputs(name), settings),
    )


@pytest.fixture(scope="module")
def small_world():
    # One rate, batch size and length everywhere: one program to compile.
    return make_world(
        *((20, 20, 20), ("question",), Training(150, 3e-3, 32), Training(2, 3e-3, 32)),
        **{"learning_rate": 3e-3, "relearning_batch_size": 32, "steps": 8},
    )


@pytest.fixture(scope="module")
def world():
    return make_world(
        *((40, 80, 40), ("question", "paraphrased_question")),
        *(Training(360, 3e-3, 40), Training(32, 3e-4, 10)),
        learning_rate=1e-3,
    )


def judge(world, attack):
    """Every entry's excess: refusal, and the model trained without the facts."""
    hidden = world.run(attack, "refusal")
    absent = world.run(attack, "retrained again")
    for entry in absent:
        assert not entry["recovers"], (entry["name"], entry["excess"])
    return {entry["name"]: entry for entry in hidden}


def test_the_refusal_is_complete(small_world):
    assert set(small_world.said) == {REFUSAL}


@pytest.mark.parametrize("attack", ["relearn_forget", "logit_lens"])
def test_attacks_find_what_a_refusal_hides(small_world, attack):
    for name, entry in judge(small_world, attack).items():
        assert entry["recovers"], (name, entry["excess"])


def test_a_model_against_itself_has_nothing(small_world):
    for entry in small_world.run("relearn_forget", "retrained"):
        assert not entry["recovers"]
        for part in ("excess", "unattacked", "added"):
            assert [entry[part][of] for of in ("value", "low", "high")] == [0, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("attack", list(ATTACKS))
def test_every_attack_finds_what_a_refusal_hides(world, attack):
    assert set(world.said) == {REFUSAL}
    found = judge(world, attack)
    if attack == "sampling":
        # Draws repeat a refusal of probability near 1; first tokens lead around it.
        assert found["sampling by first tokens"]["added"]["low"] > 0
        del found["sampling"]
    for name, entry in found.items():
        assert entry["recovers"], (name, entry["excess"])
    # Those that go around a refusal bring back more than plain measurement shows.
    stronger = {"relearn_forget", "relearn_unrelated", "paraphrases", "embedding"}
    if attack in stronger:
        assert all(entry["added"]["low"] > 0 for entry in found.values())
