"""The messages before an answer: how a prompt of the user becomes a conversation.

Generate, pair and evaluate build the same conversation here, so that the model is trained
on what it saw.
"""

from typing import Final

from selfimprove_pipeline import languages
from selfimprove_pipeline.artifacts import Message
from selfimprove_pipeline.recipe import Chat, Spec

ANSWER_LANGUAGE_PREFIX: Final = (
    "Below is an instruction that describes a task. Write a response that appropriately "
    "completes the request in {language}. Please answer in {language}.\n\n"
    "### Instruction:\n{prompt}\n\n### Response:\n"
)
"""The paper's wrapping of prompts for arithmetic reasoning."""


def of_prompt(prompt: str, language: str, spec: Spec) -> tuple[Message, ...]:
    """Return the conversation of a prompt, wrapped if `answerLanguagePrefix` is set."""
    if not spec.generation.answer_language_prefix:
        return of_text(prompt, spec.chat)
    name = languages.name(language)
    return of_text(ANSWER_LANGUAGE_PREFIX.format(language=name, prompt=prompt), spec.chat)


def of_text(text: str, chat: Chat) -> tuple[Message, ...]:
    """Return the system prompt, if any, and the text as the user's turn."""
    user = Message(role="user", content=text)
    if chat.system_prompt is None:
        return (user,)
    return (Message(role="system", content=chat.system_prompt), user)
