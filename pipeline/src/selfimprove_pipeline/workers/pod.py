"""A worker in a pod: what of the run's index it needs, and how it tells what became of it.

A pod has one image and maybe no GPU, so it knows only its own part of what computes an
iteration; the rest stands in the run's index. When it ends, the operator reads a file of 2 KiB
(the termination message) and the last line of its log. `workers.command` calls this.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from selfimprove_pipeline.contract.environment import COMPLETION_INDEX, TERMINATION_LOG
from selfimprove_pipeline.contract.errors import InputError, SelfImproveError
from selfimprove_pipeline.contract.keys import Toolchain
from selfimprove_pipeline.contract.manifests import CONTRACT, Index, Overlaps
from selfimprove_pipeline.contract.recipe import Stage
from selfimprove_pipeline.contract.stages import SECTIONS, Worker
from selfimprove_pipeline.run import ledger, numbers, status
from selfimprove_pipeline.run.ledger import Ledger
from selfimprove_pipeline.run.numbers import Found, Outcome
from selfimprove_pipeline.run.setting import Model, Setting
from selfimprove_pipeline.run.survey import Survey, manifests_of, survey
from selfimprove_pipeline.workers.events import Emitter

MESSAGE_BYTES: Final = 2048
ERROR_CHARACTERS: Final = 1500


def is_here() -> bool:
    """Return whether this process is the worker of a pod."""
    return TERMINATION_LOG in os.environ


def is_first() -> bool:
    """Return whether this pod is the first of its launch, which notes and counts for all."""
    return os.environ.get(COMPLETION_INDEX, "0") == "0"


def equipped(setting: Setting, worker: Worker | Literal["rank"], index: int) -> Setting:
    """Return the setting with what computes an iteration: this pod's part, the rest as noted."""
    own = SECTIONS["training" if worker == "rank" else worker]
    entry = ledger.entry_of(setting, index)
    noted = entry.toolchain if entry else {}
    sections = {
        field.name: getattr(setting.toolchain, field.name)
        if field.name in own
        else noted.get(field.name)
        for field in dataclasses.fields(Toolchain)
    }
    return dataclasses.replace(setting, toolchain=Toolchain(**sections))


def begin(setting: Setting, overlaps: Overlaps | None) -> Index:
    """Note in the index that the run begins; what an earlier run of its name noted goes."""
    book = Ledger(setting)
    book.iterations, book.stop = {}, None
    book.overlaps = overlaps
    return book.write("Running")


def note(setting: Setting, index: int, model: Model) -> Survey:
    """Return what an iteration has, and note it in the run's index."""
    found = survey(setting.iteration(index, model), setting.repository.manifest)
    if is_first():
        _book(setting).enter(index, model, found)
    return found


def end(setting: Setting) -> Index:
    """Note in the index that the run has succeeded."""
    book = _book(setting)
    return book.write("Succeeded", book.stop.message if book.stop else "")


def outcome_of(
    setting: Setting, index: int, model: Model, found: Survey, names: tuple[Stage, ...]
) -> Outcome:
    """Return what some finished stages have come to."""
    before = ledger.entry_of(setting, index - 1) if "evaluate" in names else None
    state = Found(
        iteration=index,
        model=model.digest,
        manifests=manifests_of(found),
        last=setting.last,
        evaluated_before=(
            status.manifests_of("evaluate", before, setting.repository) if before else {}
        ),
    )
    return numbers.of_stages(names, setting.spec, state)


def succeeded(made: Outcome, emitter: Emitter) -> None:
    """Tell how a worker has ended: the termination message, then the log's last line."""
    message: dict[str, Any] = {"contract": CONTRACT, "digest": made.digest}
    if is_first():
        message["stages"] = dict(made.stages)
        message |= {"model": made.model} if made.model else {}
        message["totals"] = dict(made.totals)
    _write(message)
    emitter.emit("numbers", iteration=made.iteration, languages=list(made.languages))


def failed(error: BaseException) -> None:
    """Write in a pod's termination message why the worker failed, in one line."""
    own = isinstance(error, SelfImproveError)
    line = " ".join(str(error).split()) if own else ""
    line = line or " ".join(f"{type(error).__name__}: {error}".split())
    line = line[:ERROR_CHARACTERS]
    while len(_encoded({"contract": CONTRACT, "error": line})) > MESSAGE_BYTES:
        line = line[:-50]
    _write({"contract": CONTRACT, "error": line})


def note_failure(setting: Setting, error: InputError) -> None:
    """Note in the index that the run cannot go on, as far as there is an index to write."""
    if ledger.index_of(setting) is not None and is_first():
        _book(setting).write("Failed", " ".join(str(error).split())[:ERROR_CHARACTERS])


def _book(setting: Setting) -> Ledger:
    """Return the index as earlier pods of the run left it, to be gone on with."""
    earlier = ledger.index_of(setting)
    return Ledger(setting, earlier.started) if earlier and earlier.started else Ledger(setting)


def _write(message: Mapping[str, Any]) -> None:
    if is_here():
        Path(os.environ[TERMINATION_LOG]).write_bytes(_encoded(message))


def _encoded(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=False).encode()
