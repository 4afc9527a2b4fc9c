"""What the report tells, as plain data: `gather` fills it, pages and tables only show it.

Nothing here reads or draws. What a run in progress does not have yet is absent, never zero.
Models are numbered: model t is M_t, and iteration t makes M_(t+1) from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from selfimprove_pipeline.contract.rows import Evaluated
from selfimprove_pipeline.measuring.differences import Contrast, Measure
from selfimprove_pipeline.measuring.intervals import Interval, Rate
from selfimprove_pipeline.report.story.making import (
    Agreement,
    Artifact,
    Pairs,
    Promotion,
    Training,
    Work,
)

Shown = Measure | Literal["winRate", "grade"]
"""What the table of a suite shows: `Measure`, or of a judge the win rate or the mean grade."""
Entry = int | str
"""A row of a table: a model's number or a baseline's name."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model that exists."""

    index: int
    uri: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One model on one suite in one language."""

    score: Rate | None
    """score is the share of right answers, None without gold answers."""
    off_target: Rate | None
    """off_target is the share in a wrong language, None where no language was identified."""
    evasive: Rate
    empty: Rate
    truncated: Rate
    """truncated is the share that the token limit ended."""
    mean_length: float
    """mean_length of the completions in characters."""

    def by(self, measure: Measure) -> Rate | None:
        """Return the rate that a measure names."""
        return self.score if measure == "score" else self.off_target


@dataclass(frozen=True, kw_only=True)
class Change(Contrast):
    """What happened from one model to a later one; the mean is over the other languages."""

    before: int
    after: int


@dataclass(frozen=True, kw_only=True)
class BaselineStory:
    """A baseline on one suite, and what the last model has over it."""

    name: str
    """name as the recipe has it."""
    measured: Mapping[str, Measured]
    """measured by language."""
    mean: float | None
    """mean of the measure over the other languages, None where one of them is not measured."""
    changes: tuple[Change, ...]
    """changes from the baseline, which comes from M0, to the last model that is measured."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a judge came to on one model's answers to a suite in one language."""

    suite: str
    iteration: int
    language: str
    measures: Mapping[str, float]
    """measures as `contests` names them, none where nothing was decided."""
    decided: int
    """decided are the contests, or the conversations, of which there is a mean."""
    malformed: int
    """malformed are the ballots for neither answer."""

    @property
    def entry(self) -> Entry:
        """The model's number, or the baseline's name."""
        return self.suite.partition("+")[2] or self.iteration

    @property
    def estimate(self) -> "Estimate | None":
        """The win rate or the mean grade, None where nothing was decided."""
        if not self.measures:
            return None
        name = "grade" if "grade" in self.measures else "winRate"
        low, high = self.measures[f"{name}Low"], self.measures[f"{name}High"]
        return Estimate(self.measures[name], Interval(low, high), self.decided)


@dataclass(frozen=True)
class Estimate:
    """A value that was measured on n prompts."""

    value: float
    interval: Interval
    n: int


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """What a judge came to on a suite: each model against the same opponent, or its grades."""

    shown: Literal["winRate", "grade"]

    judged: Mapping[tuple[Entry, str], Judged]
    """judged by model or baseline and language."""
    means: Mapping[Entry, float]
    """means of what is shown over the other languages, where all of them are judged."""
    changes: tuple[Change, ...]
    """changes of what is shown; from M0 that it compares with, as from one half."""
    opponent_lengths: Mapping[str, float]
    """opponent_lengths are the mean characters of the opponent's answers by language."""


