"""How text is made: generation, translation, the engine, and the rows that become pairs."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from selfimprove_pipeline.recipe.base import (
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
    """temperature of the answers; 0 is greedy."""

    top_p: Annotated[Probability, affects("generate")] = by_profile()
    """topP keeps the smallest set of tokens with this probability."""

    repetition_penalty: Annotated[Penalty, affects("generate", "evaluate")] = by_profile()
    """repetitionPenalty divides the logits of tokens already seen; 1 is none. Evaluation uses
    it too."""

    max_tokens: Annotated[TokenCount, affects("generate", "evaluate")] = by_profile()
    """maxTokens of an answer."""

    seed: Annotated[Seed, affects("generate", "translate", "evaluate")] = by_profile()
    """seed of generation and translation; each row's own seed is derived from it."""

    answer_language_prefix: Annotated[bool, affects("generate", "pair", "evaluate")] = by_profile()
    """answerLanguagePrefix wraps each prompt in the request to answer in its language, as the
    paper does for arithmetic reasoning."""

    shards: Annotated[int, Field(ge=1, le=256)] = 1
    """shards is the number of pods that share the prompts. On one machine there is one."""


class External(Part):
    """A translator that is not the model itself."""

    rules = (
        Rule(
            "self.kind != 'openai' || has(self.baseUrl)",
            "expected baseUrl with kind openai",
            lambda self: "none" if self.kind == "openai" and self.base_url is None else None,
        ),
    )

    kind: Annotated[Literal["openai", "transformers"], affects("translate")]
    """kind of the translator: an OpenAI-compatible endpoint or a transformers translation model."""

    base_url: Annotated[
        Annotated[str, StringConstraints(max_length=512, pattern=r"^https?://[!-?A-~]+$")] | None,
        affects("translate"),
    ] = None
    """baseUrl of the endpoint, such as `https://translator/v1`. Needed by `openai` alone."""

    model: Annotated[Name, affects("translate")]
    """model that the endpoint serves, or the folder or hub name of the translation model."""

    secret_ref: SecretRef | None = None
    """secretRef names the Secret with OPENAI_API_KEY."""


class Translation(Part):
    """How answers are translated, both ways between the dominant and each other language."""

    rules = (
        Rule(
            "(has(self.translator) && self.translator == 'external') == has(self.external)",
            "expected external exactly when translator is external",
            lambda self: "" if (self.translator == "external") == (self.external is None) else None,
        ),
    )

    translator: Annotated[Literal["self", "external"], affects("translate")] = "self"
    """translator is the model itself, or `external`, which knows nothing of repetitionPenalty,
    stopAtClosingTag and sourceLengthBudget."""

    external: External | None = None
    """external describes the translator when it is not the model itself."""

    temperature: Annotated[Temperature, affects("translate")] = by_profile()
    """temperature of the first attempt; 0 is greedy."""

    repetition_penalty: Annotated[Penalty, affects("translate")] = by_profile()
    """repetitionPenalty of translations; 1 is none."""

    max_tokens: Annotated[TokenCount, affects("translate")] = by_profile()
    """maxTokens of a translation."""

    retries: Annotated[int, Field(ge=0, le=8), affects("translate")] = by_profile()
    """retries of a translation that could not be parsed."""

    retry_temperature: Annotated[Temperature, affects("translate")] = by_profile()
    """retryTemperature samples the retries, because a greedy one repeats itself."""

    stop_at_closing_tag: Annotated[bool, affects("translate")] = by_profile()
    """stopAtClosingTag ends a translation at `</translated>`; the paper's code does not."""

    source_length_budget: Annotated[bool, affects("translate")] = by_profile()
    """sourceLengthBudget limits a translation to 3 x its source's tokens + 64, within maxTokens."""


