"""Look at everything that a run reads and writes before anything expensive starts.

The first pod of a run does this, without GPU and without torch. What is wrong is told together,
so that one correction is enough.
"""

import secrets
from collections.abc import Callable

from selfimprove_pipeline.contract import manifests
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.inputs import prompts
from selfimprove_pipeline.run import model_files, sizing
from selfimprove_pipeline.run.setting import Setting
from selfimprove_pipeline.train.loop import trackers

CONTENT = b"selfimprove\n"


def work(setting: Setting) -> dict[str, str]:
    """Return digests of the inputs by name; raise InputError with every mistake in them."""
    check_bucket(setting)
    mistakes: list[str] = []
    try:
        trackers.check_image(setting.spec.training.report_to)
    except InputError as error:
        mistakes.append(str(error))
    found = {
        name: digest
        for name, look in (("model", _model), ("prompts", _prompts), ("suites", _suites))
        if (digest := _or_mistake(look, setting, mistakes)) is not None
    }
    if "model" in found:
        _or_mistake(_memory, setting, mistakes)
    if mistakes:
        raise InputError("\n".join(mistakes))
    return found


def check_bucket(setting: Setting) -> None:
    """Write an object beside the run's index, read it back and delete it."""
    metadata = setting.run.metadata
    folder = setting.repository.run_uri(metadata.namespace, metadata.name)
    uri = f"{folder}check-{secrets.token_hex(4)}"
    setting.store.write(uri, CONTENT)
    try:
        found = setting.store.read(uri)
    finally:
        setting.store.delete([uri])
    if found != CONTENT:
        message = (
            f"expected {uri} to hold what was just written, found something else; "
            "the bucket must give back at once what it has taken"
        )
        raise InputError(message)


def _or_mistake(
    look: Callable[[Setting], str], setting: Setting, mistakes: list[str]
) -> str | None:
    try:
        return look(setting)
    except InputError as error:
        mistakes.append(str(error))
        return None


def _model(setting: Setting) -> str:
    folder = model_files.folder_of(setting)
    return model_files.check(folder, setting.spec.chat)


def _memory(setting: Setting) -> str:
    return "\n".join(sizing.look(setting, sizing.shape(setting), None))


def _prompts(setting: Setting) -> str:
    setting.check_prompts()
    found = {language: prompts.suite_digest(rows) for language, rows in setting.prompts.items()}
    return manifests.digest_of(found)


def _suites(setting: Setting) -> str:
    _ = setting.references
    digests = {".".join(name): digest for name, digest in setting.suite_digests.items()}
    return manifests.digest_of(digests)
