"""The recipe under which a model without a run is measured: the one place that builds it.

`selfimprove evaluate` drives the stage of a run, so it needs a whole `Run`, with a name for its
index and its log. What decides an evaluation comes from the arguments, or from another run's file
(`--recipe`), so that both come to the same keys; everything else keeps its default.
"""

import re
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from selfimprove_pipeline.contract import manifests, recipe
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.recipe import SUITE_KINDS, Run
from selfimprove_pipeline.inputs import suites
from selfimprove_pipeline.inputs.run_file import validation
from selfimprove_pipeline.inputs.run_file.document import Document, Path_, with_setting
from selfimprove_pipeline.run import opening
from selfimprove_pipeline.store import hub

DECIDING: Final = ("profile", "languages", "chat", "generation", "inference", "evaluation")
"""Parts of another run's spec that decide what is measured, and how."""
BUCKET: Final = "s3://runs"
"""Where evaluations lie unless an argument says otherwise."""
TASK_NAMES: Final = re.compile(r"[\w-]+(,[\w-]+)*")
NO_PROMPTS: Final = {"uri": "file:///none", "perIteration": 1}
"""Every run has prompts; nothing reads those of a model that is only measured."""
NAME_DIGITS: Final = 24
FEWEST_LANGUAGES: Final = 2
NO_LANGUAGES: Final = ["en", "mul"]
"""Every run has languages; nothing reads those where only tasks of lm-eval are measured."""


def run_of(arguments: Namespace) -> Run:
    """Return the resolved run of `selfimprove evaluate`."""
    document = _document(arguments)
    for setting in arguments.set:
        document = with_setting(document, setting)
    run = recipe.resolve(validation.judge(document))
    return _named(run)


def uri_of(text: str) -> str:
    """Return a URI as it is, a folder on this machine as its URI."""
    return text if "://" in text else f"file://{Path(text).resolve()}"


def _document(arguments: Namespace) -> Document:
    """Return the file that a person would have written for this evaluation."""
    other, places = _recipe(arguments.recipe)
    spec: dict[str, Any] = {name: other[name] for name in DECIDING if name in other}
    spec["model"] = {
        **{name: value for name, value in other.get("model", {}).items() if name == "dtype"},
        "uri": uri_of(arguments.model),
    }
    chosen = _suites(arguments.suite or ()) or (spec.get("evaluation") or {}).get("suites")
    if not chosen:
        message = f"--suite: expected KIND=URI, KIND one of {', '.join(SUITE_KINDS)}, found none"
        raise InputError(message)
    spec["evaluation"] = {**_judge(spec.get("evaluation") or {}, arguments), "suites": chosen}
    if arguments.languages or "languages" not in spec:
        spec["languages"] = _languages(arguments.languages or _tags_of(chosen, arguments))
    spec["storage"] = _storage(other, arguments)
    spec["prompts"] = NO_PROMPTS
    value = {
        "apiVersion": recipe.API_VERSION,
        "kind": recipe.KIND,
        "metadata": {"name": "evaluate"},
        "spec": spec,
    }
    own = _places(arguments)
    replaced = {path[:2] for path in own}
    kept = {path: place for path, place in places.items() if path[:2] not in replaced}
    return Document(value, {**kept, **own})


def _storage(other: Mapping[str, Any], arguments: Namespace) -> dict[str, Any]:
    """Return where the evaluations lie: as the arguments say, else with the other run's."""
    is_given = arguments.artifacts is not None or arguments.endpoint is not None
    if not is_given and "storage" in other:
        return dict(other["storage"])
    storage = opening.storage_at(arguments.artifacts or BUCKET, arguments.endpoint)
    return storage.model_dump(mode="json", by_alias=True, exclude_none=True)


def _recipe(path: Path | None) -> tuple[dict[str, Any], dict[Path_, str]]:
    """Return the spec of another run's file with its places, once it is known to be good."""
    if path is None:
        return {}, {}
    document = validation.read(path)
    validation.judge(document)
    given = {name: part for name, part in document.value["spec"].items() if part is not None}
    return given, dict(document.places)


