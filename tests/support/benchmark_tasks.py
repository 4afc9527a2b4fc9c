"""A folder of small tasks for lm-eval, one of each kind, with their data beside them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

CAPITALS: Final = [
    {"question": f"What is the capital of {land}?", "options": options, "gold": gold}
    for land, options, gold in (
        ("France", ["Paris", "Rome, of course"], 0),
        ("Italy", ["Oslo", "Rome", "Bern in the hills"], 1),
        ("Norway", ["Bergen", "Oslo"], 1),
        ("Spain", ["Madrid", "Lisbon", "Porto"], 0),
        ("Chile", ["Lima", "Santiago de Chile", "Quito"], 1),
        ("Peru", ["Lima", "Cuzco"], 0),
    )
]
TEXTS: Final = [
    {"text": "A short one."},
    {"text": "Two lines,\n\nand the second of them is longer than the first. " * 6},
    {"text": "z"},
    {"text": "abc" * 85},
]
SUMS: Final = [
    {"sum": f"{first} + {second}", "total": str(first + second)}
    for first, second in ((1, 1), (20, 3), (7, 7), (64, 1), (5, 50), (9, 33), (8, 8), (2, 71))
]

CHOICE: Final[Mapping[str, Any]] = {
    "task": "capitals",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "data/capitals.jsonl"}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}\nAnswer:",
    "doc_to_target": "gold",
    "doc_to_choice": "options",
    "metric_list": [
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True},
    ],
    "metadata": {"version": 2},
}
ROLLING: Final[Mapping[str, Any]] = {
    "task": "texts",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": ["data/texts.jsonl"]}},
    "test_split": "test",
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "text",
    "metric_list": [
        {"metric": name, "aggregation": aggregation, "higher_is_better": False}
        for name, aggregation in (
            ("word_perplexity", "weighted_perplexity"),
            ("byte_perplexity", "weighted_perplexity"),
            ("bits_per_byte", "bits_per_byte"),
        )
    ],
    "metadata": {"version": 1},
}
WRITING: Final[Mapping[str, Any]] = {
    "task": "sums",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "data/sums.jsonl"}},
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{sum}} =",
    "doc_to_target": "{{total}}",
    "generation_kwargs": {"until": ["\n\n", "}", "K"], "max_gen_toks": 24},
    "metric_list": [
        {
            "metric": "exact_match",
            "aggregation": "mean",
            "higher_is_better": True,
            # The start of a letter that was not finished is shown as such, or not at all.
            "regexes_to_ignore": ["\ufffd+$"],
        }
    ],
    "metadata": {"version": 1},
}
LETTERS: Final = {
    **CHOICE,
    "task": "letters",
    "num_fewshot": 3,
    "doc_to_text": "{{question}}\n{{options | join(' or ')}}?\nThe letter is:",
    "doc_to_choice": "{{['A', 'B', 'C', 'D'][:options|length]}}",
    "target_delimiter": "",
}
"""LETTERS are options of one token each."""
WITH_EXAMPLES: Final = {**CHOICE, "task": "capitals_shots", "num_fewshot": 2}


def write(folder: Path, tasks: Sequence[Mapping[str, Any]], **data: Sequence[Any]) -> Path:
    """Write each task as YAML and each keyword as `data/<name>.jsonl`; return the folder."""
    rows: dict[str, Sequence[Any]] = {"capitals": CAPITALS, "texts": TEXTS, "sums": SUMS, **data}
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for name, documents in rows.items():
        lines = "".join(json.dumps(document) + "\n" for document in documents)
        (folder / "data" / f"{name}.jsonl").write_text(lines)
    for task in tasks:
        (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump(dict(task), sort_keys=False))
    return folder
