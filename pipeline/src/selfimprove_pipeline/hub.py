"""The door to the Hugging Face hub: revisions and model folders."""

from pathlib import Path
from typing import Final

from selfimprove_pipeline.errors import InputError, TryAgainError

WANTED: Final = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken"]


def commit(uri: str, revision: str | None) -> str:
    """Return the commit that a branch, a tag or the default branch of a model is now."""
    from huggingface_hub import HfApi  # noqa: PLC0415  most runs never see a hub
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    name = uri.removeprefix("hf://")
    try:
        found = HfApi().model_info(name, revision=revision).sha
    except HfHubHTTPError as error:
        raise _hub_error(uri, revision, error) from error
    except OSError as error:
        raise TryAgainError(_unreachable(uri, error)) from error
    if found is None:
        message = f"spec.model.revision: expected a revision of {uri}, found none"
        raise InputError(message)
    return found


def download(uri: str, revision: str | None) -> Path:
    """Return the folder of a model in the hub's cache, downloaded where it is not there yet."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError  # noqa: PLC0415

    name = uri.removeprefix("hf://")
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=WANTED))
    except LocalEntryNotFoundError as error:
        raise TryAgainError(_unreachable(uri, error)) from error
    except HfHubHTTPError as error:
        raise _hub_error(uri, revision, error) from error


def _hub_error(uri: str, revision: str | None, error: Exception) -> InputError:
    at = f" at revision {revision}" if revision else ""
    return InputError(
        f"spec.model.uri: expected a model that the hub gives us, found {type(error).__name__} "
        f"for {uri}{at}; check the name, the revision and HF_TOKEN"
    )


def _unreachable(uri: str, error: Exception) -> str:
    return f"{uri}: the hub did not answer ({type(error).__name__}); try again later"
