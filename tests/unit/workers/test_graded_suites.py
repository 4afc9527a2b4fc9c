"""MT-Bench and tasks of lm-eval in the inference worker: a real engine, a scripted judge."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfimprove_pipeline.cli import show
from selfimprove_pipeline.contract import keys
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.recipe import Stage
from selfimprove_pipeline.contract.rows import Evaluated, Grade, Prompt, lines
from selfimprove_pipeline.machine import devices
from selfimprove_pipeline.report.models import contenders
from selfimprove_pipeline.report.publish import pages
from selfimprove_pipeline.report.story.gather import gather
from selfimprove_pipeline.report.story.story import Story
from selfimprove_pipeline.run import status
from selfimprove_pipeline.run.ledger import Ledger
from selfimprove_pipeline.run.setting import Setting
from selfimprove_pipeline.run.survey import Survey, survey
from selfimprove_pipeline.store.folder import FolderStore
from selfimprove_pipeline.workers import engines, inference
from support import benchmark_tasks
from support.dying import DyingRepository, Killed
from support.endpoint import Asked, Endpoint, Reply, chat, serving
from support.models import tiny_qwen2
from support.runs import run

LONG = """
task: long
dataset_path: json
dataset_kwargs: {data_files: {test: data/sums.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{sum}} ="
doc_to_target: "{{total}}"
process_results: !function words.lengths
generation_kwargs: {until: ["!"], max_gen_toks: 3}
metric_list: [{metric: length, aggregation: mean, higher_is_better: false}]
"""
LANGUAGES = ("en", "es", "de")
QUESTIONS = 10
NAMES: tuple[Stage, ...] = ("evaluate", "judge")


def grading(asked: Asked) -> Reply:
    """Give a first answer 4 and a second one 8."""
    turns = len(re.findall("<assistant>", str(asked.body["messages"][-1]["content"])))
    return chat(f"<score>{4 * turns}</score>")


@contextmanager
def graded(root: Path, script: Any = grading, **judge: Any) -> Iterator[tuple[Endpoint, Setting]]:
    """Give an endpoint and a run with both suites, whose model and inputs lie in a store."""
    with serving(script) as endpoint:
        yield endpoint, setting_of(root, endpoint, **judge)


def setting_of(root: Path, endpoint: Endpoint, **judge: Any) -> Setting:
    suites = [
        {"name": "mtBench", "uri": "s3://eval/mt", "maxTokens": 4},
        {"name": "nlp", "uri": "s3://eval/tasks"},
    ]
    described = {"baseUrl": endpoint.base_url, "model": "judge", **judge}
    made = run(
        iterations=1,
        prompts__perIteration=1,
        model__uri="s3://models/m0",
        evaluation={"suites": suites, "judge": described, "baselines": ["languageInstruction"]},
    )
    store = FolderStore(root / "store")
    repository = DyingRepository(store, bucket="runs", prefix="", cache=root / "cache")
    repository.upload_folder(tiny_qwen2(root / "m0", max_length=512), "s3://models/m0")
    tasks = (benchmark_tasks.CHOICE, benchmark_tasks.ROLLING, benchmark_tasks.WRITING)
    repository.upload_folder(benchmark_tasks.write(root / "tasks", tasks), "s3://eval/tasks")
    for language in LANGUAGES:
        rows = [{"question_id": n, "turns": [f"{language} {n}?", "?"]} for n in range(QUESTIONS)]
        content = "".join(json.dumps(row) + "\n" for row in rows)
        store.write(f"s3://eval/mt/{language}.jsonl", content.encode())
        store.write(f"s3://prompts/set/{language}.jsonl", lines([Prompt(id="p", prompt="q")]))
    toolchain = devices.toolchain("transformers", 0)
    return Setting(made, store, repository, toolchain, "transformers", root / "cache")


def limited(setting: Setting, limit: int) -> Setting:
    """Return the run with some documents of each task alone."""
    spec = setting.spec
    suites = [
        suite.model_copy(update={"limit": limit}) if suite.has_tasks else suite
        for suite in spec.evaluation.suites
    ]
    evaluation = spec.evaluation.model_copy(update={"suites": tuple(suites)})
    run = setting.run.model_copy(
        update={"spec": spec.model_copy(update={"evaluation": evaluation})}
    )
    return replace(setting, run=run)


def work(setting: Setting) -> Survey:
    """Run the worker on M0 and note what it has made."""
    start = engines.starter(setting)
    inference.work(setting, 0, setting.base, start, lambda _: None, names=NAMES)
    found = survey(setting.iteration(0, setting.base), setting.repository.manifest)
    Ledger(setting).enter(0, setting.base, found)
    return found


def story_of(setting: Setting) -> Story:
    return gather(setting.repository, namespace=None, name="test")


def measures(found: Survey) -> Mapping[str, Mapping[str, float]]:
    manifests = {**found["evaluate"].manifests}
    told = {part: manifest.measures for part, manifest in manifests.items()}
    return told | {f"judge {p}": m.measures for p, m in found["judge"].manifests.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Mapping[str, Any], int]:
    """Return what an undisturbed worker measures, and how many rows it keeps on the way."""
    with graded(tmp_path_factory.mktemp("whole")) as (_, setting):
        found = work(setting)
        assert isinstance(setting.repository, DyingRepository)
        return measures(found), 10**6 - setting.repository.lives


def test_answers_of_both_turns_are_graded_and_tasks_are_scored(tmp_path: Path) -> None:
    """Each part is an artifact; the baseline that is told the language has no tasks."""
    with graded(tmp_path) as (endpoint, setting):
        found = work(setting)
        work(setting)
        assert len(endpoint.asked) == 2 * len(LANGUAGES) * 2 * QUESTIONS
    told = ("mtBench", "mtBench+languageInstruction")
    graded_parts = {f"{name}.{language}" for name in told for language in LANGUAGES}
    assert set(found["evaluate"].manifests) == {*graded_parts, "nlp.tasks"}
    assert set(found["judge"].manifests) == graded_parts

    manifest = found["judge"].manifests["mtBench.de"]
    grades = setting.repository.rows(manifest, Grade)
    assert [grade.grade for grade in grades] == [4.0, 8.0] * QUESTIONS
    assert manifest.measures["grade"] == 6
    assert (manifest.counts["judged"], manifest.counts["questions"]) == (20, 20)

    of_tasks = found["evaluate"].manifests["nlp.tasks"]
    rows = setting.repository.rows(of_tasks, Evaluated)
    assert {row.language for row in rows} == {"capitals", "sums", "texts"}
    right = [row.score for row in rows if row.language == "capitals" and row.score is not None]
    assert of_tasks.measures["capitals/acc_norm"] == pytest.approx(sum(right) / len(right))
    assert of_tasks.versions["lm-eval"] == of_tasks.recipe["suite.harness"] == keys.HARNESS
    assert not [path for path in of_tasks.recipe if path.startswith("languages")]
    assert len(of_tasks.versions["task capitals"]) == 12
    content = json.loads(setting.repository.content(of_tasks, keys.RESULTS))
    assert set(content["results"]) == {"capitals", "sums", "texts"}
    assert content["results"]["capitals"]["acc_norm,none"] == pytest.approx(sum(right) / len(right))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
def test_a_killed_evaluation_goes_on_to_the_same_numbers(
    tmp_path: Path, whole: tuple[Mapping[str, Any], int], share: float
) -> None:
    """Wherever it is killed, in a turn, in a task or before the judge."""
    expected, rows = whole
    with graded(tmp_path) as (_, setting):
        assert isinstance(setting.repository, DyingRepository)
        setting.repository.lives = int(share * rows)
        with pytest.raises(Killed):
            work(setting)
        setting.repository.lives = 10**6
        found = work(setting)
    assert measures(found) == expected


def test_a_budget_counts_grades(tmp_path: Path) -> None:
    """What was graded before it was spent is kept, and counted by the next process."""
    with graded(tmp_path, budget={"requests": 7}) as (endpoint, setting):
        for _ in range(2):
            with pytest.raises(InputError, match=r"7 requests.* spent and 113 questions left"):
                work(setting)
            assert len(endpoint.asked) == 7


def test_other_files_of_tasks_are_another_artifact(tmp_path: Path) -> None:
    """A changed document changes the key of the tasks, and of nothing else; so does a limit."""
    with graded(tmp_path) as (_, setting):
        before = setting.iteration(0, setting.base).suites
        setting.store.write("s3://eval/tasks/data/sums.jsonl", b'{"sum": "1 + 1", "total": "2"}\n')
        after = replace(setting).iteration(0, setting.base).suites
        fewer = limited(setting, 3).iteration(0, setting.base).suites
    assert {place for place in before if before[place] != after[place]} == {("nlp", "tasks")}
    assert len({found["nlp", "tasks"] for found in (before, after, fewer)}) == 3


@pytest.mark.parametrize(
    ("values", "is_better"),
    [("7.0", "true"), ("0.5 if document['sum'] == '1 + 1' else 7.0", "true"), ("0.5", "false")],
    ids=["beyond 1", "of some documents beyond 1", "less is better"],
)
def test_what_is_no_share_of_right_answers_is_in_the_measures_alone(
    tmp_path: Path, values: str, is_better: str
) -> None:
    """A table of shares has no place for it; lm-eval tells it all the same."""
    with graded(tmp_path) as (_, setting):
        for name in ("capitals", "texts", "sums"):
            setting.store.delete([f"s3://eval/tasks/{name}.yaml"])
        yaml = LONG.replace("false", is_better)
        setting.store.write("s3://eval/tasks/long.yaml", yaml.encode())
        code = f"def lengths(document, texts):\n    return {{'length': {values}}}\n"
        setting.store.write("s3://eval/tasks/words.py", code.encode())
        found = work(setting).get("evaluate")
        assert found is not None
        manifest = found.manifests["nlp.tasks"]
        rows = setting.repository.rows(manifest, Evaluated)
    assert manifest.measures["long/length"] > 0
    assert "long/score" not in manifest.measures
    assert {row.score for row in rows} == {None}


def test_the_orders_of_contests_are_in_no_key_of_a_grade(tmp_path: Path) -> None:
    """An answer stands alone before the judge."""
    with graded(tmp_path) as (_, setting):
        recipe = work(setting)["judge"].manifests["mtBench.de"].recipe
    assert recipe["evaluation.judge.model"] == "judge"
    assert "evaluation.judge.positions" not in recipe


def test_names_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    """A store may hold any key; nothing is written beside the folder."""
    with graded(tmp_path) as (_, setting):
        for name in ("../out.yaml", "/out.yaml"):
            found = replace(setting)
            vars(found)["tasks"] = {"nlp": {"a.yaml": b"", name: b""}}
            with pytest.raises(InputError, match="expected names of files inside the folder"):
                work(found)


def test_a_folder_without_tasks_is_told_before_anything_runs(tmp_path: Path) -> None:
    """One line with the folder."""
    with graded(tmp_path) as (_, setting):
        for entry in setting.store.entries("s3://eval/tasks/"):
            setting.store.delete([entry.uri])
        with pytest.raises(InputError, match=r"s3://eval/tasks: expected lm-eval's task files"):
            setting.check_inputs()


def test_the_report_has_a_table_of_grades_and_one_of_tasks(tmp_path: Path) -> None:
    """In the paper's words; lm-eval's own results lie beside it."""
    with graded(tmp_path) as (_, setting):
        found = work(setting)
    story = story_of(setting)
    shown = pages(story)
    page = shown["md"].replace("\N{EN DASH}", "-")
    assert "## Multilingual MT-Bench: mean grade from 0 to 10" in page
    assert "| M0 | 6.00 6.00-6.00 | 6.00 6.00-6.00 | 6.00 6.00-6.00 | 6.00 | 6.00 |" in page
    assert "### Grades in full" in page
    assert "| M0, told the language | es | 6.00 (6.00-6.00) | 4.00 | 8.00 | 10 | 0 |" in page
    assert "## Multilingual NLP benchmarks: tasks of lm-eval" in page
    assert "| Model | capitals | sums | texts | Mean of all |" in page
    assert "| M0 | texts | bits&#95;per&#95;byte |" in page
    assert "Multilingual MT-Bench" not in page.partition("Tables of the paper that")[2]
    assert json.loads(shown["nlp.M0.lm-eval.json"])["results"]["capitals"]["sample_len"] == 6
    rates = shown["csv"].splitlines()
    assert "M0,mtBench,de,grade,6.0,10,6.0,6.0" in rates
    value = found["evaluate"].manifests["nlp.tasks"].measures["texts/bits_per_byte"]
    assert f"M0,nlp,texts,bits_per_byte,{value},4,," in rates
    assert "Win, tie, lose" not in shown["html"]
    measures_of_texts = {row.split(",")[3] for row in rates if ",nlp,texts," in row}
    assert measures_of_texts == {"word_perplexity", "byte_perplexity", "bits_per_byte"}


def test_compare_tells_two_models_apart_on_each_task(tmp_path: Path) -> None:
    """A model is as good as itself; a task without a score a document is said to be left out."""
    with graded(tmp_path) as (_, setting):
        work(setting)
    repository, digest = setting.repository, setting.base.digest
    a, b = (contenders.of_digest(name, repository, digest) for name in ("a", "b"))
    found = contenders.compare(a, b)
    (tasks,) = [suite for suite in found.suites if suite.name == "nlp"]
    assert [contrast.language for contrast in tasks.languages] == ["capitals", "sums"]
    assert {contrast.value for contrast in tasks.languages} == {0.0}
    assert tasks.mean is not None
    assert not tasks.unseen
    assert [note for note in found.notes if note.startswith("nlp, texts: not compared")]


def test_show_tells_grades_and_tasks(tmp_path: Path) -> None:
    """By task, with the grades and their interval."""
    with graded(tmp_path) as (_, setting):
        work(setting)
    index = setting.read_index()
    assert index is not None
    told = status.status(index, setting.repository)
    evaluation = told["iterations"][0]["evaluation"]
    assert evaluation["mtBench"]["en"]["grade"] == 6
    assert evaluation["nlp"]["capitals"]["n"] == 6
    numbers = "\n".join(show.key_numbers(told))
    assert "mtBench: de 6.000 [6.000, 6.000] (n 10)" in numbers
    assert "texts bits_per_byte" in numbers
