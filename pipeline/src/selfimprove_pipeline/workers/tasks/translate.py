"""Translations as a task: of answers that are an artifact, and before that of those that come.

The key of translations has the digest of all answers of their language, which the first
translations are made without. They are kept under another key (`keys.ahead`), each beside the
digest of its text, and the task takes over those of the answers that it finds.
"""

import hashlib
from collections.abc import Iterator, Sequence

from selfimprove_pipeline.contract import keys
from selfimprove_pipeline.contract.keys import Target
from selfimprove_pipeline.contract.rows import Ahead, Answer, Translation
from selfimprove_pipeline.engine import Completion, Request
from selfimprove_pipeline.method import translate
from selfimprove_pipeline.method.translate import Direction, Passage
from selfimprove_pipeline.run.shards import Share
from selfimprove_pipeline.run.survey import Survey
from selfimprove_pipeline.workers.tasks import Early, Follower, Made, Rows, Tally, Task, as_they_are
from selfimprove_pipeline.workers.tasks.shared import Bench
from selfimprove_pipeline.workers.tasks.wanted import Wanted


def task(
    bench: Bench,
    target: Target,
    found: Survey,
    ahead: Target | None = None,
    follower: Follower[Ahead] | None = None,
) -> Task[Translation]:
    """Return the task of one direction.

    With `ahead`, where rows may lie that were made before, retries go in at once; else a first
    attempt is made of all, then retries of the rest. `follower` has made such rows just now.
    """
    direction = Direction(*keys.languages_of(target.part))
    manifest = found["generate"].manifests[direction.source]
    answers = {row.id: row for row in bench.setting.repository.rows(manifest, Answer)}
    spec = bench.setting.spec

    def pending(done: Rows[Translation], share: Share) -> Iterator[Wanted]:
        attempts = {
            name: attempt
            for name, answer in answers.items()
            if share.owns(name)
            and (attempt := translate.next_attempt(answer, done.get(name), spec)) is not None
        }
        for name, attempt in (attempts if ahead else translate.in_rounds(attempts)).items():
            yield _wanted(bench, answers[name], direction, attempt)

    def opened(row: Translation, _: Rows[Translation]) -> Iterator[Wanted]:
        return _next(bench, answers[row.id], direction, row)

    def row(completion: Completion, done: Rows[Translation]) -> Translation:
        return _row(completion, direction, done.get(completion.key))

    def make(made: Sequence[Translation]) -> Made:
        counts = {**token_counts(made), **translate.counts(made)}
        return as_they_are(f"{target.part}.jsonl", made, counts)

    def of_these_answers(kept: Ahead) -> Translation | None:
        answer = answers.get(kept.id)
        return kept.translation if answer and kept.answer == _digest(answer) else None

    sourceless = [answer for answer in answers.values() if not translate.has_source(answer)]
    return Task(
        target=target,
        kind=Translation,
        order=list(answers),
        pending=pending,
        row=row,
        make=make,
        opened=opened,
        given=[translate.without_source(answer, direction) for answer in sourceless],
        versions=bench.template if spec.translation.external is None else dict[str, str],
        early=Early(target=ahead, kind=Ahead, row=of_these_answers) if ahead else None,
        tally=follower.tally if follower else Tally(),
    )


def follower(bench: Bench, ahead: Target, answering: Task[Answer]) -> Follower[Ahead]:
    """Return how one direction's translations of answers that still come are made."""
    direction = Direction(*keys.languages_of(ahead.part))
    answers: dict[str, Answer] = {}

    def known(name: str, done: Rows[Ahead]) -> Translation | None:
        """Return the latest translation of the answer as it is now."""
        kept = done.get(name)
        return kept.translation if kept and kept.answer == _digest(answers[name]) else None

    def heard(answer: Answer, done: Rows[Ahead]) -> Iterator[Wanted]:
        answers[answer.id] = answer
        return _next(bench, answer, direction, known(answer.id, done))

    def pending(done: Rows[Ahead], _: Share) -> Iterator[Wanted]:
        for name, answer in answers.items():
            yield from _next(bench, answer, direction, known(name, done))

    def opened(row: Ahead, _: Rows[Ahead]) -> Iterator[Wanted]:
        return _next(bench, answers[row.id], direction, row.translation)

    def row(completion: Completion, done: Rows[Ahead]) -> Ahead:
        name = completion.key
        made = _row(completion, direction, known(name, done))
        return Ahead(id=name, answer=_digest(answers[name]), translation=made)

    return Follower(
        target=ahead,
        kind=Ahead,
        pending=pending,
        row=row,
        opened=opened,
        of=answering,
        heard=heard,
    )


def token_counts(rows: Sequence[Answer] | Sequence[Translation]) -> dict[str, int]:
    """Return the tokens of rows, and how many of them met a limit."""
    return {
        "promptTokens": sum(row.prompt_tokens for row in rows),
        "completionTokens": sum(row.completion_tokens for row in rows),
        "truncated": sum(row.finish_reason == "length" for row in rows),
        "overlong": sum(row.finish_reason == "overlong" for row in rows),
    }


def _next(
    bench: Bench, answer: Answer, direction: Direction, earlier: Translation | None
) -> Iterator[Wanted]:
    """Yield the attempt that an answer needs, nothing where it needs none."""
    attempt = translate.next_attempt(answer, earlier, bench.setting.spec)
    if attempt is not None:
        yield _wanted(bench, answer, direction, attempt)


def _wanted(bench: Bench, answer: Answer, direction: Direction, attempt: int) -> Wanted:
    def made() -> Request | Passage:
        spec = bench.setting.spec
        if spec.translation.external is not None:
            return translate.passage(answer, direction, spec, attempt)
        return translate.request(answer, direction, spec, bench.renderer, attempt)

    return Wanted(made, size=len(answer.completion))


def _row(completion: Completion, direction: Direction, earlier: Translation | None) -> Translation:
    attempt = earlier.attempts + 1 if earlier else 1
    return translate.translation(completion, direction, attempt=attempt)


def _digest(answer: Answer) -> str:
    """Return the digest of what a translation is made of, besides the recipe."""
    return hashlib.sha256(answer.completion.encode()).hexdigest()
