"""What each command of `selfimprove` does. `__main__` reads the arguments and binds."""

import json
import os
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml
from rich.console import Console

from selfimprove_pipeline import (
    devices,
    export,
    forecast,
    hub,
    judge,
    local,
    progress,
    recipe,
    show,
)
from selfimprove_pipeline.artifacts import Pair
from selfimprove_pipeline.errors import InputError
from selfimprove_pipeline.processes import Processes
from selfimprove_pipeline.recipe import Run, Storage
from selfimprove_pipeline.report import gather, markdown, page
from selfimprove_pipeline.report.story import Story
from selfimprove_pipeline.report.table import terminal
from selfimprove_pipeline.store import Store, open_store
from selfimprove_pipeline.store.repository import Repository
from selfimprove_pipeline.workers.light import PAIRS
from selfimprove_pipeline.workers.setting import Setting
from selfimprove_pipeline.workers.survey import survey

CACHE: Final = "SELFIMPROVE_CACHE"


def cache_folder() -> Path:
    """Return the folder for downloads, digests and logs."""
    chosen = os.environ.get(CACHE)
    return Path(chosen) if chosen else Path.home() / ".cache" / "selfimprove"


def setting_of(arguments: Namespace) -> Setting:
    """Return the run of a file on this machine, with a branch of a hub model resolved."""
    run = recipe.resolve(judge.load(arguments.file, arguments.set))
    run = _with_commit(run)
    storage = run.spec.storage
    store = open_store(storage, folder=arguments.store, environment=os.environ)
    repository = Repository(
        store, bucket=storage.bucket, prefix=storage.prefix, cache=cache_folder()
    )
    toolchain = devices.toolchain(arguments.engine, devices.num_gpus())
    return Setting(run, store, repository, toolchain, arguments.engine, cache_folder())


def _with_commit(run: Run) -> Run:
    """Return the run with the commit of an `hf://` model in place of a branch."""
    model = run.spec.model
    is_commit = len(model.revision or "") == len("0" * 40)
    if not model.uri.startswith("hf://") or is_commit:
        return run
    pinned = model.model_copy(update={"revision": hub.commit(model.uri, model.revision)})
    return run.model_copy(update={"spec": run.spec.model_copy(update={"model": pinned})})


def validate(arguments: Namespace, console: Console) -> None:
    """Judge the file and tell every mistake at once."""
    run = judge.load(arguments.file, arguments.set, for_cluster=arguments.cluster)
    recipe.resolve(run)
    for note in judge.notes(run):
        console.print(f"note: {note}")
    where = "a cluster" if arguments.cluster else "this machine"
    console.print(f"{arguments.file}: good for {where}")


def plan(arguments: Namespace, console: Console) -> None:
    """Print the resolved recipe and what would run."""
    setting = setting_of(arguments)
    spec = setting.spec.model_dump(mode="json", by_alias=True)
    console.print(yaml.safe_dump({"spec": spec}, sort_keys=False), markup=False, end="")
    console.print(forecast.table(list(forecast.steps(setting))))


def run(arguments: Namespace, console: Console) -> None:
    """Run what is missing and end with the table of scores."""
    setting = setting_of(arguments)
    with progress.display() as display:
        processes = Processes(
            arguments=_worker_arguments(arguments, setting),
            log=cache_folder() / "logs" / f"{setting.run.metadata.name}.log",
            on_event=display.event,
            gpus=devices.num_gpus(),
        )
        spawn = _Counted(processes)
        index = local.run(setting, spawn, display.worker)
    if index.outcome == "Suspended":
        console.print(f"{index.name}: suspended; {index.message}")
        return
    done = "nothing to do, everything is in the store" if not spawn.count else "done"
    console.print(f"{index.name}: {done}")
    if setting.spec.evaluation.suites:
        console.print(terminal(_story(setting)))
    for line in show.key_numbers(show.status(index, setting.repository)):
        console.print(line, highlight=False, soft_wrap=True)


@dataclass
class _Counted:
    """A `local.Spawn` that counts the workers it started."""

    spawn: Callable[[str, int], None]
    count: int = 0

    def __call__(self, worker: local.Worker, index: int) -> None:
        self.count += 1
        self.spawn(worker, index)


