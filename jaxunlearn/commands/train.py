"""``jaxunlearn train``: train a GPT-2 so that examples can be taken out again."""

from jaxunlearn.commands.console import console, say
from jaxunlearn.commands.train_bar import train_run
from jaxunlearn.commands.train_notes import (
    next_command,
    recording_note,
    wider_than_stored,
)
from jaxunlearn.commands.train_options import FOLLOWED, Options
from jaxunlearn.commands.train_track import (
    evaluations,
    save_tracked,
    tracked_methods,
    tracker_of,
)
from jaxunlearn.data import read_records, tokenize
from jaxunlearn.locks import locked
from jaxunlearn.models import save_pretrained
from jaxunlearn.models.positions import check_max_length
from jaxunlearn.report import console_table
from jaxunlearn.training import create_run
from jaxunlearn.training.starting import starting_point


def train(options: Options) -> int:
    """Train or fine-tune a GPT-2 into a run directory that can be unlearned from.

    The run can be replayed: ``jaxunlearn unlearn --run OUT`` computes the gradients
    that any of its examples gave in epoch one. Interrupted, the same command resumes
    to the identical result.
    """
    options.check()
    check_max_length(options.max_length, [options.model])
    recording, out = options.recording(), options.out
    asked = options.track_methods or FOLLOWED
    records = read_records(options.data)
    held_out = None if options.evaluate is None else read_records(options.evaluate)
    followed = None if options.track is None else read_records(options.track)
    methods = () if options.track is None else tracked_methods(asked)
    recipe = options.recipe()
    network, params, words = starting_point(
        *(options.model, options.tokenizer, records, options.dropout, options.seed)
    )
    length = options.max_length or network.positions
    for given in (held_out, followed):  # before anything is written
        if given is not None:
            tokenize(given, words, max_length=length)
    with locked(out):
        run = create_run(
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
        result = train_run(run, params, evaluate=losses, keep_every=options.keep_every)
        folder = out / "model"
        save_pretrained(
            run.model, result.params, folder, run.tokenizer, source=options.model
        )
        table = console_table(result.evaluations, title="Mean loss (nats a token)")
        console.print(table)
        if recording is not None:
            console.print(recording_note(run))
        if tracker is not None and followed is not None:
            console.print(save_tracked(run, tracker, followed), soft_wrap=True)
    say(f"Model: {out / 'model'}\nUnlearn: {next_command(out)}")
    return 0
