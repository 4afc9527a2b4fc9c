"""What a model takes of a device is told from its config and the recipe, and what would fit."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfimprove_pipeline.contract.errors import InputError
from selfimprove_pipeline.contract.recipe import Spec
from selfimprove_pipeline.memory import advice, gpus, inference, training
from selfimprove_pipeline.memory.advice import Place
from selfimprove_pipeline.memory.shape import MOST, ModelShape, shape_of
from support.runs import run

GIB = 2**30

LLAMA_3_8B: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
QWEN_2_7B: dict[str, Any] = {
    **LLAMA_3_8B,
    "model_type": "qwen2",
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "intermediate_size": 18944,
    "vocab_size": 152064,
}
QWEN_2_HALF_B: dict[str, Any] = {
    **QWEN_2_7B,
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
QWEN_3_8B: dict[str, Any] = {
    **LLAMA_3_8B,
    "model_type": "qwen3",
    "num_hidden_layers": 36,
    "intermediate_size": 12288,
    "vocab_size": 151936,
    "head_dim": 128,
}
GEMMA_2_9B: dict[str, Any] = {
    "model_type": "gemma2",
    "hidden_size": 3584,
    "num_hidden_layers": 42,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 256000,
    "head_dim": 256,
}
MISTRAL_7B: dict[str, Any] = {
    **LLAMA_3_8B,
    "model_type": "mistral",
    "vocab_size": 32768,
    "sliding_window": None,
}
MIXTRAL: dict[str, Any] = {
    **MISTRAL_7B,
    "model_type": "mixtral",
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "vocab_size": 32000,
}


def shape(config: dict[str, Any] = LLAMA_3_8B, weights: int | None = None) -> ModelShape:
    found = shape_of(config, where="config.json", weights=weights)
    assert found is not None
    return found


def spec(**values: Any) -> Spec:
    """Return a spec whose training is decided."""
    return run(**{"training__zeroStage": 3, "training__layout": "padded", **values}).spec


@pytest.mark.parametrize(
    ("config", "published"),
    [
        (LLAMA_3_8B, 8_030_261_248),
        (QWEN_2_7B, 7_615_616_512),
        (QWEN_2_HALF_B, 494_032_768),
        (QWEN_3_8B, 8_190_735_360),
        (GEMMA_2_9B, 9_241_705_984),
        (MISTRAL_7B, 7_248_023_552),
    ],
    ids=["llama", "qwen2", "tied", "qwen3", "gemma2", "mistral"],
)
def test_parameters_are_counted_as_published(config: dict[str, Any], published: int) -> None:
    """Grouped heads, biases, ties and norms are counted as the models' cards have them."""
    assert shape(config).parameters == published


def test_a_model_inside_another_is_its_text_part() -> None:
    """A multimodal config holds the language model's under text_config."""
    whole = {"model_type": "llava", "text_config": LLAMA_3_8B, "hidden_size": "none"}
    assert shape(whole).parameters == shape().parameters


def test_experts_are_counted_by_their_files() -> None:
    """A token meets some of the experts; the files tell how many parameters all of them have."""
    found = shape(MIXTRAL, weights=2 * 46_702_792_704)
    assert found.parameters == 46_702_792_704
    assert 12.8e9 < found.active < 13.0e9
    assert shape_of(MIXTRAL, where="config.json") is None


@pytest.mark.parametrize("name", ["hidden_size", "num_hidden_layers", "vocab_size"])
def test_a_config_that_says_too_little_has_no_shape(name: str) -> None:
    """Where a number is missing nothing is guessed."""
    rest = {key: value for key, value in LLAMA_3_8B.items() if key != name}
    assert shape_of(rest, where="config.json") is None


@pytest.mark.parametrize("value", [0, -1, 2**40, "4096", 4096.0, True, [], {"a": 1}, 10**4000])
def test_a_number_that_cannot_be_is_refused_in_one_line(value: Any) -> None:
    """A hostile config names the field, what was expected and what was found."""
    with pytest.raises(InputError, match=r"^config\.json: expected hidden_size as a whole") as told:
        shape({**LLAMA_3_8B, "hidden_size": value})
    assert "\n" not in str(told.value)


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.none())


