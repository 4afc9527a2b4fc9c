"""What every `Engine` promises, checked on both against plain greedy decoding of one row.

The model is random and tiny, in float32. The reference below has no cache, no batch and no
padding; it decodes the whole text at every step.
"""

import functools
import itertools
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
import tokenizers
import torch
import transformers

from selfimprove_pipeline.contract.errors import InputError, TryAgainError
from selfimprove_pipeline.contract.recipe.sampling import Inference
from selfimprove_pipeline.contract.rows import FinishReason
from selfimprove_pipeline.engine import Completion, Request, vllm_engine
from selfimprove_pipeline.engine.pool.jobs import Single
from selfimprove_pipeline.engine.transformers_engine import TransformersEngine
from support.models import tiny_qwen2

MAX_LENGTH = 256
ROWS = 40
LONGEST = 32

vllm = pytest.mark.engine


class Reference:
    """Greedy decoding of one row at a time, and what an engine must make of it."""

    def __init__(self, folder: Path) -> None:
        """Load the model and find a token that ends some of the texts."""
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder)
        self.tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        texts = [self.endless(request.prompt, 1.0)[5:] for request in prompts()]
        self.stop_token = Counter(token for text in texts for token in set(text)).most_common(1)[0][
            0
        ]

    def tokens(self, request: Request) -> list[int]:
        """Return the tokens up to the stop token or the row's limit."""
        room = MAX_LENGTH - len(request.prompt)
        tokens = self.endless(request.prompt, request.repetition_penalty)[: request.max_tokens]
        end = tokens.index(self.stop_token) + 1 if self.stop_token in tokens else len(tokens)
        return tokens[: min(end, room)]

    @functools.cache  # noqa: B019 - it lives as long as the module's tests
    @torch.inference_mode()
    def endless(self, prompt: tuple[int, ...], penalty: float) -> list[int]:
        """Return LONGEST tokens of a text that nothing stops."""
        ids = list(prompt)
        for _ in range(LONGEST):
            logits = self.model(torch.tensor([ids])).logits[0, -1]
            seen = torch.tensor(sorted(set(ids)))
            harder = torch.where(logits[seen] < 0, logits[seen] * penalty, logits[seen] / penalty)
            ids.append(int(logits.index_copy(0, seen, harder).argmax()))
        return ids[len(prompt) :]

    def completion(self, request: Request) -> Completion:
        """Return the completion that the request must get."""
        tokens = self.tokens(request)
        reason: FinishReason = "length"
        text, ending = self.text(tokens), None
        if tokens[-1] == self.stop_token:
            text, reason = self.text(tokens[:-1]), "stop"
        for end in range(len(tokens) + 1):
            so_far = self.text(tokens[:end])
            if found := [stop for stop in request.stop if stop in so_far]:
                ending = found[0]
                text, reason = so_far[: so_far.index(ending)], "stop"
                tokens = tokens[:end]
                break
        return Completion(
            key=request.key,
            text=text,
            finish_reason=reason,
            stop_text=ending,
            prompt_tokens=len(request.prompt),
            completion_tokens=len(tokens),
        )

    @torch.inference_mode()
    def log_likelihood(self, request: Request) -> float:
        """Return the sum of the log-probabilities of the prompt's scored tokens."""
        logits = self.model(torch.tensor([request.prompt])).logits[0]
        told = torch.log_softmax(logits.double(), dim=-1)
        places = range(len(request.prompt) - request.scored, len(request.prompt))
        return sum(float(told[place - 1, request.prompt[place]]) for place in places)

    def text(self, tokens: list[int]) -> str:
        """Return the text of tokens without a last character that is not whole."""
        return self.tokenizer.decode(tokens).rstrip("\ufffd")


@dataclass
class Started:
    """An engine, and how many processes it added to this one."""

    engine: Single
    is_vllm: bool
    added_processes: int = 0

    def complete(self, requests: Iterable[Request]) -> dict[str, Completion]:
        """Return all completions by key."""
        return {completion.key: completion for completion in self.engine.complete(requests)}


