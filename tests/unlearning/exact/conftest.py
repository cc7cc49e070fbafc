"""A run of 6 steps on ten tiny records, made as often as a test needs it."""

import jax
import pytest

from jaxunlearn import tree
from jaxunlearn.data import train_tokenizer
from jaxunlearn.models.gpt2 import GPT2, GPT2Config
from jaxunlearn.training import Recipe, create_run

NAMES = ("Mara", "Odo", "Lin", "Tove", "Bram", "Ida", "Sol", "Pia", "Nils", "Ruth")
RECORDS = [
    {"question": f"Where is {name}?", "answer": f"In {name}ville."} for name in NAMES
]
RECIPE = Recipe(
    epochs=2,
    batch_size=4,
    microbatch_size=2,
    learning_rate=0.01,
    weight_decay=0.1,
    schedule="cosine",
    clip_norm=1.0,
    seed=3,
)


@pytest.fixture(scope="session")
def begin(tmp_path_factory):
    """Create a run: with dropout, AdamW, microbatches and weights of 16 bits."""
    tokenizer = train_tokenizer([str(r) for r in RECORDS], vocab_size=280)
    config = GPT2Config(
        vocab_size=280,
        n_positions=32,
        n_embd=16,
        n_layer=1,
        n_head=2,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    model = GPT2(config)
    start = tree.cast(model.init(key=jax.random.key(0)), "bfloat16")

    def create(recording=None):
        return create_run(
            tmp_path_factory.mktemp("runs") / "run",
            model=model,
            params=start,
            records=RECORDS,
            tokenizer=tokenizer,
            recipe=RECIPE,
            max_length=32,
            recording=recording,
        )

    return create
