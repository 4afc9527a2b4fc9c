"""The model card of M_(t+1): where it comes from, on what data and with what settings."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import yaml

from selfimprove_pipeline.contract.recipe.training import Training

TAGS = {"dpo": ("lidr", "dpo", "trl"), "sft": ("lidr", "sft", "trl")}

_TITLES = {
    "dpo": "# Model trained on its own preference pairs\n",
    "sft": "# Baseline trained on the chosen texts alone\n",
}
_ABOUT = {
    "dpo": """\
One iteration of Language Imbalance Driven Rewarding: DPO with an NLL term on pairs that the
model before made itself.
""",
    "sft": """\
Supervised training on the chosen texts of the pairs of Language Imbalance Driven Rewarding: the
NLL alone, to compare with what the pairs make of the same model.
""",
}
_UNUSED = {"dpo": set[str](), "sft": {"beta", "nll_weight"}}
"""Fields that a loss does not read."""


def model_card(
    lineage: Mapping[str, Any],
    *,
    training: Training,
    counts: Mapping[str, int],
    drops: Mapping[str, Mapping[str, int]],
    loss: Literal["dpo", "sft"] = "dpo",
) -> str:
    """Return the README with its front matter.

    `lineage` may hold `languages` and `evaluation`, a list of rows with equal columns; its other
    entries become the table of the card's first section.
    """
    languages = list(lineage.get("languages", ()))
    evaluation = list(lineage.get("evaluation", ()))
    facts = {
        name: value
        for name, value in lineage.items()
        if name not in {"languages", "evaluation"} and value is not None
    }
    front = {"library_name": "transformers", "language": languages, "tags": list(TAGS[loss])}
    sections = [
        f"---\n{yaml.safe_dump(front, allow_unicode=True, sort_keys=False)}---\n",
        _TITLES[loss],
        _ABOUT[loss],
        "## Lineage\n",
        _pairs(facts),
        "## Data\n",
        _pairs(counts),
        _table(
            ("language", "reason", "dropped pairs"),
            ((lang, why, n) for lang, reasons in drops.items() for why, n in reasons.items()),
        ),
        "## Training\n",
        _pairs(_flat(training.model_dump(mode="json", by_alias=True, exclude=_UNUSED[loss]))),
    ]
    if evaluation:
        columns = tuple(evaluation[0])
        cells = (tuple(row[column] for column in columns) for row in evaluation)
        sections += ["## Evaluation\n", _table(columns, cells)]
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
