"""What `rendering.Renderer` promises, with ids written down by hand.

In the byte-level tokenizers ids 0-255 are bytes, 256 is "ll", 257 two line feeds, and the special
tokens follow from 258 in the order of the constants.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.recipe.sources import Chat
from selfimprove_pipeline.contract.rows import Message
from selfimprove_pipeline.method import conversation, template
from selfimprove_pipeline.method.rendering import Renderer
from support.models import (
    CHATML,
    CHATML_CONFIG,
    CHATML_SPECIAL,
    LLAMA2_CONFIG,
    LLAMA3_CONFIG,
    LLAMA3_SPECIAL,
    byte_level,
    sentencepiece,
)

LL, BLANK_LINE = 256, 257
ENDOFTEXT, IM_START, IM_END = 258, 259, 260
BEGIN, END_OF_TEXT, HEADER, HEADER_END, EOT = 258, 259, 260, 261, 262
S, S_END = 258, 259

GENERATION = {"eos_token_id": [IM_END, ENDOFTEXT]}


@pytest.fixture
def chatml(tmp_path: Path) -> Path:
    """Write a Qwen-like folder."""
    return byte_level(tmp_path / "qwen", special=CHATML_SPECIAL, config=CHATML_CONFIG)


@pytest.fixture
def llama3(tmp_path: Path) -> Path:
    """Write a Llama-3-like folder: its template writes bos, its eos is not the end of turn."""
    return byte_level(tmp_path / "llama3", special=LLAMA3_SPECIAL, config=LLAMA3_CONFIG)


@pytest.fixture
def llama2(tmp_path: Path) -> Path:
    """Write a Llama-2-like folder over bytes."""
    return byte_level(tmp_path / "llama2", special=("<s>", "</s>"), config=LLAMA2_CONFIG)


def user(content: str) -> tuple[Message, ...]:
    """Return a conversation of one user message."""
    return (Message(role="user", content=content),)


def test_chatml_prompt_and_completion(chatml: Path) -> None:
    """ChatML: the prompt opens the assistant's turn; no line feed follows the <|im_end|>."""
    renderer = Renderer(chatml, Chat())
    assert renderer.prompt_ids(user("Hi")) == (
        *(IM_START, *b"user\nHi", IM_END, *b"\n"),
        *(IM_START, *b"assistant\n"),
    )
    assert renderer.completion_ids(user("Hi"), "Hello") == (*b"He", LL, *b"o", IM_END)


def test_llama3_prompt_and_completion(llama3: Path) -> None:
    """Llama-3: the template's bos stands once, and the completion ends with <|eot_id|>."""
    chat = Chat(system_prompt="Be kind.")
    renderer = Renderer(llama3, chat)
    messages = conversation.of_text("Hi", chat)
    assert renderer.prompt_ids(messages) == (
        BEGIN,
        *(HEADER, *b"system", HEADER_END, BLANK_LINE, *b"Be kind.", EOT),
        *(HEADER, *b"user", HEADER_END, BLANK_LINE, *b"Hi", EOT),
        *(HEADER, *b"assistant", HEADER_END, BLANK_LINE),
    )
    assert renderer.completion_ids(messages, "Yes") == (*b"Yes", EOT)


def test_llama2_prompt_and_completion(llama2: Path) -> None:
    """Llama-2: the system prompt goes into the user's turn; a space stands before text and end."""
    chat = Chat(system_prompt="Be kind.")
    renderer = Renderer(llama2, chat)
    messages = conversation.of_text("Hi", chat)
    assert renderer.prompt_ids(messages) == (
        S,
        *b"[INST] <<SYS>>\nBe kind.\n<</SYS>>",
        BLANK_LINE,
        *b"Hi [/INST]",
    )
    assert renderer.completion_ids(messages, "Yes") == (*b" Yes ", S_END)


