"""The report of a run, laid beside its index in the bucket, where a cluster's user finds it."""

from selfimprove_pipeline.contract import manifests
from selfimprove_pipeline.report.forms import markdown, page, records, run_records
from selfimprove_pipeline.report.story import gather
from selfimprove_pipeline.report.story.story import Story
from selfimprove_pipeline.store.repository import Repository


def pages(story: Story) -> dict[str, str]:
    """Return the report in each of its forms, by the ending of the file's name."""
    found = {
        "html": page.render(story),
        "md": markdown.render(story),
        "csv": records.as_csv(list(run_records.rates(story))),
        "changes.csv": records.as_csv(list(run_records.changes(story))),
        "json": run_records.as_json(story),
        **story.handouts,
    }
    return {ending: text for ending, text in found.items() if text}


def publish(repository: Repository, namespace: str | None, name: str) -> dict[str, str]:
    """Write the report to `report/` in the run's folder; return digests by URI."""
    story = gather.gather(repository, namespace=namespace, name=name)
    folder = repository.run_uri(namespace, name)
    digests = {}
    for ending, text in pages(story).items():
        uri = f"{folder}report/{name}.{ending}"
        repository.store.write(uri, text.encode())
        digests[uri] = manifests.digest(text)
    return digests
