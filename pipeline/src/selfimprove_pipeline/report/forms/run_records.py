"""A run's report for programs: every number of its tables, as `records` writes those of one model.

Rates have the columns of `evaluation.csv` behind the model's name, changes those of
`comparison.csv` behind the names of both. How many there are is bounded by the recipe: models,
suites and languages.
"""

from collections.abc import Iterator

from selfimprove_pipeline.report.forms import records
from selfimprove_pipeline.report.forms.records import Record
from selfimprove_pipeline.report.story.story import Change, Entry, Story, SuiteStory
from selfimprove_pipeline.report.words import notation, wording

MEAN_OF_OTHERS = "meanOfOthers"
"""Stands for the language in the records of a mean without the dominant language."""
PAIRS = "pairs"
"""Stands for the suite in the records of the pairs that a model's answers became."""


def rates(story: Story) -> Iterator[Record]:
    """Yield each rate of each model and baseline, then the reward accuracy of its pairs."""
    for suite in story.suites:
        entries = (*story.planned, *(baseline.name for baseline in suite.baselines))
        for entry in entries:
            for record in _rates(story, suite, entry):
                yield {"model": _name(entry), "suite": suite.name, **record}
    for agreement in story.agreements:
        yield {
            "model": notation.model(agreement.iteration),
            "suite": PAIRS,
            "language": agreement.language,
            "measure": "rewardAccuracy",
            **records.of_rate(agreement.accuracy),
        }


def _rates(story: Story, suite: SuiteStory, entry: Entry) -> Iterator[Record]:
    for tag in (*story.trained(suite), *story.unseen(suite)):
        measured = suite.of(entry, tag)
        for measure, rate in records.rates_of(measured, suite).items() if measured else ():
            yield {"language": tag, "measure": measure, **records.of_rate(rate)}
        judged = suite.verdicts.judged.get((entry, tag)) if suite.verdicts else None
        if judged is not None:
            for found in records.verdict_records(judged):
                yield {name: value for name, value in found.items() if name != "suite"}
    yield from records.harness_records(suite, entry)
    mean = suite.mean(entry)
    if mean is not None:
        blank = dict.fromkeys(("n", "low", "high"))
        yield {"language": MEAN_OF_OTHERS, "measure": suite.shown, "value": mean, **blank}


def changes(story: Story) -> Iterator[Record]:
    """Yield each change from a model or a baseline to a later model."""
    for suite in story.suites:
        for change in suite.shown_changes:
            yield _change(suite, notation.model(change.before), change)
        # What no judge has compared has no change of the win rate.
        for baseline in suite.baselines if suite.verdicts is None else ():
            for change in baseline.changes:
                yield _change(suite, baseline.name, change)


def _change(suite: SuiteStory, before: str, change: Change) -> Record:
    found = change.difference
    return {
        "before": before,
        "after": notation.model(change.after),
        "suite": suite.name,
        "language": change.language or MEAN_OF_OTHERS,
        "measure": suite.shown,
        "a": change.a,
        "b": change.b,
        "difference": change.value,
        "n": found.n if found else None,
        **records.bounds(found.interval if found else None),
        "p": change.p,
        "pHolm": change.adjusted,
        "verdict": wording.verdict(change, suite.shown),
    }


def as_json(story: Story) -> str:
    """Return the run with its rates by model, suite, language and measure, and its changes."""
    models: dict[str, list[Record]] = {}
    for record in rates(story):
        models.setdefault(record["model"], []).append(record)
    return records.as_json(
        {
            "run": story.name,
            "outcome": story.outcome,
            "message": story.message,
            "final": story.final,
            "digests": {notation.model(model.index): model.digest for model in story.models},
            "models": {name: records.nested(found) for name, found in models.items()},
            "changes": list(changes(story)),
        }
    )


def _name(entry: Entry) -> str:
    return notation.model(entry) if isinstance(entry, int) else entry
