"""Training a captioner: settings, the order of clips, the loop, its state and its log."""

from evacap_cli.tasks.training.loop import Progress, fit
from evacap_cli.tasks.training.settings import TrainSettings

__all__ = ["Progress", "TrainSettings", "fit"]
