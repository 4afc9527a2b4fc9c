"""Kinds of suites that an installed package brings, by a real entry point."""

import sys
from pathlib import Path

import pytest

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.recipe import Suite
from selfimprove_pipeline.contract.rows import Prompt
from selfimprove_pipeline.engine import Completion
from selfimprove_pipeline.inputs import suites
from selfimprove_pipeline.inputs.suites import packages
from selfimprove_pipeline.measuring import answers

MODULE = """
from selfimprove_pipeline.extension import Prompt


ODD = {"odd": 7}


class Tone:
    def read(self, uri, languages, read_file):
        found = {}
        for language in languages:
            content = read_file(f"{uri}/{language}.txt")
            if content is None:
                raise ValueError(f"no {language}.txt")
            lines = content.decode().splitlines()
            found[language] = tuple(
                Prompt(id=str(n), prompt=text, follows="0" if text.startswith(">") else None)
                for n, text in enumerate(lines)
            )
        return found

    def score(self, completion, row, language):
        return {"rude": 0, "fine": 0.5, "kind": 1}.get(completion, ODD.get(completion))


tone = Tone()
"""


@pytest.fixture(autouse=True)
def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package with two entry points, of which one leads nowhere."""
    info = tmp_path / "my_evals-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: My_Evals\nVersion: 1.2\n")
    points = "tone = my_evals_tone:tone\nbroken = my_evals_tone:nothing\n"
    (info / "entry_points.txt").write_text(f"[selfimprove.suites]\n{points}")
    (tmp_path / "my_evals_tone.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("my_evals_tone", None)


def suite(kind: str = "my-evals/tone") -> Suite:
    return Suite(name="tone", kind=kind, uri="s3://eval/tone")


FILES = {"s3://eval/tone/en.txt": b"Hello\nBye", "s3://eval/tone/de.txt": b"Hallo\nTsch\xc3\xbcss"}


def test_a_suite_of_another_package_is_read_and_scored_by_it() -> None:
    """The engine, the store and the report know nothing of it."""
    rows = suites.read(suite(), ("en", "de"), FILES.get)
    assert [row.prompt for row in rows["de"]] == ["Hallo", "Tschüss"]
    scores = [
        answers.evaluated(
            Completion(
                key="0", text=text, finish_reason="stop", prompt_tokens=1, completion_tokens=1
            ),
            rows["de"][0],
            "de",
            lambda _: None,
            package="my-evals/tone",
        ).score
        for text in ("rude", "fine", "kind", "else")
    ]
    assert scores == [0.0, 0.5, 1.0, None]


def test_the_version_of_the_package_is_in_the_digest_of_the_suite() -> None:
    """Another version may score otherwise, so its answers are other artifacts."""
    rows = (Prompt(id="0", prompt="Hello"),)
    own = suites.digest(suite(), rows)
    assert own != suites.digest(Suite(name="tone", kind="offTarget", uri="s3://eval/tone"), rows)
    assert packages.version("my-evals/tone") == "my-evals/tone 1.2"


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("my-evals/none", "expected an installed package with the suite my-evals/none"),
        ("others/tone", "found my-evals/broken, my-evals/tone"),
        ("my-evals/broken", "evaluation.suites: my-evals/broken cannot be loaded"),
    ],
)
def test_what_is_not_installed_is_one_clear_line(kind: str, complaint: str) -> None:
    """It says what is there."""
    with pytest.raises(InputError) as error:
        suites.read(suite(kind), ("en",), FILES.get)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_the_package_refuses_is_wrong_input() -> None:
    """Its ValueError becomes a line with the suite's address."""
    message = r"s3://eval/tone: my-evals/tone cannot read it: no fr\.txt"
    with pytest.raises(InputError, match=message):
        suites.read(suite(), ("en", "fr"), FILES.get)


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (b"Hallo", "expected my-evals/tone to give each id once and the same ones"),
        (b"Hallo\n> Ade", "expected my-evals/tone to give prompts that follow no other"),
    ],
)
def test_rows_that_are_not_parallel_are_refused(lines: bytes, complaint: str) -> None:
    """As those of any suite, and conversations are for mtBench alone."""
    files = {**FILES, "s3://eval/tone/de.txt": lines}
    with pytest.raises(InputError, match=complaint):
        suites.read(suite(), ("en", "de"), files.get)


def test_a_score_beyond_1_is_refused() -> None:
    """A mean of such scores would have no interval."""
    with pytest.raises(InputError, match="expected a score from 0 to 1 of row 0, found 7"):
        packages.score("my-evals/tone", "odd", Prompt(id="0", prompt="Hello"), "en")
