"""What the operator asks of a cluster, asked of a real API server and of the one in memory.

The state machines of tests/unit run on the one in memory: it is worth as much as this file says.
"""

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Protocol, TypeVar

import pytest
from typing_extensions import override

from selfimprove_operator.api.status import FINALIZER, LABEL_MANAGED_BY, MANAGED_BY
from selfimprove_operator.cluster.door import Cluster, ClusterApi, Created, Manifest
from selfimprove_operator.cluster.errors import (
    Conflict,
    Missing,
    NamespaceEnding,
    Refused,
    Unavailable,
)
from support import runs
from support.control_plane import ControlPlane
from support.memory_cluster import MemoryCluster

pytestmark = pytest.mark.control_plane

T = TypeVar("T")
Steps = Callable[[ClusterApi], Awaitable[T]]


class World(Protocol):
    """A cluster, with the hand of somebody who is not the operator."""

    namespace: str

    def play(self, steps: Steps[T]) -> T: ...

    def end_namespace(self) -> None: ...


class MemoryWorld(World):
    namespace = "test"

    def __init__(self) -> None:
        self.cluster = MemoryCluster()

    @override
    def play(self, steps: Steps[T]) -> T:
        async def main() -> T:
            return await steps(self.cluster)

        return asyncio.run(main())

    @override
    def end_namespace(self) -> None:
        self.cluster.ending_namespaces.add(self.namespace)


class RealWorld(World):
    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.plane = plane
        self.namespace = namespace
        self.calls: list[tuple[str, str, str]] = []
        self.limited_to: tuple[str, ...] = ()
        plane.kubectl("create", "namespace", namespace)

    @override
    def play(self, steps: Steps[T]) -> T:
        async def main() -> T:
            cluster = await Cluster.connect(self._count, self.limited_to)
            try:
                return await steps(cluster)
            finally:
                await cluster.close()

        return asyncio.run(main())

    @override
    def end_namespace(self) -> None:
        self.plane.kubectl("delete", "namespace", self.namespace, "--wait=false")

    def _count(self, verb: str, resource: str, code: str) -> None:
        self.calls.append((verb, resource, code))