def prompts(*, max_tokens: int = LONGEST, penalty: float = 1.0) -> list[Request]:
    """Return greedy requests with random prompts of 1 to 30 tokens."""
    generator = random.Random(7)
    return [
        Request(
            key=str(row),
            group="answers",
            prompt=tuple(generator.choices(range(32, 127), k=generator.randint(1, 30))),
            max_tokens=max_tokens,
            repetition_penalty=penalty,
        )
        for row in range(ROWS)
    ]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the model."""
    return tiny_qwen2(tmp_path_factory.mktemp("models") / "tiny", max_length=MAX_LENGTH)


@pytest.fixture(scope="module")
def reference(tiny: Path) -> Reference:
    """Load the reference."""
    return Reference(tiny)


@pytest.fixture(scope="module", params=["transformers", pytest.param("vllm", marks=vllm)])
def started(request: pytest.FixtureRequest, tiny: Path, reference: Reference) -> Iterator[Started]:
    """Start each engine once; vLLM with dtype auto, which must keep float32 on a CPU."""
    stop_token_ids = (reference.stop_token,)
    if request.param == "transformers":
        yield Started(TransformersEngine(tiny, stop_token_ids=stop_token_ids), is_vllm=False)
        return
    before = len(psutil.Process().children(recursive=True))
    engine = vllm_engine.start(
        tiny, inference=Inference(), dtype="auto", stop_token_ids=stop_token_ids
    )
    added = len(psutil.Process().children(recursive=True)) - before
    yield Started(engine, is_vllm=True, added_processes=added)
    engine.close()


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_completions_are_those_of_the_reference(
    started: Started, reference: Reference, penalty: float
) -> None:
    """Text, finish reason and counts, with and without repetition penalty, whatever the batch.

    vLLM computes in another order, so a near tie may fall otherwise in one row of twenty.
    """
    requests = prompts(penalty=penalty)
    expected = {request.key: reference.completion(request) for request in requests}
    assert {row.finish_reason for row in expected.values()} == {"stop", "length"}
    found = started.complete(requests)
    different = [key for key, completion in found.items() if completion != expected[key]]
    assert found.keys() == expected.keys()
    assert len(different) <= (ROWS // 20 if started.is_vllm else 0)


def test_a_stop_text_ends_the_completion_and_is_not_part_of_it(
    started: Started, reference: Reference
) -> None:
    """Each row stops at its own text, of which other rows may have more."""
    requests = []
    for request in prompts():
        text = reference.completion(request).text
        if inner := [pair for pair in itertools.pairwise(text[8:]) if "".join(pair).isascii()]:
            requests.append(replace(request, stop=("never", "".join(inner[0]))))
    assert len(requests) > ROWS // 2
    found = started.complete(requests)
    different = [r.key for r in requests if found[r.key] != reference.completion(r)]
    assert len(different) <= (ROWS // 20 if started.is_vllm else 0)
    assert all(request.stop[1] not in found[request.key].text for request in requests)
    assert all(found[request.key].stop_text == request.stop[1] for request in requests)


def test_an_overlong_prompt_stops_nobody_else(started: Started, reference: Reference) -> None:
    """A prompt without room for one token is reported; its neighbours are answered."""
    good, other = prompts()[:2]
    full = Request(key="full", group="answers", prompt=(65,) * MAX_LENGTH, max_tokens=5)
    beyond = replace(full, key="beyond", prompt=(65,) * (MAX_LENGTH + 9))
    found = started.complete([good, full, beyond, other])
    for key, length in (("full", MAX_LENGTH), ("beyond", MAX_LENGTH + 9)):
        assert found[key] == Completion(
            key=key,
            text="",
            finish_reason="overlong",
            prompt_tokens=length,
            completion_tokens=0,
        )
    assert [found[row.key] for row in (good, other)] == [
        reference.completion(row) for row in (good, other)
    ]


def test_overlong_prompts_alone_are_all_reported(started: Started) -> None:
    """More of them than the engine holds at a time come back too."""
    full = Request(key="", group="answers", prompt=(65,) * MAX_LENGTH, max_tokens=5)
    many = started.engine.window + 5
    found = started.complete(replace(full, key=str(row)) for row in range(many))
    assert Counter(row.finish_reason for row in found.values()) == {"overlong": many}


def test_the_room_limits_the_completion(started: Started) -> None:
    """Prompt and completion together are never longer than the model allows."""
    tight = Request(key="tight", group="answers", prompt=(65,) * (MAX_LENGTH - 3), max_tokens=50)
    last = replace(tight, key="last", prompt=(66,) * (MAX_LENGTH - 1))
    found = started.complete([tight, last])
    assert found["tight"].completion_tokens <= 3
    assert found["last"].completion_tokens == 1
    assert found["last"].finish_reason in {"length", "stop"}


def scored() -> list[Request]:
    """Return requests for the log-likelihood of 1 token, of several and of all but the first."""
    rows = [row for row in prompts() if len(row.prompt) > 4]
    counts = (1, 2, 4)
    some = [replace(row, scored=counts[place % 3]) for place, row in enumerate(rows)]
    return [*some, *(replace(row, key=f"{row.key}all", scored=len(row.prompt) - 1) for row in rows)]


def test_a_log_likelihood_is_that_of_a_plain_pass(started: Started, reference: Reference) -> None:
    """The sum over the last tokens of a prompt, in company and alone, and no text with it."""
    requests = scored()
    found = started.complete(requests)
    for request in requests:
        told = reference.log_likelihood(request)
        assert found[request.key].log_likelihood == pytest.approx(told, abs=1e-4)
        alone = started.complete([request])[request.key]
        assert alone.log_likelihood == pytest.approx(told, abs=1e-4)
        assert replace(alone, log_likelihood=None, is_greedy=None) == Completion(
            key=request.key,
            text="",
            finish_reason="length",
            prompt_tokens=len(request.prompt),
            completion_tokens=0,
        )


def test_what_is_greedy_is_what_greedy_decoding_makes(
    started: Started, reference: Reference
) -> None:
    """The engine's own greedy tokens are greedy; with one of them changed they are not."""
    rows = [row for row in prompts(max_tokens=3) if len(reference.tokens(row)) == 3][:20]
    requests = []
    for row in rows:
        made = tuple(reference.tokens(row))
        requests.append(replace(row, prompt=row.prompt + made, scored=3))
        for place in range(3):
            other = (*made[:place], 65 + (made[place] == 65), *made[place + 1 :])
            key = f"{row.key}.{place}"
            requests.append(replace(row, key=key, prompt=row.prompt + other, scored=3))
    found = started.complete(requests)
    greedy = {key for key, completion in found.items() if completion.is_greedy}
    assert greedy == {row.key for row in rows}


