"""Keys and digests of fixed recipes, inputs and artifacts, as tests/data/keys.json pins them.

Versions of packages are fixed, so the numbers are the same on every machine. Inputs of keys are
words in place of digests, so that a changed digest changes nothing but its own entry.
After a wanted change `SELFIMPROVE_WRITE_GOLDEN=1 pytest tests/unit/contract/test_golden_keys.py`
writes the file anew; what had been computed under the old keys is then computed again by every run.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_args

import pytest

from selfimprove_pipeline.contract import keys as stage_keys
from selfimprove_pipeline.contract.keys import Iteration, Target, Toolchain
from selfimprove_pipeline.contract.manifests import MANIFEST, Manifest
from selfimprove_pipeline.contract.recipe import SUITE_KINDS, Stage
from selfimprove_pipeline.contract.rows import (
    Answer,
    Drop,
    Evaluated,
    GatedLanguage,
    Grade,
    Message,
    Pair,
    Prompt,
    ReferenceLogps,
    Reply,
    Row,
    Score,
    Translation,
    Verdict,
    lines,
)
from selfimprove_pipeline.inputs.suites import packages
from selfimprove_pipeline.machine import devices
from selfimprove_pipeline.run.setting import Model, Setting
from selfimprove_pipeline.store.folder import FolderStore
from selfimprove_pipeline.store.repository import Repository, is_model_payload
from support.runs import run

FILE: Final = Path(__file__).resolve().parents[1] / "data" / "keys.json"
PACKAGE: Final = "my-evals/tone"
"""A kind of suite that another package brings."""
KINDS: Final = (*SUITE_KINDS, PACKAGE)
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)
OF_SUITES: Final[tuple[Stage, ...]] = ("evaluate", "judge")
"""Stages whose parts are those of suites."""
LANGUAGES: Final = ("en", "es")


def name_of(kind: str) -> str:
    """Return the name of the suite of a kind."""
    return kind.replace("/", "-")


def subjects() -> Iterator[str]:
    """Yield a stage, or a stage and a suite, for each entry of keys."""
    yield from (stage for stage in STAGES if stage not in OF_SUITES)
    yield "translate ahead"
    yield from (f"evaluate {name_of(kind)}" for kind in KINDS)
    yield from (f"judge {suite.name}" for suite in BASE.spec.evaluation.suites if suite.is_judged)


def _suite(kind: str) -> dict[str, Any]:
    given: dict[str, Any] = {"name": name_of(kind), "uri": f"s3://eval/{name_of(kind)}"}
    match kind:
        case "nlp":
            given |= {"tasks": ["arc_de"], "numFewshot": 2}
        case "xAlpacaEval":
            given["referenceUri"] = "s3://eval/outputs"
        case "exactMatch":
            given |= {"languages": ["en", "es"], "maxTokens": 7}
        case _ if kind == PACKAGE:
            given["kind"] = PACKAGE
    return given


JUDGE: Final = {"baseUrl": "http://judge/v1", "model": "judge"}
SPEC: Final[dict[str, Any]] = {
    "languages__others": ["es"],
    "training__layout": "packed",
    "training__zeroStage": 2,
    "evaluation__judge": JUDGE,
    "evaluation__baselines": ["languageInstruction", "sft"],
    "evaluation__suites": [_suite(kind) for kind in KINDS],
}
BASE: Final = run(**SPEC)
LORA: Final = {
    "training__layout": "padded",
    "training__method": "lora",
    "training__zeroStage": 3,
    "inference__batchInvariant": True,
    "pairing__filters__wrongAnswer": True,
}
GRADED: Final = {"evaluation__judge": {**JUDGE, "pairs": 5}, "evaluation__suites": []}
EXTERNAL: Final = {"translator": "external", "external": {"kind": "transformers", "model": "mt"}}


class Digests(dict[tuple[Stage, str], str]):
    """Every artifact is finished, with a digest that names it."""

    def __missing__(self, name: tuple[Stage, str]) -> str:
        return "/".join(name)


def toolchain() -> Toolchain:
    """Return what computes on a machine with four GPUs where every package has one version."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "_version", lambda _: "1.0")
        return devices.toolchain("vllm", 4)