@pytest.fixture
def real(served: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> RealWorld:
    """Return a namespace of its own on the API server."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(served.kubeconfig))
    return RealWorld(served, f"cluster-{uuid.uuid4().hex[:8]}")


@pytest.fixture(params=["memory", "server"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Return each of the two clusters in turn."""
    if request.param == "memory":
        yield MemoryWorld()
    else:
        yield request.getfixturevalue("real")


def run_in(world: World, name: str = "test", **metadata: Any) -> Manifest:
    made = runs.file()
    made["metadata"] = {"name": name, "namespace": world.namespace, **metadata}
    return made


def job_in(world: World, name: str = "job", *, is_ours: bool = True) -> Manifest:
    labels = {LABEL_MANAGED_BY: MANAGED_BY} if is_ours else {}
    container = {"name": "stage", "image": "localhost/none:test"}
    pod = {"restartPolicy": "Never", "containers": [container]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": world.namespace, "labels": labels},
        "spec": {"backoffLimit": 0, "template": {"spec": pod}},
    }


def uid_of(found: Manifest) -> str:
    uid: str = found["metadata"]["uid"]
    return uid


def version_of(found: Manifest) -> str:
    version: str = found["metadata"]["resourceVersion"]
    return version


def test_what_is_created_can_be_read(world: World) -> None:
    """The answer to a create is the object as a later read has it."""

    async def steps(cluster: ClusterApi) -> tuple[Created, Manifest | None]:
        created = await cluster.create(job_in(world))
        return created, await cluster.read("Job", world.namespace, "job")

    created, found = world.play(steps)

    assert not created.existed
    assert found is not None
    assert uid_of(found) == uid_of(created.manifest)
    assert found["spec"]["parallelism"] == 1
    assert found["spec"]["suspend"] is False


def test_creating_twice_is_creating_once(world: World) -> None:
    """The second create returns what the first one made, and says so."""

    async def steps(cluster: ClusterApi) -> tuple[Created, Created]:
        return await cluster.create(job_in(world)), await cluster.create(job_in(world))

    first, second = world.play(steps)

    assert (first.existed, second.existed) == (False, True)
    assert uid_of(first.manifest) == uid_of(second.manifest)


def test_a_dry_run_makes_nothing(world: World) -> None:
    """The API server judges, and nothing is there afterwards."""

    async def steps(cluster: ClusterApi) -> tuple[Created, Manifest | None]:
        tried = await cluster.create(job_in(world), dry_run=True)
        return tried, await cluster.read("Job", world.namespace, "job")

    tried, found = world.play(steps)

    assert not tried.existed
    assert found is None


def test_what_is_not_there_is_none(world: World) -> None:
    """A read of nothing is no error."""

    async def steps(cluster: ClusterApi) -> Manifest | None:
        return await cluster.read("SelfImproveRun", world.namespace, "none")

    assert world.play(steps) is None


def test_a_status_is_written_whole(world: World) -> None:
    """Fields that are gone from the new status are gone from the API server as well."""
    first = {
        "iteration": 1,
        "message": "working",
        "launch": {"unit": "check", "iteration": 0, "startTime": "2027-01-01T00:00:00Z"},
        "images": [{"role": "light", "imageID": "a"}, {"role": "training", "imageID": "b"}],
    }
    second = {"iteration": 2, "images": [{"role": "light", "imageID": "a"}]}

    async def steps(cluster: ClusterApi) -> tuple[Manifest, Manifest, Manifest | None]:
        made = (await cluster.create(run_in(world))).manifest
        one = await cluster.patch_status(world.namespace, "test", first, version_of(made), old={})
        two = await cluster.patch_status(
            world.namespace, "test", second, version_of(one), old=one["status"]
        )
        return one, two, await cluster.read("SelfImproveRun", world.namespace, "test")

    one, two, found = world.play(steps)

    assert one["status"]["message"] == "working"
    assert found is not None
    assert found["status"] == two["status"] == second
    assert version_of(found) == version_of(two) != version_of(one)


def test_a_status_on_an_old_version_is_a_conflict(world: World) -> None:
    """Whoever was faster is not overwritten."""

    async def steps(cluster: ClusterApi) -> Manifest | None:
        made = (await cluster.create(run_in(world))).manifest
        old = version_of(made)
        await cluster.patch_status(world.namespace, "test", {"iteration": 1}, old, old={})
        with pytest.raises(Conflict):
            await cluster.patch_status(world.namespace, "test", {"iteration": 2}, old, old={})
        return await cluster.read("SelfImproveRun", world.namespace, "test")

    found = world.play(steps)

    assert found is not None
    assert found["status"] == {"iteration": 1}


def test_a_status_that_is_as_it_was_makes_no_new_version(world: World) -> None:
    """A patch without a difference wakes no watch."""

    async def steps(cluster: ClusterApi) -> tuple[str, str]:
        made = (await cluster.create(run_in(world))).manifest
        status = {"iteration": 1}
        one = await cluster.patch_status(world.namespace, "test", status, version_of(made), old={})
        two = await cluster.patch_status(
            world.namespace, "test", status, version_of(one), old=status
        )
        return version_of(one), version_of(two)

    one, two = world.play(steps)

    assert one == two


def test_the_status_of_a_deleted_run_is_missing(world: World) -> None:
    """The run may be gone between reading and writing."""

    async def steps(cluster: ClusterApi) -> None:
        await cluster.patch_status(world.namespace, "none", {"iteration": 1}, "1", old={})

    with pytest.raises(Missing):
        world.play(steps)


def test_spec_and_status_have_doors_of_their_own(world: World) -> None:
    """A patch of the run cannot touch its status."""

    async def steps(cluster: ClusterApi) -> Manifest:
        await cluster.create(run_in(world))
        patch = {"spec": {"suspend": True}, "status": {"iteration": 7}}
        return await cluster.patch_run(world.namespace, "test", patch)

    found = world.play(steps)

    assert found["spec"]["suspend"] is True
    assert "status" not in found
    assert found["metadata"]["generation"] == 2


def test_a_run_with_a_finalizer_waits_for_it(world: World) -> None:
    """Deletion only marks the run; it goes when the finalizer is taken off."""

    async def steps(cluster: ClusterApi) -> tuple[Manifest | None, Manifest | None]:
        made = (await cluster.create(run_in(world, finalizers=[FINALIZER]))).manifest
        await cluster.delete("SelfImproveRun", world.namespace, "test", uid_of(made))
        marked = await cluster.read("SelfImproveRun", world.namespace, "test")
        await cluster.patch_run(world.namespace, "test", {"metadata": {"finalizers": []}})
        return marked, await cluster.read("SelfImproveRun", world.namespace, "test")

    marked, gone = world.play(steps)

    assert marked is not None
    assert "deletionTimestamp" in marked["metadata"]
    assert gone is None


def test_a_finalizer_is_set_on_the_version_that_was_read(world: World) -> None:
    """The list is replaced whole, so that a stale one must not be written."""

    async def steps(cluster: ClusterApi) -> Manifest:
        made = (await cluster.create(run_in(world))).manifest
        metadata = {"resourceVersion": version_of(made), "finalizers": [FINALIZER]}
        changed = await cluster.patch_run(world.namespace, "test", {"metadata": metadata})
        with pytest.raises(Conflict):
            await cluster.patch_run(world.namespace, "test", {"metadata": metadata})
        return changed

    assert world.play(steps)["metadata"]["finalizers"] == [FINALIZER]


def test_only_the_object_that_was_meant_is_deleted(world: World) -> None:
    """Another object of the same name stays; deleting what is gone is no error."""

    async def steps(cluster: ClusterApi) -> tuple[Manifest | None, Manifest | None]:
        made = (await cluster.create(job_in(world))).manifest
        other = "00000000-0000-4000-8000-00000000dead"
        await cluster.delete("Job", world.namespace, "job", other)
        kept = await cluster.read("Job", world.namespace, "job")
        await cluster.delete("Job", world.namespace, "job", uid_of(made))
        await cluster.delete("Job", world.namespace, "job", uid_of(made))
        return kept, await cluster.read("Job", world.namespace, "job")

    kept, gone = world.play(steps)

    assert kept is not None
    assert gone is None


def test_a_listing_has_our_children_and_every_run(world: World) -> None:
    """Jobs of others are not listed; runs need no label."""

    async def steps(cluster: ClusterApi) -> tuple[set[str], set[str]]:
        await cluster.create(job_in(world, "ours"))
        await cluster.create(job_in(world, "theirs", is_ours=False))
        made = (await cluster.create(run_in(world))).manifest
        jobs = await eventually(cluster, "Job", "ours")
        listed = await eventually(cluster, "SelfImproveRun", "test")
        assert listed[uid_of(made)].resource_version == version_of(made)
        return (
            {each.name for each in jobs.values() if each.namespace == world.namespace},
            {each.name for each in listed.values() if each.namespace == world.namespace},
        )

    assert world.play(steps) == ({"ours"}, {"test"})


async def eventually(cluster: ClusterApi, kind: Any, name: str) -> Any:
    """List until an object is there: the server answers from a cache of its own."""
    for _ in range(100):
        found = await cluster.versions(kind)
        if name in {version.name for version in found.values()}:
            return found
        await asyncio.sleep(0.05)
    message = f"{name} is not listed"
    raise AssertionError(message)


def test_a_child_changed_by_hand_can_be_restored(world: World) -> None:
    """A merge patch brings labels and suspend back, and takes a deadline away."""

    async def steps(cluster: ClusterApi) -> tuple[Manifest, Manifest]:
        await cluster.create(job_in(world))
        spoiled = await cluster.patch(
            "Job",
            world.namespace,
            "job",
            {
                "metadata": {"labels": {LABEL_MANAGED_BY: None}},
                "spec": {"suspend": True, "activeDeadlineSeconds": 60},
            },
        )
        restored = await cluster.patch(
            "Job",
            world.namespace,
            "job",
            {
                "metadata": {"labels": {LABEL_MANAGED_BY: MANAGED_BY}},
                "spec": {"suspend": False, "activeDeadlineSeconds": None},
            },
        )
        return spoiled, restored

    spoiled, restored = world.play(steps)

    assert LABEL_MANAGED_BY not in spoiled["metadata"].get("labels", {})
    assert spoiled["spec"]["activeDeadlineSeconds"] == 60
    assert restored["metadata"]["labels"][LABEL_MANAGED_BY] == MANAGED_BY
    assert "activeDeadlineSeconds" not in restored["spec"]


def test_a_jobs_template_cannot_be_changed(world: World) -> None:
    """This is why every relaunch is a new Job."""

    async def steps(cluster: ClusterApi) -> None:
        await cluster.create(job_in(world))
        changed = {"spec": {"template": {"spec": {"priorityClassName": "high"}}}}
        await cluster.patch("Job", world.namespace, "job", changed)

    with pytest.raises(Refused, match="immutable") as refused:
        world.play(steps)

    assert refused.value.status == 422


def test_nothing_is_created_in_a_namespace_that_ends(world: World) -> None:
    """This refusal is told from every other one."""
    world.end_namespace()

    async def steps(cluster: ClusterApi) -> None:
        await cluster.create(job_in(world))

    with pytest.raises(NamespaceEnding):
        world.play(steps)


def test_events_are_found_by_the_uid_of_what_they_are_about(world: World) -> None:
    """An object of the same name before this one has left Events too."""

    def event(name: str, uid: str) -> Manifest:
        about = {"kind": "Job", "namespace": world.namespace, "name": "job", "uid": uid}
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": world.namespace},
            "involvedObject": about,
            "type": "Warning",
            "reason": "FailedCreate",
            "message": "exceeded quota",
            "count": 1,
        }

    async def steps(cluster: ClusterApi) -> tuple[list[Manifest], Manifest]:
        await cluster.create(event("old", "uid-1"))
        await cluster.create(event("new", "uid-2"))
        counted = await cluster.patch("Event", world.namespace, "new", {"count": 2})
        return await cluster.events_of(world.namespace, "uid-2"), counted

    found, counted = world.play(steps)

    assert [each["metadata"]["name"] for each in found] == ["new"]
    assert counted["count"] == 2


