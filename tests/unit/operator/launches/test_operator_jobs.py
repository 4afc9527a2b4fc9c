"""Manifests: golden files, and what must be true of every one of them."""

import copy
import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfimprove_operator.api import status
from selfimprove_operator.api.status import Launch, UnitName
from selfimprove_operator.launches import blueprint, jobs, network, pods, snapshot, units
from selfimprove_operator.launches.blueprint import Blueprint
from selfimprove_pipeline.contract.recipe import Pods, PodSettings, Run
from support import manifests

GPUS = "SELFIMPROVE_DEVICES"
DNS_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")


def made(case: str, unit: UnitName, iteration: int = 0) -> Blueprint:
    """Return a launch of a case."""
    return manifests.blueprint(case, Launch(unit=unit, iteration=iteration))


def job_of(drawn: Blueprint) -> dict[str, Any]:
    """Return the spec of the Job of a launch, or of the one in its JobSet."""
    spec: dict[str, Any] = jobs.manifests(drawn)[-1]["spec"]
    if "replicatedJobs" in spec:
        inner: dict[str, Any] = spec["replicatedJobs"][0]["template"]["spec"]
        return inner
    return spec


def container_of(drawn: Blueprint) -> dict[str, Any]:
    """Return the one container of a launch."""
    (container,) = job_of(drawn)["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def by_name(value: Any) -> Any:
    """Return a manifest with its lists of named things as maps: their order means nothing."""
    if isinstance(value, dict):
        return {key: by_name(inner) for key, inner in value.items()}
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        keys = [item.get("mountPath") or item.get("name") or str(item) for item in value]
        return dict(zip(keys, map(by_name, value), strict=True))
    return value


def with_light(settings: PodSettings) -> Blueprint:
    """Return a launch of the light role with some settings of the run's."""
    drawn = made("plain", "light")
    return replace(drawn, spec=drawn.spec.model_copy(update={"pods": Pods(light=settings)}))


def every_launch() -> Iterator[Blueprint]:
    """Yield every unit of every case."""
    for case in manifests.CASES:
        spec = manifests.run(case).spec
        for iteration in range(spec.iterations + 1):
            for unit in units.units_of(spec, iteration):
                yield made(case, unit.name, iteration)
        yield made(case, "delete")


@pytest.mark.parametrize("case", manifests.CASES)
def test_manifests_are_as_they_were_read_last(case: str) -> None:
    """A change of what the operator creates is seen by a person, as a change of these files."""
    for name, found in manifests.built(case):
        path = manifests.FOLDER / case / name
        if os.environ.get(manifests.WRITE):
            path.write_text(manifests.text(found))
        assert path.read_text() == manifests.text(found)


def test_every_golden_file_belongs_to_a_launch() -> None:
    """No file is left behind by a case that is gone."""
    inputs = {"run.yaml", "settings.yaml"}
    there = {
        f"{path.parent.name}/{path.name}"
        for path in manifests.FOLDER.glob("*/*.yaml")
        if path.name not in inputs
    }

    wanted = {f"{case}/{name}" for case in manifests.CASES for name, _ in manifests.built(case)}
    assert there == wanted


@pytest.mark.parametrize(
    ("case", "unit", "expected"),
    [
        ("plain", "check", "worker check FILE --iteration 0 --engine vllm"),
        ("plain", "inference", "worker inference FILE --iteration 0 --engine vllm"),
        ("plain", "light", "worker light FILE --iteration 0 --engine vllm"),
        ("plain", "training", "worker training FILE --iteration 0 --engine vllm"),
        ("plain", "report", "worker report FILE --iteration 0 --engine vllm"),
        ("plain", "delete", "worker delete FILE --iteration 0 --engine vllm"),
        (
            "separate",
            "evaluate",
            "worker inference FILE --iteration 0 --engine vllm --stages evaluate,gate",
        ),
        ("separate", "pair", "worker light FILE --iteration 0 --engine vllm --stages pair"),
        ("separate", "train", "worker training FILE --iteration 0 --engine vllm --stages train"),
        ("private", "inference", "worker inference FILE --iteration 0 --engine transformers"),
    ],
)
def test_a_unit_is_started_as_its_worker(case: str, unit: UnitName, expected: str) -> None:
    """The container's arguments name worker, run file, iteration, engine and a part's stages."""
    line = " ".join(container_of(made(case, unit))["args"])

    assert line == expected.replace("FILE", "/etc/selfimprove/run/run.json")


def test_every_pod_is_restricted_and_never_started_again_by_its_job() -> None:
    """No launch of any case has rights, a token, or a Job that retries."""
    for drawn in every_launch():
        job, container = job_of(drawn), container_of(drawn)
        pod = job["template"]["spec"]
        assert job["backoffLimit"] == 0
        assert [rule["action"] for rule in job["podFailurePolicy"]["rules"]] == ["FailJob"] * 2
        assert {"ttlSecondsAfterFinished", "activeDeadlineSeconds"}.isdisjoint(job)
        assert pod["restartPolicy"] == "Never"
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert all("hostPath" not in volume for volume in pod["volumes"])


def test_every_object_is_found_by_its_labels_and_goes_with_its_run() -> None:
    """Objects and pod templates carry the launch's labels, objects their owner."""
    for drawn in every_launch():
        found = jobs.manifests(drawn)
        parts = [manifest["metadata"] for manifest in found] + [
            template["metadata"] for one in found for template in manifests.templates(one)
        ]
        for metadata in parts:
            assert metadata["labels"][status.LABEL_MANAGED_BY] == status.MANAGED_BY
            assert metadata["labels"][status.LABEL_RUN_UID] == manifests.UID
            assert metadata["labels"][status.LABEL_UNIT] == drawn.unit.name
        assert all(one["metadata"]["ownerReferences"][0]["controller"] for one in found)


def test_only_a_roles_own_settings_ask_for_gpus() -> None:
    """Light units ask for what the light role has; the operator adds no GPU anywhere."""
    asked = {
        drawn.unit.name: container_of(drawn).get("resources", {}).get("limits", {})
        for drawn in every_launch()
        if drawn.owner.name in ("plain", "separate")
    }

    with_gpu = {name for name, limits in asked.items() if "nvidia.com/gpu" in limits}
    without = {"check", "light", "pair", "score", "report", "delete"}
    assert with_gpu == set(asked) - without
    assert without <= set(asked)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"nvidia.com/gpu": "8", "memory": "64Gi", "rdma/hca": 1}, "nvidia.com/gpu=8"),
        ({"nvidia.com/mig-3g.40gb": 1}, "nvidia.com/mig-3g.40gb=1"),
        ({"amd.com/gpu": 2}, "amd.com/gpu=2"),
        ({"nvidia.com/gpu": "0"}, None),
        ({"nvidia.com/hostdev": "1", "cpu": "4"}, None),
    ],
)
def test_a_container_is_told_the_gpus_that_it_asks_for(
    limits: dict[str, Any], expected: str | None
) -> None:
    """By which its worker refuses a pod that has got none; network cards are no GPUs."""
    settings = PodSettings(resources={"limits": limits}, env=({"name": GPUS, "value": "no"},))
    drawn = with_light(settings)

    found = {item["name"]: item.get("value") for item in container_of(drawn)["env"]}
    assert found.get(GPUS) == (expected or "no")


