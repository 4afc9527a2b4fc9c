"""Tasks of lm-eval are found beside their data, known by their content, and refused in one line."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.recipe.sources import Chat
from selfimprove_pipeline.engine import Completion, Request
from selfimprove_pipeline.engine.options import by_context
from selfimprove_pipeline.measuring import lm_eval
from selfimprove_pipeline.measuring.lm_eval import Benchmark
from selfimprove_pipeline.method.rendering import Renderer
from support.benchmark_tasks import (
    CAPITALS,
    CHOICE,
    LETTERS,
    ROLLING,
    SUMS,
    WITH_EXAMPLES,
    WRITING,
    write,
)
from support.models import CHATML_CONFIG, CHATML_SPECIAL, byte_level

LENGTH: Final = 255
OPTIONS: Final = 15
"""Options of all rows of CAPITALS."""
FUNCTIONS: Final = """
def documents(dataset):
    return dataset.filter(lambda row: "?" in row["question"])


def question(row):
    return helped(row["question"])


def helped(text):
    return text.upper()
"""
WITH_FUNCTIONS: Final = (
    json.dumps({**CHOICE, "task": "shouted", "doc_to_text": "TEXT"})
    .replace('"TEXT"', "!function functions.question")
    .replace('"test_split"', '"process_docs": !function functions.documents, "test_split"')
)


@pytest.fixture
def renderer(tmp_path: Path) -> Renderer:
    """Load a ChatML tokenizer; no task needs a model."""
    folder = byte_level(tmp_path / "qwen", special=CHATML_SPECIAL, config=CHATML_CONFIG)
    return Renderer(folder, Chat())


def one(folder: Path, name: str, **how: Any) -> Benchmark:
    """Return a folder's task of a name."""
    (task,) = lm_eval.benchmarks(folder, [name], **how)
    return task


def asked(task: Benchmark, renderer: Renderer) -> tuple[Request, ...]:
    """Return what a task asks."""
    return task.requests(renderer, max_length=LENGTH, group="evaluate/nlp.en")


def scored(requests: Sequence[Request], told: Mapping[str, float]) -> dict[str, Completion]:
    """Return completions in which an option that ends in a text of `told` has its value."""
    return {
        request.key: Completion(
            key=request.key,
            text="",
            finish_reason="length",
            prompt_tokens=len(request.prompt),
            completion_tokens=0,
            log_likelihood=next(
                (value for end, value in told.items() if _ends(request, end)), -100.0
            ),
            is_greedy=False,
        )
        for request in requests
    }


def _ends(request: Request, text: str) -> bool:
    return _bytes(request).endswith(text.encode())


def _bytes(request: Request) -> bytes:
    """Return a prompt's text without its blank lines, which are tokens of their own."""
    return bytes(token for token in request.prompt if token < 256)


def test_all_tasks_of_a_folder_are_found_by_name(tmp_path: Path) -> None:
    """Without names, the leaves of the folder in the order of their names; else those named."""
    folder = write(tmp_path, [WRITING, ROLLING, CHOICE])
    (folder / "more").mkdir()
    group = {"group": "both", "task": ["capitals", "texts"]}
    (folder / "more" / "group.yaml").write_text(json.dumps(group))
    tagged = {**CHOICE, "task": "tagged", "tag": ["label"], "dataset_kwargs": None}
    tagged["dataset_kwargs"] = {"data_files": {"test": "../data/capitals.jsonl"}}
    (folder / "more" / "tagged.yaml").write_text(json.dumps(tagged))

    def names(*wanted: str) -> list[str]:
        return [task.name for task in lm_eval.benchmarks(folder, wanted)]

    assert names() == ["capitals", "sums", "tagged", "texts"]
    assert names("texts", "both", "capitals") == ["capitals", "texts"]
    assert names("label") == ["tagged"]


