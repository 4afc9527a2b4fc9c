"""Run files: read as kubectl reads them, judged with file and line, every mistake at once."""

from pathlib import Path
from typing import Any

import pytest

from selfimprove_pipeline.contract import recipe
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.inputs.run_file import document, validation

GOOD = """\
apiVersion: selfimprove.dev/v1alpha1
kind: SelfImproveRun
metadata: {name: test}
spec:
  model: {uri: s3://models/m0}
  languages: {dominant: en, others: [es, de]}
  prompts: {uri: s3://prompts/set, perIteration: 2}
  storage: {bucket: runs}
  training:
    beta: 0.1
"""


def mistakes(text: str, *settings: str, for_cluster: bool = False, tmp: Path) -> list[str]:
    """Return the lines that a file is refused with, none when it is good."""
    path = tmp / "run.yaml"
    path.write_text(text)
    try:
        validation.load(path, settings, for_cluster=for_cluster)
    except InputError as error:
        return str(error).splitlines()
    return []


def test_a_good_file_is_a_run(tmp_path: Path) -> None:
    """What the file says is in the run; the rest is filled by resolve."""
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    run = validation.load(path)

    assert run.spec.training.beta == 0.1
    assert recipe.resolve(run).spec.training.learning_rate == 5e-7


BAD = [
    ("beta: 0.1", "beta: -1", "run.yaml:10: spec.training.beta: expected greater than 0, found"),
    ("beta: 0.1", 'beta: "0.1"', 'spec.training.beta: expected a valid number, found "0.1"'),
    ("beta: 0.1", "bata: 0.1", "spec.training.bata: expected a known field, found bata; did you"),
    ("beta: 0.1", "beta: .inf", "run.yaml:10: expected YAML, found .inf, for which JSON has no"),
    ("beta: 0.1", "beta: no", "spec.training.beta: expected a valid number, found false"),
    ("beta: 0.1", "beta: [null]", "spec.training.beta: expected a valid number, found [null]"),
    ("beta: 0.1", "max_length: 9", "spec.training.max_length: expected a known field, found"),
    ("beta: 0.1", "bata: null", "spec.training.bata: expected a known field, found bata"),
    ("beta: 0.1", "lora: &l {x: *l}", "expected YAML, found an anchor inside itself"),
    ("beta: 0.1", "beta: !half 1", "run.yaml:10: expected YAML, found could not determine"),
    (
        "others: [es, de]",
        "others: [es, ~]",
        "languages.others[1]: expected a valid string, found n",
    ),
    ("bucket: runs", "bucket: null", "spec.storage.bucket: expected a value, found none"),
    (
        "beta: 0.1",
        "beta: 1\n  chat: {templateKwargs: {a: []}}",
        "spec.chat.templateKwargs.a: expected a number, a boolean or at most 4096 characters",
    ),
    (
        "beta: 0.1",
        "beta: 1\n  pods: {light: {volumes: [{name: v, hostPath: {}}]}}",
        "spec.pods.light.volumes[0].hostPath: expected a known field, found hostPath; remove it",
    ),
    (
        "beta: 0.1",
        "beta: 1\n  pods: {light: {env: [{name: A}, {name: A}]}}",
        "spec.pods.light.env: expected each name once, found A, A",
    ),
    ("beta: 0.1", "epochs: 1.5", "spec.training.epochs: expected a valid integer, found 1.5"),
    ("beta: 0.1", "zeroStage: 4", "spec.training.zeroStage: expected 0, 1, 2 or 3, found 4"),
    ("beta: 0.1", "beta: 0.1\n    beta: 0.2", "run.yaml:11: spec.training.beta: this key stands"),
    ("name: test", "name: Test", "run.yaml:3: metadata.name: expected text of the form"),
    ("name: test", "name: 1test", "metadata.name: expected text of the form"),
    ("name: test", f"name: {'a' * 41}", "metadata.name: expected"),
    ("name: test", "name: a.b", "metadata.name: expected text of the form"),
    ("uri: s3://models/m0", "uri: /models/m0", "run.yaml:5: spec.model.uri: expected text of"),
    ("uri: s3://models/m0", "uri: s3://models", "spec.model.uri: expected text of the form"),
    ("{uri: s3://models/m0}", "{}", "run.yaml:5: spec.model.uri: expected a value, found none"),
    ("{uri: s3://models/m0}", "[]", "spec.model: expected an object, found []"),
    ("dominant: en", "dominant: english", "spec.languages.dominant: expected text of the form"),
    ("dominant: en", "dominant: xx", "spec.languages.dominant: expected a BCP-47 tag"),
    ("others: [es, de]", "others: [es, en]", "spec.languages: expected each language once"),
    ("others: [es, de]", "others: []", "spec.languages.others: expected"),
    ("others: [es, de]", "others: es", "spec.languages.others: expected a valid"),
    ("others: [es, de]", "others: [es, no]", "spec.languages.others[1]: expected a valid string"),
    ("perIteration: 2", "perIteration: 0", "spec.prompts.perIteration: expected greater than or"),
    ("perIteration: 2", "perIteration: 5e-1", "perIteration: expected a valid integer, found 0.5"),
    ("bucket: runs", "bucket: Runs_", "run.yaml:8: spec.storage.bucket: expected text of the form"),
    ("bucket: runs", "bucket: runs, endpoint: 'ftp://x'", "spec.storage.endpoint: expected text"),
    ("bucket: runs", "bucket: runs, endpoint: 'http://a:b@c'", "spec.storage.endpoint: expected"),
    ("kind: SelfImproveRun", "kind: Run", "run.yaml:2: kind: expected 'SelfImproveRun', found"),
    ("selfimprove.dev/v1alpha1", "v1", "run.yaml:1: apiVersion: expected 'selfimprove.dev"),
    ("  training:", "  training: &a\n    x: *b", "expected YAML, found"),
    ("spec:", "spec: {", "expected YAML, found"),
    ("kind:", "---\nkind:", "run.yaml:1: expected one document, found 2"),
    ("beta: 0.1", "beta: 0.1\n  translation: {translator: external}", "expected external exactly"),
    (
        "beta: 0.1",
        "beta: 0.1\n  translation: {translator: external, external: {kind: openai, model: m}}",
        "spec.translation.external: expected baseUrl with kind openai, found none",
    ),
    (
        "beta: 0.1",
        "offload: all\n    zeroStage: 2",
        "expected zeroStage 1 or more with offload optimizer, 3 with offload all, found 2",
    ),
    (
        "beta: 0.1",
        "offload: optimizer\n    zeroStage: 0",
        "expected zeroStage 1 or more with offload optimizer, 3 with offload all, found 0",
    ),
    (
        "beta: 0.1",
        "beta: 0.1\n  evaluation: {suites: [{name: sums, uri: s3://eval/sums}]}",
        "[0]: expected kind (exactMatch, offTarget, mgsm, xAlpacaEval, headToHead, mtBench, nlp or",
    ),
    (
        "beta: 0.1",
        "beta: 0.1\n  evaluation: {suites: [{name: headToHead, uri: s3://eval/a}]}",
        "evaluation: expected judge with the suites xAlpacaEval, headToHead and mtBench, found",
    ),
    (
        "beta: 0.1",
        "beta: 0.1\n  evaluation: {suites: [{name: xAlpacaEval, uri: s3://eval/a}]}",
        "spec.evaluation.suites[0]: xAlpacaEval needs referenceUri, and no other kind has it",
    ),
    (
        "beta: 0.1",
        "beta: 0.1\n  evaluation: {suites: [{name: mgsm, uri: s3://eval/m, languages: [de, xx]}]}",
        "spec.evaluation.suites[0].languages[1]: expected a BCP-47 tag such as de or pt-BR, found",
    ),
    (
        "beta: 0.1",
        "beta: 0.1\n  evaluation: {suites: [&s {name: exactMatch, uri: s3://eval/a}, *s]}",
        "spec.evaluation: expected each suite's name once, found exactMatch, exactMatch",
    ),
]


