"""The messages before an answer: how a prompt of the user becomes a conversation.

Generate, pair and evaluate build the same conversation here, so that the model is trained
on what it saw.
"""

from collections.abc import Sequence
from typing import Final

from selfimprove_pipeline.contract.recipe import Chat, Spec
from selfimprove_pipeline.contract.rows import Message
from selfimprove_pipeline.text import languages

ANSWER_LANGUAGE_PREFIX: Final = (
    "Below is an instruction that describes a task. Write a response that appropriately "
    "completes the request in {language}. Please answer in {language}.\n\n"
    "### Instruction:\n{prompt}\n\n### Response:\n"
)
"""The paper's wrapping of prompts for arithmetic reasoning."""


LANGUAGE_INSTRUCTIONS: Final = {
    "ar": "أجب باللغة العربية.",
    "bn": "বাংলায় উত্তর দাও।",
    "de": "Antworte auf Deutsch.",
    "en": "Answer in English.",
    "es": "Responde en español.",
    "fr": "Réponds en français.",
    "it": "Rispondi in italiano.",
    "ja": "日本語で答えてください。",
    "ko": "한국어로 답해 주세요.",
    "pt": "Responda em português.",
    "ru": "Ответь на русском языке.",
    "sw": "Jibu kwa Kiswahili.",
    "te": "తెలుగులో సమాధానం ఇవ్వండి.",
    "th": "โปรดตอบเป็นภาษาไทย",
    "zh": "请用中文回答。",
}
"""The request to answer in a language, in that language: those of the paper's tables and a few."""


def with_language_instruction(prompt: str, language: str) -> str:
    """Return a prompt that asks for its language; where we know no sentence, in English."""
    own = LANGUAGE_INSTRUCTIONS.get(languages.base(language))
    return f"{prompt}\n\n{own or f'Answer in {languages.name(language)}.'}"


def of_prompt(prompt: str, language: str, spec: Spec) -> tuple[Message, ...]:
    """Return the conversation of a prompt, wrapped if `answerLanguagePrefix` is set."""
    if not spec.generation.answer_language_prefix:
        return of_text(prompt, spec.chat)
    name = languages.name(language)
    return of_text(ANSWER_LANGUAGE_PREFIX.format(language=name, prompt=prompt), spec.chat)


def continued(before: Sequence[Message], answer: str, text: str) -> tuple[Message, ...]:
    """Return a conversation with the model's answer and the user's next turn."""
    turns = (Message(role="assistant", content=answer), Message(role="user", content=text))
    return (*before, *turns)


def of_text(text: str, chat: Chat) -> tuple[Message, ...]:
    """Return the system prompt, if any, and the text as the user's turn."""
    user = Message(role="user", content=text)
    if chat.system_prompt is None:
        return (user,)
    return (Message(role="system", content=chat.system_prompt), user)
