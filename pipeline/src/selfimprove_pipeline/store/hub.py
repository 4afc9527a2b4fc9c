"""The door to the Hugging Face hub: revisions and model folders."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, cast

from selfimprove_pipeline.contract.errors import InputError, TryAgainError
from selfimprove_pipeline.contract.manifests import TOKENIZER_FILES, Index
from selfimprove_pipeline.contract.recipe import Model

WANTED: Final = ["*.safetensors", "*.json", *TOKENIZER_FILES]
UNWANTED: Final = ["consolidated*.safetensors"]
"""The same weights in Mistral's own format: twice the bytes, and vLLM would prefer them."""
SERVER_ERROR: Final = 500
COMMIT_LENGTH: Final = 40


def pinned(model: Model, index: Index | None) -> str | None:
    """Return the revision of a run's model: for a branch of a hub's model, its commit.

    It is the commit that the branch had when the run began, for as long as the file names the
    same model and branch.
    """
    is_commit = len(model.revision or "") == COMMIT_LENGTH
    if not model.uri.startswith("hf://") or is_commit:
        return model.revision
    asked = (model.uri, model.revision)
    if index and index.model_revision:
        began = (index.recipe["model"]["uri"], index.requested_revision)
        if began == asked:
            return index.model_revision
    return commit(model.uri, model.revision)


def commit(uri: str, revision: str | None) -> str:
    """Return the commit that a branch, a tag or the default branch of a model is now."""
    from huggingface_hub import HfApi  # noqa: PLC0415  most runs never see a hub

    with _errors_of(uri, revision):
        found = HfApi().model_info(uri.removeprefix("hf://"), revision=revision).sha
    if found is None:
        message = f"spec.model.revision: expected a revision of {uri}, found none"
        raise InputError(message)
    return found


def download(uri: str, revision: str | None) -> Path:
    """Return the folder of a model in the hub's cache, downloaded where it is not there yet."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415  as above

    with _errors_of(uri, revision):
        name = uri.removeprefix("hf://")
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=WANTED, ignore_patterns=UNWANTED
            )
        )


def names(uri: str, revision: str | None) -> tuple[str, ...]:
    """Return the names of the files that `download` would fetch."""
    from huggingface_hub import HfApi  # noqa: PLC0415  as above

    with _errors_of(uri, revision):
        found = HfApi().list_repo_files(uri.removeprefix("hf://"), revision=revision)
    return tuple(n for n in found if _fits(n, WANTED) and not _fits(n, UNWANTED))


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def read(uri: str, revision: str | None, name: str) -> bytes:
    """Return the content of one small file of a model."""
    from huggingface_hub import HfApi  # noqa: PLC0415  as above

    with _errors_of(uri, revision):
        path = HfApi().hf_hub_download(uri.removeprefix("hf://"), name, revision=revision)
        return Path(path).read_bytes()


@contextmanager
def _errors_of(uri: str, revision: str | None) -> Iterator[None]:
    """Turn the hub's refusals into wrong input, and its silence into another try."""
    from huggingface_hub.errors import (  # noqa: PLC0415  as above
        HfHubHTTPError,
        LocalEntryNotFoundError,
    )

    # The last base is the error of the HTTP client, whichever the hub's library uses.
    client_errors = cast("tuple[type[Exception], ...]", HfHubHTTPError.__bases__)
    silence: tuple[type[Exception], ...] = (LocalEntryNotFoundError, *client_errors)
    try:
        yield
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code >= SERVER_ERROR:
            raise TryAgainError(_unreachable(uri, error)) from error
        at = f" at revision {revision}" if revision else ""
        message = (
            f"spec.model.uri: cannot download {uri}{at}, the hub says {type(error).__name__}; "
            "check the name and the revision, accept the model's licence or set HF_TOKEN"
        )
        raise InputError(message) from error
    except silence as error:
        raise TryAgainError(_unreachable(uri, error)) from error


def _unreachable(uri: str, error: BaseException) -> str:
    return f"{uri}: the hub did not answer ({type(error).__name__}); try again later"