@pytest.mark.parametrize(("good", "bad", "line"), BAD, ids=[row[1][:40] for row in BAD])
def test_a_mistake_gets_one_line_with_its_place(
    good: str, bad: str, line: str, tmp_path: Path
) -> None:
    """The line says where, what was expected and what was found."""
    assert good in GOOD
    found = mistakes(GOOD.replace(good, bad), tmp=tmp_path)

    assert len(found) == 1
    assert line in found[0]


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    """Three mistakes on three lines give three lines."""
    text = GOOD.replace("beta: 0.1", "beta: -1").replace("others: [es, de]", "others: [es, xx]")
    found = mistakes(text.replace("name: test", "name: Test"), tmp=tmp_path)

    assert [line.split(": ")[0] for line in found] == ["run.yaml:3", "run.yaml:10", "run.yaml:6"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-7", 5e-7),
        ("1e-400", 0),
        ("3", 3),
        ("-1", -1),
        ("1.0", 1),
        ("2.", 2),
        ("-0.0", 0),
        ("1.5e3", 1500),
        ("1e20", 10**20),
        ("1e21", 1e21),
        ("1e400", "1e400"),
        ("0x1F", 31),
        ("-0b11", -3),
        ("010", 8),
        ("0o7", 7),
        ("08", 8),
        ("1_000", 1000),
        ("1_000.5", 1000.5),
        ("_1", "_1"),
        ("no", False),
        ("on", True),
        ("y", True),
        ("N", False),
        ("nO", "nO"),
        ('"no"', "no"),
        ("!!str no", "no"),
        ('!!int "5"', 5),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("1.2.3", "1.2.3"),
        ("=", "="),
        ("<<", "<<"),
        ("~", None),
        ("", None),
        ("{}", {}),
    ],
)
def test_plain_scalars_have_the_types_that_kubectl_gives_them(text: str, value: Any) -> None:
    """Most of all 5e-7, which YAML 1.1 as PyYAML reads it takes for text."""
    found = document.parse(f"key: {text}".encode(), "x.yaml").value["key"]

    assert found == value
    assert type(found) is type(value)


