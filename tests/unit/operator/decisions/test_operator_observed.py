"""What the operator takes from the objects that it is sent."""

from selfimprove_operator.decisions import observed


def test_an_older_operator_reads_the_status_of_a_newer_one() -> None:
    """After a rollback the fields of the newer version are passed over, at every depth."""
    launch = {"unit": "training", "iteration": 1, "attempts": 2, "newer": {"a": 1}}
    body = {
        "metadata": {"namespace": "ns", "name": "run", "uid": "u", "resourceVersion": "7"},
        "spec": {},
        "status": {"stage": "training", "launch": launch, "newer": ["b"]},
    }

    status = observed.run(body).status

    assert (status.stage, status.launch and status.launch.number) == ("training", 2)