def _places(arguments: Namespace) -> dict[Path_, str]:
    """Return the argument that each part of the run comes from, for complaints about it."""
    of_suites: dict[Path_, str] = {
        ("spec", "evaluation", "suites", index): f"--suite {text}"
        for index, text in enumerate(arguments.suite or ())
    }
    places: dict[Path_, str] = {(): "evaluate", ("spec", "model", "uri"): "MODEL", **of_suites}
    return places | ({("spec", "languages"): "--languages"} if arguments.languages else {})


def _suites(texts: Iterable[str]) -> list[dict[str, Any]]:
    return [_suite(text) for text in texts]


def _suite(text: str) -> dict[str, Any]:
    """Return the suite of `KIND=URI`, or of `NAME:KIND=URI` for a name of its own.

    Names of lm-eval's tasks may stand in the place of its URI: `nlp=arc_de,arc_es`.
    """
    what, equals, uri = text.partition("=")
    name, colon, kind = what.partition(":")
    if not (equals and name and uri and bool(colon) == bool(kind)):
        message = f"--suite: expected KIND=URI or NAME:KIND=URI, found {text}"
        raise InputError(message)
    if (kind or name) == "nlp" and TASK_NAMES.fullmatch(uri) and not Path(uri).exists():
        return {"name": name, **({"kind": kind} if kind else {}), "tasks": uri.split(",")}
    # A file in alpaca-eval's format may hold instructions and the outputs to compare with.
    references = {"referenceUri": uri_of(uri)} if (kind or name) == "xAlpacaEval" else {}
    return {"name": name, "uri": uri_of(uri), **({"kind": kind} if kind else {}), **references}


def _kind(suite: Mapping[str, Any]) -> str:
    return str(suite.get("kind") or suite["name"])


def _judge(evaluation: Mapping[str, Any], arguments: Namespace) -> dict[str, Any]:
    """Return the judge of the arguments over that of the other run, nothing without either."""
    given = {"baseUrl": arguments.judge_url, "model": arguments.judge_model}
    judge = {**(evaluation.get("judge") or {}), **{k: v for k, v in given.items() if v is not None}}
    return {"judge": judge} if judge else {}


def _languages(tags: Sequence[str]) -> dict[str, Any]:
    if len(tags) < FEWEST_LANGUAGES:
        found = ", ".join(tags) or "none"
        message = f"--languages: expected two or more, the dominant one first, found {found}"
        raise InputError(message)
    return {"dominant": tags[0], "others": list(tags[1:])}


def _tags_of(chosen: Sequence[dict[str, Any]], arguments: Namespace) -> list[str]:
    """Return the languages of which every suite has a file, English first, then by name."""
    storage = opening.storage_at(arguments.artifacts or BUCKET, arguments.endpoint)
    store = opening.repository_at(arguments, storage).store
    found: list[set[str]] = []
    with_languages = [suite for suite in chosen if _kind(suite) != "nlp"]
    if not with_languages:
        return NO_LANGUAGES
    for suite in with_languages:
        folder = f"{suite['uri'].rstrip('/')}/"
        names = [entry.uri.removeprefix(folder) for entry in store.entries(folder)]
        found.append(suites.languages_of(_kind(suite), names))
    return sorted(set.intersection(*found), key=lambda tag: (tag != "en", tag))


def _named(run: Run) -> Run:
    """Return the run with its model's commit, under a name that equal evaluations share."""
    revision = hub.pinned(run.spec.model, None)
    model = run.spec.model.model_copy(update={"revision": revision})
    spec = run.spec.model_copy(update={"model": model})
    described = spec.model_dump(mode="json", by_alias=True)
    name = f"evaluate-{manifests.digest(described)[:NAME_DIGITS]}"
    metadata = run.metadata.model_copy(update={"name": name})
    return run.model_copy(update={"metadata": metadata, "spec": spec})