def test_what_is_served_is_known(world: World) -> None:
    """JobSet is looked for in this way."""

    async def steps(cluster: ClusterApi) -> tuple[bool, bool, bool]:
        return (
            await cluster.serves("batch/v1", "jobs"),
            await cluster.serves("batch/v1", "jobsets"),
            await cluster.serves("jobset.x-k8s.io/v1alpha2", "jobsets"),
        )

    assert world.play(steps) == (True, False, False)


def test_a_pod_that_is_gone_has_no_log(world: World) -> None:
    """Progress is nothing to fail for."""

    async def steps(cluster: ClusterApi) -> str | None:
        return await cluster.last_log_line(world.namespace, "none", 1000)

    assert world.play(steps) is None


def test_a_field_that_does_not_exist_is_refused(real: RealWorld) -> None:
    """A misspelt pod setting is no setting that is silently left out."""
    job = job_in(real)
    job["spec"]["template"]["spec"]["priorityClass"] = "high"

    async def steps(cluster: ClusterApi) -> None:
        await cluster.create(job, dry_run=True)

    with pytest.raises(
        Refused, match=r"unknown field .spec\.template\.spec\.priorityClass."
    ) as refused:
        real.play(steps)

    assert refused.value.status == 400


def test_a_namespace_that_does_not_exist_is_missing(real: RealWorld) -> None:
    """After a namespace is gone, creates are answered like this."""
    job = job_in(real)
    job["metadata"]["namespace"] = "nowhere"

    async def steps(cluster: ClusterApi) -> None:
        await cluster.create(job)

    with pytest.raises(Missing, match="nowhere"):
        real.play(steps)


