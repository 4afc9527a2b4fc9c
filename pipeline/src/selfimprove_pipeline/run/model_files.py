"""Whether a folder can be the model that a run starts from, told without its weights.

A pod without GPU and without transformers asks this before anything expensive starts. It sees
the names of the files and reads the small ones; `Renderer` and the engines are stricter later.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.manifests import digest
from selfimprove_pipeline.contract.recipe import Chat
from selfimprove_pipeline.method import template
from selfimprove_pipeline.run.setting import Setting
from selfimprove_pipeline.store import hub
from selfimprove_pipeline.store.uris import folder_uri

CONFIG: Final = "config.json"
TOKENIZER_CONFIG: Final = "tokenizer_config.json"
SHARDS: Final = "model.safetensors.index.json"
WEIGHTS: Final = "*.safetensors"
VOCABULARIES: Final = ("tokenizer.json", "*.model", "vocab*", "*.tiktoken")
JINJA: Final = "chat_template.jinja"
LEGACY: Final = "chat_template.json"


@dataclass(frozen=True)
class Folder:
    """A model's folder, wherever it lies."""

    uri: str
    names: Collection[str]
    read: Callable[[str], bytes | None]
    sizes: Mapping[str, int] = field(default_factory=dict)
    """sizes in bytes by name, as far as they are known."""

    def has(self, pattern: str) -> bool:
        """Return whether a file's name fits a pattern."""
        return any(fnmatchcase(name, pattern) for name in self.names)

    def value(self, name: str) -> dict[str, Any]:
        """Return a file's JSON object."""
        content = self.read(name) or b""
        try:
            value = json.loads(content)
        except ValueError as error:
            message = f"{self.uri}{name}: expected JSON, found a fault ({error}); replace the file"
            raise InputError(message) from error
        if not isinstance(value, dict):
            message = f"{self.uri}{name}: expected a JSON object, found another value"
            raise InputError(message)
        return value


def folder_of(setting: Setting) -> Folder:
    """Return the folder of the run's first model."""
    uri, revision = setting.base_uri, setting.spec.model.revision
    if uri.startswith("hf://"):
        return Folder(f"{uri}/", hub.names(uri, revision), lambda n: hub.read(uri, revision, n))
    prefix = folder_uri(uri)
    entries = setting.repository.model_entries(uri)
    sizes = {name: entry.size for name, entry in entries.items()}
    return Folder(prefix, entries, lambda name: setting.store.read(prefix + name), sizes)


def weight_bytes(folder: Folder) -> int | None:
    """Return the bytes of a folder's safetensors, None where nothing tells them."""
    if SHARDS in folder.names:
        described = folder.value(SHARDS).get("metadata")
        told = described.get("total_size") if isinstance(described, Mapping) else None
        if type(told) is int and told > 0:
            return told
    return sum(n for name, n in folder.sizes.items() if fnmatchcase(name, WEIGHTS)) or None


def check(folder: Folder, chat: Chat) -> str:
    """Return a digest of names and configuration; raise where the folder is no chat model.

    The recipe's `chat` may bring the template, and has to answer what a template asks.
    """
    if CONFIG not in folder.names:
        message = f"expected a model folder at {folder.uri}, found no {CONFIG} there"
        raise InputError(message)
    config = folder.value(CONFIG)
    if not config.get("model_type") and not config.get("architectures"):
        message = f"{folder.uri}{CONFIG}: expected model_type or architectures, found neither"
        raise InputError(message)
    _check_weights(folder)
    if not any(folder.has(pattern) for pattern in VOCABULARIES):
        message = f"expected a tokenizer at {folder.uri}, found none; add tokenizer.json"
        raise InputError(message)
    tokenizer = folder.value(TOKENIZER_CONFIG) if TOKENIZER_CONFIG in folder.names else {}
    found = chat.template or _template(folder, tokenizer)
    if found is None:
        message = (
            f"expected a chat template in the tokenizer at {folder.uri}, found none; "
            "set chat.template"
        )
        raise InputError(message)
    tokens = {
        name: value
        for name, value in tokenizer.items()
        if name.endswith("_token") and isinstance(value, str)
    }
    template.check(found, chat, folder.uri, tokens)
    return digest([sorted(folder.names), config, tokenizer])


def _template(folder: Folder, tokenizer: Mapping[str, Any]) -> str | None:
    """Return the chat template of a folder, from where transformers reads it first."""
    if JINJA in folder.names:
        return (folder.read(JINJA) or b"").decode(errors="replace")
    found = tokenizer.get("chat_template")
    if not found and LEGACY in folder.names:
        found = folder.value(LEGACY).get("chat_template")
    if isinstance(found, list):  # several by name, as older tokenizers have them
        named = [item for item in found if isinstance(item, dict)]
        found = next((i.get("template") for i in named if i.get("name") == "default"), None)
    return found if isinstance(found, str) and found else None


def _check_weights(folder: Folder) -> None:
    if not folder.has(WEIGHTS):
        message = f"expected a model folder at {folder.uri}, found no {WEIGHTS} there"
        raise InputError(message)
    if SHARDS not in folder.names:
        return
    shards = folder.value(SHARDS).get("weight_map", {}).values()
    missing = sorted({str(shard) for shard in shards} - set(folder.names))
    if missing:
        message = f"expected the weights that {folder.uri}{SHARDS} names, found no {missing[0]}"
        raise InputError(message)