def test_a_sentencepiece_completion_is_tokenized_in_its_place(tmp_path: Path) -> None:
    """A tokenizer that puts a space before every text puts none between prompt and completion."""
    folder = sentencepiece(tmp_path, config={**LLAMA2_CONFIG, "unk_token": "<unk>"})
    renderer = Renderer(folder, Chat())
    letters = {"\u2581": 259} | {chr(code): 260 + code - 33 for code in range(33, 127)}
    in_letters = [letters[letter] for letter in "\u2581Yes\u2581"]
    assert renderer.completion_ids(user("Hi"), "Yes") == (*in_letters, 2)


@pytest.mark.parametrize("family", ["chatml", "llama3", "llama2"])
def test_prompt_and_completion_are_the_whole_conversation(
    family: str, request: pytest.FixtureRequest
) -> None:
    """Together they are the tokens of the rendered conversation up to its end of turn."""
    renderer = Renderer(request.getfixturevalue(family), Chat())
    messages = (
        *user("How many?"),
        Message(role="assistant", content="Two."),
        *user("Sure?\n\nReally?"),
    )
    answered = (*messages, Message(role="assistant", content="Yes, all."))
    # The next prompt starts with the tokens of everything said before.
    following = renderer.prompt_ids((*answered, *user("Why?")))
    ours = renderer.prompt_ids(messages) + renderer.completion_ids(messages, "Yes, all.")
    assert following[: len(ours)] == ours
    assert ours[-1] == renderer.end_of_turn_ids[0]


def test_a_merge_across_the_boundary_leaves_the_prompt_as_it_was(chatml: Path) -> None:
    """A completion that begins with a line feed would merge with the prompt's; it may not."""
    renderer = Renderer(chatml, Chat())
    assert renderer.prompt_ids(user("Hi"))[-1:] == (*b"\n",)
    assert renderer.completion_ids(user("Hi"), "\nHo") == (*b"\nHo", IM_END)


@pytest.mark.parametrize("family", ["chatml", "llama3", "llama2"])
def test_the_prefill_keeps_its_line_feed(family: str, request: pytest.FixtureRequest) -> None:
    """The text that the answer continues stands at the end of the prompt, white space included."""
    renderer = Renderer(request.getfixturevalue(family), Chat())
    opened = renderer.prompt_ids(user("Hi"))
    assert renderer.prompt_ids(user("Hi"), "<translated>\n") == (*opened, *b"<translated>\n")


def test_an_end_of_turn_inside_the_completion_does_not_cut_it(chatml: Path) -> None:
    """The turn is cut behind its own end, not behind the same token quoted in its text."""
    renderer = Renderer(chatml, Chat())
    assert renderer.completion_ids(user("Hi"), "a<|im_end|>b") == (*b"a", IM_END, *b"b", IM_END)


def test_what_a_template_puts_after_the_end_of_turn_is_not_learned(chatml: Path) -> None:
    """Of several special tokens at the end the first one ends the turn."""
    template = CHATML.replace("'<|im_end|>'", "'<|im_end|><|endoftext|>'")
    renderer = Renderer(chatml, Chat(template=template))
    assert renderer.completion_ids(user("Hi"), "Ho") == (*b"Ho", IM_END)


def test_end_of_turn_ids_join_template_tokenizer_and_generation_config(
    chatml: Path, llama3: Path
) -> None:
    """Generation stops at the template's end of turn, the tokenizer's eos and the stated eos."""
    assert Renderer(llama3, Chat()).end_of_turn_ids == (EOT, END_OF_TEXT)
    assert Renderer(chatml, Chat()).end_of_turn_ids == (IM_END,)
    (chatml / "generation_config.json").write_text(json.dumps(GENERATION))
    assert Renderer(chatml, Chat()).end_of_turn_ids == (IM_END, ENDOFTEXT)
    (chatml / "generation_config.json").write_text(json.dumps({"eos_token_id": ENDOFTEXT}))
    assert Renderer(chatml, Chat()).end_of_turn_ids == (IM_END, ENDOFTEXT)