def test_quota_is_a_refusal_with_its_reason(real: RealWorld) -> None:
    """What a person has to know stands in the message."""
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none", "namespace": real.namespace},
        "spec": {"hard": {"count/jobs.batch": "0"}},
    }
    assert real.plane.kubectl("create", "-f", "-", input=json.dumps(quota)).rc == 0
    status = {"status": {"hard": {"count/jobs.batch": "0"}, "used": {"count/jobs.batch": "0"}}}
    patched = real.plane.kubectl(
        *("patch", "resourcequota", "none", "-n", real.namespace, "--subresource=status"),
        *("--type=merge", "-p", json.dumps(status)),
    )
    assert patched.rc == 0, patched.stderr

    async def steps(cluster: ClusterApi) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:  # the quota's admission has a cache
            await cluster.create(job_in(real, f"job-{time.monotonic_ns()}"))
            await asyncio.sleep(0.05)

    with pytest.raises(Refused, match="exceeded quota: none") as refused:
        real.play(steps)

    assert refused.value.status == 403
    assert not isinstance(refused.value, NamespaceEnding)


def test_listings_are_limited_to_the_namespaces_that_are_watched(real: RealWorld) -> None:
    """With Roles for some namespaces, a listing of all would be forbidden."""
    real.limited_to = (real.namespace, "default")
    elsewhere = job_in(real, f"elsewhere-{real.namespace}")
    elsewhere["metadata"]["namespace"] = "kube-public"

    async def steps(cluster: ClusterApi) -> set[str]:
        await cluster.create(elsewhere)
        await cluster.create(job_in(real))
        found = await eventually(cluster, "Job", "job")
        return {version.namespace for version in found.values()}

    assert real.namespace in real.play(steps) <= {real.namespace, "default"}


def test_every_call_is_counted(real: RealWorld) -> None:
    """What the benchmark divides by the number of runs."""

    async def steps(cluster: ClusterApi) -> None:
        made = (await cluster.create(run_in(real))).manifest
        await cluster.patch_status(
            real.namespace, "test", {"iteration": 1}, version_of(made), old={}
        )
        await cluster.create(run_in(real))

    real.play(steps)

    assert real.calls == [
        ("create", "selfimproveruns", "201"),
        ("patch", "selfimproveruns/status", "200"),
        ("create", "selfimproveruns", "409"),
        ("get", "selfimproveruns", "200"),
    ]


def test_credentials_that_expired_are_no_verdict(
    real: RealWorld, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token is renewed while the operator runs; until then the server is unavailable."""
    config = json.loads(real.plane.kubeconfig.read_text())
    config["users"][0]["user"]["token"] = "expired"  # noqa: S105  known to nobody
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))

    async def steps(cluster: ClusterApi) -> None:
        await cluster.read("Job", real.namespace, "job")

    with pytest.raises(Unavailable):
        real.play(steps)
