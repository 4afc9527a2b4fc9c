"""The first pod of a run finds every wrong input, in words, without torch."""

import json
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from typing_extensions import override

from selfimprove_pipeline.contract.environment import CACHE, DEVICES, MODEL_MOUNT
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.keys import Toolchain
from selfimprove_pipeline.run import opening
from selfimprove_pipeline.run.setting import Setting
from selfimprove_pipeline.store.folder import FolderStore
from selfimprove_pipeline.store.repository import Repository
from selfimprove_pipeline.train.loop import trackers
from selfimprove_pipeline.workers import check
from support.pods import Pods
from support.runs import file, run

TOOLCHAIN = Toolchain(inference=None, light={}, training=None, translation=None)


def world(folder: Path) -> Path:
    """Return a folder store with a model, prompts and a suite that are right."""
    model = folder / "models" / "m0"
    model.mkdir(parents=True)
    (model / "config.json").write_text('{"model_type": "qwen2"}')
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "tokenizer.json").write_text("{}")
    (model / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    for name in ("prompts/set", "suites/one"):
        (folder / name).mkdir(parents=True)
        for language in ("en", "es", "de"):
            rows = [{"id": f"p{n}", "prompt": f"{language} {n}", "answer": "1"} for n in range(4)]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / name / f"{language}.jsonl").write_text(text)
    return folder


SUITES = [{"name": "exactMatch", "uri": "s3://suites/one"}]


def setting(root: Path, **values: object) -> Setting:
    store = FolderStore(root)
    repository = Repository(store, bucket="runs", prefix="team", cache=root / "cache")
    made = run(**{"evaluation__suites": SUITES, **values})
    return Setting(made, store, repository, TOOLCHAIN, "vllm", root / "cache")


def write(name: str, text: str) -> Callable[[Path], None]:
    def breaks(root: Path) -> None:
        (root / name).write_text(text)

    return breaks