@dataclass(frozen=True, kw_only=True)
class SuiteStory:
    """All models on one suite."""

    name: str
    kind: str | None = None
    """kind as the recipe has it, None when it is the name."""
    measure: Measure
    measured: Mapping[tuple[int, str], Measured]
    """measured by model and language."""
    means: Mapping[int, float]
    """means of the measure over the other languages, by model, where all of them are measured."""
    changes: tuple[Change, ...]
    languages: tuple[str, ...] | None = None
    """languages that the recipe gives the suite, None when they are the run's; or its tasks."""
    baselines: tuple[BaselineStory, ...] = ()
    verdicts: Verdicts | None = None
    """verdicts are None of a suite without a judge."""
    results: Mapping[tuple[Entry, str], Mapping[str, float]] = field(default_factory=dict)
    """results are all that lm-eval tells of a model or a baseline, by it and the task."""

    @property
    def shown(self) -> Shown:
        """What its table shows."""
        return self.measure if self.verdicts is None else self.verdicts.shown

    @property
    def has_tasks(self) -> bool:
        """Whether tasks of lm-eval stand in the place of languages."""
        return (self.kind or self.name) == "nlp"

    @property
    def shown_changes(self) -> tuple[Change, ...]:
        """The changes of what its table shows."""
        return self.changes if self.verdicts is None else self.verdicts.changes

    @property
    def is_against_m0(self) -> bool:
        """Whether the judge compares with M0's own answers."""
        return (self.kind or self.name) == "headToHead"

    def is_measured(self, entry: Entry, language: str) -> bool:
        """Whether a row has come to anything in one language, be it undecided."""
        if self.verdicts is not None:
            return (entry, language) in self.verdicts.judged
        return self.of(entry, language) is not None

    def of(self, entry: Entry, language: str) -> Measured | None:
        """Return the rates of a model or a baseline in one language."""
        if isinstance(entry, int):
            return self.measured.get((entry, language))
        found = next(one for one in self.baselines if one.name == entry)
        return found.measured.get(language)

    def estimate(self, entry: Entry, language: str) -> Estimate | None:
        """Return what the table shows of a model or a baseline in one language."""
        if self.verdicts is not None:
            judged = self.verdicts.judged.get((entry, language))
            return judged.estimate if judged else None
        measured = self.of(entry, language)
        rate = measured.by(self.measure) if measured else None
        if rate is None or rate.value is None:
            return None
        return Estimate(rate.value, rate.interval, rate.n)

    def mean(self, entry: Entry) -> float | None:
        """Return the mean of what the table shows over the other languages."""
        if self.verdicts is not None:
            return self.verdicts.means.get(entry)
        told = {found.name: found.mean for found in self.baselines}
        return self.means.get(entry) if isinstance(entry, int) else told[entry]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One prompt of the first suite and every model's answer to it."""

    suite: str
    language: str
    id: str
    prompt: str
    gold: str | None
    answers: Mapping[int, Evaluated]
    """answers by model."""


@dataclass(frozen=True, kw_only=True)
class Story:
    """Everything that the report of one run shows."""

    name: str
    outcome: str
    message: str
    dominant: str
    others: tuple[str, ...]
    final: int | None = None
    """final is the number of the model that a run has come to which a gate has stopped."""
    iterations: int
    """iterations that the recipe asks for, or that were begun when a gate has stopped the run."""
    models: tuple[Model, ...]
    suites: tuple[SuiteStory, ...]
    pairs: tuple[Pairs, ...]
    training: tuple[Training, ...]
    agreements: tuple[Agreement, ...]
    promotions: tuple[Promotion, ...] = ()
    work: tuple[Work, ...]
    artifacts: tuple[Artifact, ...]
    samples: tuple[Sample, ...]
    versions: Mapping[str, Mapping[str, str]]
    """versions of packages by stage."""
    recipe: str
    """recipe is the resolved spec as YAML."""
    notes: tuple[str, ...]
    """notes say what could not be read, and why."""
    handouts: Mapping[str, str] = field(default_factory=dict)
    """handouts are files of others that belong to the report, by the ending of their name."""

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages in the order of the tables: those to improve, then the dominant one."""
        return (*self.others, self.dominant)

    def trained(self, suite: SuiteStory) -> tuple[str, ...]:
        """Return the run's languages that a suite is in, in the order of the tables, or tasks."""
        own = suite.languages
        if suite.has_tasks:
            return own or ()
        return tuple(tag for tag in self.languages if own is None or tag in own)

    def unseen(self, suite: SuiteStory) -> tuple[str, ...]:
        """Return a suite's languages that the run does not train, in the recipe's order."""
        if suite.has_tasks:
            return ()
        return tuple(tag for tag in suite.languages or () if tag not in self.languages)

    @property
    def planned(self) -> range:
        """The numbers of all models that the run will have."""
        return range(self.iterations + 1)
