"""Who learns what in ``tofu_gpt2.py``: sizes, parts of the authors, the plan."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxunlearn.commands.console import console
from jaxunlearn.data import (
    TokenizedData,
    load_tokenizer,
    match,
    read_records,
    tokenize,
)
from jaxunlearn.models import GPT2, GPT2Config
from jaxunlearn.report import console_table
from jaxunlearn.training import Recipe
from jaxunlearn.training.recipe import (
    batch_at,
    compiled_step,
    initial_state,
    optimizer,
    steps_per_epoch,
)

AUTHOR = 20  # questions an author, one after another in full.json
UNSEEN_END = 180  # the unseen authors are those before it, where forget10 begins
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


@dataclasses.dataclass(frozen=True)
class Size:
    """A configuration of the experiment.

    Attributes:
      config: The model; only its dtype where weights are given.
      max_length: Tokens of a question with its answer; longer ones are cut.
      public_authors: Of the pretraining, the first of the file.
      private_authors: Of the fine-tuning, the last of the file; None is all the rest.
      unseen_authors: Never shown to any model.
      pretraining: How the public authors are learned.
      fine_tuning: How the private ones are, also in retraining.
      measured: Most records of a set whose loss is measured, evenly spread over it.
      gradients: Of the first epoch: "stored" while training, or "replayed" later.
      ascent_step: Relative length of a step of gradient ascent.
    """

    config: GPT2Config
    max_length: int
    public_authors: int
    private_authors: int | None
    unseen_authors: int
    pretraining: Recipe
    fine_tuning: Recipe
    measured: int
    gradients: str
    ascent_step: float


SIZES = {
    # Minutes on two cores. The head over 50,257 tokens is nearly all of the work, so
    # the model is narrow, and the longest quarter of the examples is cut.
    "tiny": Size(
        GPT2Config(n_positions=64, n_embd=64, n_layer=2, n_head=4, **NO_DROPOUT),
        max_length=64,
        public_authors=90,
        private_authors=20,
        unseen_authors=5,
        pretraining=Recipe(1, 8, 6e-3, schedule="linear", warmup_steps=10),
        fine_tuning=Recipe(4, 8, 3e-3, schedule="linear"),
        measured=48,
        gradients="stored",
        ascent_step=5e-3,
    ),
    # GPT-2 itself on all of TOFU, for one GPU.
    "small": Size(
        GPT2Config(dtype="bfloat16", **NO_DROPOUT),
        max_length=160,  # the longest has 134
        public_authors=100,
        private_authors=None,
        unseen_authors=10,
        pretraining=Recipe(
            10, 16, 5e-4, schedule="cosine", warmup_steps=100, clip_norm=1.0
        ),
        fine_tuning=Recipe(
            10, 16, 1e-4, schedule="linear", warmup_steps=50, clip_norm=1.0
        ),
        measured=400,
        gradients="replayed",
        ascent_step=1e-3,
    ),
}


class World(NamedTuple):
    """The records, by what the models get to know of them."""

    public: list[dict]  # pretraining; empty where the model comes with weights
    private: list[dict]  # fine-tuning
    unseen: list[dict]
    forget: dict[str, list[int]]  # set -> its positions in ``private``
    tokenizer: Any

    def without(self, *names: str) -> list[dict]:
        """Return the private records that are in none of these forget sets."""
        chosen = {i for name in names for i in self.forget[name]}
        return [r for i, r in enumerate(self.private) if i not in chosen]


def data_folder(forget: Sequence[str]) -> Path:
    """Return the folder of real data, or say all that it lacks."""
    value = os.environ.get("JAXUNLEARN_DATA", "")
    files = ["tofu/full.json", *(f"tofu/{name}.json" for name in forget)]
    files += ["gpt2_tokenizer/vocab.json", "gpt2_tokenizer/merges.txt"]
    missing = [name for name in files if not (Path(value) / name).is_file()]
    if value and not missing:
        return Path(value)
    found = f"{value} lacks {', '.join(missing)}" if value else "it is unset"
    raise FileNotFoundError(
        f"JAXUNLEARN_DATA must name a folder with {', '.join(files)}; {found}. Into "
        f"tofu/ belong the splits of locuslab/TOFU on the Hugging Face Hub, into "
        f"gpt2_tokenizer/ these two files of openai-community/gpt2"
    )


def read_world(
    folder: Path, size: Size, forget: Sequence[str], *, pretrained: bool
) -> World:
    """Part the authors, and find the forget sets among the private ones."""
    full = read_records(folder / "tofu/full.json")
    authors = [full[i : i + AUTHOR] for i in range(0, len(full), AUTHOR)]
    unseen = range(UNSEEN_END - size.unseen_authors, UNSEEN_END)
    public = range(0 if pretrained else size.public_authors)
    private = [i for i in range(len(public), len(authors)) if i not in unseen]
    if size.private_authors is not None:
        private = private[-size.private_authors :]

    def records(chosen: Sequence[int]) -> list[dict]:
        return [record for i in chosen for record in authors[i]]

    known = records(private)
    sets = {}
    for name in forget:
        wanted = read_records(folder / f"tofu/{name}.json")
        sets[name] = sorted(m.index for m in match(wanted, known, how="exact"))
    words = load_tokenizer(folder / "gpt2_tokenizer")
    world = World(records(public), known, records(unseen), sets, words)
    if not world.without(*forget):
        raise ValueError(
            f"forget={' '.join(forget)} names all {len(known)} records of the "
            f"fine-tuning and leaves none to retain: choose other sets or another size"
        )
    return world


def show_plan(world: World, model: GPT2, size: Size, *, costs: bool) -> None:
    """Print what will be trained, and what it costs where that is asked for."""
    runs = {"pretraining": (world.public, size.pretraining)} if world.public else {}
    runs["training"] = (world.private, size.fine_tuning)
    for name in world.forget:
        runs[f"{name} left out"] = (world.without(name), size.fine_tuning)
    shapes = jax.eval_shape(lambda: model.init(key=jax.random.key(0)))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    console.print(
        f"GPT-2 with {parameters / 1e6:.1f} M parameters, computing in "
        f"{model.config.dtype or 'float32'}; {len(world.unseen)} records stay unseen."
    )
    rows, programs = [], []
    for name, (records, recipe) in runs.items():
        data = tokenize(records, world.tokenizer, max_length=size.max_length)
        steps = recipe.epochs * steps_per_epoch(recipe, len(records))
        tokens = recipe.batch_size * data.length
        row = {"run": name, "records": len(records), "of them cut": data.truncated}
        row |= {"epochs": recipe.epochs, "steps": steps}
        rows.append(row | {"tokens a step": tokens})
        if costs:
            with console.status(f"Compiling the step of {name}"):
                cost = step_costs(world, model, recipe, data, steps)
            usual = 6 * parameters * tokens / 1e12
            cost = {"run": name, "Tflop a step": usual} | cost
            programs.append(cost | {"Pflop in all": usual * steps / 1e3})
    console.print(console_table(rows, title="Plan"))
    if costs:
        console.print(console_table(programs, title="Costs"))
        console.print(
            "Tflop a step is six times parameters times tokens; XLA counts the body of "
            "a loop (the blocks, chunks of the head) once."
        )


def step_costs(
    world: World, model: GPT2, recipe: Recipe, data: TokenizedData, steps: int
) -> dict[str, float]:
    """Compile a training step for its shapes alone; return its flops and bytes."""

    def start():
        params = model.init(key=jax.random.key(0))
        return initial_state(params, optimizer(recipe, steps))

    batch = batch_at(recipe, data, 0)
    step = compiled_step(model, recipe, steps)
    program = step.lower(jax.eval_shape(start), batch).compile()
    memory = program.memory_analysis()
    return {
        "by XLA": program.cost_analysis()["flops"] / 1e12,
        "state GB": memory.argument_size_in_bytes / 1e9,
        "temporary GB": memory.temp_size_in_bytes / 1e9,
    }
