"""What lm-eval's evaluator found, as the rows and measures of a suite. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from selfimprove_pipeline.engine import Completion
from selfimprove_pipeline.measuring.lm_eval import Outcome, Sample


def outcome(
    samples: Sequence[Mapping[str, Any]],
    written: Mapping[str, Completion],
    metrics: Mapping[str, Any],
    results: dict[str, Any],
) -> Outcome:
    """Return the outcome of a task from its samples, one a document and filter.

    Of several filters the task's first is the one whose values are scores. `written` are
    completions by context, `metrics` the values over all documents by `<metric>,<filter>`.
    """
    first = [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
    better: Mapping[str, Any] = next(iter(results.get("higher_is_better", {}).values()), {})
    metric, is_score = _primary(first, better)
    made = [_sample(sample, metric, written) for sample in first]
    return Outcome(
        samples=tuple(one if is_score else replace(one, score=None) for one in made),
        metric=_name(metric, first[0]["filter"]),
        measures={
            _name(*key.rsplit(",", 1)): number
            for key, value in metrics.items()
            if "," in key and (number := _number(value)) is not None
        },
        results=results,
    )


def _primary(samples: Sequence[Mapping[str, Any]], better: Mapping[str, Any]) -> tuple[str, bool]:
    """Return `acc_norm`, or the first metric of which more is better and each document has some.

    Without such a one it is the first metric, and no score.
    """
    names: list[str] = samples[0]["metrics"]
    found = [
        name
        for name in names
        if better.get(name) is not False
        and all(_number(sample.get(name)) is not None for sample in samples)
    ]
    if "acc_norm" in found:
        return "acc_norm", True
    return (found[0], True) if found else (names[0], False)


def _sample(sample: Mapping[str, Any], metric: str, written: Mapping[str, Completion]) -> Sample:
    context = str(sample["arguments"][0][0])
    completion = written.get(context)
    return Sample(
        id=str(sample["doc_id"]),
        prompt=context,
        completion=_text(sample, metric),
        finish_reason=completion.finish_reason if completion else "stop",
        completion_tokens=completion.completion_tokens if completion else 0,
        score=_number(sample.get(metric)),
    )


def _text(sample: Mapping[str, Any], metric: str) -> str:
    """Return what was written, or the option that was chosen; nothing where there are none."""
    responses = [repetitions[0] for repetitions in sample["resps"]]
    match responses[0]:
        case str(text):
            return text
        case (_, _):
            return _chosen(sample["arguments"], responses, metric)
    return ""


def _chosen(
    arguments: Sequence[tuple[str, str]], responses: Sequence[tuple[float, bool]], metric: str
) -> str:
    """Return the likeliest option, by its letter on average if that is what the metric asks.

    Its context stands before it where that is what differs. Options asked once more without their
    context, as mutual information needs them, are none.
    """
    pairs = zip(arguments, responses, strict=True)
    options = [(text, told[0]) for text, told in pairs if text[0] or not arguments[0][0]]
    is_in_context = len({text[0] for text, _ in options}) > 1
    texts = [("".join(text) if is_in_context else text[1]).strip() for text, _ in options]
    letters = [len(text) or 1 if metric == "acc_norm" else 1 for text in texts]
    means = [told / count for (_, told), count in zip(options, letters, strict=True)]
    return texts[means.index(max(means))]


def _name(metric: str, filtered: str) -> str:
    return metric if filtered == "none" else f"{metric},{filtered}"


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float | np.number | np.bool_)
    return float(value) if is_number and math.isfinite(value) else None
