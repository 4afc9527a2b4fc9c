"""How text is made: generation, translation, the engine, and the rows that become pairs."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from selfimprove_pipeline.contract.recipe.base import (
    Argument,
    Name,
    Part,
    Rule,
    SecretRef,
    affects,
    by_profile,
)

Probability = Annotated[float, Field(gt=0, le=1)]
Temperature = Annotated[float, Field(ge=0, le=2)]
Penalty = Annotated[float, Field(ge=0.5, le=2)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
TokenCount = Annotated[int, Field(ge=1, le=131_072)]


class Generation(Part):
    """How the model answers the prompts."""

    temperature: Annotated[Temperature, affects("generate")] = by_profile()
    """temperature of the answers; 0 is greedy. Default: 0."""

    top_p: Annotated[Probability, affects("generate")] = by_profile()
    """topP samples from the smallest set of tokens with this total probability. Default: 1."""

    repetition_penalty: Annotated[Penalty, affects("generate", "evaluate")] = by_profile()
    """repetitionPenalty divides the logits of tokens already seen, also in evaluation; 1 is none.
    Default: 1.1."""

    max_tokens: Annotated[TokenCount, affects("generate", "evaluate")] = by_profile()
    """maxTokens limits an answer, in tokens. Default: 2400."""

    seed: Annotated[Seed, affects("generate", "translate", "evaluate")] = by_profile()
    """seed of generation, translation and evaluation; each row's own seed is derived from it.
    Default: 42."""

    answer_language_prefix: Annotated[bool, affects("generate", "pair", "evaluate")] = by_profile()
    """answerLanguagePrefix wraps each prompt in a request to answer in its language, as the paper
    does for arithmetic reasoning. Default: false."""

    shards: Annotated[int, Field(ge=1, le=256)] = 1
    """shards is the number of pods that share the prompts; on one machine always 1. Default: 1."""


class External(Part):
    """A translator other than the model itself."""

    rules = (
        Rule(
            "self.kind != 'openai' || has(self.baseUrl)",
            "expected baseUrl with kind openai",
            lambda self: "none" if self.kind == "openai" and self.base_url is None else None,
        ),
    )

    kind: Annotated[Literal["openai", "transformers"], affects("translate")]
    """kind of translator: `openai` is an OpenAI-compatible endpoint, `transformers` a translation
    model."""

    base_url: Annotated[
        Annotated[str, StringConstraints(max_length=512, pattern=r"^https?://[!-?A-~]+$")] | None,
        affects("translate"),
    ] = None
    """baseUrl of the endpoint, such as `https://translator/v1`. Only `openai` needs it."""

    model: Annotated[Name, affects("translate")]
    """model is the translator's name at the endpoint, or its folder or hub name."""

    secret_ref: SecretRef | None = None
    """secretRef names the Secret with OPENAI_API_KEY."""


class Translation(Part):
    """How answers are translated between the dominant and each other language, both ways."""

    rules = (
        Rule(
            "(has(self.translator) && self.translator == 'external') == has(self.external)",
            "expected external exactly when translator is external",
            lambda self: "" if (self.translator == "external") == (self.external is None) else None,
        ),
    )

    translator: Annotated[Literal["self", "external"], affects("translate")] = "self"
    """translator is the model itself (`self`) or `external`, which ignores repetitionPenalty,
    stopAtClosingTag and sourceLengthBudget. Default: self."""

    external: External | None = None
    """external describes the translator; set it exactly when translator is `external`."""

    temperature: Annotated[Temperature, affects("translate")] = by_profile()
    """temperature of the first attempt; 0 is greedy. Default: 0."""

    repetition_penalty: Annotated[Penalty, affects("translate")] = by_profile()
    """repetitionPenalty for translations; 1 is none. Default: 1."""

    max_tokens: Annotated[TokenCount, affects("translate")] = by_profile()
    """maxTokens limits a translation, in tokens. Default: 4096."""

    retries: Annotated[int, Field(ge=0, le=8), affects("translate")] = by_profile()
    """retries is how often a translation that could not be parsed is tried again. Default: 1
    (lidr-paper: 0)."""

    retry_temperature: Annotated[Temperature, affects("translate")] = by_profile()
    """retryTemperature is the temperature of retries; a greedy retry would repeat the failure.
    Default: 0.3."""

    stop_at_closing_tag: Annotated[bool, affects("translate")] = by_profile()
    """stopAtClosingTag ends a translation at `</translated>`; the paper's code does not. Default:
    true (lidr-paper: false)."""

    source_length_budget: Annotated[bool, affects("translate")] = by_profile()
    """sourceLengthBudget limits a translation to 3 x its source's tokens + 64, within maxTokens.
    Default: true (lidr-paper: false)."""


