"""Trains a captioner: settings, data order, loop, state and log."""

from evacap_cli.tasks.training.loop import Progress, fit
from evacap_cli.tasks.training.settings import TrainSettings

__all__ = ["Progress", "TrainSettings", "fit"]
