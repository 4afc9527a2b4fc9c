"""The control loop of selfimprove: it watches runs and launches their pods."""
