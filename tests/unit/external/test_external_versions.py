"""What keys know of an external translator: another model is another key, another path is not."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from selfimprove_pipeline.contract.recipe.sampling import External
from selfimprove_pipeline.external import fingerprint

FILES = {
    "config.json": "{}",
    "model.safetensors": "weights",
    "source.spm": "pieces",
    "vocab.json": "{}",
    "README.md": "words",
}


def folder(path: Path, **changed: str) -> str:
    """Return a folder with a model's files, of which some are changed."""
    path.mkdir(parents=True)
    for name, content in (FILES | {k.replace("__", "."): v for k, v in changed.items()}).items():
        (path / name).write_text(content)
    return str(path)


def model(name: str) -> str:
    """Return how keys know a translation model."""
    return fingerprint(External(kind="transformers", model=name))["model"]


@pytest.mark.parametrize("name", [name for name in FILES if name != "README.md"])
def test_what_determines_a_model_determines_its_key(tmp_path: Path, name: str) -> None:
    """Other weights, configuration, vocabulary or pieces are another model."""
    found = model(folder(tmp_path / "a" / "m"))
    assert model(folder(tmp_path / "b" / "m", **{name.replace(".", "__"): "other"})) != found


def test_the_same_model_elsewhere_has_the_same_key(tmp_path: Path) -> None:
    """Neither the folder's place nor its README counts."""
    found = model(folder(tmp_path / "a" / "m"))
    assert model(folder(tmp_path / "b" / "other", README__md="other")) == found


def test_each_model_of_a_name_for_directions_counts(tmp_path: Path) -> None:
    """A name with `{source}` and `{target}` names several folders, which may not be swapped."""
    for number, name in enumerate(("m-en-de", "m-de-en")):
        folder(tmp_path / "a" / name, config__json=str(number))
        folder(tmp_path / "b" / name, config__json=str(1 - number))
        folder(tmp_path / "c" / name, config__json=str(number))
    first, swapped, same = (model(f"{tmp_path}/{name}/m-{{source}}-{{target}}") for name in "abc")
    assert first == same
    assert first != swapped


def test_a_folders_name_is_taken_literally(tmp_path: Path) -> None:
    """Brackets in a path match nothing but themselves."""
    assert not model(folder(tmp_path / "m[1]*")).startswith("hub:")


def test_a_model_of_the_hub_counts_by_its_name() -> None:
    """It is not downloaded to be hashed."""
    assert model("owner/opus-{source}-{target}") == "hub:owner/opus-{source}-{target}"


def test_packages_count_with_their_versions() -> None:
    """Those that translate, and no others."""
    made = fingerprint(External(kind="transformers", model="owner/model"))
    assert set(made) == {"model", "sentencepiece", "torch", "transformers"}
    assert made["torch"] == metadata.version("torch")
    endpoint = External(kind="openai", model="m", base_url="http://translator/v1")
    assert fingerprint(endpoint) == {"openai": metadata.version("openai")}


def test_nothing_heavy_is_imported() -> None:
    """A finished run is recognised in seconds."""
    program = (
        "import sys\n"
        "from selfimprove_pipeline.external import fingerprint\n"
        "from selfimprove_pipeline.contract.recipe.sampling import External\n"
        "fingerprint(External(kind='transformers', model='owner/model'))\n"
        "print([name for name in ('torch', 'transformers', 'openai') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert done.stdout.strip() == b"[]"
