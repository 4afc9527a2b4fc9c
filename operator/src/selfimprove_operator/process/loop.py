"""Reconcile one run: let `plan` decide, write the status, then carry out the actions.

The work queue never gives the same run to two workers. The informer cache (`index`) may be out of
date. So each status is written with the resource version that it was decided on as precondition.
And a launch from an earlier reconcile is created only after the run was read again.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Protocol

from selfimprove_operator.api.settings import Settings
from selfimprove_operator.api.status import (
    FINALIZER,
    LABEL_ITERATION,
    LABEL_LAUNCH,
    LABEL_RUN_UID,
    LABEL_UNIT,
    Launch,
    Status,
)
from selfimprove_operator.cluster.door import ClusterApi, Kind, Manifest
from selfimprove_operator.cluster.errors import Conflict, Missing, NamespaceEnding, Refused
from selfimprove_operator.decisions import observed, plan
from selfimprove_operator.decisions.actions import (
    Action,
    Confirm,
    Create,
    Delete,
    DeleteRun,
    DryRun,
    Facts,
    ReadEvents,
    ReadNumbers,
    ReadProgress,
    RecordEvent,
    Refusal,
    Restore,
    SetFinalizer,
)
from selfimprove_operator.decisions.observed import Child, Run
from selfimprove_operator.launches import jobs, network, snapshot, units
from selfimprove_operator.launches.blueprint import Blueprint
from selfimprove_operator.launches.snapshot import MultiNode, Snapshot
from selfimprove_operator.watching import looks
from selfimprove_operator.watching.index import Index, Key

log = logging.getLogger(__name__)

NOT_FOUND: Final = 404


class Listener(Protocol):
    """Receives what happens to runs, to record Kubernetes Events and metrics."""

    def record(self, run: Run, event: RecordEvent) -> None:
        """Record an Event about a run; this never fails and never waits."""

    def moved(self, before: Status, after: Status) -> None:
        """Note that a run's status was changed."""