def remove(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


INDEX = '{"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}'
BROKEN = {
    "no config": (remove("models/m0/config.json"), r"found no config\.json there"),
    "config is no JSON": (write("models/m0/config.json", "{"), r"config\.json: expected JSON"),
    "config is a list": (write("models/m0/config.json", "[]"), "expected a JSON object"),
    "config of nothing": (write("models/m0/config.json", "{}"), "expected model_type"),
    "no weights": (remove("models/m0/model.safetensors"), r"found no \*\.safetensors there"),
    "half of the weights": (
        write("models/m0/model.safetensors.index.json", INDEX),
        r"found no model-2\.safetensors",
    ),
    "no tokenizer": (remove("models/m0/tokenizer.json"), "expected a tokenizer at"),
    "no chat template": (write("models/m0/tokenizer_config.json", "{}"), "set chat.template"),
    "a template that writes the date": (
        write("models/m0/chat_template.jinja", "{{ date_string or strftime_now('%Y') }}"),
        r"models/m0/ writes today's date; set date_string",
    ),
    "a template that thinks unasked": (
        write(
            "models/m0/tokenizer_config.json",
            '{"chat_template": [{"name": "default", "template": '
            '"{% if enable_thinking is not defined %}{{ bos_token }}<think>{% endif %}"}]}',
        ),
        r"models/m0/ lets the model think, found none; set enable_thinking",
    ),
    "no model": (lambda root: shutil.rmtree(root / "models"), "expected a model folder at"),
    "a language without prompts": (remove("prompts/set/es.jsonl"), r"es\.jsonl: expected one"),
    "a prompt without text": (
        write("prompts/set/de.jsonl", '{"id": "p0", "prompt": 1}\n'),
        r"de\.jsonl:1: expected the text field prompt",
    ),
    "a suite without answers": (
        write("suites/one/en.jsonl", '{"id": "p0", "prompt": "a"}\n'),
        r"suites/one/es\.jsonl: expected the ids of en",
    ),
}


@pytest.mark.parametrize(("breaks", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_each_wrong_input_is_told(
    tmp_path: Path, breaks: Callable[[Path], None], message: str
) -> None:
    """By name, with what was expected and what was found."""
    root = world(tmp_path)
    breaks(root)
    with pytest.raises(InputError, match=message):
        check.work(setting(root))


def test_mistakes_in_several_inputs_are_told_together(tmp_path: Path) -> None:
    """One correction is enough."""
    root = world(tmp_path)
    remove("models/m0/config.json")(root)
    remove("prompts/set/es.jsonl")(root)
    with pytest.raises(InputError, match=r"(?s)config\.json.*es\.jsonl"):
        check.work(setting(root))


def test_a_tracker_that_the_training_image_lacks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the other mistakes, and whatever this pod's own image has installed."""
    root = world(tmp_path)
    tracked = {"training__reportTo": ["wandb", "tensorboard"]}
    assert check.work(setting(root, **tracked))
    monkeypatch.setattr(trackers, "TRACKER_PACKAGES", {"tensorboard": "tensorboard"})
    remove("models/m0/config.json")(root)
    with pytest.raises(InputError, match=r"(?s)\(tensorboard\), found wandb; .*config\.json"):
        check.work(setting(root, **tracked))


def test_too_few_prompts_for_a_later_iteration_are_told(tmp_path: Path) -> None:
    """Before the first one has cost GPU hours."""
    values = {"iterations": 3, "prompts__selection": "disjoint"}
    with pytest.raises(InputError, match="expected 6 prompts for iteration 2"):
        check.work(setting(world(tmp_path), **values))


def test_a_filter_by_answers_needs_an_answer_to_every_prompt(tmp_path: Path) -> None:
    """It would otherwise drop pairs for what nobody knows."""
    root = world(tmp_path)
    filtered = {"pairing__filters__wrongAnswer": True}
    assert check.work(setting(root, **filtered))
    write("prompts/set/de.jsonl", '{"id": "p0", "prompt": "a"}\n')(root)
    with pytest.raises(InputError, match=r"de\.jsonl: expected the text field answer in every row"):
        check.work(setting(root, **filtered))


def test_good_inputs_leave_nothing_behind(tmp_path: Path) -> None:
    """The bucket is written to and read, and is empty again; equal inputs have equal digests."""
    root = world(tmp_path)
    found = check.work(setting(root))
    assert set(found) == {"model", "prompts", "suites"}
    assert found == check.work(setting(root))
    assert [path for path in (root / "runs").rglob("*") if path.is_file()] == []


def test_the_recipes_template_takes_the_place_of_the_models(tmp_path: Path) -> None:
    """Base models have none of their own."""
    root = world(tmp_path)
    write("models/m0/tokenizer_config.json", "{}")(root)
    assert check.work(setting(root, chat__template="{{ messages }}"))


def test_what_a_template_asks_is_answered_by_the_recipe(tmp_path: Path) -> None:
    """The check of the first pod has the recipe's arguments, too."""
    root = world(tmp_path)
    write("models/m0/chat_template.jinja", "{{ date_string or strftime_now('%Y') }}")(root)
    assert check.work(setting(root, chat__templateKwargs={"date_string": "26 Jul 2024"}))


def test_a_bucket_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """Before anything is read."""
    root = world(tmp_path)
    (root / "runs").write_text("a file where the bucket should be")
    with pytest.raises(InputError, match="check path and permissions"):
        check.work(setting(root))


@pytest.mark.parametrize("uri", ["pvc://models/m0", "pvc://models/m0/"])
def test_a_claims_model_is_read_where_the_pod_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    """Its digest is that of the same folder anywhere; without the mount it is a mistake."""
    root = world(tmp_path)
    monkeypatch.setenv(MODEL_MOUNT, str(root / "mounted"))
    with pytest.raises(InputError, match=r"expected s3://, hf:// or file:// on one machine"):
        check.work(setting(root, model__uri=uri))
    shutil.copytree(root / "models" / "m0", root / "mounted" / "m0")
    claimed = setting(root, model__uri=uri)
    assert check.work(claimed)
    assert claimed.base.digest == setting(root).base.digest


def test_check_needs_neither_torch_nor_transformers(tmp_path: Path) -> None:
    """The light image has none of them; the command line is that of the pod.

    It warns of the prompts that the suite has too, and leaves a list of them.
    """
    root = world(tmp_path / "store")
    path = tmp_path / "run.json"
    path.write_text(json.dumps(file(evaluation__suites=SUITES)))
    pods = Pods(path, root, tmp_path / "pods", engine="vllm")
    ended = pods("check", 0)
    assert ended.code == 0, ended.errors
    assert set(ended.message) == {"contract", "digest", "stages", "totals"}
    assert ended.numbers["iteration"] == 0
    warnings = [event["message"] for event in ended.events if event["event"] == "warning"]
    assert [line.partition(":")[0] for line in warnings] == [
        "exactMatch in en",
        "exactMatch in es",
        "exactMatch in de",
    ]
    assert warnings[0].startswith(ended.message["totals"]["warning"])
    rows = (root / "runs" / "runs" / "local.test" / "overlap.jsonl").read_text().splitlines()
    assert [json.loads(row)["prompt"] for row in rows] == ["p0", "p1"] * 3
    program = (
        "import sys; from selfimprove_pipeline.__main__ import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "heavy = {'torch', 'transformers', 'vllm', 'trl', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    arguments = ["worker", "check", str(path), "--iteration", "0", "--store", str(root)]
    found = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr


def test_a_wrong_input_is_the_pods_last_word(tmp_path: Path) -> None:
    """Exit code 2, and one line in the termination message."""
    root = world(tmp_path / "store")
    path = tmp_path / "run.json"
    path.write_text(json.dumps(file(evaluation__suites=SUITES)))
    pods = Pods(path, root, tmp_path / "pods")
    remove("models/m0/config.json")(root)
    ended = pods("check", 0)
    assert ended.code == 2
    assert ended.message["contract"] == "1"
    assert "found no config.json there" in ended.message["error"]


@pytest.mark.parametrize("worker", ["inference", "training"])
def test_a_pod_that_asked_for_gpus_does_not_start_without(tmp_path: Path, worker: str) -> None:
    """Neither an engine nor ranks: it would be a run on processors that nobody wants."""
    root = world(tmp_path / "store")
    path = tmp_path / "run.json"
    path.write_text(json.dumps(file(evaluation__suites=SUITES)))
    hidden = {DEVICES: "nvidia.com/gpu=1", "CUDA_VISIBLE_DEVICES": ""}
    pods = Pods(path, root, tmp_path / "pods", hidden, engine="vllm")
    assert pods("check", 0).code == 0
    ended = pods(worker, 0)
    assert ended.code == 2
    assert "expected to compute on nvidia.com/gpu=1, found " in ended.message["error"]


KEY = "the-key-of-the-prompts"


@pytest.fixture
def refusing() -> Iterator[tuple[str, list[str]]]:
    """Give an S3 server that has nothing, and who asked it for what."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            credential = self.headers["Authorization"].partition("Credential=")[2]
            asked.append(f"{credential.partition('/')[0]} {self.path.partition('?')[0]}")
            body = b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>"
            self.send_response(404)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        @override
        def log_message(self, *_: object) -> None:
            """Keep the tests' output free of requests."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()


def test_prompts_are_read_with_their_own_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusing: tuple[str, list[str]]
) -> None:
    """And nothing else is: suites belong to the run."""
    endpoint, asked = refusing
    path = tmp_path / "run.json"
    path.write_text(json.dumps(file(evaluation__suites=SUITES, storage__endpoint=endpoint)))
    for name, value in {
        "AWS_ACCESS_KEY_ID": "the-runs-key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "SELFIMPROVE_PROMPTS_AWS_ACCESS_KEY_ID": KEY,
        "SELFIMPROVE_PROMPTS_AWS_SECRET_ACCESS_KEY": "secret",
        CACHE: str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    made = opening.setting_of(Namespace(file=path, set=[], store=None, engine="vllm"))
    for read in (lambda: made.prompts, lambda: made.suites):
        with pytest.raises(InputError, match="expected one file a language, found none"):
            read()
    prompts = [line for line in asked if "/prompts/" in line]
    suites = [line for line in asked if "/suites/" in line]
    assert {line.split()[0] for line in prompts} == {KEY}
    assert {line.split()[0] for line in suites} == {"the-runs-key"}
