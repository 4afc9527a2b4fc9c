"""The method of selfimprove: what one iteration does with models and artifacts."""
