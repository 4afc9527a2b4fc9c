"""Generate: M_t answers each prompt in the prompt's own language.

Nothing asks for the language unless `answerLanguagePrefix` is set, as in the paper: answers
in the wrong language are part of the imbalance that the method rewards away.
"""

from selfimprove_pipeline.contract.recipe import Spec
from selfimprove_pipeline.contract.rows import Answer, Prompt
from selfimprove_pipeline.engine import Completion, Request, row_seed
from selfimprove_pipeline.method import conversation
from selfimprove_pipeline.method.rendering import Renderer


def request(prompt: Prompt, language: str, spec: Spec, renderer: Renderer) -> Request:
    """Return the request for a prompt of one language."""
    return Request(
        key=prompt.id,
        group=f"generate/{language}",
        prompt=renderer.prompt_ids(conversation.of_prompt(prompt.prompt, language, spec)),
        max_tokens=spec.generation.max_tokens,
        temperature=spec.generation.temperature,
        top_p=spec.generation.top_p,
        repetition_penalty=spec.generation.repetition_penalty,
        seed=row_seed(spec.generation.seed, prompt.id, language),
    )


def answer(completion: Completion, language: str) -> Answer:
    """Return the row of a completion; white space around it is not part of the answer."""
    return Answer(
        id=completion.key,
        language=language,
        completion=completion.text.strip(),
        finish_reason=completion.finish_reason,
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
    )
