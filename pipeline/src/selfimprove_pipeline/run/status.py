"""What a run has come to, from its index and manifests, as a stable JSON."""

from collections.abc import Mapping
from itertools import pairwise
from statistics import fmean
from types import MappingProxyType
from typing import Any

from selfimprove_pipeline.contract import stages
from selfimprove_pipeline.contract.keys import SFT, TASKS, by_task
from selfimprove_pipeline.contract.manifests import Index, IterationIndex, Manifest, digest_of
from selfimprove_pipeline.contract.recipe import Gates, Stage
from selfimprove_pipeline.contract.stages import MEASURING
from selfimprove_pipeline.measuring import gates
from selfimprove_pipeline.store.repository import Repository

NAMES: tuple[Stage, ...] = tuple(info.name for info in stages.TABLE)


def status(index: Index, repository: Repository) -> dict[str, Any]:
    """Return the run as the stable JSON of `selfimprove show -o json`.

    `iterations[k]` is M_k and what was made with it. `cached` tells that the latest start of
    the run found all artifacts of a stage in the store.
    """
    described = [_iteration(entry, index, repository) for entry in index.iterations]
    for earlier, later in pairwise(described):
        gain = gain_of(earlier["evaluation"], later["evaluation"], index.recipe)
        if gain is not None:
            later["evaluation"]["gain"] = gain
    return {
        "name": index.name,
        "outcome": index.outcome,
        "message": index.message,
        "final": index.final,
        "recipe": index.recipe,
        "iterations": described,
    }


def _iteration(entry: IterationIndex, index: Index, repository: Repository) -> dict[str, Any]:
    is_last = entry.index == index.recipe["iterations"]
    # An index from before there were gates has none to wait for.
    all_names = (name for name in NAMES if name != "gate" or name in entry.keys)
    names = tuple(name for name in all_names if not is_last or name in MEASURING)
    manifests = {name: manifests_of(name, entry, repository) for name in names}
    described = [_stage(name, manifests[name], entry) for name in names]
    return {
        "index": entry.index,
        "model": {"uri": _uri(entry, repository), "digest": entry.model_digest},
        "stages": _with_outcome([stage for stage in described if stage], index),
        "evaluation": evaluation(manifests["evaluate"], manifests["judge"]),
        "gates": _gates(index, manifests),
    }


def _gates(
    index: Index, manifests: Mapping[Stage, Mapping[str, Manifest]]
) -> dict[str, dict[str, str]]:
    """Return decision and numbers by language, empty where no gate has decided anything."""
    found = gates.decisions(Gates.model_validate(index.recipe.get("gates", {})), manifests)
    return {tag: {"decision": decision, "why": why} for tag, (decision, why) in found.items()}


def manifests_of(name: Stage, entry: IterationIndex, repository: Repository) -> dict[str, Manifest]:
    """Return the finished artifacts of a stage that a run's index names, by part."""
    keys = entry.keys.get(name, {})
    found = {part: repository.manifest(name, key) for part, key in keys.items()}
    return {part: manifest for part, manifest in found.items() if manifest is not None}


def _stage(
    name: Stage, manifests: Mapping[str, Manifest], entry: IterationIndex
) -> dict[str, Any] | None:
    """Return one stage; None for one that has nothing to do, such as score without gold."""
    if name not in entry.finished:
        return {"name": name, **_PENDING}
    if not manifests:
        return None
    counts: dict[str, int] = {}
    own = [m for m in manifests.values() if m.part != SFT]  # which has the same pairs
    for manifest in own:
        for key, value in {"rows": manifest.rows or 0, **manifest.counts}.items():
            earlier = counts.get(key, 0)
            counts[key] = max(earlier, value) if key == "engines" else earlier + value
    return {
        "name": name,
        "state": "Succeeded",
        "seconds": round(sum(m.seconds.get("wall", 0.0) for m in manifests.values()), 3),
        "engineStartSeconds": round(
            sum(m.seconds.get("engineStart", 0.0) for m in manifests.values()), 3
        ),
        "cached": all(m.key not in entry.computed for m in manifests.values()),
        "digest": stage_digest(manifests),
        "counts": counts,
        "drops": {name: reasons for m in manifests.values() for name, reasons in m.drops.items()},
        "artifacts": {
            part: {"key": m.key, "digest": m.digest} for part, m in sorted(manifests.items())
        },
    }


def stage_digest(manifests: Mapping[str, Manifest]) -> str:
    """Return one digest of a stage's artifacts."""
    return digest_of({part: manifest.digest for part, manifest in manifests.items()})


_PENDING: dict[str, Any] = {
    "state": "Pending",
    "seconds": 0.0,
    "cached": False,
    "digest": None,
    "counts": {},
}


def _with_outcome(described: list[dict[str, Any]], index: Index) -> list[dict[str, Any]]:
    """Give the first stage that is not finished the state of the run."""
    state = {"Running": "Running", "Failed": "Failed"}.get(index.outcome)
    for stage in described:
        if stage["state"] == "Pending":
            if state is not None:
                stage["state"] = state
            break
    return described


def _uri(entry: IterationIndex, repository: Repository) -> str:
    """Return the folder on this machine that a model is, else its URI."""
    folder = repository.store.local(entry.model_uri)
    return entry.model_uri if folder is None else str(folder)


def evaluation(
    manifests: Mapping[str, Manifest], judged: Mapping[str, Manifest] = MappingProxyType({})
) -> dict[str, Any]:
    """Return measures and number of answers by suite and language, those of the judge among them.

    `judged` of a suite is the number of verdicts, `malformed` that of ballots for neither answer.
    """
    suites: dict[str, dict[str, Any]] = {}
    for part, manifest in sorted(manifests.items()):
        suite, language = part.split(".", 1)
        if language == TASKS:
            suites.setdefault(suite, {}).update(by_task(manifest.measures))
            continue
        suites.setdefault(suite, {})[language] = {**manifest.measures, "n": manifest.rows}
    for part, manifest in judged.items():
        suite, language = part.split(".", 1)
        counts = ("judged", "malformed", "conversations")
        told = {name: manifest.counts[name] for name in counts if name in manifest.counts}
        suites.setdefault(suite, {}).setdefault(language, {}).update({**manifest.measures, **told})
    return suites


def gain_of(
    earlier: Mapping[str, Any], later: Mapping[str, Any], recipe: Mapping[str, Any]
) -> float | None:
    """Return the mean over the other languages of the first suite's score, later minus earlier."""
    suites = recipe["evaluation"]["suites"]
    if not suites:
        return None
    name, others = suites[0]["name"], recipe["languages"]["others"]
    try:
        return fmean(later[name][n]["score"] - earlier[name][n]["score"] for n in others)
    except KeyError:
        return None
