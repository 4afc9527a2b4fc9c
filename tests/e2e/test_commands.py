"""Commands without a run: exit codes and the one line that a person reads."""

from pathlib import Path

import pytest

from support.cli import MINIATURE, Cli

pytestmark = pytest.mark.e2e

FILE = str(MINIATURE / "run.yaml")


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Return a command line with an empty store."""
    return Cli(tmp_path / "store", tmp_path / "cache")


def test_a_good_file_validates_here_and_for_a_cluster(cli: Cli) -> None:
    """The miniature file uses s3:// alone."""
    assert cli("validate", FILE).code == 0
    assert cli("validate", FILE, "--cluster").code == 0


def test_wrong_input_is_exit_code_2(cli: Cli) -> None:
    """A wrong value, no store at all, and a model that is not there."""
    store = ("--store", str(cli.store))
    wrong = cli("validate", FILE, "--set", "training.beta=-1")
    assert (wrong.code, wrong.errors.count("\n")) == (2, 1)
    assert "spec.training.beta: expected greater than 0" in wrong.errors

    nowhere = cli("plan", FILE)
    assert nowhere.code == 2
    assert "pass --store DIR, or set storage.endpoint or AWS_ENDPOINT_URL" in nowhere.errors
    absent = cli("plan", FILE, *store)
    assert absent.code == 2
    assert "expected a model folder at s3://miniature/m0" in absent.errors
    unknown = cli("show", FILE, *store)
    assert unknown.code == 2
    assert "expected a run in the store, found none" in unknown.errors


def test_an_unreachable_store_is_exit_code_75_without_a_secret(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Try again later; the message names the endpoint and nothing secret."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-from-messages")
    refused = cli("plan", FILE, "--set", "storage.endpoint=http://127.0.0.1:9")

    assert refused.code == 75
    assert "127.0.0.1:9" in refused.errors
    assert "hidden-from-messages" not in refused.errors + refused.output


def test_plan_tells_the_recipe_and_what_would_run(cli: Cli) -> None:
    """The profile's values are filled in; nothing is in the store yet."""
    cli.upload_miniature()
    planned = cli("plan", FILE, "--store", str(cli.store))

    assert planned.code == 0, planned.errors
    assert "retryTemperature: 0.3" in planned.output
    assert "translate" in planned.output
    assert not list((cli.store / "runs").glob("*"))


def test_a_suspended_run_starts_nothing(cli: Cli) -> None:
    """It says how to go on, and `show` tells Suspended."""
    cli.upload_miniature()
    held = cli(*cli.run_arguments("suspend=true"))

    assert (held.code, held.events) == (0, [])
    assert "suspended" in held.output
    assert cli.show()["outcome"] == "Suspended"


def test_broken_prompts_fail_before_anything_is_computed(cli: Cli) -> None:
    """File and line are named, and the run's exit code is 2."""
    cli.upload_miniature()
    broken = cli.store / "miniature" / "prompts" / "de.jsonl"
    lines = broken.read_text().splitlines()
    broken.write_text("\n".join([lines[0], lines[0], *lines[2:]]) + "\n")
    refused = cli(*cli.run_arguments())

    assert refused.code == 2
    assert "s3://miniature/prompts/de.jsonl:2: expected each id once" in refused.errors
    assert not list(cli.store.rglob("artifacts/*"))
