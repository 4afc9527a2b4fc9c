"""What a machine computes on, told before anything heavy is loaded."""

from pathlib import Path

import pytest

from selfimprove_pipeline.contract.environment import DEVICES
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.machine import devices

DRIVER = (
    "NVRM version: NVIDIA UNIX {}  {}  Release Build  (dvs-builder@U22)\nGCC version: gcc 12.3\n"
)


@pytest.mark.parametrize(
    ("visible", "count"), [(None, 2), ("0", 1), ("1,0", 2), ("", 0), ("-1", 0), ("GPU-1,GPU-2", 2)]
)
def test_gpus_are_counted_as_a_process_would_see_them(
    visible: str | None, count: int, tmp_path: Path
) -> None:
    """Device files count, unless CUDA_VISIBLE_DEVICES chooses among them."""
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}

    assert devices.num_gpus(environment, tmp_path) == count


def test_the_toolchain_names_what_makes_other_bits() -> None:
    """Device, world size and versions; threads only where sums depend on them."""
    cpu, gpu = devices.toolchain("vllm", 0), devices.toolchain("transformers", 4)
    on_cpu, on_gpu = cpu.training or {}, gpu.training or {}

    assert (on_cpu["device"], on_cpu["worldSize"], on_cpu["threads"]) == ("cpu", "1", "1")
    assert (on_gpu["device"], on_gpu["worldSize"]) == ("cuda", "4")
    assert "threads" not in on_gpu
    assert "vllm" in (cpu.inference or {})
    assert "vllm" not in (gpu.inference or {})


def machine(folder: Path, *names: str) -> Path:
    """Return a folder of device files."""
    devices_folder = folder / "dev"
    for name in names:
        (devices_folder / name).parent.mkdir(parents=True, exist_ok=True)
        (devices_folder / name).touch()
    return devices_folder


@pytest.fixture
def torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a torch before the real one that sees no GPU and says why; return its file."""
    package = tmp_path / "site" / "torch.py"
    package.parent.mkdir()
    package.write_text(
        "from types import SimpleNamespace\n"
        "def init():\n"
        "    raise RuntimeError('the driver\\nis no good')\n"
        "__version__ = '2.13.0'\n"
        "version = SimpleNamespace(cuda='13.0')\n"
        "cuda = SimpleNamespace(is_available=lambda: False, init=init)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    built_for(monkeypatch, "2.13.0")
    return package


def built_for(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """Let another build of torch be the installed one."""
    versions = {"torch": version}
    monkeypatch.setattr(devices, "_version", lambda name: versions.get(name, "absent"))


@pytest.mark.parametrize(
    ("variable", "visible", "count"),
    [
        ("HIP_VISIBLE_DEVICES", None, 2),
        ("HIP_VISIBLE_DEVICES", "", 0),
        ("ROCR_VISIBLE_DEVICES", "1", 1),
        ("CUDA_VISIBLE_DEVICES", "-1", 0),
    ],
)
def test_amd_gpus_are_counted_where_their_driver_is(
    variable: str, visible: str | None, count: int, tmp_path: Path
) -> None:
    """Render nodes count beside the driver's file alone: other makers have render nodes, too."""
    environment = {} if visible is None else {variable: visible}
    nodes = ("dri/card0", "dri/renderD128", "dri/renderD129")

    assert devices.num_amd_gpus(environment, machine(tmp_path, *nodes)) == 0
    assert devices.num_amd_gpus(environment, machine(tmp_path, *nodes, "kfd")) == count