def test_capabilities_are_given_to_root_alone_and_no_others_with_them() -> None:
    """Kubernetes cannot give them to another user; without any the container has no rights."""
    plain = container_of(with_light(PodSettings()))["securityContext"]
    locked = container_of(with_light(PodSettings(capabilities=("IPC_LOCK",))))["securityContext"]

    assert plain == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    own = {"capabilities": {"drop": ["ALL"], "add": ["IPC_LOCK"]}}
    assert locked == {**plain, **own, "runAsNonRoot": False, "runAsUser": 0}


@pytest.mark.parametrize(
    ("case", "unit", "expected"),
    [
        ("shards", "check", 1),
        ("shards", "inference", 4),
        ("shards", "light", 1),
        ("shards", "training", 1),
        ("nodes", "inference", 1),
        ("nodes", "light", 1),
        ("nodes", "training", 2),
        ("jobset", "training", 2),
        ("jobset", "report", 1),
    ],
)
def test_only_the_units_that_share_their_work_have_several_pods(
    case: str, unit: UnitName, expected: int
) -> None:
    """Shards are for inference, nodes for training; an Indexed Job has a pod for each."""
    job = job_of(made(case, unit))

    assert (job["completions"], job["parallelism"]) == (expected, expected)
    assert job["completionMode"] == ("Indexed" if expected > 1 else "NonIndexed")