def test_scored_prompts_and_texts_do_not_mix(started: Started, reference: Reference) -> None:
    """Taken in turns, each request gets what it asked for and no more."""
    texts, likelihoods = prompts()[:10], scored()[-10:]
    found = started.complete(
        request for pair in zip(texts, likelihoods, strict=True) for request in pair
    )
    assert [found[row.key] for row in texts] == [reference.completion(row) for row in texts]
    told = [found[row.key].log_likelihood for row in likelihoods]
    expected = [reference.log_likelihood(row) for row in likelihoods]
    assert told == pytest.approx(expected, abs=1e-4)


def test_the_longest_scored_prompt_leaves_room_for_a_token(
    started: Started, reference: Reference
) -> None:
    """One token less than the model's length is scored; as many as that are overlong."""
    assert started.engine.max_model_len == MAX_LENGTH
    longest = replace(prompts()[0], key="longest", prompt=(65, 66, 67) * 85, scored=3)
    assert len(longest.prompt) == MAX_LENGTH - 1
    full = replace(longest, key="full", prompt=(65, *longest.prompt))
    found = started.complete([full, longest])
    told = found["longest"].log_likelihood
    assert told == pytest.approx(reference.log_likelihood(longest), abs=1e-4)
    assert found["full"].finish_reason == "overlong"
    assert found["full"].log_likelihood is None


def test_completions_come_while_requests_are_still_taken(started: Started) -> None:
    """The first completion does not wait for the last request."""
    taken: list[str] = []
    window = started.engine.window

    def requests() -> Iterator[Request]:
        for row in range(window + 100):
            taken.append(str(row))
            yield Request(key=str(row), group="answers", prompt=(65 + row % 26,), max_tokens=1)

    completions = started.engine.complete(requests())
    next(completions)
    assert len(taken) <= window
    assert len(list(completions)) == window + 99