def test_a_request_is_asked_once_under_a_key_of_its_content(
    tmp_path: Path, renderer: Renderer
) -> None:
    """Equal requests share a key, in one task and in two; the group is the one given."""
    again = {**CHOICE, "task": "again"}
    folder = write(tmp_path / "tasks", [CHOICE, again], capitals=[*CAPITALS, CAPITALS[0]])
    first, second = (asked(task, renderer) for task in lm_eval.benchmarks(folder))
    assert first == second
    assert len(first) == len({request.key for request in first})
    assert len(first) == OPTIONS
    assert {request.group for request in first} == {"evaluate/nlp.en"}
    assert all(len(request.key) == 32 for request in first)
    assert bytes(first[0].prompt) == b"What is the capital of France?\nAnswer: Paris"
    assert bytes(first[0].prompt[-first[0].scored :]) == b" Paris"


def test_options_of_one_token_are_neighbours(tmp_path: Path, renderer: Renderer) -> None:
    """So that an engine reads what stands before them once: a text for each document."""
    requests = asked(one(write(tmp_path / "tasks", [LETTERS]), "letters", num_fewshot=1), renderer)
    assert len(requests) == OPTIONS
    assert [len(together or ()) for together in by_context(requests)] == [2, 3, 2, 3, 3, 2]


def test_a_text_is_asked_for_as_its_task_says(tmp_path: Path, renderer: Renderer) -> None:
    """Greedy, up to its stops or the end of text; the beginning of a long context is left out."""
    kept = {**WRITING, "doc_to_text": "x" * 300 + "{{sum}} ="}
    request = asked(one(write(tmp_path / "tasks", [kept]), "sums"), renderer)[0]
    assert request.stop == ("\n\n", "}", "K", "<|im_end|>")
    assert (request.max_tokens, request.temperature, request.scored) == (24, 0.0, 0)
    assert len(request.prompt) == LENGTH - 24
    assert bytes(request.prompt).endswith(b"xx1 + 1 =")


def test_repetitions_of_a_sampled_text_differ_by_their_seeds(
    tmp_path: Path, renderer: Renderer
) -> None:
    """Each repetition is a request of its own, the same each time the task is asked."""
    how = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "max_gen_toks": 8, "until": ["\n"]}
    sampled = {**WRITING, "repeats": 3, "generation_kwargs": how}
    task = one(write(tmp_path / "tasks", [sampled]), "sums")
    requests = asked(task, renderer)
    assert len(requests) == 3 * len(SUMS)
    assert len({request.seed for request in requests}) == len(requests)
    assert {(request.temperature, request.top_p) for request in requests} == {(0.7, 0.9)}
    assert asked(task, renderer) == requests


def test_a_score_is_that_of_the_first_metric_and_its_option(
    tmp_path: Path, renderer: Renderer
) -> None:
    """`acc_norm` if the task has it, by letter; the option shown is the one it chose."""
    likely = {" Oslo": -8.0, " Rome": -8.0, " Madrid": -9.0, " Lima": -9.0}
    likely |= {" Paris": -10.0, " Rome, of course": -11.0, " Santiago de Chile": -20.0}
    both = one(write(tmp_path / "tasks", [CHOICE]), "capitals")
    found = both.result(
        renderer, max_length=LENGTH, completions=scored(asked(both, renderer), likely)
    )
    assert found.metric == "acc_norm"
    first = found.samples[0]
    assert (first.id, first.prompt) == ("0", "What is the capital of France?\nAnswer:")
    assert (first.completion, first.score) == ("Rome, of course", 0.0)
    assert [sample.score for sample in found.samples[4:]] == [1.0, 1.0]
    assert found.measures["acc"] > 0.5
    assert found.measures.keys() == {"acc", "acc_stderr", "acc_norm", "acc_norm_stderr"}


