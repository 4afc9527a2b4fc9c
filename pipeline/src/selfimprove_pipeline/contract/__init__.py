"""What the halves of the product agree on: the recipe, the stages, their keys and their rows.

It imports the standard library and pydantic alone. The operator knows this package and nothing
else of the pipeline.
"""
