"""Training, and the gradients that a training run gave its examples."""

from jaxunlearn.training.epochs import EpochEnd, epoch_checkpoints
from jaxunlearn.training.loop import Progress, Training, train
from jaxunlearn.training.losses import (
    example_losses,
    mean_gradient_of,
    mean_loss_of,
)
from jaxunlearn.training.recipe import Recipe
from jaxunlearn.training.recorder import Recording
from jaxunlearn.training.replay import (
    Exposure,
    last_exposure,
    replayed_gradient,
    replayed_gradients,
)
from jaxunlearn.training.runs import Run, check_model, create_run, open_run

__all__ = [
    "EpochEnd",
    "Exposure",
    "Progress",
    "Recipe",
    "Recording",
    "Run",
    "Training",
    "check_model",
    "create_run",
    "epoch_checkpoints",
    "example_losses",
    "last_exposure",
    "mean_gradient_of",
    "mean_loss_of",
    "open_run",
    "replayed_gradient",
    "replayed_gradients",
    "train",
]
