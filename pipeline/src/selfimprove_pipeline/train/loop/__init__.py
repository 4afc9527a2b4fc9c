"""The training itself: loss, trainer, settings, checkpoints and trackers."""
