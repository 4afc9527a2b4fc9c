"""Settings: the chart's file is read, and each mistake in it reported on one line."""

from pathlib import Path

import pytest

from selfimprove_operator.api import settings
from selfimprove_pipeline.contract.errors import InputError

GOOD = """
storage: {endpoint: "https://minio:9000", caRef: {name: ca}}
pods:
  inference: {image: a, resources: {limits: {nvidia.com/gpu: 1}}}
  training: {image: b}
  light: {image: c}
watchNamespaces: [research]
networkPolicy: {enabled: true, egress: [{ports: [{port: 8080}]}]}
"""
PODS = "pods: {inference: {image: a}, training: {image: b}, light: {image: c}}"

WRONG = {
    "no YAML": ("pods: [", "not valid YAML: while parsing"),
    "an empty file": ("", "expected an object, found null"),
    "a list": ("- pods", 'expected an object, found ["pods"]'),
    "no pods": ("engine: vllm", "pods: expected a value, found none"),
    "a role without image": (
        "pods: {inference: {image: a}, training: {image: b}}",
        "pods.light.image is missing; set it",
    ),
    "an unknown engine": (f"{PODS}\nengine: sglang", "engine: expected 'vllm' or 'transformers'"),
    "an unknown field": (f"{PODS}\nreplicas: 2", "replicas: expected a known field"),
    "an endpoint with a path": (
        f"{PODS}\nstorage: {{endpoint: 'http://minio/x'}}",
        'storage.endpoint: "http://minio/x" does not have the form',
    ),
    "text for a flag": (
        f"{PODS}\nnetworkPolicy: {{enabled: 'yes'}}",
        "networkPolicy.enabled: expected a valid boolean",
    ),
    "a mistake in a Kubernetes type": (
        PODS.replace("image: a", "image: a, volumes: [{name: x, hostPath: {path: /}}]"),
        "pods.inference.volumes.0.hostPath: expected a known field",
    ),
}


def load(content: str, folder: Path) -> settings.Settings:
    """Return the settings of a file with some content."""
    path = folder / "settings.yaml"
    path.write_text(content)
    return settings.load(path)


def test_a_file_of_the_chart_is_read_and_completed(tmp_path: Path) -> None:
    """What the chart leaves out has a default; what it says counts."""
    found = load(GOOD, tmp_path)

    assert found.pods.inference.resources == {"limits": {"nvidia.com/gpu": 1}}
    assert found.storage.ca_ref is not None
    assert found.storage.ca_ref.key == "ca.crt"
    assert found.watch_namespaces == ("research",)
    assert found.network_policy.egress == ({"ports": [{"port": 8080}]},)
    assert (found.engine, found.log_level) == ("vllm", "info")


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    """The line names the file, the field, what was expected and what was found."""
    content, expected = WRONG[name]

    with pytest.raises(InputError) as caught:
        load(content, tmp_path)

    assert expected in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path}/settings.yaml: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Without a file the message has its path."""
    with pytest.raises(InputError) as caught:
        settings.load(tmp_path / "settings.yaml")
    assert str(caught.value).startswith(f"{tmp_path}/settings.yaml: cannot read")
