"""What a run has come to, for a terminal: a table of its stages and the key numbers."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table


def table(found: Mapping[str, Any]) -> Table:
    """Return the stages of a run for a terminal."""
    made = Table(title=f"{found['name']}: {found['outcome']} {found['message']}".rstrip())
    for name in ("model", "stage", "state", "seconds", "rows", "digest"):
        made.add_column(name, justify="right" if name in ("seconds", "rows") else "left")
    for iteration in found["iterations"]:
        for stage in iteration["stages"]:
            state = f"{stage['state']}{' (cached)' if stage['cached'] else ''}"
            made.add_row(
                f"M{iteration['index']}",
                stage["name"],
                state,
                f"{stage['seconds']:.1f}",
                str(stage["counts"].get("rows", "")),
                (stage["digest"] or "")[:12],
            )
        made.add_section()
    return made


def key_numbers(found: Mapping[str, Any]) -> list[str]:
    """Return a line for each model: where it is, and its scores by suite and language."""
    lines = []
    suites = found["recipe"]["evaluation"]["suites"]
    counting = {s["name"] for s in suites if (s.get("kind") or s["name"]) == "offTarget"}
    for iteration in found["iterations"]:
        model = iteration["model"]
        lines.append(f"M{iteration['index']} {model['digest'][:12]} {model['uri']}")
        for suite, languages in iteration["evaluation"].items():
            if suite == "gain":
                lines.append(f"   gain {languages:+.3f}")
                continue
            counts_languages = suite.partition("+")[0] in counting
            scores = [f"{n} {_score(m, counts_languages)}" for n, m in languages.items()]
            lines.append(f"   {suite}: {'  '.join(scores)}")
        for language, told in iteration["gates"].items():
            if told["decision"] != "Passed":
                lines.append(f"   gate: {language} {told['decision']}, {told['why']}")
    return lines


def _score(measures: Mapping[str, float], counts_languages: bool) -> str:
    for name in ("winRate", "grade"):
        if name in measures:
            low, high = measures[f"{name}Low"], measures[f"{name}High"]
            n = measures.get("conversations", measures["judged"])
            return f"{measures[name]:.3f} [{low:.3f}, {high:.3f}] (n {n:.0f})"
    name = "score" if "score" in measures and not counts_languages else "offTarget"
    if name not in measures:  # a task of lm-eval without a metric of its documents
        name = next(iter(measures))
        return f"{name} {measures[name]:.3f} (n {measures['n']:.0f})"
    return f"{measures[name]:.3f} (n {measures['n']:.0f})"
