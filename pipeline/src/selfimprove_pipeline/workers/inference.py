"""Evaluate M_t, let it answer and translate: one process and one engine start.

A baseline that is a model of its own is evaluated after that, with an engine of its own.
When the engine has ended, an external translator or the judge of the suites takes its place.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

from selfimprove_pipeline import external
from selfimprove_pipeline.contract import keys
from selfimprove_pipeline.contract.keys import Target
from selfimprove_pipeline.contract.recipe import Stage
from selfimprove_pipeline.contract.rows import Answer, Evaluated, Grade, Prompt, Reply, Verdict
from selfimprove_pipeline.contract.stages import WORKERS
from selfimprove_pipeline.engine import Completion, Engine
from selfimprove_pipeline.measuring import answers
from selfimprove_pipeline.method import generate
from selfimprove_pipeline.method.rendering import Renderer
from selfimprove_pipeline.run.setting import Model, Setting
from selfimprove_pipeline.run.shards import Share
from selfimprove_pipeline.run.survey import Survey, are_finished, survey
from selfimprove_pipeline.workers import gating
from selfimprove_pipeline.workers.tasks import Follower, Made, Rows, Task, as_they_are, translate
from selfimprove_pipeline.workers.tasks import judge as judging
from selfimprove_pipeline.workers.tasks.collect import Collector, Completer, OnProgress
from selfimprove_pipeline.workers.tasks.shared import Bench
from selfimprove_pipeline.workers.tasks.wanted import Wanted

StartEngine = Callable[[Path, Renderer], Engine]

EVALUATE: Final[tuple[Stage, ...]] = ("evaluate",)
TRANSLATE: Final[tuple[Stage, ...]] = ("translate",)
JUDGE: Final[tuple[Stage, ...]] = ("judge",)


def work(  # noqa: PLR0913  what a worker of stages gets, and how the engine starts
    setting: Setting,
    index: int,
    model: Model,
    start: StartEngine,
    on_progress: OnProgress,
    *,
    names: tuple[Stage, ...] = WORKERS["inference"],
) -> None:
    """Make every missing artifact of some of the stages of this process of an iteration."""
    iteration = setting.iteration(index, model)
    found = survey(iteration, setting.repository.manifest)
    if are_finished(found, names):
        return
    bench = Bench(setting=setting, model=model, prompts=setting.prompts_of(index))

    def engine() -> Completer:
        return start(bench.folder, bench.renderer)

    own = tuple(name for name in names if name not in JUDGE)
    described = setting.spec.translation.external
    if described is None or "translate" not in names or are_finished(found, TRANSLATE):
        _complete(bench, iteration, own, engine, on_progress)
    else:
        # Before the engine's hours: a translator that does not fit the languages is refused now.
        translator = external.translator(described, setting.spec)
        own = tuple(name for name in own if name not in TRANSLATE)
        _complete(bench, iteration, own, engine, on_progress)
        _complete(bench, iteration, TRANSLATE, lambda: translator, on_progress)
    if "evaluate" in names:
        _measure_sft(bench, iteration, start, on_progress)
    if "judge" in names:
        _judge(bench, iteration, on_progress)


def _measure_sft(
    bench: Bench,
    iteration: keys.Iteration,
    start: StartEngine,
    on_progress: OnProgress,
) -> None:
    """Evaluate the baseline `sft` where it is measured beside this model, with its own engine."""
    sft = None if iteration.sft is None else bench.setting.sft_beside(bench.model)
    if sft is not None:
        own = replace(bench, model=sft)
        _complete(own, iteration, EVALUATE, lambda: start(own.folder, own.renderer), on_progress)


def _judge(bench: Bench, iteration: keys.Iteration, on_progress: OnProgress) -> None:
    setting, judge = bench.setting, bench.setting.spec.evaluation.judge
    if judge is not None:
        found = survey(iteration, setting.repository.manifest)
        spent = judging.spent(setting, iteration.index, found)
        asked = partial(external.judge, setting.spec, judge, spent)
        _complete(bench, iteration, JUDGE, asked, on_progress)


def _complete(
    bench: Bench,
    iteration: keys.Iteration,
    names: tuple[Stage, ...],
    start: Callable[[], Completer],
    on_progress: OnProgress,
) -> None:
    """Make what is missing of some stages with one engine, which is started if there is any."""
    repository = bench.setting.repository
    found = survey(iteration, repository.manifest)
    if "gate" in names and found["gate"].missing:  # it needs no engine, and may spare one
        gating.work(bench.setting, iteration.index, found)
        found = survey(iteration, repository.manifest)
    if _is_done(found, names, bench.model):
        return
    engine = start()
    try:
        start_seconds = engine.start_seconds
        # A translator or a judge has rounds, as an engine with fixed batches.
        streams = not getattr(engine, "has_fixed_batches", True)
        collector = Collector(engine, repository, on_progress, bench.setting.share, streams)
        for tasks, followers in _rounds(bench, iteration, names, engine, streams=streams):
            collector.collect(tasks, followers, start_seconds=start_seconds)
            start_seconds = 0.0
    finally:
        engine.close()


def _rounds(
    bench: Bench,
    iteration: keys.Iteration,
    names: tuple[Stage, ...],
    engine: Completer,
    *,
    streams: bool,
) -> Iterator[tuple[Sequence[Task[Any]], Sequence[Follower[Any]]]]:
    """Yield the missing tasks stage by stage: translations need the digests of the answers.

    Where the engine takes requests in any order, they are made beside the answers all the same.
    """
    makers: dict[str, Callable[[Bench, Target, Survey, Completer], Task[Any]]] = {
        "evaluate": evaluate_task,
        "generate": generate_task,
        "judge": judge_task,
    }
    ahead = keys.ahead(iteration) if streams and "translate" in names else {}
    followers: dict[str, Follower[Any]] = {}
    for name in names:
        found = survey(iteration, bench.setting.repository.manifest)
        missing = _missing(found, name, bench.model)
        if name == "gate":
            gating.work(bench.setting, iteration.index, found)
        elif name == "translate":
            for part in followers.keys() - {target.part for target in missing}:
                bench.setting.repository.discard("translate", ahead[part].key)
            made = [
                translate.task(
                    bench, target, found, ahead.get(target.part), followers.get(target.part)
                )
                for target in missing
            ]
            if made:
                yield made, ()
        elif missing:
            tasks = {target.part: makers[name](bench, target, found, engine) for target in missing}
            if name == "generate":
                followers = {
                    part: translate.follower(bench, target, tasks[source])
                    for part, target in ahead.items()
                    if (source := keys.languages_of(part)[0]) in tasks
                }
            yield list(tasks.values()), list(followers.values()) if name == "generate" else ()


def _missing(found: Survey, name: Stage, model: Model) -> tuple[Target, ...]:
    """Return what is missing of a stage, without what a model beside this one is to make."""
    missing = found[name].missing if name in found else ()
    return tuple(t for t in missing if t.inputs.get("model", model.digest) == model.digest)


def _is_done(found: Survey, names: tuple[Stage, ...], model: Model) -> bool:
    """Return whether a model has nothing to make of some stages."""
    known = all(found[name].targets is not None for name in names if name in found)
    return known and not any(_missing(found, name, model) for name in names)


def evaluate_task(
    bench: Bench, target: Target, _: Survey, engine: Completer
) -> Task[Evaluated] | Task[Reply]:
    """Return the task of one suite in one language, of a baseline or of the model itself."""
    suite = keys.suite_of(target.part, bench.setting.spec)
    if suite.has_tasks:
        from selfimprove_pipeline.workers.tasks import lm_eval  # noqa: PLC0415  lm-eval is heavy

        return lm_eval.task(bench, suite, target, cast("Engine", engine))
    language = target.part.partition(".")[2]
    baseline = keys.baseline_of(target.part)
    rows = {row.id: row for row in bench.setting.suites[suite.name, language]}
    next_turns = {row.follows: row for row in rows.values() if row.follows is not None}
    identify = bench.identify(suite)

    def wanted(row: Prompt, before: Evaluated | None) -> Wanted:
        spec, renderer = bench.setting.spec, bench.renderer
        return Wanted(
            lambda: answers.request(
                row, language, suite, spec, renderer, baseline=baseline, before=before
            ),
            size=len(row.prompt),
            leads=row.id in next_turns,
        )

    def pending(done: Rows[Evaluated], share: Share) -> Iterator[Wanted]:
        for row in rows.values():
            is_ready = row.follows is None or row.follows in done
            if is_ready and row.id not in done and share.owns(row.follows or row.id):
                yield wanted(row, None if row.follows is None else done[row.follows])

    def opened(row: Evaluated, _: Rows[Evaluated]) -> Iterator[Wanted]:
        if row.id in next_turns:
            yield wanted(next_turns[row.id], row)

    def row(completion: Completion, _: Rows[Evaluated]) -> Evaluated:
        return answers.evaluated(
            completion,
            rows[completion.key],
            language,
            identify,
            has_numbers=suite.has_numbers,
            package=suite.package,
        )

    def make(made: Sequence[Evaluated]) -> Made:
        tokens = {"completionTokens": sum(row.completion_tokens for row in made)}
        return as_they_are(f"{language}.jsonl", made, tokens, answers.measures(made))

    return Task(
        target=target,
        kind=Evaluated,
        order=list(rows),
        pending=pending,
        row=row,
        make=make,
        opened=opened,
        versions=bench.template,
    )


def judge_task(
    bench: Bench, target: Target, found: Survey, _: Completer
) -> Task[Verdict] | Task[Grade]:
    """Return the task of one judged suite in one language."""
    suite = keys.suite_of(target.part, bench.setting.spec)
    if suite.has_turns:
        return judging.grading_task(bench.setting, target, found)
    return judging.task(bench.setting, target, found, bench.identify(suite))


def generate_task(bench: Bench, target: Target, _: Survey, __: Completer) -> Task[Answer]:
    """Return the task of the answers in one language."""
    language = target.part
    rows: Sequence[Prompt] = bench.prompts[language]

    def pending(done: Rows[Answer], share: Share) -> Iterator[Wanted]:
        for prompt in rows:
            if prompt.id not in done and share.owns(prompt.id):
                yield _answer_wanted(bench, prompt, language)

    def row(completion: Completion, _: Rows[Answer]) -> Answer:
        return generate.answer(completion, language)

    def make(made: Sequence[Answer]) -> Made:
        return as_they_are(f"{language}.jsonl", made, translate.token_counts(made))

    return Task(
        target=target,
        kind=Answer,
        order=[row.id for row in rows],
        pending=pending,
        row=row,
        make=make,
        versions=bench.template,
    )


def _answer_wanted(bench: Bench, prompt: Prompt, language: str) -> Wanted:
    """Return the request of a prompt; translations wait for its row."""
    return Wanted(
        lambda: generate.request(prompt, language, bench.setting.spec, bench.renderer),
        size=len(prompt.prompt),
        leads=True,
    )
