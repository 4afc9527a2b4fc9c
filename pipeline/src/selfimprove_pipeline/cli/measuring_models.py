"""`selfimprove evaluate` and `compare`: models measured and told apart, with or without a run."""

import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from rich.console import Console

from selfimprove_pipeline.cli import evaluation_file, head_to_head
from selfimprove_pipeline.contract import keys
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.manifests import Manifest
from selfimprove_pipeline.contract.recipe import Judge, Run, Storage, Suite
from selfimprove_pipeline.contract.rows import Verdict, lines
from selfimprove_pipeline.inputs.run_file import validation
from selfimprove_pipeline.inputs.suites import alpaca
from selfimprove_pipeline.local import launcher, progress
from selfimprove_pipeline.machine import devices
from selfimprove_pipeline.report.forms.records import as_csv
from selfimprove_pipeline.report.forms.terminal import of_sheet
from selfimprove_pipeline.report.models import assessment, contenders, handouts
from selfimprove_pipeline.report.models.assessment import Assessment
from selfimprove_pipeline.report.models.contenders import Contender
from selfimprove_pipeline.report.models.records import (
    assessment_json,
    assessment_records,
    comparison_json,
    comparison_records,
    duel_records,
)
from selfimprove_pipeline.report.story.story import Judged
from selfimprove_pipeline.run import opening, status
from selfimprove_pipeline.run.setting import Setting, model_of
from selfimprove_pipeline.store.repository import Repository
from selfimprove_pipeline.workers import events

REFERENCE: Final = "reference"
"""Names what xAlpacaEval compares with in alpaca-eval's files."""
RUN_FILE: Final = re.compile(r"(?P<file>.+\.(?:ya?ml|json))(?:@(?P<number>[0-9]+))?")


def evaluate(arguments: Namespace, console: Console) -> None:
    """Measure one model on suites; write its table, numbers and rows."""
    folder = out_folder(arguments.out)
    setting = opening.setting_for(evaluation_file.run_of(arguments), arguments, only_measures=True)
    done = launcher.run(arguments, setting)
    console.print(f"{arguments.model}: {done.summary}", markup=False, soft_wrap=True)
    (entry,) = done.index.iterations
    evaluated = status.manifests_of("evaluate", entry, setting.repository)
    found = assessment.gather(
        setting.repository,
        arguments.model,
        entry.model_digest,
        evaluated,
        setting.spec,
    )
    verdicts = status.manifests_of("judge", entry, setting.repository)
    found = assessment.with_verdicts(assessment.with_results(found, evaluated), verdicts)
    for one in found.suites:
        for title, sheet in handouts.assessment_sheets(one):
            console.print(of_sheet(title, sheet))
    files = {**_assessment_files(found), **_outputs(found, setting.spec.evaluation.suites)}
    files |= _results(setting, evaluated)
    _write(folder, {**files, **_annotations(found, setting, verdicts)}, console)


def compare(arguments: Namespace, console: Console) -> None:
    """Tell two models apart on what both were measured on, and by a judge if there is one."""
    folder = None if arguments.out is None else out_folder(arguments.out)
    described = _judge(arguments)
    a, b = _contenders(arguments)
    duels = () if described is None else _duels(a, b, described)
    found = contenders.compare(a, b, duels)
    console.print(f"A is {found.a}, B is {found.b}", markup=False, soft_wrap=True)
    for one in found.suites:
        for title, sheet in handouts.comparison_sheets(one):
            console.print(of_sheet(title, sheet))
    for title, sheet in handouts.duel_sheets(found):
        console.print(of_sheet(title, sheet))
    for note in found.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    if folder is not None:
        files = {
            "comparison.md": handouts.comparison_markdown(found).encode(),
            "comparison.csv": as_csv(list(comparison_records(found))).encode(),
            "comparison.json": comparison_json(found).encode(),
        }
        if found.duels:
            table = as_csv(list(duel_records(found)))
            files["head-to-head.csv"] = table.encode()
        _write(folder, files, console)


def out_folder(folder: Path) -> Path:
    """Return the folder of `--out`, refused before anything is computed if it is a file."""
    if folder.is_file():
        message = f"--out {folder}: expected a folder, found a file"
        raise InputError(message)
    return folder


def _assessment_files(found: Assessment) -> dict[str, bytes]:
    rows = {
        f"rows/{suite}.{language}.jsonl": lines(found.rows[suite, language])
        for suite, language in found.rows
    }
    return {
        "evaluation.md": handouts.assessment_markdown(found).encode(),
        "evaluation.csv": as_csv(list(assessment_records(found))).encode(),
        "evaluation.json": assessment_json(found).encode(),
        **rows,
    }


