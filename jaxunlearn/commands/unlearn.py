"""``jaxunlearn unlearn``: take examples out of a trained model."""

from pathlib import Path
from typing import Any

from jaxunlearn.commands.console import console, say
from jaxunlearn.commands.matches import show_matches
from jaxunlearn.commands.removal import Removal, find, prepare
from jaxunlearn.commands.unlearn_checks import check
from jaxunlearn.commands.unlearn_early import check_model
from jaxunlearn.commands.unlearn_options import Options
from jaxunlearn.commands.unlearn_places import check_places, refusal_of
from jaxunlearn.commands.unlearn_result import described, keep_texts, write_result
from jaxunlearn.commands.unlearn_work import Work, carry_out
from jaxunlearn.data.requests.leaks import secret_phrases, telling_words
from jaxunlearn.files import write_json
from jaxunlearn.locks import locked
from jaxunlearn.report import console_table
from jaxunlearn.report.run.card import model_card


def unlearn(options: Options) -> int:
    """Remove the influence of training examples from a model.

    Name what to forget by --forget (a file of records), --request (words, such as
    'everything about Mara Velkin') or --ids (positions in the training data). The
    forget loss is raised to --target and no further, while the loss on --retain is
    watched. Writes a Hugging Face directory with unlearning.json and a model card,
    which hold hashes and positions of what was forgotten, not its texts; of a method
    that suppresses, a directory for `jaxunlearn evaluate` and `attack` alone. Where a
    limit is passed no model is written, and OUT.refused.json says why.

    The methods are those of --list, the options of one those of `jaxunlearn unlearn
    NAME --help`. With --config unlearning.json the options are those of an earlier run;
    others given beside it replace them.
    """
    if options.list_methods:
        from jaxunlearn.commands.unlearn_rows import table_text

        say(table_text(console.width))
        return 0
    check(options)
    if not options.list_matches:
        check_places(options)
        check_model(options)
    found = find(options)
    show_matches(found, full=options.list_matches)
    if options.list_matches:
        return 0
    out = Path(options.out or "").resolve()  # a link is followed, not replaced
    with locked(out):
        removal = prepare(options, found)
        return finish(removal, options, carry_out(removal, options), out)


def finish(removal: Removal, options: Options, work: Work, out: Path) -> int:
    """Show what came of it, and write it; return the exit status."""
    console.print(console_table(work.rows, title="Mean loss (nats a token)"))
    for sentence in work.sentences:
        say(sentence)
    told = described(removal, options) | work.told
    if options.keep_texts is not None:
        keep_texts(options.keep_texts, removal.found)
        say(f"The forgotten records: {options.keep_texts}")
    if not work.outcome.reached:
        write_json(refusal_of(out), told)
        say(f"No model was written. Details: {refusal_of(out)}")
        return 1
    save(removal, options, work.outcome, told, out)
    say(f"Model, unlearning.json and model card: {out}")
    return 0


def save(
    removal: Removal, options: Options, outcome: Any, told: dict, out: Path
) -> None:
    """Write the folder of the result, and tell what was left out of it."""
    from jaxunlearn.models import save_pretrained
    from jaxunlearn.models.checkpoints.huggingface import local_directory
    from jaxunlearn.unlearning import save_wrapper

    model = str(options.model)
    source = local_directory(model)
    named = None if Path(model).exists() else model
    about = (options.request, removal.found.records, removal.retain_records)
    write, saved = save_pretrained, removal.model
    if outcome.task is not None:
        write, saved = save_wrapper, outcome.task
    dropped = write_result(
        out,
        told,
        model_card(told, source=front_matter(source) | {"base_model": named}),
        lambda folder: write(
            saved, outcome.params, folder, removal.tokenizer, source=source
        ),
        forbidden=secret_phrases(*about),
        names=telling_words(*about),
        overwrite=options.overwrite,
    )
    if dropped:
        say(
            f"Left out of the model's folder, since they say what was to be forgotten: "
            f"{', '.join(dropped)}"
        )


def front_matter(directory: Path) -> dict:
    """Return the front matter of a model's card; empty where there is none."""
    from huggingface_hub import metadata_load
    from yaml import YAMLError

    path = directory / "README.md"
    if not path.exists():
        return {}
    try:
        found = metadata_load(path)
    except (ValueError, YAMLError) as error:
        say(f"{path} has no front matter that can be read ({type(error).__name__}).")
        return {}
    return found if isinstance(found, dict) else {}
