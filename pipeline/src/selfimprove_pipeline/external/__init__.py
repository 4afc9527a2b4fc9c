"""What the translate stage needs of a translator that is not the model itself.

`Translator` is to texts what `engine.Engine` is to token ids, and has two implementations:
`openai` (the only importer of the openai package) and `transformers_model`. Both are imported
when a recipe asks for one; `versions` has what keys need of them, without. What they yield is
parsed and kept like the model's own.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from selfimprove_pipeline.engine import Completion
from selfimprove_pipeline.external.versions import fingerprint
from selfimprove_pipeline.recipe import Spec
from selfimprove_pipeline.recipe.sampling import External
from selfimprove_pipeline.translate import Direction, Passage

__all__ = ["Translator", "fingerprint", "translator"]


class Translator(Protocol):
    """A translator that is ready, or becomes so at its first passage."""

    @property
    def start_seconds(self) -> float:
        """Seconds until it was made, without weights that are loaded later."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the packages that determine its output on this side."""

    def complete(self, requests: Iterable[Passage]) -> Iterator[Completion]:
        """Yield each passage's completion as it finishes, in any order.

        A completion whose stop text is the closing tag holds a whole translation; another one
        has none, and its finish reason says why.
        """

    def close(self) -> None:
        """End its connections and free its memory."""


def translator(external: External, spec: Spec) -> Translator:
    """Return the recipe's translator; one that cannot do a direction of the run is refused."""
    if external.kind == "openai":
        from selfimprove_pipeline.external import openai  # noqa: PLC0415  most runs need none

        return openai.OpenAITranslator(str(external.base_url), external.model)
    from selfimprove_pipeline.external import transformers_model  # noqa: PLC0415  heavy

    directions = [Direction(source, target) for source, target in spec.languages.directions()]
    return transformers_model.TransformersTranslator(external.model, directions)
