"""The judged pairs of an iteration: a sample from the store, graded, as a task a language.

Pairs are made without a GPU, so the process that pairs asks the judge; each answer is in the
store before more is asked.
"""

from collections.abc import Mapping, Sequence

from selfimprove_pipeline import external
from selfimprove_pipeline.contract.keys import Target
from selfimprove_pipeline.contract.recipe import Judge
from selfimprove_pipeline.contract.rows import Pair, Score
from selfimprove_pipeline.engine import Completion
from selfimprove_pipeline.measuring import reward_accuracy
from selfimprove_pipeline.measuring.judged import pairs as grades
from selfimprove_pipeline.measuring.judged import questions
from selfimprove_pipeline.run.setting import Setting
from selfimprove_pipeline.run.survey import Survey
from selfimprove_pipeline.workers.tasks import Made, Task, as_they_are
from selfimprove_pipeline.workers.tasks import judge as judging
from selfimprove_pipeline.workers.tasks.collect import Collector, OnProgress
from selfimprove_pipeline.workers.tasks.wanted import ready

SCORES = "scores.jsonl"


def work(
    setting: Setting, index: int, pairs: Sequence[Pair], found: Survey, on_progress: OnProgress
) -> None:
    """Have the recipe's judge grade what is missing."""
    judge = setting.spec.evaluation.judge
    if judge is None:
        return
    spent = judging.spent(setting, index, found)
    asked = external.judge(setting.spec, judge, spent)
    try:
        tasks = [_task(target, judge, pairs) for target in found["score"].missing]
        Collector(asked, setting.repository, on_progress).collect(tasks)
    finally:
        asked.close()


def _task(target: Target, judge: Judge, pairs: Sequence[Pair]) -> Task[Score]:
    """Return the task of the pairs of one language."""
    drawn = {pair.id: pair for pair in grades.sampled(pairs, target.part, judge.pairs)}

    def row(completion: Completion, done: Mapping[str, Score]) -> Score:
        opinion = questions.opinion_of(completion)
        name = questions.id_of(completion.key)
        return grades.counted(opinion, drawn[name], done.get(name), judge.positions)

    def make(rows: Sequence[Score]) -> Made:
        counts = {**reward_accuracy.counts(rows), **grades.counts(rows)}
        measures = {**reward_accuracy.measures(rows), **grades.measures(rows)}
        return as_they_are(SCORES, rows, counts, measures)

    return Task(
        target=target,
        kind=Score,
        order=list(drawn),
        pending=lambda done, _: ready(grades.to_ask(drawn.values(), done, judge.positions)),
        row=row,
        make=make,
        keeps_each=True,
    )
