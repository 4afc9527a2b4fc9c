"""Turns messages into token ids, the same way for generate, translate, train and evaluate.

One renderer means that the model is trained on exactly the tokens it saw and made. Text is
rendered by the chat template as a string and then tokenized without further special tokens: the
template writes those itself. Only this module knows transformers' tokenizers.
"""

import inspect
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import jinja2

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.manifests import digest
from selfimprove_pipeline.contract.recipe.sources import Chat
from selfimprove_pipeline.contract.rows import Message
from selfimprove_pipeline.method import conversation, template

_PROBE: Final = "selfimprove"


class Renderer:
    """The tokenizer and chat template of one model, with the recipe's `chat`."""

    def __init__(self, tokenizer_folder: Path, chat: Chat, uri: str = "") -> None:
        """Load the tokenizer and try the template; errors name the model by `uri`, if given.

        A folder without a tokenizer, a missing or failing template, one that refuses or drops the
        system prompt, one that thinks or writes today's date unasked, and one that does not end a
        turn with a token of its own raise `InputError`.
        """
        self._folder = tokenizer_folder
        self._name = uri or tokenizer_folder.name
        self._chat = chat
        self._tokenizer: Any = self._loaded()
        self._template: str = self._chosen_template()
        self._check_template_kwargs()
        self._check_thinking()
        self._end_of_turn: str = self._found_end_of_turn()

    def prompt_ids(self, messages: Sequence[Message], prefill: str = "") -> tuple[int, ...]:
        """Return the ids of a conversation up to where the assistant speaks, then of `prefill`.

        The prefill is put behind the rendered string: templates that trim a message would lose
        its white space.
        """
        return self._ids(self._rendered(messages, is_open=True) + prefill)

    def completion_ids(self, messages: Sequence[Message], completion: str) -> tuple[int, ...]:
        """Return the ids of an assistant turn after `prompt_ids(messages)`.

        They end with the end-of-turn token and nothing after it. Where tokens would merge across
        the boundary the completion is tokenized alone, as the model would have made it.
        """
        prompt = self._rendered(messages, is_open=True)
        turn = self._turn(messages, completion)
        turn = turn[: turn.rindex(self._end_of_turn) + len(self._end_of_turn)]
        before, whole = self._ids(prompt), self._ids(prompt + turn)
        if whole[: len(before)] == before:
            return whole[len(before) :]
        return self._ids(turn)

    def num_tokens(self, text: str) -> int:
        """Return the number of tokens of a text, without any that mark its beginning or end."""
        return len(self._ids(text))

    def text_ids(self, text: str, *, is_marked: bool | None = None) -> tuple[int, ...]:
        """Return the ids of a text that no template rendered, as lm-eval's backends make them.

        `is_marked` says whether the tokenizer puts its special tokens around the text; None leaves
        it to the tokenizer, but never puts a second token of beginning before the text's own.
        """
        if is_marked is None and text.startswith(self._tokenizer.decode(self.first_id)):
            is_marked = False
        marks = {} if is_marked is None else {"add_special_tokens": is_marked}
        return tuple(self._tokenizer(text, verbose=False, **marks)["input_ids"])

    def history_text(self, history: Sequence[Message], *, is_open: bool) -> str:
        """Return a conversation as the template writes it, to where the assistant speaks.

        A last message of the assistant that is not `is_open` is left without its end, to be
        continued. No system prompt is added, and one that the template refuses is left out.
        """
        try:
            return self._rendered(history, is_open=is_open, is_continued=not is_open)
        except InputError:
            others = [message for message in history if message.role != "system"]
            if len(others) == len(history):
                raise
            return self._rendered(others, is_open=is_open, is_continued=not is_open)

    @property
    def template(self) -> str:
        """The chat template in use, as Jinja."""
        return self._template

    @cached_property
    def first_id(self) -> int:
        """Id before a text's first token: of beginning, else of end, else the end of a turn's."""
        own = (self._tokenizer.bos_token_id, self._tokenizer.eos_token_id)
        return next(int(token) for token in (*own, *self.end_of_turn_ids) if token is not None)

    @cached_property
    def end_id(self) -> int:
        """Id of the tokenizer's end of text, else the end of a turn's."""
        own = self._tokenizer.eos_token_id
        return self.end_of_turn_ids[0] if own is None else int(own)

    @cached_property
    def end_text(self) -> str:
        """What the token of `end_id` reads as."""
        return str(self._tokenizer.decode(self.end_id))

    @cached_property
    def end_of_turn_ids(self) -> tuple[int, ...]:
        """Ids that end a generation: end-of-turn, the tokenizer's eos, the generation config's."""
        stated = self._stated_eos()
        return tuple(
            dict.fromkeys(
                token
                for token in (*self._ids(self._end_of_turn), self._tokenizer.eos_token_id, *stated)
                if token is not None
            )
        )

    @cached_property
    def fingerprint(self) -> str:
        """Digest of what decides the rendering: template, its arguments, system prompt, tokens."""
        added = self._tokenizer.get_added_vocab()
        return digest(
            {
                "template": self._template,
                "templateKwargs": self._chat.template_kwargs,
                "systemPrompt": self._chat.system_prompt,
                "special": dict(self._tokenizer.special_tokens_map),
                "added": dict(added),
            }
        )

    def _loaded(self) -> Any:
        # Imported here because it takes seconds, and most commands render nothing.
        import transformers  # noqa: PLC0415

        try:
            # The format of Mistral's own library is left aside: the model that is trained has no
            # such file, and the training image no such library.
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                self._folder, local_files_only=True, mistral_format=False
            )
        except (OSError, ValueError) as error:
            msg = f"expected a tokenizer in {self._name}, found none that loads: {error}"
            raise InputError(" ".join(msg.split())) from error
        # Without its files transformers makes a tokenizer that turns every text into nothing.
        if not tokenizer(_PROBE, add_special_tokens=False)["input_ids"]:
            msg = (
                f"expected a tokenizer in {self._name}, found one without vocabulary; "
                "put tokenizer.json beside the weights"
            )
            raise InputError(msg)
        return tokenizer

    def _ids(self, text: str) -> tuple[int, ...]:
        # verbose=False: a text beyond the model's length is the caller's to count, not to warn of.
        ids = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return tuple(ids)

    def _rendered(
        self,
        messages: Sequence[Message],
        *,
        is_open: bool,
        is_continued: bool = False,
        more: Mapping[str, Any] | None = None,
    ) -> str:
        try:
            text = self._tokenizer.apply_chat_template(
                [{"role": message.role, "content": message.content} for message in messages],
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=is_open,
                continue_final_message=is_continued,
                **{"strftime_now": template.today, **self._chat.template_kwargs, **(more or {})},
            )
        except jinja2.TemplateError as error:
            roles = ", ".join(message.role for message in messages)
            msg = (
                f"expected a chat template that renders {roles}, found that of "
                f"{self._name} to fail: {error}; set chat.template"
                + (" or leave chat.systemPrompt unset" if messages[0].role == "system" else "")
            )
            raise InputError(" ".join(msg.split())) from error
        template.check_date(str(text), self._template, self._name)
        return str(text)

    def _turn(self, messages: Sequence[Message], completion: str) -> str:
        """Return what an assistant turn adds to the prompt, to the end of the rendering."""
        prompt = self._rendered(messages, is_open=True)
        answer = Message(role="assistant", content=completion)
        whole = self._rendered([*messages, answer], is_open=False)
        if not whole.startswith(prompt):
            if messages[0].role == "system" and messages[0].content.strip() not in whole:
                msg = (
                    "chat.systemPrompt: expected a chat template that leaves the system prompt in "
                    f"its place, found that of {self._name} to move it into the user's last "
                    "turn, so that answers would be learned without it; leave it unset or set "
                    "chat.template"
                )
                raise InputError(msg)
            msg = (
                "expected a chat template whose assistant turn continues its generation prompt, "
                f"found that of {self._name} not to; set chat.template"
            )
            raise InputError(msg)
        return whole[len(prompt) :]

    def _chosen_template(self) -> str:
        chosen = self._chat.template or self._tokenizer.chat_template
        if isinstance(chosen, Mapping):
            chosen = chosen.get("default")
        if chosen is None:
            msg = (
                f"expected a chat template, found none in the tokenizer of {self._name}; "
                "set chat.template"
            )
            raise InputError(msg)
        return str(chosen)

    def _check_thinking(self) -> None:
        messages = conversation.of_text("?", self._chat)
        template.check_thinking(
            self._template,
            self._chat,
            self._name,
            lambda more: self._rendered(messages, is_open=True, more=more),
        )

    def _check_template_kwargs(self) -> None:
        """Refuse arguments that are ours to set, such as `tokenize`."""
        ours = {*inspect.signature(self._tokenizer.apply_chat_template).parameters, "strftime_now"}
        if taken := sorted(self._chat.template_kwargs.keys() & ours):
            msg = (
                "chat.templateKwargs: expected arguments of the template, "
                f"found {', '.join(taken)}, which belongs to the renderer; remove it"
            )
            raise InputError(msg)

    def _found_end_of_turn(self) -> str:
        """Return the first special token that the template puts after an assistant's text."""
        messages = conversation.of_text("?", self._chat)
        system = (self._chat.system_prompt or "").strip()
        if system not in self._rendered(messages, is_open=True):
            msg = (
                f"chat.systemPrompt: the chat template of {self._name} drops a system "
                "message; leave it unset or set chat.template"
            )
            raise InputError(msg)
        rest = self._turn(messages, _PROBE).partition(_PROBE)[2]
        if found := [token for token in self._special_tokens() if token in rest]:
            return min(found, key=rest.index)
        msg = (
            "expected a chat template that ends an assistant turn with a special token, "
            f"found {rest!r} in that of {self._name}; set chat.template"
        )
        raise InputError(msg)

    def _special_tokens(self) -> set[str]:
        """Return the tokens that stand for themselves, those that only mark text included."""
        return {*self._tokenizer.all_special_tokens, *self._tokenizer.get_added_vocab()} - {""}

    def _stated_eos(self) -> tuple[int, ...]:
        """Return the eos ids of generation_config.json, which may hold one, several or none."""
        path = self._folder / "generation_config.json"
        stated = json.loads(path.read_text()).get("eos_token_id") if path.exists() else None
        if stated is None:
            return ()
        return (stated,) if isinstance(stated, int) else tuple(stated)
