"""What a run would do, told before it does it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table

from selfimprove_pipeline.contract import keys
from selfimprove_pipeline.contract.recipe import Stage
from selfimprove_pipeline.contract.recipe.evaluation import Baseline
from selfimprove_pipeline.contract.stages import TABLE
from selfimprove_pipeline.run.setting import Setting
from selfimprove_pipeline.run.survey import StageState, Survey, survey

CHARACTERS_PER_TOKEN = 4
"""A rough figure for languages in Latin script; plan says that its tokens are estimates."""


@dataclass(frozen=True)
class Step:
    """One stage of one iteration, as far as it can be told."""

    index: int
    stage: Stage
    num_artifacts: int
    num_finished: int
    is_known: bool
    """is_known is true if the keys are known; later stages depend on what earlier ones make."""
    rows: int
    prompt_tokens: int
    completion_tokens: int
    """completion_tokens is the maximum: every row could reach its limit."""


def steps(setting: Setting) -> Iterator[Step]:
    """Yield the stages of all iterations; those behind an unfinished training are not known."""
    model = setting.base
    is_reachable = True
    for index in range(setting.last + 1):
        found: Survey = {}
        if is_reachable:
            found = survey(setting.iteration(index, model), setting.repository.manifest)
        yield from _iteration_steps(setting, index, found)
        if "train" in found and found["train"].is_finished:
            model = setting.trained(found["train"].manifests[""])
        else:
            is_reachable = False


def _iteration_steps(setting: Setting, index: int, found: Survey) -> Iterator[Step]:
    for info in TABLE:
        rows, prompt_tokens, completion_tokens, artifacts = _size(setting, index, info.name)
        if artifacts:
            state = found.get(info.name)
            yield Step(
                index=index,
                stage=info.name,
                num_artifacts=artifacts,
                num_finished=len(state.manifests) if state else 0,
                is_known=_is_known(state),
                rows=rows,
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
            )


def _is_known(state: StageState | None) -> bool:
    return state is not None and state.targets is not None


def _size(setting: Setting, index: int, stage: Stage) -> tuple[int, int, int, int]:
    """Return rows, prompt tokens, completion tokens at most, and artifacts of a stage."""
    spec = setting.spec
    prompts = setting.prompts_of(index)
    num_rows = sum(len(rows) for rows in prompts.values())
    directions = len(spec.languages.directions()) if prompts else 0
    num_translations = directions * spec.prompts.per_iteration
    match stage:
        case "evaluate":
            return _evaluate_size(setting, keys.baselines_beside(index, spec))
        case "judge":
            return _judge_size(setting, index)
        case "generate":
            characters = sum(len(row.prompt) for rows in prompts.values() for row in rows)
            limit = num_rows * spec.generation.max_tokens
            return num_rows, characters // CHARACTERS_PER_TOKEN, limit, len(prompts)
        case "translate":
            limit = num_translations * spec.translation.max_tokens
            source = num_translations * spec.generation.max_tokens
            return num_translations, source, limit, directions
        case "score":
            has_gold = all(row.answer for rows in prompts.values() for row in rows)
            if prompts and keys.grades_pairs(spec) and not has_gold:
                return _grades_size(setting)
            return 0, 0, 0, 1 if prompts and has_gold else 0
        case "gate":
            return 0, 0, 0, 1 if index and keys.is_gated(spec) else 0
        case "train":
            return 0, 0, 0, len(keys.trained_parts(index, spec)) if prompts else 0
        case "pair" | "reference":
            return 0, 0, 0, 1 if prompts else 0


def _evaluate_size(setting: Setting, baselines: Sequence[Baseline]) -> tuple[int, int, int, int]:
    limits: dict[str, int | None] = {
        suite.name: suite.max_tokens for suite in setting.spec.evaluation.suites
    }
    suites = setting.suites
    rows = sum(len(found) for found in suites.values())
    characters = sum(len(row.prompt) for found in suites.values() for row in found)
    default = setting.spec.generation.max_tokens
    limit = sum(len(found) * (limits[name] or default) for (name, _), found in suites.items())
    times = 1 + len(baselines)
    tokens = times * characters // CHARACTERS_PER_TOKEN
    # How much lm-eval asks for its tasks is not known without it.
    num_tasks = len(setting.tasks) * (2 if keys.SFT in baselines else 1)
    return times * rows, tokens, times * limit, times * len(suites) + num_tasks


def _judge_size(setting: Setting, index: int) -> tuple[int, int, int, int]:
    """Return the questions, at most, as rows; what a judge counts as tokens is not known here."""
    judge = setting.spec.evaluation.judge
    iteration = setting.iteration(index, setting.base)
    judged = keys.judged_suites(iteration)
    answering = 1 + len(keys.baselines_beside(index, setting.spec))
    orders = 2 if judge and judge.positions == "both" else 1
    rows = sum(
        len(setting.suites[name]) * (orders if name in iteration.opponents else 1)
        for name in judged
    )
    return answering * rows, 0, 0, answering * len(judged)


def _grades_size(setting: Setting) -> tuple[int, int, int, int]:
    """Return the questions about pairs, at most, as rows."""
    judge, num_languages = setting.spec.evaluation.judge, len(setting.spec.languages.all())
    if judge is None:
        return 0, 0, 0, 0
    pairs = min(judge.pairs, setting.spec.prompts.per_iteration)
    orders = 2 if judge.positions == "both" else 1
    return orders * num_languages * pairs, 0, 0, num_languages


def table(found: list[Step]) -> Table:
    """Return the steps for a terminal."""
    made = Table(title="what would run", caption="tokens are estimates; completions at most")
    for name in ("model", "stage", "artifacts", "in the store", "rows", "prompt tokens"):
        made.add_column(name, justify="left" if name in ("model", "stage") else "right")
    made.add_column("completion tokens", justify="right")
    for step in found:
        made.add_row(
            f"M{step.index}",
            step.stage,
            str(step.num_artifacts),
            str(step.num_finished) if step.is_known else "later",
            *(f"{n:,}" if n else "" for n in (step.rows, step.prompt_tokens)),
            f"{step.completion_tokens:,}" if step.completion_tokens else "",
        )
    return made