def _worker_arguments(arguments: Namespace, setting: Setting) -> list[str]:
    """Return the arguments with which a worker comes to the same setting."""
    given = [str(arguments.file), "--engine", arguments.engine]
    given += ["--store", str(arguments.store)] if arguments.store else []
    revision = setting.spec.model.revision
    pinned = [f"model.revision={revision}"] if revision else []
    return given + [f"--set={setting}" for setting in [*arguments.set, *pinned]]


def show_run(arguments: Namespace, console: Console) -> None:
    """Print what the run has come to."""
    repository, found = _repository_of(arguments)
    metadata = found.metadata
    index = repository.read_index(metadata.namespace, metadata.name)
    if index is None:
        message = f"{metadata.name}: expected a run in the store, found none; start it first"
        raise InputError(message)
    status = show.status(index, repository)
    if arguments.output == "json":
        print(json.dumps(status, ensure_ascii=False, indent=2))  # noqa: T201  the output
        return
    console.print(show.table(status))
    for line in show.key_numbers(status):
        console.print(line, highlight=False, soft_wrap=True)


def report(arguments: Namespace, console: Console) -> None:
    """Write the report as HTML and Markdown."""
    repository, found = _repository_of(arguments)
    story = gather.gather(repository, namespace=found.metadata.namespace, name=found.metadata.name)
    folder: Path = arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    html = folder / f"{found.metadata.name}.html"
    html.write_text(page.render(story), encoding="utf-8")
    text = folder / f"{found.metadata.name}.md"
    text.write_text(markdown.render(story), encoding="utf-8")
    console.print(f"report: {html.resolve()}", highlight=False, soft_wrap=True)
    console.print(f"report: {text.resolve()}", highlight=False, soft_wrap=True)


def upload(arguments: Namespace, console: Console) -> None:
    """Upload a folder to a bucket."""
    if not arguments.folder.is_dir():
        message = f"{arguments.folder}: expected a folder, found none"
        raise InputError(message)
    bucket = arguments.uri.removeprefix("s3://").split("/", 1)[0]
    storage = Storage(bucket=bucket, endpoint=arguments.endpoint)
    store: Store = open_store(storage, folder=arguments.store, environment=os.environ)
    repository = Repository(store, bucket=bucket, prefix="", cache=cache_folder())
    count = repository.upload_folder(arguments.folder, arguments.uri)
    console.print(f"{arguments.uri}: {count} files", highlight=False, soft_wrap=True)


def export_pairs(arguments: Namespace, console: Console) -> None:
    """Export the pairs of an iteration for LLaMA-Factory."""
    setting = setting_of(arguments)
    number = _iteration(arguments, setting.last - 1)
    model = local.model_at(setting, number)
    found = survey(setting.iteration(number, model), setting.repository.manifest)
    if "pair" not in found or not found["pair"].is_finished:
        message = f"expected the pairs of iteration {number}, found none; run it first"
        raise InputError(message)
    rows = setting.repository.rows(found["pair"].manifests[""], Pair, PAIRS)
    export.pairs(rows, arguments.out)
    console.print(f"{arguments.out}: {len(rows)} pairs", highlight=False, soft_wrap=True)


def export_model(arguments: Namespace, console: Console) -> None:
    """Export M_t as a plain Hugging Face folder."""
    setting = setting_of(arguments)
    number = _iteration(arguments, setting.last)
    model = local.model_at(setting, number)
    export.model(setting.folder(model), arguments.out)
    console.print(f"{arguments.out}: M{number}", highlight=False, soft_wrap=True)


def _iteration(arguments: Namespace, default: int) -> int:
    return default if arguments.iteration is None else int(arguments.iteration)


def _repository_of(arguments: Namespace) -> tuple[Repository, Run]:
    """Return the repository of a file's run; its inputs need not be there any more."""
    found = judge.load(arguments.file, arguments.set)
    storage = found.spec.storage
    store = open_store(storage, folder=arguments.store, environment=os.environ)
    return (
        Repository(store, bucket=storage.bucket, prefix=storage.prefix, cache=cache_folder()),
        found,
    )


def _story(setting: Setting) -> Story:
    metadata = setting.run.metadata
    return gather.gather(setting.repository, namespace=metadata.namespace, name=metadata.name)


COMMANDS: Final[dict[str, Callable[[Namespace, Console], None]]] = {
    "validate": validate,
    "plan": plan,
    "run": run,
    "show": show_run,
    "report": report,
    "upload": upload,
    "export pairs": export_pairs,
    "export model": export_model,
}
