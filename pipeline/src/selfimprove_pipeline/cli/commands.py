"""What each command of `selfimprove` does. `__main__` reads the arguments and binds."""

import json
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import yaml
from rich.console import Console

from selfimprove_pipeline.cli import export, measuring_models, show
from selfimprove_pipeline.contract.errors import InputError, TryAgainError
from selfimprove_pipeline.contract.keys import BESIDE
from selfimprove_pipeline.contract.manifests import Index, Manifest
from selfimprove_pipeline.contract.recipe import Run
from selfimprove_pipeline.contract.rows import Pair
from selfimprove_pipeline.inputs.run_file import validation
from selfimprove_pipeline.local import durations, forecast, launcher
from selfimprove_pipeline.memory import gpus
from selfimprove_pipeline.memory.advice import Place
from selfimprove_pipeline.memory.shape import ModelShape
from selfimprove_pipeline.report import publish
from selfimprove_pipeline.report.forms.terminal import terminal
from selfimprove_pipeline.report.story import gather
from selfimprove_pipeline.report.story.story import Story
from selfimprove_pipeline.run import opening, sizing
from selfimprove_pipeline.run import status as run_status
from selfimprove_pipeline.run.setting import Setting
from selfimprove_pipeline.store.repository import Repository
from selfimprove_pipeline.train.loop import trackers
from selfimprove_pipeline.workers.pairing import PAIRS


def validate(arguments: Namespace, console: Console) -> None:
    """Judge the file and tell every mistake at once."""
    run = validation.load(arguments.file, arguments.set, for_cluster=arguments.cluster)
    for note in validation.notes(run):
        console.print(f"note: {note}")
    if arguments.cluster:
        _tell_memory_of_cluster(arguments, console)
    where = "a cluster" if arguments.cluster else "this machine"
    console.print(f"{arguments.file}: good for {where}")


def _tell_memory_of_cluster(arguments: Namespace, console: Console) -> None:
    """Tell what a run needs and what its pods have no room for, where its model can be read."""
    try:
        setting = opening.setting_of(arguments)
        _tell_memory(setting, sizing.shape(setting), sizing.place_of(setting), console)
    except (InputError, TryAgainError) as error:
        line = f"note: memory: cannot be told from here: {error}"
        console.print(line, highlight=False, soft_wrap=True)


def _tell_memory(
    setting: Setting, shape: ModelShape | None, place: Place, console: Console
) -> None:
    for line in sizing.lines(setting, shape, place):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def plan(arguments: Namespace, console: Console) -> None:
    """Print the resolved recipe, what would run, the memory and, of named GPUs, the minutes."""
    gpu = gpus.named(arguments.gpu) if arguments.gpu else None
    setting = opening.setting_of(arguments)
    spec = setting.spec.model_dump(mode="json", by_alias=True)
    console.print(yaml.safe_dump({"spec": spec}, sort_keys=False), markup=False, end="")
    steps = list(forecast.steps(setting))
    console.print(forecast.table(steps))
    place = sizing.place_of(setting)
    if gpu is not None:
        place = Place(arguments.gpus, nodes=1, memory=gpu.memory)
    elif (here := opening.place()) is not None:
        place = here
    shape = sizing.shape(setting)
    _tell_memory(setting, shape, place, console)
    if gpu is not None and shape is not None:
        found = durations.stretches(steps, shape, setting.spec, gpu, arguments.gpus)
        console.print(durations.table(found, shape, gpu, arguments.gpus))


def run(arguments: Namespace, console: Console) -> None:
    """Run what is missing and end with the table of scores."""
    setting = opening.setting_of(arguments)
    trackers.check(setting.spec.training.report_to)
    if (place := opening.place()) is not None:
        with suppress(TryAgainError):  # a finished run needs no hub
            for line in sizing.look(setting, sizing.shape(setting), place):
                console.print(f"warning: {line}", highlight=False, markup=False, soft_wrap=True)
    done = launcher.run(arguments, setting)
    index = done.index
    if index.outcome == "Suspended":
        console.print(f"{index.name}: suspended; {index.message}")
        return
    console.print(f"{index.name}: {done.summary}")
    if index.stop is not None:
        line = f"{index.stop.reason}: {index.stop.message}"
        console.print(line, highlight=False, soft_wrap=True)
    if setting.spec.evaluation.suites:
        console.print(terminal(_story(setting.repository, setting.run)))
    for line in show.key_numbers(run_status.status(index, setting.repository)):
        console.print(line, highlight=False, soft_wrap=True)