def test_tokens_are_counted_without_beginning_and_end(llama3: Path) -> None:
    """A text's length is that of the text."""
    assert Renderer(llama3, Chat()).num_tokens("Hello") == 4


def test_the_recipe_template_and_its_arguments_are_used(chatml: Path) -> None:
    """chat.template replaces the tokenizer's, and chat.templateKwargs reach it."""
    template = (
        "{% for message in messages %}{{ message['content'] }}<|im_end|>{% endfor %}"
        "{% if loud %}!{% endif %}"
    )
    calm = Renderer(chatml, Chat(template=template))
    assert calm.prompt_ids(user("Hi")) == (*b"Hi", IM_END)
    loud = Chat(template=template, template_kwargs={"loud": True})
    with pytest.raises(InputError, match="continues its generation prompt"):
        Renderer(chatml, loud)


def test_the_fingerprint_changes_with_whatever_changes_the_rendering(
    chatml: Path, llama2: Path
) -> None:
    """Template, arguments, system prompt and special tokens each change it; nothing else does."""
    other = byte_level(
        chatml.parent / "other", special=(*CHATML_SPECIAL, "<pad>"), config=CHATML_CONFIG
    )
    prints = [
        Renderer(folder, chat).fingerprint
        for folder, chat in (
            (chatml, Chat()),
            (other, Chat()),
            (chatml, Chat(system_prompt="Be kind.")),
            (chatml, Chat(template_kwargs={"enable_thinking": False})),
            (chatml, Chat(template=CHATML + "{# other #}")),
            (llama2, Chat(template=CHATML.replace("<|im_end|>", "</s>"))),
            (chatml, Chat(template=CHATML.replace("<|im_end|>", "<|endoftext|>"))),
        )
    ]
    assert len(set(prints)) == len(prints)
    assert Renderer(chatml, Chat()).fingerprint == prints[0]
    assert Renderer(chatml, Chat(template=CHATML)).fingerprint == prints[0]


REFUSING = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
DROPPING = CHATML.replace("in messages %}", "in messages if message['role'] != 'system' %}")


@pytest.mark.parametrize(
    ("chat", "expected"),
    [
        (Chat(system_prompt="Be kind.", template=REFUSING + CHATML), "fail: no system"),
        (Chat(system_prompt="Be kind.", template=DROPPING), "drops a system message"),
        (Chat(template="{% if %}"), "set chat.template"),
        (Chat(template="{% for m in messages %}{{ m['content'] }}{% endfor %}"), "special token"),
        (Chat(template_kwargs={"tokenize": True}), "chat.templateKwargs.*tokenize"),
        (Chat(template_kwargs={"strftime_now": "x"}), "chat.templateKwargs.*strftime_now"),
    ],
    ids=["refuses system", "drops system", "syntax", "no end of turn", "own argument", "the date"],
)
def test_a_template_that_does_not_work_is_named_in_one_line(
    chatml: Path, chat: Chat, expected: str
) -> None:
    """The error comes when the renderer is made, before any row, and says what to change."""
    with pytest.raises(InputError, match=expected) as raised:
        Renderer(chatml, chat)
    assert "\n" not in str(raised.value)


def published(name: str) -> str:
    """Return a model family's own template, as TRL ships it."""
    found = importlib.util.find_spec("trl")
    assert found is not None
    assert found.origin is not None
    return (Path(found.origin).parent / "chat_templates" / f"{name}.jinja").read_text()


MISTRAL = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{% set system = messages[0]['content'] %}{% set rest = messages[1:] %}"
    "{% else %}{% set rest = messages %}{% endif %}"
    "{% for message in rest %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' }}{% if loop.last and system is defined %}{{ system + '\n\n' }}{% endif %}"
    "{{ message['content'] + '[/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