class Inference(Part):
    """The engine that generates, translates and evaluates."""

    tensor_parallel_size: Annotated[
        int, Field(ge=1, le=64), affects("generate", "translate", "evaluate")
    ] = 1
    """tensorParallelSize is the number of GPUs that share one copy of the model."""

    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"] | None,
        affects("generate", "translate", "evaluate"),
    ] = None
    """dtype of the weights in the engine. Unset means `model.dtype`."""

    max_model_len: Annotated[TokenCount | None, affects("generate", "translate", "evaluate")] = None
    """maxModelLen is the longest prompt and completion together, in tokens; longer prompts are
    counted drops. Unset means the model's own limit."""

    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """gpuMemoryUtilization is the share of a GPU's memory that the engine takes."""

    engines: Annotated[int | None, Field(ge=1, le=64)] = None
    """engines are the copies of the model in one pod, which share the work. Unset means one for
    each tensorParallelSize GPUs, and one on processors."""

    batch_invariant: Annotated[bool, affects("generate", "translate", "evaluate")] = False
    """batchInvariant makes each row's text independent of the rows beside it, and so of the number
    of engines and of interruptions; on GPUs of compute capability 9.0 or more, at some speed."""

    extra_args: Annotated[
        dict[Name, Argument],
        Field(max_length=64),
        affects("generate", "translate", "evaluate"),
    ] = Field(default={})
    """extraArgs are further engine arguments of vLLM by name, such as `quantization: fp8`; on a
    cluster booleans and fractions are text: `enforce_eager: "true"`."""


class LengthRatio(Part):
    """A band for translation length / source length, over the direction's median."""

    minimum: Annotated[float, Field(gt=0, le=1), affects("pair")] = 0.5
    """minimum of the ratio over the median."""

    maximum: Annotated[float, Field(ge=1, le=100), affects("pair")] = 2.0
    """maximum of the ratio over the median."""


class Filters(Part):
    """Which rows do not become pairs. Each drop is counted by language with its reason."""

    language: Annotated[bool, affects("pair")] = by_profile()
    """language drops pairs whose chosen text is in another of the run's languages (lingua)."""

    length_ratio: Annotated[bool, affects("pair")] = by_profile()
    """lengthRatio drops pairs whose translation is far longer or shorter than its own source,
    against the median of its direction in this iteration."""

    length_ratio_band: LengthRatio = Field(default_factory=LengthRatio)
    """lengthRatioBand is the band that lengthRatio accepts."""

    empty: Annotated[bool, affects("pair")] = by_profile()
    """empty drops pairs with a text of nothing but white space; the paper's code keeps them."""

    truncation: Annotated[bool, affects("pair")] = by_profile()
    """truncation drops pairs with a text that ended at its token limit."""

    repetition: Annotated[bool, affects("pair")] = by_profile()
    """repetition drops pairs whose chosen text has five equal lines."""

    wrong_answer: Annotated[bool, affects("pair")] = False
    """wrongAnswer drops pairs whose chosen text is not the prompt's `answer`, by its number where
    it has one. Every prompt then needs an answer."""


class Pairing(Part):
    """How answers and translations become preference pairs."""

    dominant_pairs: Annotated[Literal["one", "all", "roundRobin"], affects("pair")] = by_profile()
    """dominantPairs says whose back-translation is rejected for the dominant language: that of
    the last other language, of every one, or of others[k mod K] for the k-th prompt."""

    failed_direction: Annotated[Literal["dropBoth", "dropAffected"], affects("pair")] = by_profile()
    """failedDirection says what a translation without text costs: both pairs of two
    languages, as in the paper's code, or only the pair that needs the text."""

    drop_identical: Annotated[bool, affects("pair")] = by_profile()
    """dropIdentical drops pairs whose chosen and rejected are equal after NFC and white space."""

    filters: Filters = Field(default_factory=Filters)
    """filters on the texts of a pair."""

    translation_prompt_ids: Annotated[
        tuple[Name, ...], Field(max_length=1000), affects("pair")
    ] = ()
    """translationPromptIds are prompts that ask for a translation themselves: their chosen text
    in the other languages is the dominant answer, untranslated."""
