"""A run file on this machine: its store, its credentials, its cache and what computes it.

Commands and workers come to the same `Setting` here, from the same arguments.
"""

import dataclasses
import os
from argparse import Namespace
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from selfimprove_pipeline import external
from selfimprove_pipeline.contract import recipe
from selfimprove_pipeline.contract.environment import CACHE, PROMPTS
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.manifests import Index
from selfimprove_pipeline.contract.recipe import Metadata, Run, Storage
from selfimprove_pipeline.inputs.run_file import validation
from selfimprove_pipeline.machine import devices
from selfimprove_pipeline.memory.advice import Place
from selfimprove_pipeline.run import shards, sizing
from selfimprove_pipeline.run.setting import Setting
from selfimprove_pipeline.store import Store, hub, open_store
from selfimprove_pipeline.store.repository import Repository
from selfimprove_pipeline.train.processes import nodes

CREDENTIALS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def cache_folder() -> Path:
    """Return the folder for downloads, digests and logs."""
    chosen = os.environ.get(CACHE)
    return Path(chosen) if chosen else Path.home() / ".cache" / "selfimprove"


def setting_of(arguments: Namespace, *, only_measures: bool = False) -> Setting:
    """Return the run of a file on this machine."""
    run = recipe.resolve(validation.load(arguments.file, arguments.set))
    return setting_for(run, arguments, only_measures=only_measures)


def setting_for(run: Run, arguments: Namespace, *, only_measures: bool) -> Setting:
    """Return a resolved run on this machine."""
    repository = repository_of(arguments, run)
    index = repository.read_index(run.metadata.namespace, run.metadata.name)
    pinned = _with_commit(run, index)
    described = pinned.spec.translation.external
    toolchain = devices.toolchain(
        arguments.engine,
        devices.usable_gpus(),
        None if described is None else external.fingerprint(described),
        nodes=nodes.count_of(os.environ),
    )
    setting = Setting(
        pinned,
        repository.store,
        repository,
        toolchain,
        arguments.engine,
        cache_folder(),
        requested_revision=run.spec.model.revision,
        prompts_store=_prompts_store(arguments, run),
        share=shards.share_of(os.environ),
        only_measures=only_measures,
    )
    return setting if only_measures else _with_decisions(setting, index)


def _with_decisions(setting: Setting, index: Index | None) -> Setting:
    """Return the setting with what the file leaves open of how the training is spread."""
    decided = sizing.decisions(setting, index)
    run = sizing.with_decisions(setting.run, decided)
    return dataclasses.replace(setting, run=run, decided=decided)


def place() -> Place | None:
    """Return what this machine trains on, None where it has no GPU."""
    count = devices.usable_gpus()
    if not count:
        return None
    return Place(count, memory=devices.gpu_memory(), host=devices.host_memory())


def place_of(arguments: Namespace) -> tuple[Repository, Metadata]:
    """Return where a file's run lies; nothing else of the run need be there any more."""
    found = validation.load(arguments.file, arguments.set)
    return repository_of(arguments, found), found.metadata


def _prompts_store(arguments: Namespace, run: Run) -> Store | None:
    """Return the store with the prompts' own credentials, None where they have none."""
    if not os.environ.get(f"{PROMPTS}AWS_ACCESS_KEY_ID"):
        return None
    own = {name: os.environ.get(f"{PROMPTS}{name}", "") for name in CREDENTIALS}
    environment = {**os.environ, **own}
    return open_store(run.spec.storage, folder=arguments.store, environment=environment)


def _with_commit(run: Run, index: Index | None) -> Run:
    """Return the run with the commit of an `hf://` model in place of a branch."""
    revision = hub.pinned(run.spec.model, index)
    pinned = run.spec.model.model_copy(update={"revision": revision})
    return run.model_copy(update={"spec": run.spec.model_copy(update={"model": pinned})})


def repository_of(arguments: Namespace, found: Run) -> Repository:
    """Return the repository of a run, in the folder or on the server that it names."""
    return repository_at(arguments, found.spec.storage)


def repository_at(arguments: Namespace, storage: Storage) -> Repository:
    """Return the repository of a storage, in the folder of `--store` or on its server."""
    store = open_store(storage, folder=arguments.store, environment=os.environ)
    return Repository(store, bucket=storage.bucket, prefix=storage.prefix, cache=cache_folder())


def storage_at(uri: str, endpoint: str | None) -> Storage:
    """Return the storage of `s3://BUCKET/PREFIX` on a server; unset means AWS_ENDPOINT_URL."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    try:
        return Storage(bucket=bucket, prefix=prefix.strip("/"), endpoint=endpoint)
    except ValidationError as error:
        fields = ", ".join(str(detail["loc"][0]) for detail in error.errors())
        message = f"expected the URI of a bucket and an http(s) endpoint, found a wrong {fields}"
        raise InputError(message) from error