def test_an_outcome_tells_nothing_of_the_machine(tmp_path: Path, renderer: Renderer) -> None:
    """lm-eval's own format as JSON, without paths, times and addresses; functions as source."""
    folder = write(tmp_path / "tasks", [])
    (folder / "functions.py").write_text(FUNCTIONS)
    (folder / "shouted.yaml").write_text(WITH_FUNCTIONS)
    task = one(folder, "shouted")
    requests = asked(task, renderer)
    results = task.result(renderer, max_length=LENGTH, completions=scored(requests, {})).results
    text = json.dumps(results, allow_nan=False)
    assert str(tmp_path) not in text
    assert " at 0x" not in text
    assert bytes(requests[0].prompt).startswith(b"WHAT IS THE CAPITAL OF FRANCE?")
    config = results["configs"]["shouted"]
    assert config["dataset_kwargs"] == {"data_files": {"test": "data/capitals.jsonl"}}
    assert config["doc_to_text"].startswith("def question(row):")
    assert {"results", "versions", "n-shot", "higher_is_better", "n-samples"} <= results.keys()
    assert results["lm_eval_version"] == lm_eval.versions()["lm-eval"]


def fingerprints(folder: Path, **how: Any) -> dict[str, str]:
    """Return the fingerprint of each task of a folder."""
    return {task.name: task.fingerprint for task in lm_eval.benchmarks(folder, **how)}


def test_a_fingerprint_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    """The same in another folder and another process; another with another way to ask."""
    folder = write(tmp_path / "here", [CHOICE, WITH_EXAMPLES])
    (folder / "functions.py").write_text(FUNCTIONS)
    (folder / "shouted.yaml").write_text(WITH_FUNCTIONS)
    there = shutil.copytree(folder, tmp_path / "there" / "deep")
    found = fingerprints(folder)
    assert len(set(found.values())) == 3
    assert fingerprints(there) == found
    program = (
        "import sys; from pathlib import Path; from selfimprove_pipeline.measuring import lm_eval\n"
        "for task in lm_eval.benchmarks(Path(sys.argv[1])): print(task.fingerprint)"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", program, str(there)],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert elsewhere.stdout.split() == [found[name] for name in sorted(found)]
    for how in ({"limit": 3}, {"num_fewshot": 1}, {"chat_template": True}):
        assert fingerprints(folder, **how)["capitals"] != found["capitals"]


def test_a_fingerprint_follows_data_and_helping_functions(tmp_path: Path) -> None:
    """Data changed in place under the same time, and a function that only another one calls."""
    folder = write(tmp_path, [CHOICE])
    (folder / "functions.py").write_text(FUNCTIONS)
    (folder / "shouted.yaml").write_text(WITH_FUNCTIONS)
    before = fingerprints(folder)
    data = folder / "data" / "capitals.jsonl"
    stamp = data.stat()
    data.write_text(data.read_text().replace("Oslo", "Olso"))
    os.utime(data, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    changed = fingerprints(folder)
    assert all(changed[name] != before[name] for name in before)
    (folder / "functions.py").write_text(FUNCTIONS.replace("upper", "lower"))
    again = fingerprints(folder)
    assert again["capitals"] == changed["capitals"]
    assert again["shouted"] != changed["shouted"]


def test_limit_and_examples_are_those_asked_for(tmp_path: Path, renderer: Renderer) -> None:
    """The first documents alone; a number of examples overrules all but a task's own 0."""
    none = {**CHOICE, "task": "none", "num_fewshot": 0}
    folder = write(tmp_path / "tasks", [CHOICE, WITH_EXAMPLES, none])
    how: dict[str, Any] = {"limit": 2, "num_fewshot": 1}
    tasks = {task.name: task for task in lm_eval.benchmarks(folder, **how)}
    counts = {
        name: [_bytes(request).count(b"Answer:") for request in asked(task, renderer)]
        for name, task in tasks.items()
    }
    assert counts == {"capitals": [2] * 5, "capitals_shots": [2] * 5, "none": [1] * 5}


def test_a_folder_of_data_is_found_beside_its_task(tmp_path: Path, renderer: Renderer) -> None:
    """A dataset's folder instead of files, and several files of one split."""
    whole = {**CHOICE, "task": "whole", "dataset_path": "data", "dataset_kwargs": None}
    several = {**WRITING, "task": "several"}
    several["dataset_kwargs"] = {"data_files": {"test": ["data/sums.jsonl", "more.jsonl"]}}
    folder = write(tmp_path / "tasks", [several])
    shutil.copy(folder / "data" / "sums.jsonl", folder / "more.jsonl")
    (folder / "inner" / "data").mkdir(parents=True)
    shutil.copy(folder / "data" / "capitals.jsonl", folder / "inner" / "data" / "test.jsonl")
    (folder / "inner" / "whole.yaml").write_text(json.dumps(whole))
    found = {task.name: asked(task, renderer) for task in lm_eval.benchmarks(folder)}
    assert len(found["whole"]) == OPTIONS
    assert len(found["several"]) == len(SUMS)


def test_nothing_is_printed(
    tmp_path: Path, renderer: Renderer, capfd: pytest.CaptureFixture[str]
) -> None:
    """A worker's output is read line by line: no progress bars and no remarks in it."""
    folder = write(tmp_path / "tasks", [CHOICE, WITH_EXAMPLES, ROLLING])
    for task in lm_eval.benchmarks(folder):
        completions = scored(asked(task, renderer), {})
        task.result(renderer, max_length=LENGTH, completions=completions)
        assert task.fingerprint
    assert capfd.readouterr() == ("", "")


def _task(**changes: Any) -> str:
    return json.dumps({**CHOICE, **changes})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("task: [", "wrong.yaml: expected a task of lm-eval as YAML, found ParserError: "),
        (
            _task(dataset_kwargs={"data_files": {"test": "data/nowhere.jsonl"}}),
            "task capitals: expected a task that lm-eval can make ready, found FileNotFoundError: ",
        ),
        (_task(unsafe_code=True), "task capitals: expected a task that runs no code of the model"),
        (_task(doc_to_image="question"), "task capitals: expected a task of text alone"),
        (_task(output_type="paint"), "found ValueError: Got invalid output_type 'paint'"),
        (
            _task(doc_to_text="T").replace('"T"', "!function nowhere.text"),
            "task capitals: expected its functions to be importable, found ImportError: ",
        ),
    ],
    ids=["no YAML", "no data", "unsafe", "images", "no such kind", "no function"],
)
def test_a_task_that_cannot_be_had_is_named_in_one_line(
    tmp_path: Path, text: str, expected: str
) -> None:
    """What is wrong, in which task or file, and no path of this machine."""
    folder = write(tmp_path / "tasks", [])
    (folder / "wrong.yaml").write_text(text)
    with pytest.raises(InputError) as raised:
        lm_eval.benchmarks(folder)
    message = str(raised.value)
    assert expected in message
    assert "\n" not in message
    assert str(tmp_path) not in message