def test_sampled_rows_follow_their_own_seed(started: Started) -> None:
    """The same seed gives the same text in any company; other seeds give other texts."""
    sampled = Request(
        key="", group="answers", prompt=(72, 105), max_tokens=30, temperature=1.0, top_p=0.95
    )
    rows = [replace(sampled, key=str(seed), seed=seed) for seed in range(20)]
    first = started.complete(rows)
    again = started.complete(reversed([*rows, *prompts(max_tokens=30)[20:]]))
    assert {key: again[key] for key in first} == first
    assert len({completion.text for completion in first.values()}) > 15


def test_a_narrow_nucleus_is_greedy(started: Started, reference: Reference) -> None:
    """With a tiny topP only the likeliest token is left, whatever the seed."""
    greedy = prompts(max_tokens=20)[:10]
    found = started.complete(
        replace(row, temperature=1.5, top_p=1e-6, seed=int(row.key)) for row in greedy
    )
    assert [found[row.key] for row in greedy] == [reference.completion(row) for row in greedy]


def test_an_abandoned_call_leaves_the_engine_usable(started: Started, reference: Reference) -> None:
    """What nobody waits for is given up and disturbs no later call."""
    abandoned = started.engine.complete(prompts(max_tokens=30))
    next(abandoned)
    abandoned.close()  # type: ignore[attr-defined]  # both implementations are generators
    row = prompts()[3]
    assert started.complete([row]) == {row.key: reference.completion(row)}


def test_an_engine_says_what_it_is_and_how_long_it_took(started: Started) -> None:
    """A stage's key and manifest need both."""
    versions = started.engine.versions
    assert versions["torch"] == torch.__version__
    assert ("vllm" in versions) == started.is_vllm
    assert started.engine.start_seconds > 0


def test_a_fixed_batch_never_mixes_groups(tiny: Path) -> None:
    """Batches are consecutive requests of one group: what was taken before each completion."""
    taken: list[str] = []

    def requests() -> Iterator[Request]:
        for row, group in enumerate("AAABBBBB"):
            taken.append(group)
            yield Request(key=f"{group}{row}", group=group, prompt=(65 + row,), max_tokens=2)

    engine = TransformersEngine(tiny, stop_token_ids=(), batch_size=4)
    seen = [(completion.key, len(taken)) for completion in engine.complete(requests())]
    # The end of A is known when the first B is taken; four of B make a batch.
    assert [key for key, _ in seen] == ["A0", "A1", "A2", "B3", "B4", "B5", "B6", "B7"]
    assert [count for _, count in seen] == [4, 4, 4, 7, 7, 7, 7, 8]


@vllm
@pytest.mark.parametrize("started", ["vllm"], indirect=True)
def test_short_rows_overtake_long_ones(started: Started) -> None:
    """A finished row is not held back by one that is still being made."""
    long = Request(key="long", group="answers", prompt=(72, 105), max_tokens=200)
    short = replace(long, key="short", prompt=(72, 106), max_tokens=1)
    order = [completion.key for completion in started.engine.complete([long, short])]
    assert order == ["short", "long"]


@vllm
@pytest.mark.parametrize("started", ["vllm"], indirect=True)
def test_more_sampled_rows_than_a_step_has_room_for(started: Started) -> None:
    """No prompt is read in parts on processors: vLLM could not take a drawn number back there."""
    rows = [
        Request(key=str(n), group="g", prompt=(65 + n % 26,) * 60, max_tokens=2, temperature=0.5)
        for n in range(200)
    ]
    rows = [replace(row, seed=number) for number, row in enumerate(rows)]
    found = {completion.key for completion in started.engine.complete(rows)}
    assert found == {row.key for row in rows}


@vllm
@pytest.mark.parametrize("started", ["vllm"], indirect=True)
def test_a_giver_may_wait_for_completions(started: Started) -> None:
    """A request that follows from a completion is taken when it is there, beside others."""
    first = Request(key="0", group="answers", prompt=(72, 105), max_tokens=2)
    long = replace(first, key="long", max_tokens=100)
    done: set[str] = set()

    def requests() -> Iterator[Request | None]:
        yield from (long, first)
        for row in range(1, 6):
            while str(row - 1) not in done:
                yield None
            yield replace(first, key=str(row))

    for completion in started.engine.complete(requests()):
        done.add(completion.key)
    assert done == {"0", "1", "2", "3", "4", "5", "long"}


