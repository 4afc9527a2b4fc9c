"""Translation models as a translator: lines, languages, limits, and directions refused.

The models are random and tiny, with the real tokenizers of their families. What a line must
become is told by plain greedy decoding of that line alone, without cache, batch or padding.
"""

import functools
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from selfimprove_pipeline import external
from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.rows import Answer
from selfimprove_pipeline.engine import Completion
from selfimprove_pipeline.external.transformers_model import BATCH, TransformersTranslator
from selfimprove_pipeline.method import translate
from selfimprove_pipeline.method.translate import Direction, Passage
from selfimprove_pipeline.text import languages
from support.models import tiny_qwen2
from support.runs import run
from support.translation_models import POSITIONS, tiny_m2m100, tiny_marian, tiny_nllb

pytestmark = pytest.mark.filterwarnings(
    # Marian's tokenizer asks for a package that evens out quotation marks; it works without.
    "ignore:Recommended. pip install sacremoses:UserWarning"
)

EN_DE, DE_EN = Direction("en", "de"), Direction("de", "en")
LINES = ("the dog", "a cat runs", "we read two books", "der hund sieht die katze", "cat")
LIMIT = 12


@pytest.fixture(scope="module")
def marian(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_marian(tmp_path_factory.mktemp("models") / "opus-en-de", "en", "de"))


@pytest.fixture(scope="module")
def nllb(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_nllb(tmp_path_factory.mktemp("models") / "nllb"))


def passages(
    texts: Sequence[str], direction: Direction = EN_DE, *, attempt: int = 1, limit: int = LIMIT
) -> list[Passage]:
    answers = [
        Answer(
            id=f"p{number}",
            language=direction.source,
            completion=text,
            finish_reason="stop",
            prompt_tokens=1,
            completion_tokens=1,
        )
        for number, text in enumerate(texts)
    ]
    spec = run(translation__maxTokens=limit).spec
    return [translate.passage(answer, direction, spec, attempt) for answer in answers]


def translated(model: str, asked: Sequence[Passage]) -> list[Completion]:
    directions = list(dict.fromkeys(passage.direction for passage in asked))
    with closing(TransformersTranslator(model, directions)) as translator:
        return list(translator.complete(asked))


@functools.cache
@torch.inference_mode()
def reference(folder: str, line: str, limit: int, codes: tuple[str, str] | None) -> tuple[str, int]:
    """Return the greedy translation of one line and the number of its tokens."""
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    ids, written = tokenizer(line, add_special_tokens=False)["input_ids"], []
    source = [*ids, tokenizer.eos_token_id]
    if codes is not None:
        first, last = tokenizer.convert_tokens_to_ids(list(codes))
        source, written = [first, *source], [last]
    start = model.config.decoder_start_token_id
    while len(written) < limit and tokenizer.eos_token_id not in written:
        logits = model(torch.tensor([source]), decoder_input_ids=torch.tensor([[start, *written]]))
        written.append(int(logits.logits[0, -1].argmax()))
    text: str = tokenizer.decode(written, skip_special_tokens=True)
    return text.strip(), len(written)


def test_a_line_becomes_what_the_model_alone_makes_of_it(marian: str) -> None:
    """Also beside longer lines in its batch; some end by themselves and some at the limit."""
    found = translated(marian, passages(LINES))

    expected = [reference(marian, line, LIMIT, None) for line in LINES]
    reasons = ["length" if count == LIMIT else "stop" for _, count in expected]
    assert set(reasons) == {"stop", "length"}
    assert [made.finish_reason for made in found] == reasons
    assert [made.completion_tokens for made in found] == [count for _, count in expected]
    assert [translate.parse(made) for made in found] == [
        (text, None) if reason == "stop" else (None, "truncated")
        for (text, _), reason in zip(expected, reasons, strict=True)
    ]


def ending_lines(marian: str) -> list[str]:
    return [line for line in LINES if reference(marian, line, LIMIT, None)[1] < LIMIT]


def test_line_feeds_and_empty_lines_stay(marian: str) -> None:
    """The models read no line feeds, so each line is translated by itself."""
    first, second = (ending_lines(marian) * 2)[:2]
    (made,) = translated(marian, passages([f"{first}\n\n  {second} \n"]))

    expected = [reference(marian, line, LIMIT, None) for line in (first, second)]
    assert made.text == f"{expected[0][0]}\n\n{expected[1][0]}\n"
    assert made.completion_tokens == expected[0][1] + expected[1][1]
    assert made.stop_text == "</translated>"


