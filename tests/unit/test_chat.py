"""What `chat.Renderer` promises, with ids written down by hand.

In the byte-level tokenizers ids 0-255 are bytes, 256 is "ll", 257 two line feeds, and the special
tokens follow from 258 in the order of the constants.
"""

import json
from pathlib import Path

import pytest

from selfimprove_pipeline import conversation
from selfimprove_pipeline.artifacts import Message
from selfimprove_pipeline.chat import Renderer
from selfimprove_pipeline.errors import InputError
from selfimprove_pipeline.recipe.sources import Chat
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
    ],
    ids=["refuses system", "drops system", "syntax", "no end of turn", "own argument"],
)
def test_a_template_that_does_not_work_is_named_in_one_line(
    chatml: Path, chat: Chat, expected: str
) -> None:
    """The error comes when the renderer is made, before any row, and says what to change."""
    with pytest.raises(InputError, match=expected) as raised:
        Renderer(chatml, chat)
    assert "\n" not in str(raised.value)


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