OPEN: dict[str, tuple[str, dict[str, Any], str]] = {
    "Qwen3 thinks": (
        "qwen3",
        {},
        'expected enable_thinking.*found none; set enable_thinking: "false"',
    ),
    "GLM thinks": ("glm4moe", {}, "expected enable_thinking"),
    "Llama 3.2 writes the date": ("llama3_2", {}, "today's date; set date_string to a fixed one"),
    "gpt-oss writes the date": ("gptoss", {}, "today's date; set chat.template to a copy"),
}
CLOSED: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen3 told not to think": ("qwen3", {"enable_thinking": False}),
    "Qwen3 told to think": ("qwen3", {"enable_thinking": True}),
    "Qwen3 that cannot think": ("qwen3_instruct_2507", {}),
    "Gemma 4 thinks when it is told": ("gemma4", {}),
    "Llama 3.2 with a date": ("llama3_2", {"date_string": "26 Jul 2024"}),
    "Qwen2.5": ("qwen2_5", {}),
    "Gemma 3": ("gemma3", {}),
}


@pytest.mark.parametrize("name", OPEN)
def test_a_template_that_thinks_or_dates_its_prompts_unasked_is_refused(
    chatml: Path, name: str
) -> None:
    """By the renderer and, with Jinja alone, by the first pod, in the same words."""
    family, arguments, expected = OPEN[name]
    chat = Chat(template=published(family), template_kwargs=arguments)

    with pytest.raises(InputError, match=f"^chat.templateKwargs: .*{expected}") as raised:
        Renderer(chatml, chat)
    with pytest.raises(InputError) as light:
        template.check(published(family), chat, chatml.name, {})

    assert str(light.value) == str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", CLOSED)
def test_a_template_that_leaves_nothing_open_is_taken(name: str, tmp_path: Path) -> None:
    """What the recipe says counts, whichever it is; other families have nothing to say."""
    family, arguments = CLOSED[name]
    special = ("<bos>", "<start_of_turn>", "<end_of_turn>", "<turn|>", "<|im_end|>", "<|eot_id|>")
    config = {"bos_token": "<bos>", "eos_token": "<|im_end|>"}
    folder = byte_level(tmp_path / "any", special=special, config=config)
    chat = Chat(template=published(family), template_kwargs=arguments)

    template.check(published(family), chat, "any", config)
    renderer = Renderer(folder, chat)

    assert renderer.completion_ids(user("Hi"), "Ho")


def test_a_prompt_without_the_date_is_taken_from_a_template_that_could_write_one(
    chatml: Path,
) -> None:
    """Such as in a default system prompt, where the recipe has its own."""
    dated = (
        "{% set today = strftime_now('%Y-%m-%d') %}"
        "{% if messages[0]['role'] != 'system' %}{{ today }}{% endif %}"
    )
    chat = Chat(template=dated + CHATML, system_prompt="Be kind.")
    renderer = Renderer(chatml, chat)

    assert renderer.prompt_ids(conversation.of_text("Hi", chat))
    with pytest.raises(InputError, match=r"or chat\.systemPrompt where"):
        renderer.history_text(user("Hi"), is_open=True)


def test_a_template_that_moves_the_system_prompt_is_told_as_such(tmp_path: Path) -> None:
    """Mistral 0.3: the prompt has it, the turn that is learned has not."""
    config = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": MISTRAL}
    folder = byte_level(tmp_path / "mistral", special=("<s>", "</s>"), config=config)

    assert Renderer(folder, Chat()).completion_ids(user("Hi"), "Ho") == (*b" Ho", S_END)
    with pytest.raises(
        InputError, match=r"^chat.systemPrompt: .* move it into the user's last turn"
    ):
        Renderer(folder, Chat(system_prompt="Be kind."))


def test_a_template_that_needs_more_than_jinja_is_left_to_the_renderer(chatml: Path) -> None:
    """The first pod has no transformers; what it cannot render it does not judge."""
    marked = "{% generation %}{{ strftime_now('%Y') }}{% endgeneration %}"
    template.check(marked, Chat(template=marked), chatml.name, {})
    with pytest.raises(InputError, match="writes today's date"):
        Renderer(chatml, Chat(template=marked))


