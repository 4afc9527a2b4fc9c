"""From the verdicts of a judge to what a suite shows: the arithmetic of `gather`, as `evaluation`.

Pure: verdicts in, a part of the story out. A preference is a value between 0 and 1 for each
prompt, so that two models' win rates against the same opponent have a paired difference; so have
the grades of conversations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from selfimprove_pipeline.contract.recipe import Languages, Suite
from selfimprove_pipeline.contract.rows import Grade, Verdict
from selfimprove_pipeline.measuring.differences import mean_of
from selfimprove_pipeline.measuring.judged import turns
from selfimprove_pipeline.measuring.judged.contests import EVEN
from selfimprove_pipeline.report.story.evaluation import changes_of
from selfimprove_pipeline.report.story.story import Entry, Judged, SuiteStory, Verdicts

STEPS = 10
"""Preferences are tested as multiples of one tenth: halves are such, probabilities are rounded."""
TURN_STEPS = 2
"""The mean of two whole grades is a multiple of one half."""


@dataclass(frozen=True)
class Ruling:
    """The verdicts on one model's answers in one language, and what they came to."""

    judged: Judged
    rows: Sequence[Verdict] = ()
    grades: Sequence[Grade] = ()
    """grades stand in the place of rows where a judge grades answers."""

    @property
    def preferences(self) -> dict[str, float]:
        """The preference for the model's answer by prompt, of those that were decided.

        Where a judge grades it is the mean grade, by conversation.
        """
        if self.grades:
            return turns.by_conversation(self.grades)
        return {row.id: row.preference for row in self.rows if row.preference is not None}


def with_verdicts(
    story: SuiteStory,
    suite: Suite,
    languages: Languages,
    rulings: Mapping[tuple[Entry, str], Ruling],
) -> SuiteStory:
    """Return a suite with the verdicts on it, also where a judged one has none yet."""
    if not suite.is_judged:
        return story
    values: dict[tuple[int, str], Mapping[str, float]] = {
        (entry, tag): ruling.preferences
        for (entry, tag), ruling in rulings.items()
        if isinstance(entry, int)
    }
    means = _means(rulings, languages)
    if suite.meets_m0:
        # M0 is the opponent itself: against its own answers all is even.
        everyone = {tag: ruling for (_, tag), ruling in _in_order(rulings)}
        values |= {(0, tag): _even(ruling) for tag, ruling in everyone.items()}
    models = sorted({model for model, _ in values})
    verdicts = Verdicts(
        shown="grade" if suite.has_turns else "winRate",
        judged={place: ruling.judged for place, ruling in rulings.items()},
        means=means,
        changes=tuple(
            changes_of(
                values,
                models,
                languages,
                suite.languages_in(languages),
                steps=TURN_STEPS if suite.has_turns else STEPS,
            )
        ),
        opponent_lengths={
            tag: fmean(row.opponent_characters for row in ruling.rows)
            for (_, tag), ruling in _in_order(rulings)
            if ruling.rows
        },
    )
    return replace(story, verdicts=verdicts)


def _means(rulings: Mapping[tuple[Entry, str], Ruling], languages: Languages) -> dict[Entry, float]:
    """Return the mean win rate of each model and baseline that is judged in all languages."""
    values = {place: ruling.preferences for place, ruling in _in_order(rulings)}
    return {
        entry: mean_of([values[entry, language] for language in languages.others])
        for entry in dict.fromkeys(entry for entry, _ in values)
        if all(values.get((entry, language)) for language in languages.others)
    }


def _in_order(
    rulings: Mapping[tuple[Entry, str], Ruling],
) -> list[tuple[tuple[Entry, str], Ruling]]:
    """Return the verdicts on models by their number, then those on baselines."""
    return sorted(rulings.items(), key=lambda item: (isinstance(item[0][0], str), item[0]))


def _even(ruling: Ruling) -> dict[str, float]:
    return {row.id: EVEN for row in ruling.rows}