def test_a_folder_without_a_task_is_refused(tmp_path: Path) -> None:
    """No YAML at all, and one that others include but that is no task itself."""
    expected = r"expected tasks of lm-eval, found no \.yaml file in tasks; "
    with pytest.raises(InputError, match=expected):
        lm_eval.benchmarks(write(tmp_path / "tasks", []))
    (tmp_path / "tasks" / "part.yaml").write_text(json.dumps({"test_split": "test"}))
    with pytest.raises(InputError, match="expected at least one task of lm-eval, found none; "):
        lm_eval.benchmarks(tmp_path / "tasks")


def test_an_unknown_task_is_named(tmp_path: Path) -> None:
    """A name that neither the folder nor lm-eval has."""
    folder = write(tmp_path / "tasks", [CHOICE])
    with pytest.raises(InputError, match="tasks of tasks or lm-eval, found capitols; correct"):
        lm_eval.benchmarks(folder, ["capitals", "capitols"])


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"max_gen_toks": 255}, "task sums: expected max_gen_toks below 255, found 255; "),
        ({"num_beams": 4}, "task sums: expected generation_kwargs among do_sample, "),
    ],
    ids=["no room", "not understood"],
)
def test_a_text_that_no_engine_can_write_is_refused(
    tmp_path: Path, renderer: Renderer, how: dict[str, Any], expected: str
) -> None:
    """Before anything is asked of an engine."""
    task = {**WRITING, "generation_kwargs": {"until": ["\n"], **how}}
    with pytest.raises(InputError, match=expected):
        asked(one(write(tmp_path / "tasks", [task]), "sums"), renderer)
