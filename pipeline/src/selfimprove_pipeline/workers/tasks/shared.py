"""What the tasks of one iteration share: the model's folder, its renderer, the prompts."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from selfimprove_pipeline.contract.recipe import Suite
from selfimprove_pipeline.inputs.prompts import Parallel
from selfimprove_pipeline.method.rendering import Renderer
from selfimprove_pipeline.run.setting import Model, Setting
from selfimprove_pipeline.text import languages
from selfimprove_pipeline.text.languages import Identify


@dataclass(frozen=True)
class Bench:
    """What the tasks of one iteration share. The model is fetched when it is first needed."""

    setting: Setting
    model: Model
    prompts: Parallel

    @cached_property
    def folder(self) -> Path:
        """The model's folder on this machine."""
        return self.setting.folder(self.model)

    @cached_property
    def renderer(self) -> Renderer:
        """The renderer of the model's tokenizer and template."""
        return Renderer(self.folder, self.setting.spec.chat, self.setting.spec.model.uri)

    def identify(self, suite: Suite) -> Identify:
        """Return the identification among the run's languages and a suite's own."""
        run = self.setting.spec.languages
        return languages.identifier(tuple(dict.fromkeys((*run.all(), *suite.languages_in(run)))))

    def template(self) -> dict[str, str]:
        """Return the renderer's fingerprint, for the manifests of what it rendered."""
        return {"template": self.renderer.fingerprint}
