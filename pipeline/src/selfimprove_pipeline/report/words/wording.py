"""What sentences say of the numbers, the same on every page; `notation` writes the numbers.

Pure text without markup: whoever shows it escapes it.
"""

from selfimprove_pipeline.contract.rows import Evaluated
from selfimprove_pipeline.measuring.intervals import FEWEST
from selfimprove_pipeline.report.story.making import Training
from selfimprove_pipeline.report.story.story import Change, Entry, Shown, Story, SuiteStory
from selfimprove_pipeline.report.words import notation

NOT_YET = "not yet"
MEASURES: dict[Shown, str] = {
    "score": "right answers",
    "offTarget": "wrong language",
    "winRate": "win rate",
    "grade": "mean grade",
}
GAINS: dict[Shown, str] = {
    "score": "share of right answers",
    "offTarget": "share of answers in a wrong language",
    "winRate": "win rate",
    "grade": "grade from 0 to 10",
}
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


ASSESSED = (
    "Ranges are 95 % intervals: Wilson's for a language, the bootstrap over prompts for the mean."
)
COMPARED = (
    "The interval of a difference is the paired bootstrap's over the same prompts, p that of the "
    "exact sign-flip test. “Better” and “worse” stand where p, by Holm's correction over the "
    "suite's languages, is below .05; the mean is one test and stands for itself. They cover the "
    "choice of prompts, not another training seed."
)

DUELLED = (
    "Head to head a judge was asked in both orders; a tie counts half of a win. Ranges are "
    "Wilson's 95 % intervals."
)

BASELINES = {
    "languageInstruction": "M0, told the language",
    "sft": "M0, SFT on the chosen texts",
}
TOLD = {
    "languageInstruction": (
        "M0, told the language, was asked in the prompt's language to answer in it: what a model "
        "has over it is more than answering in the right language on request. In charts it is the "
        "dashed line."
    ),
    "sft": (
        "SFT has trained M0 on the chosen texts of the pairs that made M1, in as many steps, but "
        "by their likelihood alone: what M1 has over it came from the rejected texts. Later models "
        "have also seen more pairs. In charts it is the dotted line."
    ),
}
SFT = "SFT"


MOST_NAMED = 8
"""Languages in the headline; of more it gives the mean."""

APART = "in languages that are not trained, and in no mean"


def entry(found: Entry) -> str:
    """Return the name of a row of a table."""
    return notation.model(found) if isinstance(found, int) else BASELINES[found]


def trained(found: Training) -> str:
    """Return the name of the model that a training made."""
    return SFT if found.is_baseline else notation.model(found.iteration + 1)


def baselines(suite: SuiteStory) -> str:
    """Say what the baselines of a suite are, or that no judge was asked about them."""
    if suite.verdicts is None:
        return " ".join(TOLD[found.name] for found in suite.baselines)
    judged = {entry for entry, _ in suite.verdicts.judged}
    left_out = [BASELINES[found.name] for found in suite.baselines if found.name not in judged]
    return f"Not judged: {'; '.join(left_out)}." if left_out else ""


def verdict(change: Change, shown: Shown) -> str:
    """Say in words whether a change is real, and which way."""
    return judgement(change.sign, change.difference.n if change.difference else None, shown)


def judgement(sign: int, n: int | None, shown: Shown) -> str:
    """Say in words what the sign of a change over n prompts means; n is None of no interval."""
    if n is None:
        return "no interval"
    if n < FEWEST:
        return "too few prompts to tell"
    which = sign * (-1 if shown == "offTarget" else 1)
    return {1: "better", 0: "no clear change", -1: "worse"}[which]


def iteration(index: int, story: Story) -> str:
    """Write what an iteration is about: the step it makes, or the last model it measures."""
    names = [notation.model(at) for at in (index, index + 1) if at <= story.iterations]
    return " → ".join(names)


def change_to(suite: SuiteStory, entry: Entry, language: str | None) -> Change | None:
    """Return the change from M0 to a model, or from the one before where there is no such one."""
    candidates = [
        change
        for change in suite.shown_changes
        if change.after == entry and change.language == language
    ]
    return min(candidates, key=lambda change: change.before, default=None)


def no_mean(story: Story, suite: SuiteStory) -> str:
    """Say why a model has no mean: it comes, or the suite leaves out a language of it."""
    is_whole = set(story.others) <= set(story.trained(suite))
    return NOT_YET if is_whole else notation.NONE


