"""The report of a run: what became better, by how much, and how sure that is.

`gather` reads a run's artifacts into a `story.Story`, pure data (`making` is its part on how the
models were made); `page` makes one HTML file of it that needs no network, `markdown` the same as
Markdown, `table` the result for the terminal. `assessment` is one model without a run,
`contenders` and `comparison` are two models; `handouts` shows them, `records` writes them down.
`sheets` and `results` are the tables, `charts` and `durations` the geometry of the drawings,
`notation` how numbers are written and `wording` the sentences that all of them share.
"""