def test_mistrals_own_tokenizer_is_left_aside(chatml: Path) -> None:
    """M1 has no tekken.json, and the training image not the library that reads it."""
    (chatml / "config.json").write_text('{"model_type": "mistral3"}')
    (chatml / "tekken.json").write_text("no tokenizer of ours")

    assert Renderer(chatml, Chat()).prompt_ids(user("Hi"))


def test_a_template_that_refuses_only_system_works_without_one(chatml: Path) -> None:
    """Nothing is asked of a template that the recipe does not use."""
    renderer = Renderer(chatml, Chat(template=REFUSING + CHATML))
    assert renderer.prompt_ids(user("Hi")) == Renderer(chatml, Chat()).prompt_ids(user("Hi"))


def test_a_tokenizer_without_template_needs_one_from_the_recipe(tmp_path: Path) -> None:
    """A base model has none; the error names the field that gives one."""
    folder = byte_level(tmp_path / "base", special=CHATML_SPECIAL, config={})
    with pytest.raises(
        InputError, match=r"found none in the tokenizer of base; set chat\.template"
    ):
        Renderer(folder, Chat())
    assert Renderer(folder, Chat(template=CHATML)).end_of_turn_ids == (IM_END,)


def test_a_folder_without_tokenizer_is_named_in_one_line(tmp_path: Path) -> None:
    """A model that was uploaded without its tokenizer is a mistake of the input."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    with pytest.raises(InputError, match="expected a tokenizer in ") as raised:
        Renderer(tmp_path, Chat())
    assert "\n" not in str(raised.value)


def test_a_bare_text_gets_the_tokenizers_own_marks_once(llama3: Path, chatml: Path) -> None:
    """As lm-eval's backends do: one beginning, also where the text brings it; none if told."""
    marking, plain = Renderer(llama3, Chat()), Renderer(chatml, Chat())
    assert marking.text_ids("Hi") == (BEGIN, *b"Hi")
    assert marking.text_ids("<|begin_of_text|>Hi") == (BEGIN, *b"Hi")
    assert marking.text_ids("Hi", is_marked=False) == (*b"Hi",)
    assert marking.text_ids("<|begin_of_text|>Hi", is_marked=True) == (BEGIN, BEGIN, *b"Hi")
    assert plain.text_ids("Hi") == plain.text_ids("Hi", is_marked=True) == (*b"Hi",)


def test_a_text_without_context_begins_with_the_tokenizers_beginning_or_else_its_end(
    llama3: Path, chatml: Path
) -> None:
    """Bos before eos; the text of the end is what a stop text has to be."""
    marking, plain = Renderer(llama3, Chat()), Renderer(chatml, Chat())
    assert (marking.first_id, marking.end_id) == (BEGIN, END_OF_TEXT)
    assert marking.end_text == "<|end_of_text|>"
    assert (plain.first_id, plain.end_id, plain.end_text) == (IM_END, IM_END, "<|im_end|>")


def test_a_history_is_rendered_to_where_the_assistant_speaks_or_goes_on(chatml: Path) -> None:
    """Open, or with the beginning of an answer that is left without its end."""
    renderer = Renderer(chatml, Chat())
    answer = Message(role="assistant", content="It is")
    opened = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert renderer.history_text(user("Hi"), is_open=True) == opened
    assert renderer.history_text((*user("Hi"), answer), is_open=False) == f"{opened}It is"


def test_a_history_loses_a_system_message_that_the_template_refuses(tmp_path: Path) -> None:
    """As lm-eval's backends do; what the template refuses otherwise is an error."""
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
    config = {**CHATML_CONFIG, "chat_template": refusing + CHATML}
    folder = byte_level(tmp_path / "refusing", special=CHATML_SPECIAL, config=config)
    renderer = Renderer(folder, Chat())
    history = (Message(role="system", content="Be kind."), *user("Hi"))
    found = renderer.history_text(history, is_open=True)
    assert found == renderer.history_text(user("Hi"), is_open=True)