class Inference(Part):
    """The engine that generates, translates and evaluates."""

    tensor_parallel_size: Annotated[
        int, Field(ge=1, le=64), affects("generate", "translate", "evaluate")
    ] = 1
    """tensorParallelSize is the number of GPUs per copy of the model. Default: 1."""

    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"] | None,
        affects("generate", "translate", "evaluate"),
    ] = None
    """dtype of the weights in the engine. Default: model.dtype."""

    max_model_len: Annotated[TokenCount | None, affects("generate", "translate", "evaluate")] = None
    """maxModelLen limits prompt and completion together, in tokens; longer prompts are dropped and
    counted. Default: the model's own limit."""

    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """gpuMemoryUtilization is the share of a GPU's memory that the engine uses. Default: 0.9."""

    engines: Annotated[int | None, Field(ge=1, le=64)] = None
    """engines is the number of copies of the model in one pod, which share the work. Default: one
    per tensorParallelSize GPUs, and one on CPUs."""

    batch_invariant: Annotated[
        bool, affects("generate", "translate", "evaluate", unless=(False,))
    ] = False
    """batchInvariant makes each row's text independent of the rows beside it, and so of the number
    of engines and of interruptions. It is slower and needs GPUs of compute capability 9.0 or more.
    Default: false."""

    extra_args: Annotated[
        dict[Name, Argument],
        Field(max_length=64),
        affects("generate", "translate", "evaluate"),
    ] = Field(default={})
    """extraArgs are more vLLM engine arguments by name, such as `quantization: fp8`. On a cluster
    write booleans and fractions as text: `enforce_eager: "true"`."""


class LengthRatio(Part):
    """The accepted length ratio of translation to source, over the direction's median."""

    minimum: Annotated[float, Field(gt=0, le=1), affects("pair")] = 0.5
    """minimum of the ratio, as a multiple of the median. Default: 0.5."""

    maximum: Annotated[float, Field(ge=1, le=100), affects("pair")] = 2.0
    """maximum of the ratio, as a multiple of the median. Default: 2."""


class Filters(Part):
    """Which rows do not become pairs. Every drop is counted by language and reason."""

    language: Annotated[bool, affects("pair")] = by_profile()
    """language drops pairs whose chosen text is in another of the run's languages, as identified by
    lingua."""

    length_ratio: Annotated[bool, affects("pair")] = by_profile()
    """lengthRatio drops pairs whose translation is far longer or shorter than its source, relative
    to the median of its direction."""

    length_ratio_band: LengthRatio = Field(default_factory=LengthRatio)
    """lengthRatioBand is the range that lengthRatio accepts."""

    empty: Annotated[bool, affects("pair")] = by_profile()
    """empty drops pairs with an empty or blank text."""

    truncation: Annotated[bool, affects("pair")] = by_profile()
    """truncation drops pairs with a text that reached its token limit."""

    repetition: Annotated[bool, affects("pair")] = by_profile()
    """repetition drops pairs whose chosen text has five equal lines."""

    wrong_answer: Annotated[bool, affects("pair", unless=(False,))] = False
    """wrongAnswer drops pairs whose chosen text does not match the prompt's `answer`, by number if
    it has one. Every prompt then needs an answer. Default: false."""


class Pairing(Part):
    """How answers and translations become preference pairs."""

    dominant_pairs: Annotated[Literal["one", "all", "roundRobin"], affects("pair")] = by_profile()
    """dominantPairs chooses the language whose answer, translated into the dominant language, is
    rejected there: the last of others (`one`), every one (`all`), or others[k mod K] for the k-th
    prompt (`roundRobin`). Default: one."""

    failed_direction: Annotated[Literal["dropBoth", "dropAffected"], affects("pair")] = by_profile()
    """failedDirection is what a failed translation drops: both pairs of the two languages, as in
    the paper's code (`dropBoth`), or only the pair that needs it. Default: dropAffected
    (lidr-paper: dropBoth)."""

    drop_identical: Annotated[bool, affects("pair")] = by_profile()
    """dropIdentical drops pairs whose chosen and rejected texts are equal after normalizing Unicode
    (NFC) and white space. Default: true (lidr-paper: false)."""

    filters: Filters = Field(default_factory=Filters)
    """filters drop rows that would make poor pairs. lidr-safe sets all but wrongAnswer, lidr-paper
    none."""

    translation_prompt_ids: Annotated[
        tuple[Name, ...], Field(max_length=1000), affects("pair")
    ] = ()
    """translationPromptIds are the ids of prompts that themselves ask for a translation: in the
    other languages their chosen text is the dominant answer, untranslated."""
