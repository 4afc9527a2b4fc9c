"""The judged suites of an iteration: contests from the answers in the store, verdicts as a task.

An artifact of `judge` holds a suite's verdicts in one language. The judge is asked when the
engine has ended (`inference`), and each verdict is in the store before more is asked.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from selfimprove_pipeline.contract import keys as stage_keys
from selfimprove_pipeline.contract.keys import Target
from selfimprove_pipeline.contract.recipe import Stage, Suite
from selfimprove_pipeline.contract.rows import Difficulties, Evaluated, Grade, Score, Verdict
from selfimprove_pipeline.engine import Completion
from selfimprove_pipeline.external import Spent
from selfimprove_pipeline.measuring.answers import is_off_target
from selfimprove_pipeline.measuring.judged import contests as verdicts
from selfimprove_pipeline.measuring.judged import difficulty, questions, turns
from selfimprove_pipeline.measuring.judged.contests import Contest
from selfimprove_pipeline.run.setting import Setting
from selfimprove_pipeline.run.shards import Share
from selfimprove_pipeline.run.survey import Survey
from selfimprove_pipeline.text.languages import Identify
from selfimprove_pipeline.workers.tasks import PART, Made, Rows, Task, as_they_are
from selfimprove_pipeline.workers.tasks.wanted import Wanted, ready

JUDGE: Final[Stage] = "judge"
ASKING: Final[tuple[Stage, ...]] = (JUDGE, "score")
"""Stages that ask the judge."""


def task(setting: Setting, target: Target, found: Survey, identify: Identify) -> Task[Verdict]:
    """Return the task of one judged suite in one language."""
    suite = stage_keys.suite_of(target.part, setting.spec)
    language = target.part.partition(".")[2]
    answers = setting.repository.rows(found["evaluate"].manifests[target.part], Evaluated)
    opponents = _opponents(setting, suite, language, identify)
    return task_of(
        target,
        [contest(row, *opponents[row.id]) for row in answers],
        language,
        difficulties=setting.difficulties.get((suite.name, language)),
        known=_judged_before(setting, target),
    )


def task_of(
    target: Target,
    contests: Sequence[Contest],
    language: str,
    *,
    difficulties: Difficulties | None = None,
    known: Sequence[Verdict] = (),
) -> Task[Verdict]:
    """Return the task of some contests; `known` verdicts are taken as they are."""
    by_id = {contest.id: contest for contest in contests}
    # Here, so that what is absent is told before a judge is paid.
    versions = difficulty.versions() if difficulties else {}
    positions = target.recipe["evaluation.judge.positions"]

    def pending(done: Rows[Verdict], share: Share) -> Iterator[Wanted]:
        # Budget and concurrency are the run's, so of several pods the first one asks for all.
        return ready(verdicts.to_ask(contests if share.number == 0 else (), done, positions))

    def row(completion: Completion, done: Rows[Verdict]) -> Verdict:
        opinion = questions.opinion_of(completion)
        name = questions.id_of(completion.key)
        return verdicts.counted(opinion, by_id[name], language, done.get(name), positions)

    def make(rows: Sequence[Verdict]) -> Made:
        measures = verdicts.measures(rows, difficulties)
        return as_they_are(f"{language}.jsonl", rows, verdicts.counts(rows), measures)

    ruled = [verdicts.by_rule(contest, language) for contest in contests]
    given = [*known, *(verdict for verdict in ruled if verdict is not None)]
    return Task(
        target=target,
        kind=Verdict,
        order=list(by_id),
        pending=pending,
        row=row,
        make=make,
        given=given,
        keeps_each=True,
        versions=lambda: versions,
    )


def grading_task(setting: Setting, target: Target, found: Survey) -> Task[Grade]:
    """Return the task of one suite whose answers are graded, in one language."""
    suite = stage_keys.suite_of(target.part, setting.spec)
    language = target.part.partition(".")[2]
    answers = setting.repository.rows(found["evaluate"].manifests[target.part], Evaluated)
    asked = setting.suites[suite.name, language]
    by_id = {turn.id: turn for turn in turns.turns_of(answers, asked)}

    def pending(done: Rows[Grade], share: Share) -> Iterator[Wanted]:
        own = by_id.values() if share.number == 0 else ()  # see `task_of`
        return ready(turns.to_ask(own, done, language))

    def row(completion: Completion, _: Rows[Grade]) -> Grade:
        opinion = questions.opinion_of(completion)
        return turns.counted(opinion, by_id[questions.id_of(completion.key)], language)

    def make(rows: Sequence[Grade]) -> Made:
        return as_they_are(f"{language}.jsonl", rows, turns.counts(rows), turns.measures(rows))

    ruled = [turns.by_rule(turn, language) for turn in by_id.values()]
    return Task(
        target=target,
        kind=Grade,
        order=list(by_id),
        pending=pending,
        row=row,
        make=make,
        given=[grade for grade in ruled if grade is not None],
        keeps_each=True,
    )


def contest(row: Evaluated, opponent: str, is_opponent_off_target: bool) -> Contest:
    """Return the contest of an answer with another one to the same prompt."""
    return Contest(
        id=row.id,
        prompt=row.prompt,
        answer=row.completion,
        is_off_target=row.is_off_target,
        opponent=opponent,
        is_opponent_off_target=is_opponent_off_target,
    )


def spent(setting: Setting, index: int, found: Survey) -> Spent:
    """Return what a judge of all models and pairs of the run has cost, as far as it is kept."""
    noted = setting.read_index()
    earlier = [entry for entry in noted.iterations if entry.index != index] if noted else []
    total = Spent()
    for stage in ASKING:
        keys = [key for entry in earlier for key in entry.keys.get(stage, {}).values()]
        manifests = [setting.repository.manifest(stage, key) for key in keys]
        own = found.get(stage)
        for manifest in (*manifests, *(own.manifests.values() if own else ())):
            total.count(manifest.counts if manifest else {})
        for target in own.missing if own else ():
            kept = setting.repository.parts(stage, target.key, PART, _row_of(setting, target))
            latest = {row.id: row for row in kept}.values()
            total.count(questions.cost([one for row in latest for one in questions.said_of(row)]))
    return total


def _row_of(setting: Setting, target: Target) -> type[Verdict] | type[Score] | type[Grade]:
    """Return what a target that asks the judge has rows of."""
    if target.stage != JUDGE:
        return Score
    return Grade if stage_keys.suite_of(target.part, setting.spec).has_turns else Verdict


def _judged_before(setting: Setting, target: Target) -> tuple[Verdict, ...]:
    """Return the verdicts on the same answers from before their difficulty was given."""
    inputs = {name: value for name, value in target.inputs.items() if name != stage_keys.DIFFICULTY}
    if inputs == target.inputs:
        return ()
    key = stage_keys.key(
        JUDGE, target.part, fields=target.recipe, inputs=inputs, versions=target.versions
    )
    manifest = setting.repository.manifest(JUDGE, key)
    return () if manifest is None else setting.repository.rows(manifest, Verdict)


def _opponents(
    setting: Setting, suite: Suite, language: str, identify: Identify
) -> Mapping[str, tuple[str, bool]]:
    """Return each opponent's text and whether it is in a wrong language, by id."""
    if suite.has_references:
        given = setting.references[suite.name, language]
        return {
            name: (text, is_off_target(identify(text.strip()), language))
            for name, text in given.items()
        }
    manifest = setting.evaluations(0, [suite.name])[stage_keys.suite_part(suite.name, language)]
    rows = setting.repository.rows(manifest, Evaluated)
    return {row.id: (row.completion, row.is_off_target) for row in rows}