def _outputs(found: Assessment, suites: Sequence[Suite]) -> dict[str, bytes]:
    """Return the answers to xAlpacaEval as alpaca-eval's own tools read them."""
    names = {suite.name for suite in suites if suite.has_references}
    return {
        f"alpaca-eval/{suite}/{language}.json": alpaca.model_outputs(rows, suite, found.label)
        for (suite, language), rows in found.rows.items()
        if suite in names
    }


def _results(setting: Setting, manifests: Mapping[str, Manifest]) -> dict[str, bytes]:
    """Return what lm-eval tells of its tasks, in its own format."""
    of_tasks = {
        part.partition(".")[0]: manifest
        for part, manifest in manifests.items()
        if part.partition(".")[2] == keys.TASKS
    }
    return {
        f"lm-eval/{suite}.json": setting.repository.content(manifest, keys.RESULTS)
        for suite, manifest in of_tasks.items()
    }


def _annotations(
    found: Assessment, setting: Setting, manifests: Mapping[str, Manifest]
) -> dict[str, bytes]:
    """Return the verdicts on xAlpacaEval as alpaca-eval's annotations."""
    judge = setting.spec.evaluation.judge
    names = alpaca.Names(model=found.label, opponent=REFERENCE, judge=judge.model if judge else "")
    files = {}
    for (suite, language), outputs in setting.references.items():
        manifest = manifests[keys.suite_part(suite, language)]
        rows = setting.repository.rows(manifest, Verdict)
        content = alpaca.annotations(found.rows[suite, language], rows, outputs, names)
        files[f"alpaca-eval/{suite}/{language}.annotations.json"] = content
    return files


def _write(folder: Path, files: Mapping[str, bytes], console: Console) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    console.print(f"written to {folder.resolve()}", highlight=False, markup=False, soft_wrap=True)


def _contenders(arguments: Namespace) -> tuple[Contender, Contender]:
    """Return A and B; a model's evaluations lie where the arguments or the other's run say."""
    texts = (arguments.a, arguments.b)
    runs = [_run_of(text) for text in texts]
    storage = _storage(arguments, [found for found, _ in runs if found is not None])
    a, b = (
        _contender(text, found, number, opening.repository_at(arguments, _or(found, storage)))
        for text, (found, number) in zip(texts, runs, strict=True)
    )
    return a, b


def _judge(arguments: Namespace) -> Judge | None:
    """Return the judge of the arguments, None where there is none."""
    url, model = arguments.judge_url, arguments.judge_model
    if url is None and model is None:
        return None
    try:
        return Judge(base_url=url, model=model)
    except ValidationError as error:
        message = (
            "expected --judge-url with an http(s) endpoint and --judge-model with a model that it "
            f"serves, found {url or 'no URL'} and {model or 'no model'}"
        )
        raise InputError(message) from error


def _duels(a: Contender, b: Contender, described: Judge) -> tuple[Judged, ...]:
    toolchain = devices.toolchain("transformers", 0)  # of which a judge needs the light part alone
    with progress.display() as display:
        found = head_to_head.meet(
            a, b, described, toolchain, lambda done: display.event(events.of_progress(done))
        )
    if not found:
        message = (
            f"--judge-url: expected a suite of kind {', '.join(head_to_head.OPEN)} that both have "
            "answered, found none; evaluate both models on one"
        )
        raise InputError(message)
    return found


def _run_of(text: str) -> tuple[Run | None, int | None]:
    """Return the run of `RUN.yaml` or `RUN.yaml@ITERATION`; None of a model."""
    match = RUN_FILE.fullmatch(text)
    if match is None or "://" in text:
        return None, None
    number = match["number"]
    return validation.load(Path(match["file"])), None if number is None else int(number)


def _storage(arguments: Namespace, runs: list[Run]) -> Storage:
    if runs and arguments.artifacts is None and arguments.endpoint is None:
        return runs[0].spec.storage
    return opening.storage_at(arguments.artifacts or evaluation_file.BUCKET, arguments.endpoint)


def _or(found: Run | None, storage: Storage) -> Storage:
    return storage if found is None else found.spec.storage


def _contender(
    text: str, found: Run | None, number: int | None, repository: Repository
) -> Contender:
    if found is None:
        digest = model_of(repository, evaluation_file.uri_of(text)).digest
        return contenders.of_digest(text, repository, digest)
    index = repository.read_index(found.metadata.namespace, found.metadata.name)
    if index is None or not index.iterations:
        message = f"{text}: expected a run in the store, found none; start it first"
        raise InputError(message)
    entry = contenders.entry_of(index, number, found.metadata.name)
    label = f"{found.metadata.name} M{entry.index}"
    return contenders.of_digest(label, repository, entry.model_digest)
