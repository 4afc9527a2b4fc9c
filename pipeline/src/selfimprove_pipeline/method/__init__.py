"""The method's own steps: which prompt a model sees, and what its completions become. Pure."""
