"""What a chat template must not decide by itself: whether the model thinks, and today's date.

Either would make the prompts of one run differ: the answers that are learned begin otherwise than
those that are generated, or prompts change at midnight. `rendering.Renderer` asks with the model's
tokenizer; a pod without transformers asks here, with Jinja alone.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.recipe.sources import Chat
from selfimprove_pipeline.contract.rows import Message
from selfimprove_pipeline.method import conversation

THINKING: Final = ("enable_thinking", "thinking")
"""Arguments by which templates are told whether the model thinks before it answers."""

_TODAY: Final = "<the date of today>"

Render = Callable[[Mapping[str, Any]], str]
"""Renders a prompt with some arguments besides those of the recipe."""


def today(_format: str) -> str:
    """Stand in for a template's `strftime_now`, so that a prompt with today's date is seen."""
    return _TODAY


def check_date(text: str, template: str, name: str) -> None:
    """Raise InputError if a rendered text has today's date in it.

    `name` is the model's folder.
    """
    if _TODAY not in text:
        return
    remedy = (
        'set date_string to a fixed one, such as "26 Jul 2024"'
        if "date_string" in template
        else "set chat.template to a copy of it with a fixed date, or chat.systemPrompt where the "
        "date is in its default one"
    )
    message = (
        f"chat.templateKwargs: expected prompts that are the same on every day, found that the "
        f"chat template of {name} writes today's date; {remedy}"
    )
    raise InputError(message)


def check_thinking(template: str, chat: Chat, name: str, render: Render) -> None:
    """Raise InputError if the recipe leaves open whether the model thinks.

    A template that does the same without an answer as with `false` leaves nothing open.
    """
    for flag in THINKING:
        is_open = flag in template and flag not in chat.template_kwargs
        if is_open and render({}) != render({flag: False}):
            message = (
                f"chat.templateKwargs: expected {flag}, without which the chat template of {name} "
                f'lets the model think, found none; set {flag}: "false", or "true" where answers '
                "are to be learned with their thoughts"
            )
            raise InputError(message)


def check(template: str, chat: Chat, name: str, tokens: Mapping[str, str]) -> None:
    """Check a template with Jinja alone; `tokens` are the tokenizer's, such as `bos_token`.

    A template that needs more than Jinja is left to `rendering.Renderer`, which is stricter.
    """
    messages = conversation.of_text("?", chat)
    try:
        made = _environment().from_string(template)

        def render(more: Mapping[str, Any]) -> str:
            return made.render(
                {**tokens, "strftime_now": today, **chat.template_kwargs, **more},
                messages=_plain(messages),
                add_generation_prompt=True,
            )

        check_date(render({}), template, name)
        check_thinking(template, chat, name, render)
    except (jinja2.TemplateError, TypeError, ValueError):
        return


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _environment() -> ImmutableSandboxedEnvironment:
    """Return Jinja as transformers sets it up for chat templates."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment.filters["tojson"] = json.dumps
    environment.globals["raise_exception"] = refuse
    return environment
