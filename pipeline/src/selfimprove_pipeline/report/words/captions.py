"""What stands below tables and drawings: how to read them."""

from selfimprove_pipeline.measuring.gates import Decision

DECISIONS: dict[Decision, str] = {
    "Worse": "worse: refused",
    "LeftOut": "left out of the training",
    "Warned": "low",
    "Passed": "passed",
    "NotMeasured": "not measured: passed",
}
GATED = (
    "A model is refused where its change on the first suite since the model before is for the "
    "worse in a language: the whole 95 % interval, and p by Holm's correction. Of offTarget, and "
    "of a suite without gold answers, it is the change of the share in the right language."
)
UNSEEN = "No pair is in these languages, and no mean holds them."
MARKS = "Words at a rate judge its change since M0."
EVASIVE = (
    "Evasive answers are found by how they begin, in the larger languages alone: a rough measure."
)
JUDGED = (
    "A tie counts half. The rate at equal length is what a logistic model of the verdicts and the "
    "lengths expects of answers as long as the opponent's. The bias of place is the share of "
    "prompts, asked in both orders, at which the judge preferred a place: those are ties. "
    "Malformed answers of the judge decide nothing."
)
GRADED = "Malformed answers of the judge grade nothing, and their conversations are in no mean."
OUTCOMES = "Win, tie and lose from left to right, in percent of the prompts that were decided."
GAINED = "Change by language with its 95 % interval; a filled point is a clear change."
LENGTHS = (
    "Mean characters of a model's answers against its win rate; the dashed lines are one half and "
    "the opponent's mean characters. A win rate that rises with length alone is a judge's taste."
)
OFF_TARGET = "Share of answers in a wrong language: hollow for M0, filled for the last model."
TIMES = (
    "Artifacts found in the store show the time of the run that made them. The start of an engine "
    "is not in a stage's time; stages that share an engine share it."
)
CURVES = "Each line is named after the model it made; beyond 200 steps a point is a mean of some."
SAMPLES = "Prompts are drawn by a fixed seed, whatever the answers; all models answer the same."
NO_SAMPLES = "Not yet: no answers to prompts of the first suite are evaluated; tasks have none."
INTERVALS = (
    "Ranges are 95 % intervals: Wilson's for a rate, the paired bootstrap over the same prompts "
    "for a change. “Better” and “worse” stand where p of the exact sign-flip test, by Holm's "
    "correction over the suite's languages, is below .05; the mean is one test and stands for "
    "itself. They cover the choice of prompts, not another training seed."
)
