"""The report of a run: what became better, by how much, and how sure that is.

From the bottom to the top: `story` reads a run's artifacts into pure data; `words` writes its
numbers and sentences; `tables` and `charts` lay them out; `forms` are the page, Markdown, the
terminal and records for programs; `models` does the same for one model or two without a run;
`publish` lays the report into the bucket.
"""