def test_settings_replace_values_and_are_named_in_their_mistakes(tmp_path: Path) -> None:
    """`--set` takes a path under spec; a wrong one is refused with the setting itself."""
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    run = validation.load(path, ["training.beta=0.3", "spec.iterations=3"])
    assert (run.spec.training.beta, run.spec.iterations) == (0.3, 3)

    assert mistakes(GOOD, "training.beta=x", tmp=tmp_path) == [
        '--set training.beta=x: spec.training.beta: expected a valid number, found "x"'
    ]
    assert mistakes(GOOD, "languages.others=[de]", tmp=tmp_path) == []
    (line,) = mistakes(GOOD, "languages.others=[de, xx]", tmp=tmp_path)
    assert line.startswith("--set languages.others=[de, xx]: spec.languages.others[1]: expected")
    assert "expected PATH=VALUE" in mistakes(GOOD, "training.beta", tmp=tmp_path)[0]


def test_wrong_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    """A Latin-1 byte is no YAML."""
    path = tmp_path / "run.yaml"
    path.write_bytes(GOOD.encode() + b"# \xe9\n")

    with pytest.raises(InputError, match=r"run\.yaml:11: expected UTF-8"):
        validation.load(path)


def test_a_file_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    """The path is named."""
    with pytest.raises(InputError, match="expected a run file, found none"):
        validation.load(tmp_path / "absent.yaml")


def test_file_uris_are_noted_here_and_refused_for_a_cluster(tmp_path: Path) -> None:
    """The API server refuses file://, because no node but this one has the folder."""
    text = GOOD.replace("s3://models/m0", "file:///models/m0")
    assert mistakes(text, tmp=tmp_path) == []
    found = mistakes(text, for_cluster=True, tmp=tmp_path)

    assert len(found) == 1
    assert "run.yaml:5: spec.model.uri: expected a URI that every node reaches" in found[0]
    run = validation.load(tmp_path / "run.yaml")
    assert validation.notes(run) == [
        "spec.model.uri: file:///models/m0 works on this machine alone"
    ]


def test_what_only_a_cluster_does_is_noted(tmp_path: Path) -> None:
    """Shards and nodes are 1 on one machine, and a volume claim is nowhere here."""
    path = tmp_path / "run.yaml"
    path.write_text(GOOD.replace("s3://models/m0", "pvc://models/m0"))
    run = validation.load(path, ["generation.shards=2", "training.nodes=3"])

    assert validation.notes(run) == [
        "spec.model.uri: pvc://models/m0 works on a cluster alone",
        "spec.generation.shards: 2 counts on a cluster alone; here it is 1",
        "spec.training.nodes: 3 counts on a cluster alone; here it is 1",
    ]


def test_a_baseline_without_a_suite_is_noted(tmp_path: Path) -> None:
    """The file is good, and yet nobody means it."""
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    told = ["evaluation.suites=[]", "evaluation.baselines=[languageInstruction]"]

    assert validation.notes(validation.load(path, told)) == [
        "spec.evaluation.baselines: without suites nothing is measured of them"
    ]


def test_null_is_a_field_that_is_not_set(tmp_path: Path) -> None:
    """As for the API server, wherever the field is known: its default or its profile fills it."""
    text = GOOD.replace("beta: 0.1", "beta: null\n  iterations: ~\n  scheduling: null").replace(
        "{name: test}", "{name: test, labels: null}"
    )
    assert mistakes(text, for_cluster=True, tmp=tmp_path) == []
    run = recipe.resolve(validation.load(tmp_path / "run.yaml"))

    assert (run.spec.training.beta, run.spec.iterations) == (0.5, 2)


def test_arguments_that_a_crd_has_no_type_for_are_text_on_a_cluster(tmp_path: Path) -> None:
    """Here they are what they are; there the line says how to write them."""
    both = "chat: {templateKwargs: {a: false, b: x}}\n  inference: {extraArgs: {c: 0.5, d: 8}}"
    text = GOOD.replace("beta: 0.1", f"beta: 0.1\n  {both}")
    assert mistakes(text, tmp=tmp_path) == []

    words = "expected text or a whole number on a cluster; write"
    assert mistakes(text, for_cluster=True, tmp=tmp_path) == [
        f'run.yaml:11: spec.chat.templateKwargs.a: {words} "false"',
        f'run.yaml:12: spec.inference.extraArgs.c: {words} "0.5"',
    ]