@given(
    st.dictionaries(
        st.sampled_from([*MOST, "model_type", "text_config", "torch_dtype", "quantization_config"]),
        VALUES | st.just(LLAMA_3_8B),
    )
)
def test_no_config_ends_in_a_traceback(values: dict[str, Any]) -> None:
    """Whatever a config holds, there is a shape, none, or one line for the person."""
    try:
        found = shape_of({**LLAMA_3_8B, **values}, where="config.json")
    except InputError as error:
        assert str(error).startswith("config.json: expected")  # noqa: PT017  one of three answers
    else:
        assert found is None or found.parameters > 0


@pytest.mark.parametrize(
    ("config", "stage", "expected"),
    [
        (LLAMA_3_8B, 3, [135, 67, 34, 17, 8]),
        (LLAMA_3_8B, 2, [135, 75, 45, 30, 22]),
        (QWEN_2_7B, 3, [128, 64, 32, 16, 8]),
        (QWEN_2_7B, 2, [128, 71, 43, 28, 21]),
    ],
)
def test_zero_shares_the_states(config: dict[str, Any], stage: int, expected: list[int]) -> None:
    """Of full training a GPU keeps 18 P / N bytes at ZeRO 3, and 2 P + 16 P / N at ZeRO 2."""
    recipe = spec(training__zeroStage=stage).training
    found = [
        training.states(shape(config), recipe, ranks=ranks).device / GIB
        for ranks in (1, 2, 4, 8, 16)
    ]
    assert found == pytest.approx(expected, abs=0.6)


def test_offload_moves_the_states_to_the_host() -> None:
    """The optimizer's 16 bytes a parameter go to the host, with `all` the weights too."""
    model = shape()
    partly = spec(training__offload="optimizer").training
    wholly = spec(training__offload="all").training
    some = training.states(model, partly, ranks=1)
    every = training.states(model, wholly, ranks=1)
    assert some.host == 16 * model.parameters
    assert some.device == 2 * model.parameters
    assert (every.device, every.host) == (0, 18 * model.parameters)


def test_checkpointing_keeps_the_input_of_each_layer() -> None:
    """A token of Llama 3 8B keeps .26 MB with checkpointing and one layer more, else above 6."""
    model = shape()
    kept = [
        training.activations(model, 1000, is_checkpointed=value, element=2) / 1e9
        for value in (True, False)
    ]
    assert kept[0] == pytest.approx(0.26 + 0.3, abs=0.1)
    assert kept[1] == pytest.approx(6.4, abs=0.5)


def test_an_adapter_leaves_the_weights_as_they_are() -> None:
    """LoRA keeps 2 bytes a frozen parameter and 18 of each of the few that train."""
    model = shape()
    recipe = spec(training__method="lora", training__zeroStage=2).training
    trained, frozen = training.trained_and_frozen(model, recipe)
    assert frozen == model.parameters
    assert trained == 41_943_040  # as PEFT counts rank 16 on all linear layers of Llama 3 8B
    kept = training.states(model, recipe, ranks=1)
    assert kept.device == 2 * frozen + 18 * trained


@pytest.mark.parametrize(("stage", "each"), [(3, 12), (2, 14), (1, 14)])
def test_a_checkpoint_has_masters_and_moments(stage: int, each: int) -> None:
    """It takes 12 bytes a parameter at ZeRO 3 and the weights' 2 more below."""
    recipe = spec(training__zeroStage=stage).training
    assert training.checkpoint(recipe, 1000) == 1000 * each


@pytest.mark.parametrize(
    ("config", "values", "expected"),
    [
        (QWEN_2_HALF_B, {}, 2),
        (LLAMA_3_8B, {}, 2),
        (LLAMA_3_8B, {"nvidia.com/gpu": "8"}, 2),
        (LLAMA_3_8B, {"nvidia.com/gpu": 1}, 3),
        (LLAMA_3_8B, {"amd.com/gpu": 2}, 3),
        ({**LLAMA_3_8B, "num_hidden_layers": 160}, {}, 3),
    ],
)
def test_zero_is_decided_from_the_model_and_what_the_recipe_declares(
    config: dict[str, Any], values: dict[str, Any], expected: int
) -> None:
    """ZeRO 2 gathers nothing, so it is taken wherever it fits the declared or assumed GPUs."""
    pods = {"pods__training__resources": {"limits": values}} if values else {}
    assert advice.zero_stage(shape(config), run(**pods).spec) == expected


