"""The report of a run: what became better, by how much, and how sure that is.

`gather` reads a run's artifacts into a `story.Story`, pure data; `page` makes one HTML file
of it that needs no network, `markdown` the same as Markdown, `table` the result for the
terminal. `assessment` is one model without a run, `contenders` and `comparison` are two models,
`records` what of them is written down. `statistics` holds the intervals, `charts` the geometry,
`wording` the numbers and sentences that all of them share.
"""
