"""What determines an external translator's output beside the recipe, told in seconds.

The keys of the translate stage need it before anything heavy is loaded, so packages are asked
for their versions only, and a model's folder is read but not opened. `external` passes it on.
"""

import glob
from importlib import metadata
from pathlib import Path
from typing import Final

from selfimprove_pipeline.contract.manifests import digest_of
from selfimprove_pipeline.contract.recipe.sampling import External
from selfimprove_pipeline.store.files import files_in, in_parallel, sha256_of
from selfimprove_pipeline.store.repository import is_model_payload

_PACKAGES: Final = ("sentencepiece", "torch", "transformers")
_PIECES: Final = ".spm"
"""Ends the names of Marian's two vocabularies, which no language model has."""


def fingerprint(external: External) -> dict[str, str]:
    """Return versions of packages and, of a translation model on this machine, its digest.

    A folder counts with its weights, configuration and tokenizer. Of a name with `{source}` and
    `{target}` every folder counts that the name fits. A model of the hub counts by its name, and
    one behind an endpoint not at all: the recipe names it.
    """
    if external.kind == "openai":
        return {"openai": _version("openai")}
    return {"model": _model(external.model), **{name: _version(name) for name in _PACKAGES}}


def _model(name: str) -> str:
    found = sorted(glob.glob(_pattern(name)))  # noqa: PTH207  the name may be absolute
    folders = [Path(path) for path in found if Path(path).is_dir()]
    if not folders:
        return f"hub:{name}"
    if folders == [Path(name)]:
        return _digest(folders[0])
    return digest_of({folder.name: _digest(folder) for folder in folders})


def _pattern(name: str) -> str:
    return glob.escape(name).replace("{source}", "*").replace("{target}", "*")


def _digest(folder: Path) -> str:
    files = files_in(folder)
    names = [name for name in files if is_model_payload(name) or name.endswith(_PIECES)]
    shas = in_parallel(lambda name: sha256_of(files[name]), names)
    return digest_of(dict(zip(names, shas, strict=True)))


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "absent"