def iterations() -> dict[str, Iteration]:
    """Return the iterations whose keys are pinned, by name."""
    suites = BASE.spec.evaluation.suites
    rows = {(one.name, tag): f"rows {tag}" for one in suites for tag in _places(one.name)}
    m0 = Iteration(
        index=0,
        spec=BASE.spec,
        model="m0",
        toolchain=toolchain(),
        prompts={tag: f"prompts {tag}" for tag in LANGUAGES},
        gold={tag: f"gold {tag}" for tag in LANGUAGES},
        suites=rows,
        opponents={("xAlpacaEval", tag): f"outputs {tag}" for tag in LANGUAGES},
        difficulties={("xAlpacaEval", "en"): "difficulty en"},
        references={("mtBench", tag): f"references {tag}" for tag in LANGUAGES},
    )
    answers = {("headToHead", tag): f"answers of M0 {tag}" for tag in LANGUAGES}
    first = BASE.spec.evaluation.suites[0].name
    m1 = dataclasses.replace(
        m0,
        index=1,
        model="m1",
        sft="sft",
        opponents={**m0.opponents, **answers},
        earlier={stage_keys.suite_part(first, tag): f"before {tag}" for tag in LANGUAGES},
    )
    bare = dataclasses.replace(m0, suites={}, opponents={}, difficulties={}, references={})
    padded = run(**{**SPEC, **LORA}).spec
    graded = run(**{**SPEC, **GRADED, "profile": "lidr-paper", "training__layout": None}).spec
    external = run(**{**SPEC, "translation": EXTERNAL}).spec
    return {
        "M0": m0,
        "M1": m1,
        "M0, padded LoRA without es": dataclasses.replace(bare, spec=padded, left_out=("es",)),
        "M0, lidr-paper with graded pairs": dataclasses.replace(bare, spec=graded, gold={}),
        "M0, translated by another model": dataclasses.replace(bare, spec=external),
    }


def _places(suite: str) -> tuple[str, ...]:
    return (stage_keys.TASKS,) if suite == "nlp" else LANGUAGES


def keys() -> dict[str, dict[str, dict[str, str]]]:
    """Return the keys by subject, iteration and part."""
    found: dict[str, dict[str, dict[str, str]]] = {name: {} for name in subjects()}
    for name, one in iterations().items():
        made = [
            target for stage in STAGES for target in stage_keys.targets(stage, one, Digests()) or ()
        ]
        for target in made:
            found[_subject(target)].setdefault(name, {})[target.part] = target.key
        ahead = stage_keys.ahead(one)
        if ahead:
            found["translate ahead"][name] = {part: one.key for part, one in ahead.items()}
    return found


def _subject(target: Target) -> str:
    if target.stage not in OF_SUITES:
        return target.stage
    return f"{target.stage} {target.part.partition('.')[0].partition('+')[0]}"


def inputs(folder: Path) -> dict[str, Any]:
    """Return the digests of what a user gives: prompts, suites and what they are compared with."""
    store = FolderStore(folder / "store")
    repository = Repository(store, bucket="runs", prefix="", cache=folder / "cache")
    for uri, content in _given():
        store.write(uri, content)
    setting = Setting(BASE, store, repository, toolchain(), "vllm", folder / "cache")
    with pytest.MonkeyPatch.context() as patch:
        rows = {tag: (Prompt(id="1", prompt="Hello"),) for tag in LANGUAGES}
        patch.setattr(packages, "read", lambda *_: rows)
        patch.setattr(packages, "version", lambda kind: f"{kind} 1.0")
        one = setting.iteration(0, Model("s3://models/m0", "m0", ()))
    return {
        "prompts": dict(one.prompts),
        "gold": dict(one.gold),
        **{
            f"suite {name_of(kind)}": {
                tag: value for (name, tag), value in one.suites.items() if name == name_of(kind)
            }
            for kind in KINDS
        },
        "outputs to compare with": _of_places(one.opponents),
        "difficulties": _of_places(one.difficulties),
        "references": _of_places(one.references),
    }


def _of_places(values: Mapping[tuple[str, str], str | None]) -> dict[str, str | None]:
    return {stage_keys.suite_part(*place): value for place, value in values.items()}