def headline(story: Story) -> str:
    """Return the result in one sentence: each language of the first suite, from M0 to the last."""
    if not story.suites:
        return "Nothing was measured: the recipe names no evaluation suite."
    suite = story.suites[0]
    tags = story.trained(suite) if suite.has_tasks else story.languages
    if len(tags) <= MOST_NAMED or suite.has_tasks:
        parts = [_span(suite, tag) for tag in tags[:MOST_NAMED]]
    else:
        parts = [_span_of_means(story, suite), _span(suite, story.dominant)]
    found = [part for part in parts if part]
    if not found:
        return f"{suite.name}: nothing is measured yet."
    last = max(index for index, _ in suite.measured)
    done = f"after {_plural(last, 'iteration')}" if last else "before the first iteration"
    planned = f" of {story.iterations}" if last < story.iterations and last else ""
    what = "" if suite.shown == "score" else f" ({MEASURES[suite.shown]})"
    is_refused = story.final is not None and story.final < last
    refused = f"; {notation.model(last)} is refused" if is_refused else ""
    return f"{', '.join(found)} {done}{planned}{what}{refused}"


def gain(story: Story) -> str:
    """Return the change of the mean over the other languages in one sentence, empty before M1."""
    if not story.suites:
        return ""
    suite = story.suites[0]
    changes = [change for change in suite.shown_changes if change.language is None]
    if not changes:
        return ""
    change = max(changes, key=lambda found: (found.after, -found.before))
    bounds = (
        f"95 % interval {notation.change_interval(change.difference.interval)}"
        if change.difference
        else "without an interval, as the languages' prompts have different ids"
    )
    return (
        f"Mean {GAINS[suite.shown]} over {_plural(len(story.others), 'language')} besides "
        f"{story.dominant}, {notation.model(change.after)} minus {notation.model(change.before)}: "
        f"{notation.signed(change.value)} ({bounds}: {verdict(change, suite.shown)})."
    )


def agreement(story: Story) -> str:
    """Say what the agreement with gold answers, or with a judge, means."""
    return (
        f"Every pair prefers the text that comes from {story.dominant}. Reward accuracy is how "
        "often that is the better one, by the gold answers of the prompts or by a judge's grades, "
        "among the pairs of which one text is better: their number stands in brackets, then the "
        "95 % interval, then what the gate makes of it, if there is one. Above it stands what the "
        "texts of the pairs are worth, what the model wrote in a language itself and what was "
        "translated into it: the share of right ones, or the mean grade from 0 to 10."
    )


def not_measured(story: Story) -> str:
    """Say in one sentence what the report cannot tell."""
    missing = [
        "how fluent or helpful an answer is to a reader",
        "languages and tasks beyond the suites",
        "how much another training seed would move the numbers",
    ]
    if not any(suite.measure == "score" for suite in story.suites):
        missing.append("whether answers are right (no suite has gold answers)")
    if unknown := _without_detector(story):
        missing.append(f"a wrong language in {unknown} (none was identified there)")
    if not story.agreements:
        missing.append("how often gold answers or a judge agree with the pairs' labels")
    return f"Not measured: {', '.join(missing[:-1])}, nor {missing[-1]}."


def _without_detector(story: Story) -> str:
    languages = {
        language
        for suite in story.suites
        if not suite.has_tasks
        for (_, language), found in suite.measured.items()
        if found.off_target is None
    }
    return ", ".join(sorted(languages))


def _span(suite: SuiteStory, language: str) -> str:
    """Return `de .30 → .65` from the first to the last model, empty where nothing is measured."""
    models = sorted(index for index, tag in suite.measured if tag == language)
    if suite.is_against_m0:
        models = [index for index in models if index]
    if not models:
        return ""
    found = [suite.estimate(index, language) for index in sorted({models[0], models[-1]})]
    values = [notation.rate(estimate.value if estimate else None) for estimate in found]
    return f"{language} {' → '.join(values)}"


def _span_of_means(story: Story, suite: SuiteStory) -> str:
    """Return the same for the mean over the other languages."""
    models = [index for index in story.planned if suite.mean(index) is not None]
    if not models:
        return ""
    values = [notation.rate(suite.mean(index)) for index in sorted({models[0], models[-1]})]
    return f"mean of {_plural(len(story.others), 'language')} {' → '.join(values)}"


def _plural(number_of: int, noun: str) -> str:
    word = NUMBERS[number_of] if number_of < len(NUMBERS) else str(number_of)
    return f"{word} {noun}" if number_of == 1 else f"{word} {noun}s"


def judged(answer: Evaluated) -> str:
    """Say what was found on an answer."""
    marks = {1.0: "right", 0.0: "wrong"}
    found = [] if answer.score is None else [marks.get(answer.score, notation.number(answer.score))]
    found += [] if answer.extracted is None else [f"read as {answer.extracted}"]
    found += ["wrong language"] if answer.is_off_target else []
    found += ["evasive"] if answer.is_evasive else []
    found += ["empty"] if answer.is_empty else []
    found += ["cut at the limit"] if answer.finish_reason == "length" else []
    return ", ".join(found)