@dataclass
class Loop:
    """Everything that the operator does to the cluster."""

    cluster: ClusterApi
    settings: Settings
    index: Index
    listener: Listener
    multi_node: MultiNode
    again: Callable[[Key], None]
    """again puts a run into the work queue once more."""
    clock: Callable[[], float] = time.time
    facts: dict[str, Facts] = field(default_factory=dict)
    """facts by uid of the run."""

    async def reconcile(self, key: Key) -> float | None:
        """Take one run one step further; return the seconds after which to reconcile it again."""
        seen = self.index.observed(key, self.facts)
        if seen is None:
            for uid in [uid for uid in self.facts if self.index.key_of(uid) is None]:
                del self.facts[uid]
            return None
        take = partial(snapshot.take, settings=self.settings, multi_node=self.multi_node)
        decision = plan.decide(seen, take, self.clock())
        run, is_fresh = seen.run, False
        try:
            # The status first: after a crash the next process reads there what was to be done.
            if decision.status != run.status:
                body = await self.cluster.patch_status(
                    *key, _dumped(decision.status), run.resource_version, old=_dumped(run.status)
                )
                self.listener.moved(run.status, decision.status)
                # The cache needs it now: the watch event of our own write comes later.
                self.index.put_run(body)
                run, is_fresh = self.index.run(key) or run, True
            for action in decision.actions:
                await self._do(action, run, is_fresh=is_fresh)
        except (Conflict, Missing):
            await self._read_again(key)
        return decision.wake_seconds

    async def _read_again(self, key: Key) -> None:
        """Refresh the cached run after a conflict, and reconcile it again."""
        body = await self.cluster.read("SelfImproveRun", *key)
        if body is not None:
            self.index.put_run(body)
        elif (run := self.index.run(key)) is not None:
            identity = {"namespace": run.namespace, "name": run.name, "uid": run.uid}
            self.index.drop_run({"metadata": identity})
        self.again(key)

    async def _do(self, action: Action, run: Run, *, is_fresh: bool) -> None:
        match action:
            case Create():
                await self._create(run, is_fresh=is_fresh)
            case DryRun():
                await self._dry_run(run)
            case Confirm(job):
                await self._confirm(run, job)
            case Delete(child):
                await self._delete(run, child)
            case Restore(child):
                await self._restore(run, child)
            case ReadProgress() | ReadNumbers() | ReadEvents():
                facts = self.facts.get(run.uid, Facts())
                self.facts[run.uid] = await looks.look(
                    self.cluster, run, action, facts, self.clock()
                )
                self.again(run.key)
            case SetFinalizer(is_wanted):
                await self._set_finalizer(run, is_wanted=is_wanted)
            case DeleteRun():
                await self.cluster.delete("SelfImproveRun", run.namespace, run.name, run.uid)
            case RecordEvent():
                self.listener.record(run, action)

    async def _create(self, run: Run, *, is_fresh: bool) -> None:
        """Create the run's launch, if it is still its current one and no earlier one is left.

        A run whose status was written a moment ago (`is_fresh`) need not be read again.
        """
        launch = run.status.launch
        assert launch is not None, "a launch is in the status before it is created"  # noqa: S101
        if not is_fresh and not await self._can_create(run, launch):
            return
        is_first = launch.unit == "check"
        resolved, owner = plan.resolved_run(run), plan.owner_of(run)
        unit = units.unit(launch.unit, resolved.spec, launch.iteration)
        try:
            taken = self._take(run) if is_first else await self._snapshot(run)
            manifests = jobs.manifests(Blueprint(launch, unit, owner, taken, resolved.spec))
            if is_first and taken.network_policy.enabled:
                manifests = (network.network_policy(owner, taken), *manifests)
            for manifest in manifests:
                created = await self.cluster.create(manifest)
                if manifest["kind"] == "Job":
                    await self._adopt(run, manifest, created.manifest)
            # The snapshot comes after the first Job, so that the Job starts sooner. After a crash
            # between the two `_snapshot` takes it again.
            if is_first:
                await self.cluster.create(snapshot.revision(taken, owner))
        except Refused as error:
            self._refused(run, error)
        else:
            self._know(run, refusal=None)

    async def _can_create(self, run: Run, launch: Launch) -> bool:
        """Return whether the cached run is up to date, and no pod of an earlier launch is left."""
        body = await self.cluster.read("SelfImproveRun", run.namespace, run.name)
        if body is None or body["metadata"]["resourceVersion"] != run.resource_version:
            await self._read_again(run.key)
            return False
        if launch.number == 0:
            return True
        wanted = (launch.unit, str(launch.iteration), str(launch.number))
        names = (LABEL_UNIT, LABEL_ITERATION, LABEL_LAUNCH)
        is_free = True
        for pod in await self.cluster.pods_of(run.namespace, run.uid):
            labels = pod["metadata"].get("labels", {})
            is_earlier = tuple(labels.get(name) for name in names) != wanted
            if is_earlier and not observed.pod(pod).is_finished:
                self.index.put_pod(pod)
                is_free = False
        if not is_free:
            self.again(run.key)
        return is_free

    async def _adopt(self, run: Run, wanted: Manifest, found: Manifest) -> None:
        """Put a Job that was created, or was there already, into the cache, with our labels.

        A deleted run's Job may still have the name. Then this run cannot go on until it is gone.
        """
        metadata, labels = found["metadata"], wanted["metadata"]["labels"]
        name = metadata["name"]
        uids = {owner["uid"] for owner in metadata.get("ownerReferences", ())}
        if run.uid not in uids | {metadata.get("labels", {}).get(LABEL_RUN_UID)}:
            message = f"Job {name} exists and belongs to another run; delete it"
            raise Refused(409, message)
        if labels.items() - metadata.get("labels", {}).items():
            patch = {"metadata": {"labels": labels}}
            found = await self.cluster.patch("Job", run.namespace, name, patch)
        facts = self.facts.get(run.uid, Facts())
        self._know(run, gone=facts.gone - {name})
        self.index.put_job(found, run_uid=run.uid)

    async def _snapshot(self, run: Run) -> Snapshot:
        """Return the snapshot that was stored when the run was accepted."""
        owner = plan.owner_of(run)
        name = owner.metadata["name"]
        body = await self.cluster.read("ControllerRevision", run.namespace, name)
        if body is not None:
            return snapshot.of_revision(body)
        log.warning(
            "ControllerRevision %s is gone; creating it from the current settings",
            name,
            extra={"namespace": run.namespace, "run": run.name},
        )
        taken = self._take(run)
        await self.cluster.create(snapshot.revision(taken, owner))
        return taken

    def _take(self, run: Run) -> Snapshot:
        return snapshot.take(plan.resolved_run(run), self.settings, self.multi_node)

    async def _dry_run(self, run: Run) -> None:
        """Have the API server validate a launch of every role, before the first one on a GPU."""
        spec, owner = plan.resolved_run(run).spec, plan.owner_of(run)
        taken = await self._snapshot(run)
        first_by_role = {unit.role: unit for unit in reversed(units.units_of(spec, 0))}
        try:
            for unit in first_by_role.values():
                launch = Launch(unit=unit.name, iteration=0)
                for manifest in jobs.manifests(Blueprint(launch, unit, owner, taken, spec)):
                    await self.cluster.create(manifest, dry_run=True)
        except Refused as error:
            self._refused(run, error)
        else:
            self._know(run, refusal=None, is_dry_run_good=True)

    def _refused(self, run: Run, error: Refused) -> None:
        is_ending = isinstance(error, NamespaceEnding) or error.status == NOT_FOUND
        refusal = Refusal(self.clock(), error.status, error.message, is_ending=is_ending)
        self._know(run, refusal=refusal)

    async def _confirm(self, run: Run, job: str) -> None:
        """Find out whether a Job that is missing in the cache is really gone."""
        body = await self.cluster.read("Job", run.namespace, job)
        if body is None:
            facts = self.facts.get(run.uid, Facts())
            self._know(run, gone=facts.gone | {job})
        else:
            self.index.put_job(body, run_uid=run.uid)
            self.again(run.key)

    async def _delete(self, run: Run, child: Child) -> None:
        """Delete a launch, unless its Job has changed since it was cached.

        Events of runs and of Jobs arrive in any order: a Job that looks like a stray may have
        ended by now, and its outcome would be lost.
        """
        body = await self.cluster.read("Job", child.namespace, child.name)
        if body is None:
            return
        if body["metadata"]["resourceVersion"] != child.resource_version:
            self.index.put_job(body, run_uid=run.uid)
            self.again(run.key)
            return
        kind: Kind = "Job"
        name, uid = child.name, child.uid
        if child.owner is not None and child.owner[0] == "JobSet":
            # The JobSet would create its Job again.
            kind, name, uid = "JobSet", child.owner[1], child.owner[2]
        await self.cluster.delete(kind, child.namespace, name, uid)

    async def _restore(self, run: Run, child: Child) -> None:
        """Undo manual changes of a Job."""
        owner, launch = plan.owner_of(run), run.status.launch
        assert launch is not None, "only the run's launch is restored"  # noqa: S101
        labels = {
            LABEL_UNIT: launch.unit,
            LABEL_ITERATION: str(launch.iteration),
            LABEL_LAUNCH: str(launch.number),
        }
        metadata: dict[str, Any] = {"labels": {**owner.labels, **labels}}
        if child.owner is None:
            metadata["ownerReferences"] = [owner.reference]
        spec = {"parallelism": child.completions, "activeDeadlineSeconds": None}
        # Kueue suspends the Jobs of a queue. Of all others only a person can have done it.
        resumed = {} if child.queue else {"suspend": False}
        patch = {"metadata": metadata, "spec": {**spec, **resumed}}
        try:
            body = await self.cluster.patch("Job", child.namespace, child.name, patch)
        except Missing:
            self.index.forget_job(run.uid, child.name)
            self.again(run.key)
            return
        self.index.put_job(body)
        message = f"Job {child.name} was changed manually and has been restored"
        self.listener.record(run, RecordEvent("Warning", "Restored", message))

    async def _set_finalizer(self, run: Run, *, is_wanted: bool) -> None:
        others = [name for name in run.finalizers if name != FINALIZER]
        metadata = {
            "resourceVersion": run.resource_version,
            "finalizers": [*others, FINALIZER] if is_wanted else others,
        }
        try:
            body = await self.cluster.patch_run(run.namespace, run.name, {"metadata": metadata})
        except Missing:
            return
        self.index.put_run(body)

    def _know(self, run: Run, **changes: Any) -> None:
        """Change the facts of a run and reconcile it again."""
        self.facts[run.uid] = replace(self.facts.get(run.uid, Facts()), **changes)
        self.again(run.key)


def _dumped(status: Status) -> dict[str, Any]:
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)
