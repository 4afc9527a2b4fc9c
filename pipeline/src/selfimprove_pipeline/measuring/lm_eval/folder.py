"""Finds tasks of lm-eval, in a folder of the user's and among those that lm-eval brings.

What a YAML file names lies beside it: data files and folders are looked for there, and not in the
working directory as `datasets` would. Local data is read afresh each time: `datasets` keeps what
it has read and tells a changed file only by its time.
"""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import datasets  # type: ignore[import-untyped]
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind
from lm_eval.tasks._yaml_loader import load_yaml

from selfimprove_pipeline.contract.errors import InputError, TryAgainError
from selfimprove_pipeline.measuring.lm_eval.quiet import quiet
from selfimprove_pipeline.measuring.lm_eval.task import LoadedTask, seed

LEAVES: Final = (Kind.TASK, Kind.PY_TASK)


def load(
    folder: Path | None,
    names: Sequence[str],
    *,
    limit: int | None,
    num_fewshot: int | None,
    chat_template: bool,
) -> tuple[LoadedTask, ...]:
    """Return the tasks that names stand for; see `lm_eval.benchmarks`."""
    logging.getLogger("lm_eval").setLevel(logging.WARNING)
    datasets.disable_progress_bars()
    if folder is not None:
        folder = folder.resolve()
        _check_files(folder)
    manager = _manager(folder, names)
    loaded: dict[str, Task] = {}
    own = [] if folder is None else _own(manager, folder)
    with tempfile.TemporaryDirectory() as cache:
        for entry in own:
            _localize(entry, cache)
        for name in names or [entry.name for entry in own if entry.kind in LEAVES]:
            loaded |= _tasks(manager, name, folder)
    if not loaded:
        msg = "expected at least one task of lm-eval, found none; name one or add its YAML"
        raise InputError(msg)
    for name, task in loaded.items():
        _check_kind(name, task)
        _set_fewshot(task, num_fewshot)
    return tuple(
        LoadedTask(name=name, task=task, folder=folder, limit=limit, chat_template=chat_template)
        for name, task in sorted(loaded.items())
    )


def _check_files(folder: Path) -> None:
    """Refuse a folder with a file that is no YAML: lm-eval leaves such a file out."""
    paths = sorted(folder.rglob("*.yaml"))
    if not paths:
        msg = f"expected tasks of lm-eval, found no .yaml file in {folder.name}; put them there"
        raise InputError(msg)
    for path in paths:
        try:
            load_yaml(path, resolve_func=False)
        except Exception as error:  # whatever a parser or an include raises
            msg = (
                f"{path.relative_to(folder)}: expected a task of lm-eval as YAML, "
                f"found {_line(error, folder)}; correct the file"
            )
            raise InputError(msg) from error


def _manager(folder: Path | None, names: Sequence[str]) -> TaskManager:
    """Return an index that has all names; lm-eval's own tasks take seconds to index."""
    if folder is not None:
        manager = TaskManager(include_path=folder, include_defaults=False)
        if set(names) <= manager.task_index.keys():
            return manager
    manager = TaskManager(include_path=folder)
    if unknown := sorted(set(names) - manager.task_index.keys()):
        where = f"{folder.name} or " if folder else ""
        msg = (
            f"expected tasks of {where}lm-eval, found {', '.join(unknown)}; "
            "correct the names (`lm-eval ls tasks` lists its own)"
        )
        raise InputError(msg)
    return manager


def _own(manager: TaskManager, folder: Path) -> list[Entry]:
    """Return what the index has of the folder, by name."""
    entries = (entry for _, entry in sorted(manager.task_index.items()) if entry.yaml_path)
    return [entry for entry in entries if Path(entry.yaml_path).is_relative_to(folder)]


def _localize(entry: Entry, cache: str) -> None:
    """Give lm-eval an entry's configuration with its data named in full, in place of the file."""
    path = Path(entry.yaml_path)
    try:
        config = load_yaml(path)
    except Exception as error:  # whatever the user's own functions raise as they are imported
        msg = (
            f"task {entry.name}: expected its functions to be importable, "
            f"found {_line(error, path.parent)}; correct {path.name} or what it names"
        )
        raise InputError(msg) from error
    entry.cfg, entry.yaml_path = _localized(config, path.parent, cache), None


def _localized(config: dict[str, Any], base: Path, cache: str) -> dict[str, Any]:
    """Return a configuration, and those inside a group's, with data as seen from `base`."""
    changed = dict(config)
    if isinstance(members := config.get("task"), list):
        changed["task"] = [
            _localized(member, base, cache) if isinstance(member, dict) else member
            for member in members
        ]
    arguments = dict(config.get("dataset_kwargs") or {})
    if files := arguments.get("data_files"):
        arguments["data_files"] = _placed(files, base)
    elif (path := config.get("dataset_path")) and (base / path).is_dir():
        changed["dataset_path"] = str(base / path)
    else:
        return changed
    changed["dataset_kwargs"] = {**arguments, "cache_dir": cache, "keep_in_memory": True}
    return changed


def _placed(files: Any, base: Path) -> Any:
    """Return data files with each relative one under `base`; addresses stay as they are."""
    match files:
        case dict():
            return {split: _placed(one, base) for split, one in files.items()}
        case list():
            return [_placed(one, base) for one in files]
    return files if "://" in files else str(base / files)


def _tasks(manager: TaskManager, name: str, folder: Path | None) -> Mapping[str, Task]:
    """Return the tasks of a name with their documents."""
    seed()
    try:
        with quiet():
            tasks: dict[str, Task] = manager.load([name])["tasks"]
    except (ConnectionError, TimeoutError) as error:
        message = f"task {name}: the hub did not answer ({type(error).__name__}); try again later"
        raise TryAgainError(message) from error
    except Exception as error:  # whatever lm-eval, datasets and the user's functions raise
        msg = (
            f"task {name}: expected a task that lm-eval can make ready, "
            f"found {_line(error, folder)}; correct its YAML and put its data beside it"
        )
        raise InputError(msg) from error
    return tasks


def _check_kind(name: str, task: Task) -> None:
    if getattr(task, "UNSAFE_CODE", False):
        msg = (
            f"task {name}: expected a task that runs no code of the model, "
            "found unsafe_code; leave the task out"
        )
        raise InputError(msg)
    if getattr(task, "MULTIMODAL", False):
        msg = (
            f"task {name}: expected a task of text alone, found images or sound; leave the task out"
        )
        raise InputError(msg)


def _set_fewshot(task: Task, wanted: int | None) -> None:
    """Set the number of examples as lm-eval does: a task's own 0 is never overruled."""
    own = task.get_config("num_fewshot")
    if own != 0 and wanted is not None:
        task.set_config(key="num_fewshot", value=wanted)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)


def _line(error: Exception, folder: Path | None) -> str:
    """Return an error as one line, paths as seen from the folder."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    if folder is None:
        return text
    return text.replace(f"{folder}/", "").replace(str(folder), folder.name)