@pytest.mark.parametrize(
    ("version", "count"),
    [("2.13.0", 1), ("2.13.0+cu130", 1), ("2.13.0+cpu", 0), ("2.13.0+rocm7", 2)],
)
def test_a_build_of_torch_uses_the_gpus_that_it_is_for(
    version: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one of NVIDIA's and two of AMD's in the machine."""
    built_for(monkeypatch, version)
    monkeypatch.setattr(devices, "num_gpus", lambda: 1)
    monkeypatch.setattr(devices, "num_amd_gpus", lambda: 2)

    assert devices.usable_gpus() == count


@pytest.mark.usefixtures("torch")
@pytest.mark.parametrize("asked", [{}, {DEVICES: "nvidia.com/gpu=2"}], ids=["here", "pod"])
@pytest.mark.parametrize(
    ("driver", "found"),
    [
        (DRIVER.format("x86_64 Kernel Module", "550.54.15"),
         r"driver 550\.54\.15, where torch 2\.13\.0 with CUDA 13\.0 needs 580 or newer"),
        (DRIVER.format("Open Kernel Module for x86_64", "580.65.06"),
         r"torch 2\.13\.0 sees none: the driver is no good"),
        (None, r"torch 2\.13\.0 sees none: the driver is no good"),
    ],
    ids=["too old", "another fault", "no driver"],
)  # fmt: skip
def test_gpus_that_torch_cannot_see_are_an_error(
    asked: dict[str, str], driver: str | None, found: str, tmp_path: Path
) -> None:
    """In a pod and on one machine: a large model would train on processors, for days."""
    file = tmp_path / "version"
    if driver is not None:
        file.write_text(driver)

    with pytest.raises(InputError, match=f"^expected to compute on .*{found}.*node$"):
        devices.check(asked, machine(tmp_path, "nvidia0", "nvidia1"), file)


def test_gpus_that_torch_sees_are_no_reason_to_complain(torch: Path, tmp_path: Path) -> None:
    """Whoever asked for them; AMD's beside them belong to the machine's screen."""
    torch.write_text(torch.read_text().replace("lambda: False", "lambda: True"))
    here = machine(tmp_path, "nvidia0", "kfd", "dri/renderD128")

    for asked in ({}, {DEVICES: "nvidia.com/gpu=1"}):
        assert devices.check(asked, here, tmp_path / "none") == ""


def test_a_torch_that_does_not_start_is_told(torch: Path, tmp_path: Path) -> None:
    """With the last line of its error: a library that is missing, most often."""
    torch.write_text("raise ImportError('libcudart.so.13: cannot open')")

    with pytest.raises(InputError, match=r"torch does not start: ImportError: libcudart\.so\.13"):
        devices.check({}, machine(tmp_path, "nvidia0"), tmp_path / "none")


PODS = {
    "no device in the container": ("2.13.0", {}, (), "nvidia.com/gpu=1", "set runtimeClassName"),
    "devices that are hidden": (
        "2.13.0",
        {"CUDA_VISIBLE_DEVICES": ""},
        ("nvidia0",),
        "nvidia.com/gpu=1",
        "CUDA_VISIBLE_DEVICES='', which hides them",
    ),
    "a build for processors": ("2.13.0+cpu", {}, ("nvidia0",), "nvidia.com/gpu=1", "processors"),
    "AMD without a device": ("2.13.0", {}, (), "amd.com/gpu=1", "for AMD needs a ROCm build"),
    "AMD": (
        "2.13.0",
        {},
        ("kfd", "dri/renderD128"),
        "amd.com/gpu=1",
        "for AMD needs a ROCm build",
    ),
    "AMD without a device for its own build": (
        "2.13.0+rocm7.0",
        {},
        (),
        "amd.com/gpu=1",
        "set runtimeClassName",
    ),
    "another maker's": ("2.13.0", {}, (), "habana.ai/gaudi=8", "our images support no others"),
}


@pytest.mark.parametrize("name", PODS)
def test_a_pod_that_asked_for_gpus_never_computes_on_processors(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says what was asked for and what is in its place."""
    version, variables, files, asked, found = PODS[name]
    built_for(monkeypatch, version)

    with pytest.raises(InputError) as caught:
        devices.check({DEVICES: asked, **variables}, machine(tmp_path, *files))

    line = str(caught.value)
    assert line.startswith(f"expected to compute on {asked}, found ")
    assert found in line
    assert "\n" not in line


def test_a_machine_with_amd_gpus_is_told_that_they_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only told: many a processor has one built in. A build for processors is a choice."""
    here = machine(tmp_path, "kfd", "dri/renderD128")
    built_for(monkeypatch, "2.13.0")
    assert "our images support no others" in devices.check({}, here)
    assert devices.check({"HIP_VISIBLE_DEVICES": ""}, here) == ""
    built_for(monkeypatch, "2.13.0+cpu")
    assert devices.check({}, here) == ""


def test_a_machine_without_gpus_is_not_asked_for_torch(
    torch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers on processors start as fast as before."""
    torch.write_text("raise SystemExit('torch was imported')")
    for version in ("2.13.0", "2.13.0+cpu", "2.13.0+rocm7.0"):
        built_for(monkeypatch, version)
        assert devices.check({}, machine(tmp_path)) == ""
