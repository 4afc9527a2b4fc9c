"""The judged suites of an iteration: contests from the answers in the store, verdicts as a task.

An artifact of `judge` holds a suite's verdicts in one language. The judge is asked when the
engine has ended (`inference`), and each verdict is in the store before more is asked.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from selfimprove_pipeline import evaluate, instruction_difficulty, stages, verdicts
from selfimprove_pipeline.artifacts import Evaluated, Manifest, Verdict
from selfimprove_pipeline.engine import Completion
from selfimprove_pipeline.external import Spent
from selfimprove_pipeline.instruction_difficulty import Difficulties
from selfimprove_pipeline.languages import Identify
from selfimprove_pipeline.recipe import Stage, Suite
from selfimprove_pipeline.stages import Target
from selfimprove_pipeline.verdicts import Contest, Opinion, Question
from selfimprove_pipeline.workers.setting import Setting
from selfimprove_pipeline.workers.shards import Share
from selfimprove_pipeline.workers.survey import Survey
from selfimprove_pipeline.workers.tasks import PART, Rows, Task

JUDGE: Final[Stage] = "judge"


def task(setting: Setting, target: Target, found: Survey, identify: Identify) -> Task[Verdict]:
    """Return the task of one judged suite in one language."""
    suite = stages.suite_of(target.part, setting.spec)
    language = target.part.removeprefix(f"{suite.name}.")
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
    versions = instruction_difficulty.versions() if difficulties else {}
    positions = target.recipe["evaluation.judge.positions"]

    def pending(done: Rows[Verdict], share: Share) -> Iterator[Question]:
        # Budget and concurrency are the run's, so of several pods the first one asks for all.
        return verdicts.questions(contests if share.number == 0 else (), done, positions)

    def row(completion: Completion, done: Rows[Verdict]) -> Verdict:
        if not isinstance(completion, Opinion):
            message = f"expected an opinion of a judge, found {type(completion).__name__}"
            raise TypeError(message)
        name = verdicts.id_of(completion.key)
        return verdicts.counted(completion, by_id[name], language, done.get(name), positions)

    def describe(made: Sequence[Verdict]) -> dict[str, Mapping[str, float]]:
        measures = verdicts.measures(made, difficulties)
        return {"counts": verdicts.counts(made), "measures": measures}

    ruled = [verdicts.by_rule(contest, language) for contest in contests]
    given = [*known, *(verdict for verdict in ruled if verdict is not None)]
    name, order = f"{language}.jsonl", list(by_id)
    return Task(
        target,
        name,
        Verdict,
        order,
        pending,
        row,
        describe,
        given=given,
        keeps_each=True,
        versions=lambda: versions,
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
    """Return what the verdicts of all models of the run have cost, as far as they are kept."""
    noted = setting.read_index()
    earlier = [entry for entry in noted.iterations if entry.index != index] if noted else []
    keys = [key for entry in earlier for key in entry.keys.get(JUDGE, {}).values()]
    manifests = [setting.repository.manifest(JUDGE, key) for key in keys]
    finished = [*manifests, *found[JUDGE].manifests.values()]
    costs = [_cost(manifest) for manifest in finished if manifest is not None]
    for target in found[JUDGE].missing:
        latest = {row.id: row for row in setting.repository.parts(JUDGE, target.key, PART, Verdict)}
        kept = verdicts.counts(tuple(latest.values()))
        costs.append((kept["questions"], kept["promptTokens"] + kept["completionTokens"]))
    return Spent(sum(requests for requests, _ in costs), sum(tokens for _, tokens in costs))


def _cost(manifest: Manifest) -> tuple[int, int]:
    counts = manifest.counts
    return counts["questions"], counts["promptTokens"] + counts["completionTokens"]


def _judged_before(setting: Setting, target: Target) -> tuple[Verdict, ...]:
    """Return the verdicts on the same answers from before their difficulty was given."""
    inputs = {name: value for name, value in target.inputs.items() if name != stages.DIFFICULTY}
    if inputs == target.inputs:
        return ()
    key = stages.key(
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
            name: (text, evaluate.is_off_target(identify(text.strip()), language))
            for name, text in given.items()
        }
    manifest = setting.evaluations(0)[stages.suite_part(suite.name, language)]
    rows = setting.repository.rows(manifest, Evaluated)
    return {row.id: (row.completion, row.is_off_target) for row in rows}