@vllm
@pytest.mark.parametrize("started", ["vllm"], indirect=True)
def test_vllm_has_as_many_rows_as_its_own_class_for_offline_work(started: Started) -> None:
    """On processors these are 256, where a server has 128; a quarter more waits."""
    assert started.engine.window == 256 + 64


@vllm
@pytest.mark.parametrize("started", ["vllm"], indirect=True)
def test_one_gpu_or_none_needs_no_other_process(started: Started) -> None:
    """Without tensor parallelism the engine is this process: killing it leaves nothing."""
    assert started.added_processes == 0


@vllm
@pytest.mark.parametrize(
    ("inference", "expected"),
    [
        (Inference(extra_args={"quantisation": "fp8", "max_num_seqs": 8}), "found quantisation;"),
        (Inference(extra_args={"max_model_len": 8}), "found max_model_len; use the recipe's own"),
        (Inference(max_model_len=100_000), "vLLM cannot start tiny: "),
        (Inference(batch_invariant=True), "inference.batchInvariant: expected GPUs"),
    ],
    ids=["unknown", "set by the recipe", "refused", "without a GPU"],
)
def test_wrong_engine_arguments_are_named_in_one_line(
    tiny: Path, inference: Inference, expected: str
) -> None:
    """A misspelt or impossible argument is the recipe's mistake, and only it is named."""
    with pytest.raises(InputError, match=expected) as raised:
        vllm_engine.start(tiny, inference=inference, dtype="float32", stop_token_ids=())
    assert "\n" not in str(raised.value)


TWO_WORKERS = """
import sys
from pathlib import Path
from selfimprove_pipeline.engine import Request
from selfimprove_pipeline.engine.vllm_engine import start
from selfimprove_pipeline.contract.errors import SelfImproveError
from selfimprove_pipeline.contract.recipe.sampling import Inference

engine = start(
    Path(sys.argv[1]),
    inference=Inference(tensor_parallel_size=2),
    dtype="float32",
    stop_token_ids=(),
)
rows = (Request(key=str(row), group="", prompt=(1, 2), max_tokens=50) for row in range(10**6))
try:
    for completion in engine.complete(rows):
        print(completion.key, flush=True)
except SelfImproveError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""


@pytest.fixture
def two_workers(tiny: Path) -> Iterator[subprocess.Popen[str]]:
    """Start an engine with two workers in a process of its own and wait for a completion."""
    cores = sorted(os.sched_getaffinity(0))
    environment = {"VLLM_CPU_OMP_THREADS_BIND": f"{cores[0]}|{cores[-1]}", **os.environ}
    with subprocess.Popen(
        [sys.executable, "-c", TWO_WORKERS, str(tiny)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip().isdigit()
        yield process
        process.kill()


def workers_of(process: subprocess.Popen[str]) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """Return all descendants, and those among them that are vLLM's workers."""
    descendants = psutil.Process(process.pid).children(recursive=True)
    return descendants, [child for child in descendants if "Worker" in child.cmdline()[0]]


def left_in_the_end(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return which of the processes never end; waits no longer than needed."""
    return [*psutil.wait_procs(processes, timeout=60)[1]]


@vllm
def test_workers_die_with_the_engine(two_workers: subprocess.Popen[str]) -> None:
    """After kill -9 of the process that holds the engine none of its own is left."""
    descendants, workers = workers_of(two_workers)
    assert len(workers) == 2
    two_workers.kill()
    assert left_in_the_end(descendants) == []


@vllm
def test_the_end_of_a_worker_is_an_error(two_workers: subprocess.Popen[str]) -> None:
    """A worker that is killed, for memory say, ends `complete` with a line that says so."""
    descendants, workers = workers_of(two_workers)
    workers[1].kill()
    assert two_workers.stdout is not None
    last = two_workers.stdout.read().splitlines()[-1]
    assert two_workers.wait() == TryAgainError.exit_code
    assert "found one killed, most likely for lack of memory" in last
    assert left_in_the_end(descendants) == []
