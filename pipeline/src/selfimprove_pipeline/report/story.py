"""What the report tells, as plain data: `gather` fills it, pages and tables only show it.

Nothing here reads or draws. What a run in progress does not have yet is absent, never zero.
Models are numbered: model t is M_t, and iteration t makes M_(t+1) from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from selfimprove_pipeline.artifacts import Evaluated
from selfimprove_pipeline.contrast import Measure
from selfimprove_pipeline.report.making import Agreement, Artifact, Pairs, Training, Work
from selfimprove_pipeline.statistics import Difference, Rate


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
class Change:
    """What happened from one model to a later one."""

    before: int
    after: int
    language: str | None
    """language, None for the mean over the other languages."""
    value: float
    difference: Difference | None
    """difference is None for a mean of languages whose ids are not the same."""


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
class SuiteStory:
    """All models on one suite."""

    name: str
    measure: Measure
    measured: Mapping[tuple[int, str], Measured]
    """measured by model and language."""
    means: Mapping[int, float]
    """means of the measure over the other languages, by model, where all of them are measured."""
    changes: tuple[Change, ...]
    languages: tuple[str, ...] | None = None
    """languages that the recipe gives the suite, None when they are the run's."""
    baselines: tuple[BaselineStory, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a judge came to on one model's answers to a suite in one language."""

    suite: str
    iteration: int
    language: str
    measures: Mapping[str, float]
    """measures as `verdicts` names them, none where nothing was decided."""
    decided: int
    malformed: int
    """malformed are the ballots for neither answer."""


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
    iterations: int
    """iterations that the recipe asks for."""
    models: tuple[Model, ...]
    suites: tuple[SuiteStory, ...]
    pairs: tuple[Pairs, ...]
    training: tuple[Training, ...]
    agreements: tuple[Agreement, ...]
    work: tuple[Work, ...]
    artifacts: tuple[Artifact, ...]
    samples: tuple[Sample, ...]
    versions: Mapping[str, Mapping[str, str]]
    """versions of packages by stage."""
    recipe: str
    """recipe is the resolved spec as YAML."""
    notes: tuple[str, ...]
    """notes say what could not be read, and why."""
    judged: tuple[Judged, ...] = ()

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages in the order of the tables: those to improve, then the dominant one."""
        return (*self.others, self.dominant)

    def trained(self, suite: SuiteStory) -> tuple[str, ...]:
        """Return the run's languages that a suite is in, in the order of the tables."""
        own = suite.languages
        return tuple(tag for tag in self.languages if own is None or tag in own)

    def unseen(self, suite: SuiteStory) -> tuple[str, ...]:
        """Return a suite's languages that the run does not train, in the recipe's order."""
        return tuple(tag for tag in suite.languages or () if tag not in self.languages)

    @property
    def planned(self) -> range:
        """The numbers of all models that the run will have."""
        return range(self.iterations + 1)