def _given() -> Iterator[tuple[str, bytes]]:
    """Yield the files of a user by URI."""
    yield "s3://eval/nlp/arc.yaml", b"task: arc_de\n"
    hardness = [{"instruction": "Why?", "instruction_difficulty": 0.5}]
    yield "s3://eval/outputs/en.difficulty.json", json.dumps(hardness).encode()
    for tag in LANGUAGES:
        rows = lines(Prompt(id=f"{n}", prompt=f"Größe {n}?", answer=f"{n}") for n in range(2))
        yield f"s3://prompts/set/{tag}.jsonl", rows
        for kind in KINDS:
            yield f"s3://eval/{name_of(kind)}/{tag}.jsonl", rows
        turns = {"question_id": 1, "turns": ["Why?", "Really?"], "reference": ["So.", "Yes."]}
        yield f"s3://eval/mtBench/{tag}.jsonl", json.dumps(turns).encode()
        asked = [{"instruction": "Why?", "dataset": "d"}]
        yield f"s3://eval/xAlpacaEval/{tag}.json", json.dumps(asked).encode()
        told = [{"instruction": "Why?", "output": f"So, {tag}."}]
        yield f"s3://eval/outputs/{tag}.json", json.dumps(told).encode()


TEXT: Final = (Message(role="assistant", content="Ja.\u2028"),)
ONE: Final[dict[str, Any]] = {"id": "1", "language": "de"}
TOKENS: Final[dict[str, Any]] = {"prompt_tokens": 3, "completion_tokens": 2}
ENDED: Final[dict[str, Any]] = {"finish_reason": "stop"}
ROWS: Final[tuple[Row, ...]] = (
    Prompt(id="1", prompt="Größe?"),
    Answer(**ONE, **TOKENS, **ENDED, completion="Ja."),
    Translation(id="1", source="de", target="en", text="Yes.", **TOKENS, **ENDED),
    Pair(**ONE, partner="en", prompt=TEXT, chosen=TEXT, rejected=TEXT),
    Drop(**ONE, partner="en", reason="empty"),
    ReferenceLogps(**ONE, partner="en", chosen=-1.5, rejected=-2e-7),
    Score(**ONE, partner="en", chosen=1, rejected=0.5),
    Evaluated(
        **ONE,
        **ENDED,
        prompt="Größe?",
        completion="Ja.",
        completion_tokens=2,
        score=1,
        identified="de",
        is_off_target=False,
        is_empty=False,
        is_evasive=False,
    ),
    GatedLanguage(language="de", decision="Passed"),
    Verdict(**ONE, preference=0.5, characters=3, opponent_characters=4),
    Grade(**ONE, conversation="1", grade=7),
    Reply(id="1", log_likelihood=-0.5, is_greedy=True, text="", **TOKENS, **ENDED),
)
"""A row of each kind that stages hand to each other."""
MODEL: Final = (
    *("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"),
    *("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"),
    *("pytorch_model.bin.index.json", "tokenizer.json", "tokenizer_config.json", "vocab.json"),
    *(
        "merges.txt",
        "special_tokens_map.json",
        "added_tokens.json",
        "spiece.model",
        "qwen.tiktoken",
    ),
    *("chat_template.json", "chat.jinja", "additional_chat_templates/tools.jinja"),
    *("README.md", "metrics.jsonl", "training_args.bin", "adapter/adapter_config.json"),
)
"""Files of a model's folder: those that are the model, and the last four, which are not."""


def artifacts(folder: Path) -> dict[str, Any]:
    """Return the manifests of an artifact of rows and of a model's folder, and their digests."""
    store = FolderStore(folder / "store")
    repository = Repository(store, bucket="runs", prefix="team", cache=folder / "cache")
    for name in MODEL:
        path = folder / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    files = {f"{type(row).__name__}.jsonl": lines([row, row]) for row in ROWS}
    side = {"results.json": b"{}"}
    of_rows = repository.commit(_manifest("generate"), files, side_files=side)
    of_model = repository.commit_folder(
        _manifest("train"), folder / "model", is_payload=is_model_payload
    )
    repository.upload_folder(folder / "model", "s3://models/m0")
    return {
        "rows": _stored(store, repository, of_rows),
        "model folder": _stored(store, repository, of_model),
        "model of a user": repository.model_digest("s3://models/m0")[0],
    }


def _manifest(stage: Stage) -> Manifest:
    return Manifest(
        stage=stage,
        part="de",
        key="0123456789abcdef" * 2,
        digest="",
        files=(),
        rows=2,
        inputs={"model": "m0"},
        recipe={"generation.topP": 1.0},
        versions={"vllm": "1.0"},
        created="2026-01-01T00:00:00.000Z",
    )


def _stored(store: FolderStore, repository: Repository, manifest: Manifest) -> dict[str, Any]:
    """Return where an artifact lies, and its manifest as it is in the store."""
    uri = repository.uri(manifest.stage, manifest.key)
    return {"uri": uri, MANIFEST: json.loads(store.read(uri + MANIFEST) or b"")}
