"""Runs for tests: a small valid file, with values replaced by dotted path."""

import copy
import json
from typing import Any

from selfimprove_pipeline.contract import recipe
from selfimprove_pipeline.contract.recipe import Run

FILE: dict[str, Any] = {
    "apiVersion": "selfimprove.dev/v1alpha1",
    "kind": "SelfImproveRun",
    "metadata": {"name": "test"},
    "spec": {
        "model": {"uri": "s3://models/m0"},
        "languages": {"dominant": "en", "others": ["es", "de"]},
        "prompts": {"uri": "s3://prompts/set", "perIteration": 2},
        "storage": {"bucket": "runs"},
    },
}


def file(**values: Any) -> dict[str, Any]:
    """Return a run file; keys are spec paths with `__` for dots, `training__beta=0.1`."""
    made = copy.deepcopy(FILE)
    for path, value in values.items():
        *parents, last = path.split("__")
        part = made["spec"]
        for parent in parents:
            part = part.setdefault(parent, {})
        part[last] = copy.deepcopy(value)
    return made


def run(**values: Any) -> Run:
    """Return a resolved run."""
    return recipe.resolve(Run.model_validate_json(json.dumps(file(**values))))
