"""Reconcile one run: write the status that was decided, then do what was decided.

The queue never gives the same run to two workers. What the index has may be old: the status is
written with the version that was read as its precondition, and a launch that an earlier pass
decided on is created only after the run was read again. Neighbours: `plan` decides, `index`
observes, `looks` reads logs and Events, `cluster` is the door.
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
    Refusal,
    Restore,
    SetFinalizer,
    Tell,
)
from selfimprove_operator.decisions.observed import Child, Run
from selfimprove_operator.launches import jobs, network, snapshot, units
from selfimprove_operator.launches.blueprint import Blueprint
from selfimprove_operator.launches.snapshot import MultiNode, Owner, Snapshot
from selfimprove_operator.watching import looks
from selfimprove_operator.watching.index import Index, Key

log = logging.getLogger(__name__)

NOT_FOUND: Final = 404


class Listener(Protocol):
    """Who is told of what happened: Kubernetes Events for people, metrics for Prometheus."""

    def tell(self, run: Run, event: Tell) -> None:
        """Tell people something about a run; it never fails and never waits."""

    def moved(self, before: Status, after: Status) -> None:
        """Note that a run's status was changed."""


@dataclass
class Loop:
    """The impure half of the operator: everything that it does to the cluster."""

    cluster: ClusterApi
    settings: Settings
    index: Index
    listener: Listener
    multi_node: MultiNode
    again: Callable[[Key], None]
    """again asks for another pass over a run."""
    clock: Callable[[], float] = time.time
    facts: dict[str, Facts] = field(default_factory=dict)
    """facts by uid of the run."""

    async def reconcile(self, key: Key) -> float | None:
        """Take one run one step further; return the seconds until the clock may change it."""
        seen = self.index.observed(key, self.facts)
        if seen is None:
            self._forget()
            return None
        take = partial(snapshot.take, settings=self.settings, multi_node=self.multi_node)
        decision = plan.decide(seen, take, self.clock())
        run, is_fresh = seen.run, False
        try:
            if decision.status != run.status:
                run, is_fresh = await self._write(run, decision.status), True
            for action in decision.actions:
                await self._do(action, run, is_fresh=is_fresh)
        except (Conflict, Missing):
            await self._read_again(key)
        return decision.wake_seconds

    async def _write(self, run: Run, status: Status) -> Run:
        """Write the status of a run that is still as it was read, and return the run."""
        body = await self.cluster.patch_status(
            run.namespace, run.name, _dumped(status), run.resource_version, old=_dumped(run.status)
        )
        self.listener.moved(run.status, status)
        self.index.put_run(body)
        return self.index.run(run.key) or run

    async def _read_again(self, key: Key) -> None:
        """Take over the run as the API server has it; another writer was faster."""
        body = await self.cluster.read("SelfImproveRun", *key)
        if body is None:
            run = self.index.run(key)
            if run is not None:
                self.index.drop_run({"metadata": _identity(run)})
        else:
            self.index.put_run(body)
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
                before = self.facts.get(run.uid, Facts())
                self.facts[run.uid] = await looks.look(
                    self.cluster, run, action, before, self.clock()
                )
                self.again(run.key)
            case SetFinalizer(is_wanted):
                await self._set_finalizer(run, is_wanted=is_wanted)
            case DeleteRun():
                await self.cluster.delete("SelfImproveRun", run.namespace, run.name, run.uid)
            case Tell():
                self.listener.tell(run, action)

    async def _create(self, run: Run, *, is_fresh: bool) -> None:
        """Create the run's launch, if the run is still at it.

        The snapshot is stored right after the first Job, which does not wait for it.
        """
        if not is_fresh and not (await self._is_current(run) and await self._is_alone(run)):
            return
        is_first = run.status.launch is not None and run.status.launch.unit == "check"
        owner = plan.owner_of(run)
        try:
            taken = self._take(run) if is_first else await self._snapshot(run)
            for manifest in self._manifests(run, owner, taken):
                created = await self.cluster.create(manifest)
                if manifest["kind"] == "Job":
                    await self._own(run, manifest, created.manifest)
            if is_first:
                await self.cluster.create(snapshot.revision(taken, owner))
        except Refused as error:
            self._refused(run, error)
        else:
            self._know(run, refusal=None)

    async def _is_current(self, run: Run) -> bool:
        """Return whether the run is as the index has it; if not, take it over."""
        body = await self.cluster.read("SelfImproveRun", run.namespace, run.name)
        if body is not None and body["metadata"]["resourceVersion"] == run.resource_version:
            return True
        await self._read_again(run.key)
        return False

    async def _is_alone(self, run: Run) -> bool:
        """Return whether no pod of an earlier launch is left; the index may not know yet."""
        launch = run.status.launch
        if launch is None or launch.number == 0:
            return True
        bodies = await self.cluster.pods_of(run.namespace, run.uid)
        left = [b for b in bodies if not (_is_of(launch, b) or observed.pod(b).is_finished)]
        for body in left:
            self.index.put_pod(body)
        if left:
            self.again(run.key)
        return not left

    async def _own(self, run: Run, wanted: Manifest, found: Manifest) -> None:
        """Note a Job that was created; one that another run left in its place is in the way."""
        metadata, labels = found["metadata"], wanted["metadata"]["labels"]
        name = metadata["name"]
        uids = {owner["uid"] for owner in metadata.get("ownerReferences", ())}
        if run.uid not in uids | {metadata.get("labels", {}).get(LABEL_RUN_UID)}:
            message = f"expected no Job {name}, found another run's; delete it"
            raise Refused(409, message)
        if labels.items() - metadata.get("labels", {}).items():
            patch = {"metadata": {"labels": labels}}
            found = await self.cluster.patch("Job", run.namespace, name, patch)
        known = self.facts.get(run.uid, Facts())
        self._know(run, gone=known.gone - {name})
        self.index.put_job(found, run_uid=run.uid)

    def _manifests(self, run: Run, owner: Owner, taken: Snapshot) -> tuple[Manifest, ...]:
        """Return what the run's launch consists of."""
        launch = run.status.launch
        assert launch is not None, "a launch is created after it stands in the status"  # noqa: S101
        spec = plan.resolved_run(run).spec
        unit = units.unit(launch.unit, spec, launch.iteration)
        made = jobs.manifests(Blueprint(launch, unit, owner, taken, spec))
        is_first = launch.unit == "check" and taken.network_policy.enabled
        return (network.network_policy(owner, taken), *made) if is_first else made

    async def _snapshot(self, run: Run) -> Snapshot:
        """Return what the run was accepted with, as it was stored after the first launch."""
        owner = plan.owner_of(run)
        body = await self.cluster.read("ControllerRevision", run.namespace, owner.metadata["name"])
        if body is not None:
            return snapshot.of_revision(body)
        log.warning("the ControllerRevision of a run is gone; it is made anew")
        taken = self._take(run)
        await self.cluster.create(snapshot.revision(taken, owner))
        return taken

    def _take(self, run: Run) -> Snapshot:
        return snapshot.take(plan.resolved_run(run), self.settings, self.multi_node)

    async def _dry_run(self, run: Run) -> None:
        """Have the API server judge a launch of every role."""
        spec, owner = plan.resolved_run(run).spec, plan.owner_of(run)
        taken = await self._snapshot(run)
        roles = {unit.role: unit for unit in reversed(units.units_of(spec, 0))}
        try:
            for unit in roles.values():
                launch = Launch(unit=unit.name, iteration=0)
                made = jobs.manifests(Blueprint(launch, unit, owner, taken, spec))
                for manifest in made:
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
        """Ask whether a Job is gone that the index does not have."""
        body = await self.cluster.read("Job", run.namespace, job)
        if body is None:
            known = self.facts.get(run.uid, Facts())
            self._know(run, gone=known.gone | {job})
        else:
            self.index.put_job(body, run_uid=run.uid)
            self.again(run.key)

    async def _delete(self, run: Run, child: Child) -> None:
        """Delete a launch that still is as it was seen.

        Watches of different kinds know nothing of each other's order: a run may have moved on
        from a launch whose end the index has not been told. Of a JobSet the Job alone would only
        be made again.
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
            kind, name, uid = "JobSet", child.owner[1], child.owner[2]
        await self.cluster.delete(kind, child.namespace, name, uid)

    async def _restore(self, run: Run, child: Child) -> None:
        """Give a Job back what a hand has changed."""
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
        held = {} if child.queue else {"suspend": False}
        patch = {"metadata": metadata, "spec": {**spec, **held}}
        try:
            body = await self.cluster.patch("Job", child.namespace, child.name, patch)
        except Missing:
            self.index.forget_job(run.uid, child.name)
            self.again(run.key)
            return
        self.index.put_job(body)
        restored = f"{child.name} was changed by hand; it is as it was"
        self.listener.tell(run, Tell("Warning", "Restored", restored))

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
        """Change the facts of a run and look at it again."""
        self.facts[run.uid] = replace(self.facts.get(run.uid, Facts()), **changes)
        self.again(run.key)

    def _forget(self) -> None:
        """Drop the facts of runs that are gone."""
        for uid in [uid for uid in self.facts if self.index.key_of(uid) is None]:
            del self.facts[uid]


def _is_of(launch: Launch, pod: Manifest) -> bool:
    """Return whether a pod belongs to a launch, by its labels."""
    labels = pod["metadata"].get("labels", {})
    found = (labels.get(name) for name in (LABEL_UNIT, LABEL_ITERATION, LABEL_LAUNCH))
    return tuple(found) == (launch.unit, str(launch.iteration), str(launch.number))


def _dumped(status: Status) -> dict[str, Any]:
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def _identity(run: Run) -> dict[str, str]:
    return {"namespace": run.namespace, "name": run.name, "uid": run.uid}
