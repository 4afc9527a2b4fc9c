"""A run file on this machine: its store, its credentials, its cache and what computes it.

Commands and workers come to the same `Setting` here, from the same arguments.
"""

import os
from argparse import Namespace
from pathlib import Path
from typing import Final

from selfimprove_pipeline import devices, external, hub, judge, recipe
from selfimprove_pipeline.artifacts import Index
from selfimprove_pipeline.recipe import Metadata, Run
from selfimprove_pipeline.store import Store, open_store
from selfimprove_pipeline.store.repository import Repository
from selfimprove_pipeline.train import nodes
from selfimprove_pipeline.workers import shards
from selfimprove_pipeline.workers.setting import Setting

CACHE: Final = "SELFIMPROVE_CACHE"
PROMPTS: Final = "SELFIMPROVE_PROMPTS_"
"""Begins the names of environment variables with the credentials of the prompts' bucket."""
CREDENTIALS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def cache_folder() -> Path:
    """Return the folder for downloads, digests and logs."""
    chosen = os.environ.get(CACHE)
    return Path(chosen) if chosen else Path.home() / ".cache" / "selfimprove"


def setting_of(arguments: Namespace) -> Setting:
    """Return the run of a file on this machine."""
    run = recipe.resolve(judge.load(arguments.file, arguments.set))
    repository = repository_of(arguments, run)
    pinned = _with_commit(run, repository.read_index(run.metadata.namespace, run.metadata.name))
    described = pinned.spec.translation.external
    toolchain = devices.toolchain(
        arguments.engine,
        devices.usable_gpus(),
        None if described is None else external.fingerprint(described),
        nodes=nodes.count_of(os.environ),
    )
    return Setting(
        pinned,
        repository.store,
        repository,
        toolchain,
        arguments.engine,
        cache_folder(),
        requested_revision=run.spec.model.revision,
        prompts_store=_prompts_store(arguments, run),
        share=shards.share_of(os.environ),
    )


def place_of(arguments: Namespace) -> tuple[Repository, Metadata]:
    """Return where a file's run lies; nothing else of the run need be there any more."""
    found = judge.load(arguments.file, arguments.set)
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
    storage = found.spec.storage
    store = open_store(storage, folder=arguments.store, environment=os.environ)
    return Repository(store, bucket=storage.bucket, prefix=storage.prefix, cache=cache_folder())