def test_a_text_is_whole_only_if_each_of_its_lines_is(marian: str) -> None:
    """One line that ran into the limit makes the text a truncated one."""
    endless = next(line for line in LINES if line not in ending_lines(marian))
    (made,) = translated(marian, passages([f"{ending_lines(marian)[0]}\n{endless}"]))

    assert (made.finish_reason, made.stop_text) == ("length", None)


def test_a_line_that_does_not_fit_is_overlong_and_stops_nobody_else(marian: str) -> None:
    """The encoder has 48 positions; a silent cut would be a wrong translation."""
    fits, ends = " ".join(["cat"] * 8), ending_lines(marian)[0]
    found = translated(marian, passages([" ".join(["cat"] * POSITIONS), fits, ends]))

    assert [made.finish_reason == "overlong" for made in found] == [True, False, False]
    assert translate.parse(found[0]) == (None, "overlong")
    assert translate.parse(found[2]) == (reference(marian, ends, LIMIT, None)[0], None)


def test_a_limit_beyond_the_models_positions_is_the_models(tmp_path: Path) -> None:
    """An endless text of the recipe's 4096 tokens would end in an index error after 48."""
    endless = str(tiny_marian(tmp_path / "opus", "en", "de", end_bias=-1e4))
    found = translated(endless, passages(LINES, limit=4096))

    assert {made.completion_tokens for made in found} == {POSITIONS - 1}
    assert {translate.parse(made) for made in found} == {(None, "truncated")}


def test_completions_come_in_order_batch_after_batch(marian: str) -> None:
    """More passages than one batch holds, and more lines than passages."""
    texts = [f"{LINES[number % 5]}\n{LINES[number % 3]}" for number in range(2 * BATCH + 3)]
    found = translated(marian, passages(texts))

    assert [made.key for made in found] == [f"p{number}" for number in range(len(texts))]
    assert found[5].text == found[20].text == found[35 - 15].text
    alone = translated(marian, passages([texts[34]]))
    assert found[34].text == alone[0].text


def test_a_retry_is_sampled_by_its_own_seed(marian: str) -> None:
    """A greedy retry would repeat itself; the same retry gives the same text in any company."""
    many = passages([f"{line} {line}" for line in LINES * 3], attempt=2)
    first, again = translated(marian, many), translated(marian, many[3:9])

    assert [made.text for made in first[3:9]] == [made.text for made in again]
    assert len({made.text for made in first[0::5]}) > 1


CODES = {EN_DE: ("eng_Latn", "deu_Latn"), Direction("en", "sw"): ("eng_Latn", "swh_Latn")}


@pytest.mark.parametrize(("direction", "codes"), CODES.items(), ids=str)
def test_a_multilingual_model_is_told_both_languages(
    nllb: str, direction: Direction, codes: tuple[str, str]
) -> None:
    """The source's token leads the input, the target's is the first of the translation."""
    lines = ["abc", "the dog sees"]
    found = translated(nllb, passages(lines, direction))

    expected = [reference(nllb, line, LIMIT, codes) for line in lines]
    assert [(made.text, made.completion_tokens) for made in found] == expected


def test_m2m100_is_told_its_languages_too(tmp_path: Path) -> None:
    """Its codes are those of the tags, its tokens `__de__`, with ids of their own."""
    folder = str(tiny_m2m100(tmp_path / "m2m100"))
    found = translated(folder, passages(LINES, DE_EN))

    expected = [reference(folder, line, LIMIT, ("__de__", "__en__")) for line in LINES]
    assert [(made.text, made.completion_tokens) for made in found] == expected


def test_directions_of_one_model_do_not_mix(nllb: str) -> None:
    """Both ways in one call: the languages change between the batches."""
    both = [*passages(["abc"], EN_DE), *passages(["abc"], DE_EN), *passages(["abc"], EN_DE)]
    texts = [made.text for made in translated(nllb, both)]

    codes = CODES[EN_DE]
    there, back = (reference(nllb, "abc", LIMIT, pair)[0] for pair in (codes, codes[::-1]))
    assert there != back
    assert texts == [there, back, there]


def test_each_direction_may_have_a_model_of_its_own(tmp_path: Path) -> None:
    """`{source}` and `{target}` in the name stand for the languages without script and region."""
    for number, (source, target) in enumerate([("en", "pt"), ("pt", "en")]):
        tiny_marian(tmp_path / f"opus-{source}-{target}", source, target, seed=number)
    there, back = Direction("en", "pt-BR"), Direction("pt-BR", "en")
    name = str(tmp_path / "opus-{source}-{target}")
    found = translated(name, [*passages(LINES, there), *passages(LINES, back)])

    expected = [
        reference(str(tmp_path / folder), line, LIMIT, None)[1]
        for folder in ("opus-en-pt", "opus-pt-en")
        for line in LINES
    ]
    assert [made.completion_tokens for made in found] == expected