@pytest.mark.parametrize(
    ("endpoint", "translator", "expected"),
    [
        (None, None, [443]),
        ("https://store", None, [443]),
        ("http://store", None, [80, 443]),
        ("http://store:9000", "https://translator:8443/v1", [443, 8443, 9000]),
    ],
)
def test_the_network_policy_lets_pods_reach_what_the_recipe_names(
    endpoint: str | None, translator: str | None, expected: list[int]
) -> None:
    """Beside DNS and the run's own pods only HTTPS, the store's and the translator's port."""
    external = {"kind": "openai", "baseUrl": translator, "model": "mt"}
    run = manifests.taken("plain").run
    spec = copy.deepcopy(run["spec"])
    spec["storage"] = {"bucket": "runs", "endpoint": endpoint}
    if translator:
        spec["translation"] |= {"translator": "external", "external": external}
    taken = manifests.taken("plain").model_copy(update={"run": {**run, "spec": spec}})

    policy = network.network_policy(manifests.owner("plain"), taken)

    dns, outside, own = policy["spec"]["egress"]
    assert [rule["port"] for rule in dns["ports"]] == [53, 53]
    assert [rule["port"] for rule in outside["ports"]] == expected
    assert own["to"] == policy["spec"]["ingress"][0]["from"]


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("check", {"store", "prompts", "hub", "translator"}),
        ("inference", {"store", "prompts", "hub", "translator"}),
        ("light", {"store", "prompts", "hub"}),
        ("training", {"store", "prompts", "hub"}),
        ("delete", {"store"}),
    ],
)
def test_a_unit_gets_the_credentials_that_it_needs(unit: UnitName, expected: set[str]) -> None:
    """Only who translates gets the translator's key; deletion needs the store alone."""
    env = container_of(made("private", unit))["env"]

    references = [item["valueFrom"]["secretKeyRef"] for item in env if "valueFrom" in item]
    assert {reference["name"] for reference in references} == expected
    optional = {reference["key"] for reference in references if reference.get("optional")}
    assert optional == {"AWS_SESSION_TOKEN"}


@pytest.mark.parametrize(
    ("unit", "pairs", "is_asking"),
    [
        ("inference", 0, True),
        ("check", 0, False),
        ("training", 0, False),
        ("light", 0, False),
        ("light", 5, True),
    ],
)
def test_the_judges_key_goes_to_whoever_asks_it_under_its_own_name(
    unit: UnitName, pairs: int, is_asking: bool
) -> None:
    """The translator's Secret and the judge's have the same key, and both fit into one pod."""
    run = manifests.taken("private").run
    spec = copy.deepcopy(run["spec"])
    judge = {"baseUrl": "https://judge/v1", "model": "m", "secretRef": {"name": "judge"}}
    spec["evaluation"] = {
        "suites": [{"name": "headToHead", "uri": "s3://suites/questions"}],
        "judge": {**judge, "pairs": pairs},
    }
    taken = manifests.taken("private").model_copy(update={"run": {**run, "spec": spec}})
    chosen = units.unit(unit, taken.spec, 0)
    drawn = replace(made("private", unit), unit=chosen, snapshot=taken)
    env = {
        item["name"]: item["valueFrom"]["secretKeyRef"]
        for item in container_of(drawn)["env"]
        if "valueFrom" in item
    }

    found = env.get("SELFIMPROVE_JUDGE_OPENAI_API_KEY")
    assert found == ({"name": "judge", "key": "OPENAI_API_KEY"} if is_asking else None)


