"""From stored pairs to the passes of a training."""