def test_a_model_of_another_direction_is_refused_before_anything_is_translated(
    marian: str,
) -> None:
    """One line names what was wanted, what the model states, and the way out."""
    with pytest.raises(InputError) as caught:
        TransformersTranslator(marian, [EN_DE, DE_EN])

    assert str(caught.value) == (
        "translation.external.model: expected a model from de to en, found "
        f"{marian} from en to de; a name with {{source}} and {{target}} gives each direction "
        "a model of its own"
    )


def test_a_model_that_states_no_direction_is_refused(tmp_path: Path) -> None:
    """Guessing would translate into any language."""
    model = str(tiny_marian(tmp_path / "opus", None, None))
    with pytest.raises(InputError, match=r"from en to de, found .* from None to None"):
        TransformersTranslator(model, [EN_DE])


def test_a_language_that_a_multilingual_model_lacks_is_refused(nllb: str) -> None:
    """Before the engine's hours, by its tag."""
    with pytest.raises(InputError, match="expected a model that knows la, found"):
        TransformersTranslator(nllb, [EN_DE, Direction("en", "la")])


def test_a_model_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    """A missing folder, and a language model that has no encoder."""
    with pytest.raises(InputError, match="folder or hub name") as caught:
        TransformersTranslator(str(tmp_path / "absent"), [EN_DE])
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(InputError, match="with encoder and decoder, found qwen2"):
        TransformersTranslator(str(tiny_qwen2(tmp_path / "qwen")), [EN_DE])


def test_the_recipe_chooses_the_model_for_all_its_directions(nllb: str) -> None:
    """Kind transformers makes this translator, with every direction of the run."""
    described = {"kind": "transformers", "model": nllb}
    values = {"translation__translator": "external", "translation__external": described}
    spec = run(**values).spec
    assert spec.translation.external is not None
    asked = [*passages(["abc"], Direction("en", "es")), *passages(["abc"], DE_EN)]
    with closing(external.translator(spec.translation.external, spec)) as translator:
        assert len(list(translator.complete(asked))) == 2
        assert sorted(translator.versions) == ["torch", "transformers"]


NLLB = ["eng_Latn", "deu_Latn", "swh_Latn", "arb_Arab", "acm_Arab", "zho_Hans", "zho_Hant"]
NLLB += ["kor_Hang", "nob_Latn", "nno_Latn", "srp_Cyrl", "por_Latn", "tgl_Latn", "pes_Arab"]
MBART = ["en_XX", "de_DE", "pt_XX", "zh_CN", "ko_KR", "sw_KE"]
M2M = ["en", "de", "zh", "no", "sr", "ko", "fa"]
CODED = [
    ("de", "deu_Latn", "de_DE", "de"),
    ("sw", "swh_Latn", "sw_KE", None),
    ("ar", "arb_Arab", None, None),
    ("zh", "zho_Hans", "zh_CN", "zh"),
    ("zh-Hant", "zho_Hant", None, None),
    ("ko", "kor_Hang", "ko_KR", "ko"),
    ("no", "nob_Latn", None, "no"),
    ("nn", "nno_Latn", None, None),
    ("sr", "srp_Cyrl", None, "sr"),
    ("sr-Latn", None, None, None),
    ("pt-BR", "por_Latn", "pt_XX", None),
    ("fil", "tgl_Latn", None, None),
    ("fa", "pes_Arab", None, "fa"),
    ("la", None, None, None),
]


@pytest.mark.parametrize(("tag", "nllb_code", "mbart", "m2m"), CODED, ids=[row[0] for row in CODED])
def test_a_tag_finds_the_code_that_a_family_of_models_has_for_it(
    tag: str, nllb_code: str | None, mbart: str | None, m2m: str | None
) -> None:
    """Macrolanguages have their standard language; another script is another language."""
    assert languages.code_for(tag, NLLB) == nllb_code
    assert languages.code_for(tag, MBART) == mbart
    assert languages.code_for(tag, M2M) == m2m


def test_codes_that_are_no_language_are_passed_over() -> None:
    """Names such as ROMANCE of Marian's groups are not a tag of one language."""
    assert languages.code_for("es", ["ROMANCE", "<pad>", "spa"]) == "spa"