def test_settings_change_no_label_and_no_variable_that_a_launch_depends_on() -> None:
    """A run's pods settings cannot hide its pods from the operator, nor their messages."""
    drawn = made("plain", "light")
    hostile = PodSettings(
        labels={status.LABEL_MANAGED_BY: "me"},
        annotations={pods.RUN_ANNOTATION: "{}"},
        env=({"name": "SELFIMPROVE_TERMINATION_LOG", "value": "/dev/null"},),
        volumes=({"name": "run", "emptyDir": {}},),
        volume_mounts=({"name": "tmp", "mountPath": pods.RUN_FOLDER},),
    )
    changed = drawn.spec.model_copy(update={"pods": Pods(light=hostile)})

    assert by_name(job_of(replace(drawn, spec=changed))) == by_name(job_of(drawn))


def test_a_launch_has_the_pods_and_iterations_of_now_and_the_recipe_of_then() -> None:
    """Mutable fields count from the next launch on; the rest is what was accepted."""
    drawn = made("plain", "light")
    now = drawn.spec.model_copy(
        update={
            "iterations": 9,
            "pods": Pods(light=PodSettings(image="other")),
            "generation": drawn.spec.generation.model_copy(update={"shards": 3, "seed": 1}),
        }
    )

    template = job_of(replace(drawn, spec=now))["template"]

    file = Run.model_validate_json(template["metadata"]["annotations"][pods.RUN_ANNOTATION])
    assert template["spec"]["containers"][0]["image"] == "other"
    assert file.spec.iterations == 9
    assert file.spec.generation == drawn.snapshot.spec.generation


def test_a_launch_needs_nothing_but_the_revision_and_the_run() -> None:
    """What the API server gives back draws the same objects, whatever the chart says since."""
    revision = snapshot.revision(manifests.taken("private"), manifests.owner("private"))
    read = json.loads(json.dumps(revision))

    drawn = made("private", "inference")
    again = replace(drawn, snapshot=snapshot.of_revision(read))

    assert jobs.manifests(again) == jobs.manifests(drawn)


NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True)
LAUNCHES = st.builds(
    Launch,
    unit=st.sampled_from(["check", "inference", "training", "translate", "evaluate"]),
    iteration=st.integers(0, 100),
    suspensions=st.integers(0, 9999),
)


@given(NAMES, LAUNCHES, st.sampled_from([1, 2, 1024]), st.sampled_from(["IndexedJob", "JobSet"]))
def test_every_name_that_comes_of_a_launch_is_a_dns_label(
    name: str, launch: Launch, nodes: int, multi_node: str
) -> None:
    """Jobs, Services and host names are labels whatever the run's name, and end in the number."""
    drawn = named(name, launch, nodes=nodes, multi_node=multi_node)

    longest = f"{drawn.name}-{drawn.size - 1}" if drawn.size > 1 else drawn.name
    if drawn.is_jobset:
        longest = f"{drawn.name}-{blueprint.RANKS}-0-{drawn.size - 1}-abcde"
    assert DNS_LABEL.fullmatch(longest)
    assert drawn.name.endswith(f"-{launch.iteration}-{launch.unit}-{launch.number}")


def named(name: str, launch: Launch, *, nodes: int, multi_node: str) -> Blueprint:
    """Return a launch of a run with some name and number of nodes."""
    drawn = made("nodes", "training")
    spec = drawn.snapshot.run["spec"]
    run = drawn.snapshot.run | {"spec": spec | {"training": spec["training"] | {"nodes": nodes}}}
    return replace(
        drawn,
        launch=launch,
        unit=units.Unit(launch.unit, "training" if launch.unit == "training" else "light", ()),
        owner=replace(drawn.owner, name=name),
        snapshot=drawn.snapshot.model_copy(update={"run": run, "multi_node": multi_node}),
    )


def test_runs_whose_names_begin_alike_have_launches_of_other_names() -> None:
    """Where a name is cut, a digest of the whole keeps it apart from its neighbours."""
    launch = Launch(unit="training", iteration=0)
    names = {
        named(f"{'a' * 38}-{last}", launch, nodes=2, multi_node="JobSet").name for last in "bcd"
    }

    assert len(names) == 3