def test_a_model_of_which_nothing_is_known_is_spread_as_far_as_may_be() -> None:
    """Without a shape, and where parameters are offloaded, it is ZeRO 3."""
    assert advice.zero_stage(None, run().spec) == 3
    offloaded = run(training__offload="all").spec
    assert advice.zero_stage(shape(QWEN_2_HALF_B), offloaded) == 3


def test_what_certainly_does_not_fit_is_refused_with_what_would() -> None:
    """8 B parameters on one 80 GB GPU: by how much, and LoRA, more GPUs or offload instead."""
    place = Place(1, memory=gpus.GPUS["h100-80gb"].memory)
    (found,) = advice.findings(shape(), spec(), place)
    assert found.is_certain
    assert "found 135 GiB of weights, gradients and optimizer alone" in found.line
    assert "(ZeRO 3 on 1 GPU, padded), 55 GiB too many; what fits: method lora (" in found.line
    assert "4 GPUs with zeroStage 3" in found.line
    assert "offload optimizer with 139 GiB of host memory" in found.line
    assert "\n" not in found.line


def test_what_fits_is_not_spoken_of() -> None:
    """8 GPUs, or an adapter on one, hold 8 B parameters."""
    memory = gpus.GPUS["h100-80gb"].memory
    assert not advice.findings(shape(), spec(training__zeroStage=2), Place(8, memory=memory))
    adapter = spec(training__method="lora", training__zeroStage=2)
    assert not advice.findings(shape(), adapter, Place(1, memory=memory))


def test_activations_that_may_be_too_many_are_a_warning() -> None:
    """What only an estimate says stops no run."""
    wide = spec(training__gradientCheckpointing=False, training__microBatchSize=8)
    place = Place(8, memory=gpus.GPUS["h100-80gb"].memory)
    (found,) = advice.findings(shape(), wide, place)
    assert not found.is_certain
    assert "gradientCheckpointing and microBatchSize 1 (" in found.line


def test_an_engine_needs_its_weights_and_one_row() -> None:
    """8 B parameters in bf16 do not start on 16 GiB; two GPUs share them."""
    (found,) = [
        one
        for one in advice.findings(shape(), spec(), Place(64, memory=15 * GIB))
        if "inference" in one.line
    ]
    assert found.is_certain
    assert "found 15 GiB of weights" in found.line
    assert "what fits: tensorParallelSize 2" in found.line


def test_a_row_takes_what_its_heads_keep() -> None:
    """Keys and values of 8 heads of 128 in 32 layers are 128 KiB a token in bf16."""
    needed = inference.engine(shape(), spec(inference__maxModelLen=8192))
    assert needed.row == 8192 * 128 * 1024


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"memory": "32Gi"}, "memory"),
        ({"memory": "512Gi", "ephemeral-storage": "100G"}, "ephemeral-storage"),
    ],
)
def test_a_node_that_is_too_small_is_told_by_its_field(limits: dict[str, str], field: str) -> None:
    """The limits of the pods that train are held against loading, saving and checkpoints."""
    declared = run(pods__training__resources={"limits": {"nvidia.com/gpu": "8", **limits}}).spec
    place = advice.declared(declared)
    assert place is not None
    (found,) = advice.findings(shape(), spec(), place)
    assert found.line.startswith(f"spec.pods.training.resources.limits.{field}: expected at least")


@pytest.mark.parametrize("count", ["many", None, "", "1e999", [8], "-"])
def test_a_count_that_is_none_declares_nothing(count: Any) -> None:
    """A limit that no one can read is as good as none; the API server refuses it itself."""
    one = run().spec
    settings = one.pods.training.model_copy(
        update={"resources": {"limits": {"nvidia.com/gpu": count}}}
    )
    pods = one.pods.model_copy(update={"training": settings})
    assert advice.declared(one.model_copy(update={"pods": pods})) is None


def test_an_unknown_gpu_is_refused_with_the_known_ones() -> None:
    """`--gpu` names what it takes."""
    with pytest.raises(InputError, match=r"--gpu: expected one of a100-40gb, .*, found h100$"):
        gpus.named("h100")
