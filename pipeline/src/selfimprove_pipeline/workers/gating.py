"""The gate of a model: its answers against those of the one before, from the store to the store.

It needs no engine. The process that has evaluated a model decides, before it generates.
"""

from selfimprove_pipeline.contract import keys
from selfimprove_pipeline.contract.errors import SelfImproveError
from selfimprove_pipeline.contract.keys import Target
from selfimprove_pipeline.contract.manifests import Manifest
from selfimprove_pipeline.contract.rows import Evaluated, lines
from selfimprove_pipeline.measuring import gates
from selfimprove_pipeline.measuring.gates import Answers
from selfimprove_pipeline.run.setting import Setting
from selfimprove_pipeline.run.survey import Survey, manifest_of

LANGUAGES = "languages.jsonl"


def work(setting: Setting, index: int, found: Survey) -> None:
    """Decide whether a model is promoted, if that is open and the model is evaluated."""
    for target in found["gate"].missing:
        setting.repository.commit(*_decided(setting, index, target, found))


def _decided(
    setting: Setting, index: int, target: Target, found: Survey
) -> tuple[Manifest, dict[str, bytes]]:
    spec = setting.spec
    suite = spec.evaluation.suites[0]
    earlier = setting.evaluations(index - 1, [suite.name])
    parts = {
        language: part
        for language in spec.languages.all()
        if f"now/{(part := keys.suite_part(suite.name, language))}" in target.inputs
    }
    if any(earlier[part].digest != target.inputs[f"before/{part}"] for part in parts.values()):
        message = f"the evaluation of M{index - 1} changed meanwhile; run again"
        raise SelfImproveError(message)
    before, now = (
        {language: _answers(setting, manifests[part]) for language, part in parts.items()}
        for manifests in (earlier, found["evaluate"].manifests)
    )
    rows = gates.compare(before, now, spec.languages.all(), counts_languages=suite.counts_languages)
    manifest = manifest_of(
        target,
        rows=len(rows),
        counts=gates.counts(rows, spec),
        measures=gates.measures(rows, spec),
    )
    return manifest, {LANGUAGES: lines(rows)}


def _answers(setting: Setting, manifest: Manifest) -> Answers:
    return {row.id: row for row in setting.repository.rows(manifest, Evaluated)}
