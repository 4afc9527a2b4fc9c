"""Models without a run: what `evaluate` and `compare` tell of one and of two."""
