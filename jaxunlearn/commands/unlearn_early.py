"""What ``jaxunlearn unlearn`` refuses by the model's configuration, before any work."""

import dataclasses

from jaxunlearn.commands.unlearn_methods import RECIPE_OPTIONS
from jaxunlearn.commands.unlearn_options import Options


def check_model(options: Options) -> None:
    """Refuse a model that is not there, layers it lacks, and options out of range.

    Nothing is loaded but the configuration, and an objective is made but not computed.

    Raises:
      FileNotFoundError: There is no such model.
      ValueError: ``layers`` matches nothing, or an option of an objective or of its
        recipe is out of range.
    """
    from jaxunlearn.gradients.arguments import selection
    from jaxunlearn.models import load_config
    from jaxunlearn.models.checkpoints.families import family
    from jaxunlearn.models.checkpoints.huggingface import (
        local_directory,
        parameter_shapes,
    )
    from jaxunlearn.tasks import language_task
    from jaxunlearn.unlearning.methods import METHODS
    from jaxunlearn.unlearning.requirements import check_options, options_of
    from jaxunlearn.unlearning.runner import RECIPE

    config = load_config(local_directory(str(options.model)))
    network = family(config).model(config)
    row, task = METHODS[options.row], language_task(network)
    if row.form in ("objective", "edit"):
        selection(task, parameter_shapes(network), options.layers or row.layers)
    own = {name: options.own[name] for name in options_of(row)}
    check_options(row, own, METHODS)
    if row.form == "objective":
        row.function(task, **own)
        asked = {name: options.own[name] for name in RECIPE_OPTIONS}
        dataclasses.replace(RECIPE, **asked)
