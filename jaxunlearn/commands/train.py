"""``jaxunlearn train``: train a GPT-2 so that examples can be taken out again."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxunlearn.commands.arguments import TrainingRecords, check_number
from jaxunlearn.commands.console import console, progress_bar, say
from jaxunlearn.commands.train_track import (
    save_tracked,
    tracked_methods,
    tracker_of,
)
from jaxunlearn.data import (
    check_tokenizer,
    in_order,
    load_tokenizer,
    read_records,
    record_text,
    subset,
    tokenize,
    train_tokenizer,
)
from jaxunlearn.locks import locked
from jaxunlearn.models.positions import check_max_length
from jaxunlearn.report import console_table

if TYPE_CHECKING:
    from jaxunlearn.influence.tracking.series import Tracker
    from jaxunlearn.models import GPT2
    from jaxunlearn.training import Recipe, Recording, Run

FOLLOWED = ("gradient_dot", "act_act")
"""The scores that ``--track`` follows where none are named."""


def train(
    *,
    model: str,
    data: TrainingRecords,
    out: Path,
    tokenizer: str | None = None,
    epochs: int = 5,
    batch_size: int = 16,
    learning_rate: float = 5e-5,
    optimizer: Literal["adamw", "adam", "sgd", "momentum"] = "adamw",
    weight_decay: float = 0.0,
    schedule: Literal["constant", "linear", "cosine"] = "linear",
    warmup_steps: int = 0,
    clip_norm: float | None = None,
    reduction: Literal["token", "example"] = "token",
    microbatch_size: int | None = None,
    dropout: float | None = None,
    max_length: int | None = None,
    seed: int = 0,
    keep_every: int | None = None,
    record: str | None = None,
    record_epochs: tuple[int, ...] | None = None,
    record_dtype: Literal["float32", "bfloat16"] | None = None,
    head_entries: int | None = None,
    evaluate: str | None = None,
    track: str | None = None,
    track_methods: tuple[str, ...] | None = None,
) -> int:
    """Train or fine-tune a GPT-2 into a run directory that can be unlearned from.

    The run can be replayed: ``jaxunlearn unlearn --run OUT`` computes the gradients
    that any of its examples gave in epoch one. Interrupted, the same command resumes
    to the identical result.

    Args:
      model: Hugging Face directory or hub name to fine-tune, or a config.json to
        start from fresh weights.
      data: Training records: JSON, JSON Lines, text, parquet or a hub name.
      out: The run directory; its model/ is a Hugging Face directory.
      tokenizer: Directory or hub name; by default the model's, and for a config.json
        one trained on the data with the config's vocab_size.
      epochs: Passes over the data.
      batch_size: Examples a step.
      learning_rate: Peak learning rate.
      optimizer: What turns gradients into steps.
      weight_decay: Decoupled decay, for adamw.
      schedule: How the learning rate goes down.
      warmup_steps: Steps of linear warm-up.
      clip_norm: Clip the global gradient norm.
      reduction: token: every labelled token of a batch counts the same; example:
        every example does.
      microbatch_size: Examples computed at a time, to save memory; changes no result.
      dropout: Sets all three dropout rates; by default the config's.
      max_length: Most tokens of an example; by default what the model takes.
      seed: Of data order, dropout and fresh weights.
      keep_every: Steps between checkpoints that stay in OUT, from which exact_replay
        trains again without forgotten examples; by default it begins at the start.
      record: Also store each example's gradient on the layers that this regular
        expression names, such as wte. Not needed to unlearn: runs are replayed.
      record_epochs: Epochs to store; by default the first.
      record_dtype: Of what is stored; by default float32.
      head_entries: Largest entries a token kept of the output head's gradient; by
        default 64.
      evaluate: Records whose mean loss is measured after each epoch.
      track: Records, such as those that may have to be forgotten one day, whose
        influence is followed: before training and after each epoch their scores with
        every training example, their losses and the norms of their gradients layer
        by layer, into OUT/influence_track.npz. Holds as many gradients in memory as
        there are such records: name few.
      track_methods: Scores to follow; by default gradient_dot and act_act, which
        cost an evaluation about as much as an epoch of training; hvp and the inverse
        curvatures cost many times that.
    """
    from jaxunlearn import training
    from jaxunlearn.models import save_pretrained

    if dropout is not None and not 0 <= dropout < 1:
        raise ValueError(f"--dropout {dropout}: must be at least 0 and below 1")
    if keep_every is not None:
        check_number("keep_every", keep_every, 1)
    check_max_length(max_length, [model])
    recording = recording_of(record, record_epochs, record_dtype, head_entries)
    if track is None and track_methods is not None:
        raise ValueError("--track-methods needs --track FILE, the records to follow")
    records = read_records(data)
    held_out = None if evaluate is None else read_records(evaluate)
    followed = None if track is None else read_records(track)
    methods = () if track is None else tracked_methods(track_methods or FOLLOWED)
    recipe = training.Recipe(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        optimizer=optimizer,
        weight_decay=weight_decay,
        schedule=schedule,
        warmup_steps=warmup_steps,
        clip_norm=clip_norm,
        reduction=reduction,
        microbatch_size=microbatch_size,
        seed=seed,
    )
    network, params, words = starting_point(model, tokenizer, records, dropout, seed)
    length = max_length or network.config.n_positions
    for given in (held_out, followed):  # before anything is written
        if given is not None:
            tokenize(given, words, max_length=length)
    with locked(out):
        run = training.create_run(
            out,
            model=network,
            params=params,
            records=records,
            tokenizer=words,
            recipe=recipe,
            max_length=length,
            recording=recording,
        )
        console.print(
            f"{len(records)} records, longest {run.data.length} tokens; "
            f"{run.data.truncated} cut at {run.max_length}. Run: {out}"
        )
        wide = wider_than_stored(recipe, params)
        if wide is not None:
            console.print(wide)
        tracker = None if followed is None else tracker_of(run, followed, methods)
        losses = evaluations(run, held_out, tracker)
        result = train_run(run, params, evaluate=losses, keep_every=keep_every)
        folder = out / "model"
        save_pretrained(run.model, result.params, folder, run.tokenizer, source=model)
        table = console_table(result.evaluations, title="Mean loss (nats a token)")
        console.print(table)
        if recording is not None:
            console.print(recording_note(run))
        if tracker is not None and followed is not None:
            console.print(save_tracked(run, tracker, followed), soft_wrap=True)
    say(f"Model: {out / 'model'}\nUnlearn: {next_command(out)}")
    return 0


def recording_of(
    layers: str | None,
    epochs: Sequence[int] | None,
    dtype: str | None,
    head_entries: int | None,
) -> "Recording | None":
    """Return what is to be recorded, None without ``--record``.

    Raises:
      ValueError: It cannot be recorded, or is described without being asked for.
    """
    from jaxunlearn.training import Recording

    given = {
        "record_epochs": epochs,
        "record_dtype": dtype,
        "head_entries": head_entries,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if layers is None:
        if given:
            options = " and ".join(f"--{n.replace('_', '-')}" for n in given)
            raise ValueError(f"{options} needs --record REGEX, the layers to record")
        return None
    settings = {name.removeprefix("record_"): value for name, value in given.items()}
    return Recording(layers=layers, **settings)


def starting_point(
    model: str, tokenizer: str | None, records: list[dict], dropout, seed: int
) -> tuple["GPT2", Any, Any]:
    """Return model, parameters and tokenizer to start from."""

    from jaxunlearn.models import GPT2, load_config, load_pretrained
    from jaxunlearn.models.checkpoints.config_file import with_tokens
    from jaxunlearn.models.checkpoints.huggingface import check_memory, parameter_shapes
    from jaxunlearn.randomness import random_key

    if Path(model).is_file():
        network = GPT2(load_config(model))
        check_memory(parameter_shapes(network), model)
        params = network.init(key=random_key(seed))
        if tokenizer is None:
            words = train_tokenizer(
                [record_text(r) for r in records],
                vocab_size=network.config.vocab_size,
            )
        else:
            words = load_tokenizer(tokenizer)
    else:
        words = load_tokenizer(tokenizer or model)
        network, params = load_pretrained(model)
    check_tokenizer(words, network.config.vocab_size)
    network = GPT2(with_tokens(network.config, words))
    if dropout is not None:
        network = network.with_dropout(dropout)
    return network, params, words


def evaluations(
    run: "Run", held_out: list[dict] | None, tracker: "Tracker | None" = None
):
    """Return the function that measures the losses, and tracks influence beside."""
    from jaxunlearn.training import mean_loss_of

    # A fixed sample of the training data: the whole would double a short run.
    size = len(run.data.examples)
    sample = subset(run.data, range(0, size, max(1, size // 256)))
    sets = {"train": sample}
    if held_out is not None:
        sets["evaluate"] = tokenize(held_out, run.tokenizer, max_length=run.max_length)
    loss = run.model.per_example_loss
    measures = {name: mean_loss_of(loss, in_order(x)) for name, x in sets.items()}
    if tracker is not None:
        # Of what is tracked a loss alone is told: a table of losses holds no scores.
        measures["tracked"] = lambda params: tracker(params)["influence/query_loss"]
    return lambda params: {name: f(params) for name, f in measures.items()}


def train_run(
    run: "Run",
    params,
    *,
    evaluate=None,
    evaluate_every: int | None = None,
    keep_every: int | None = None,
    title: str = "Training",
):
    """Train an open run with a progress bar, or take it up where it stood."""
    from jaxunlearn import training
    from jaxunlearn.training import checkpoints
    from jaxunlearn.training.recipe import steps_per_epoch

    total = run.recipe.epochs * steps_per_epoch(run.recipe, len(run.data.examples))
    done = checkpoints.latest_step(run.directory / "checkpoints")
    if done is not None:
        console.print(f"Taking up {run.directory} at step {done} of {total}.")
    with progress_bar(title, total) as update:
        return training.train(
            run.model,
            params,
            run.data,
            run.recipe,
            directory=run.directory,
            recording=run.recording,
            evaluate=evaluate,
            evaluate_every=evaluate_every,
            keep_every=keep_every,
            on_step=lambda p: update(p.step, f"loss {p.loss:.3f}"),
        )


def recording_note(run: "Run") -> str:
    """Return what the gradient store holds, with a warning of norm spikes."""
    from jaxunlearn.training import gradient_store

    found = gradient_store.summary(run.directory / "gradients")
    note = (
        f"Recorded {found['gradients']} gradients in {found['bytes'] / 1e6:.1f} MB; "
        f"largest truncation error {found['largest_truncation']:.2%}."
    )
    if found["norm_spikes"]:
        note += (
            f"\nWarning: the gradients of examples {found['norm_spikes'][:10]} are "
            f"over 5 times the median norm: such spikes undo more than their example."
        )
    return note


def wider_than_stored(recipe: "Recipe", params) -> str | None:
    """Return what training a 16-bit checkpoint holds in memory; None for float32."""
    from jaxunlearn.models.tying import token_table
    from jaxunlearn.training.recipe import training_bytes
    from jaxunlearn.tree import bytes_of

    stored = token_table(params).dtype
    held = {k: f"{x / 1e6:.1f} MB" for k, x in training_bytes(recipe, params).items()}
    if stored.itemsize >= 4:
        return None
    return (
        f"The weights are stored in {stored} ({bytes_of(params) / 1e6:.1f} MB) and "
        f"trained in float32: {held['weights']} of weights, {held['gradients']} of "
        f"gradients, {held['optimizer']} of optimiser state. OUT/model is {stored}."
    )


def next_command(out: Path) -> str:
    """Return the command that unlearns from a run."""
    run, model = (shlex.quote(str(path)) for path in (out, out / "model"))
    return (
        f"jaxunlearn unlearn --method first_epoch --run {run} --model {model} "
        f"--request 'everything about NAME' --retain FILE --out DIR"
    )
