"""A report as a page, as Markdown, on a terminal, and as records for programs."""