def show_run(arguments: Namespace, console: Console) -> None:
    """Print what the run has come to."""
    repository, index = _index_of(arguments)
    status = run_status.status(index, repository)
    if arguments.output == "json":
        print(json.dumps(status, ensure_ascii=False, indent=2))  # noqa: T201  the output
        return
    console.print(show.table(status))
    for line in show.key_numbers(status):
        console.print(line, highlight=False, soft_wrap=True)


def report(arguments: Namespace, console: Console) -> None:
    """Write the report as HTML and Markdown."""
    found = validation.load(arguments.file, arguments.set)
    story = _story(opening.repository_of(arguments, found), found)
    folder = measuring_models.out_folder(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    for ending, text in publish.pages(story).items():
        path = folder / f"{found.metadata.name}.{ending}"
        path.write_text(text, encoding="utf-8")
        console.print(f"report: {path.resolve()}", highlight=False, soft_wrap=True)


def upload(arguments: Namespace, console: Console) -> None:
    """Upload a folder to a bucket."""
    if not arguments.folder.is_dir():
        message = f"{arguments.folder}: expected a folder, found none"
        raise InputError(message)
    bucket = arguments.uri.removeprefix("s3://").split("/", 1)[0]
    storage = opening.storage_at(f"s3://{bucket}", arguments.endpoint)
    repository = opening.repository_at(arguments, storage)
    count = repository.upload_folder(arguments.folder, arguments.uri)
    console.print(f"{arguments.uri}: {count} files", highlight=False, soft_wrap=True)


def export_pairs(arguments: Namespace, console: Console) -> None:
    """Export the pairs of an iteration for LLaMA-Factory."""
    repository, index = _index_of(arguments)
    number = _iteration(arguments, default=len(index.iterations) - 2, index=index)
    manifest = _manifest(repository, index, number, "pair")
    rows = repository.rows(manifest, Pair, PAIRS)
    export.pairs(rows, arguments.out)
    console.print(f"{arguments.out}: {len(rows)} pairs", highlight=False, soft_wrap=True)


def export_model(arguments: Namespace, console: Console) -> None:
    """Export M_t as a plain Hugging Face folder."""
    repository, index = _index_of(arguments)
    if arguments.baseline is not None:
        name = arguments.baseline
        made = _manifest(repository, index, BESIDE[name] - 1, "train", name)
        source = repository.fetch_model(repository.uri("train", made.key), files=made.files)
    else:
        number = _iteration(arguments, default=index.final, index=index)
        files = _manifest(repository, index, number - 1, "train").files if number else None
        source = repository.fetch_model(index.iterations[number].model_uri, files=files)
        name = f"M{number}"
    export.model(source, arguments.out)
    console.print(f"{arguments.out}: {name}", highlight=False, soft_wrap=True)


def _manifest(
    repository: Repository, index: Index, number: int, stage: str, part: str = ""
) -> Manifest:
    """Return the manifest of a stage's artifact, as the run's index names it."""
    keys = (
        index.iterations[number].keys.get(stage, {}) if 0 <= number < len(index.iterations) else {}
    )
    found = repository.manifest(stage, keys[part]) if part in keys else None
    if found is None:
        what = f"{stage} {part}".rstrip()
        message = f"expected a finished {what} of iteration {number}, found none; run it first"
        raise InputError(message)
    return found


def _iteration(arguments: Namespace, *, default: int, index: Index) -> int:
    """Return the iteration that was asked for, if the run has it."""
    number = default if arguments.iteration is None else int(arguments.iteration)
    last = len(index.iterations) - 1
    if not 0 <= number <= last:
        message = f"--iteration: expected 0 to {last}, found {number}"
        raise InputError(message)
    return number


def _index_of(arguments: Namespace) -> tuple[Repository, Index]:
    """Return the repository of a file's run and its index; its inputs need not be there."""
    repository, metadata = opening.place_of(arguments)
    index = repository.read_index(metadata.namespace, metadata.name)
    if index is None:
        message = f"{metadata.name}: expected a run in the store, found none; start it first"
        raise InputError(message)
    return repository, index


def _story(repository: Repository, found: Run) -> Story:
    metadata = found.metadata
    return gather.gather(repository, namespace=metadata.namespace, name=metadata.name)


COMMANDS: Final[dict[str, Callable[[Namespace, Console], None]]] = {
    "validate": validate,
    "plan": plan,
    "run": run,
    "evaluate": measuring_models.evaluate,
    "compare": measuring_models.compare,
    "show": show_run,
    "report": report,
    "upload": upload,
    "export pairs": export_pairs,
    "export model": export_model,
}
