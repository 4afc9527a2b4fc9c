"""The model card of M_(t+1): where it comes from, on what data and with what settings."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from selfimprove_pipeline.contract import objectives
from selfimprove_pipeline.contract.objectives import ObjectiveName
from selfimprove_pipeline.contract.recipe.training import Training


def model_card(
    lineage: Mapping[str, Any],
    *,
    training: Training,
    counts: Mapping[str, int],
    drops: Mapping[str, Mapping[str, int]],
    objective: ObjectiveName = "dpo",
) -> str:
    """Return the README with its front matter.

    `lineage` may hold `languages`; its other entries are the table of the card's first section.
    """
    info = objectives.BY_NAME[objective]
    front = {
        "library_name": "transformers",
        "language": list(lineage.get("languages", ())),
        "tags": ["lidr", objective, "trl"],
    }
    facts = {
        name: value for name, value in lineage.items() if name != "languages" and value is not None
    }
    settings = training.model_dump(mode="json", by_alias=True)
    for name in objectives.unread(objective):
        del settings[name]
    sections = [
        f"---\n{yaml.safe_dump(front, allow_unicode=True, sort_keys=False)}---\n",
        f"# {info.title}\n",
        info.about,
        "## Lineage\n",
        _pairs(facts),
        "## Data\n",
        _pairs(counts),
        _table(
            ("language", "reason", "dropped pairs"),
            ((lang, why, n) for lang, reasons in drops.items() for why, n in reasons.items()),
        ),
        "## Training\n",
        _pairs(_flat(settings)),
    ]
    return "\n".join(section for section in sections if section)


def _pairs(values: Mapping[str, Any]) -> str:
    return _table(("name", "value"), values.items())


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table, nothing without rows."""
    lines = [_line(row) for row in rows]
    if not lines:
        return ""
    return "\n".join([_line(columns), _line(["---"] * len(columns)), *lines]) + "\n"


def _line(cells: Iterable[Any]) -> str:
    texts = (str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(texts)} |"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        inner = isinstance(value, Mapping)
        flat |= _flat(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
    return flat
