"""The two profiles: the values of every field that has no schema default.

`lidr-paper` is the published method; values that no source states are ours and say so.
`lidr-safe` adds what the paper's code lacks: retries, budgets, filters and gates.
"""

from typing import Any, Final, Literal

Profile = Literal["lidr-paper", "lidr-safe"]

LIDR_PAPER: Final[dict[str, Any]] = {
    "generation": {
        "temperature": 0.0,
        "topP": 1.0,
        "repetitionPenalty": 1.1,
        "maxTokens": 2400,
        "seed": 42,
        "answerLanguagePrefix": False,
    },
    "translation": {
        "temperature": 0.0,
        "repetitionPenalty": 1.0,
        "maxTokens": 4096,
        "retries": 0,
        "retryTemperature": 0.3,
        "stopAtClosingTag": False,
        "sourceLengthBudget": False,
    },
    "pairing": {
        "dominantPairs": "one",
        "failedDirection": "dropBoth",
        "dropIdentical": False,
        "filters": {
            "language": False,
            "lengthRatio": False,
            "empty": False,
            "truncation": False,
            "repetition": False,
        },
    },
    "training": {
        "method": "full",
        "beta": 0.5,
        "nllWeight": 1.0,
        "nllNormalization": "sequence",
        "learningRate": 5e-7,
        "epochs": 1,
        "globalBatchSize": 16,
        # No source states the values below; they are our reading of comparable recipes.
        "lrScheduler": "cosine",
        "warmupRatio": 0.1,
        "weightDecay": 0.0,
        "maxGradNorm": 1.0,
        "microBatchSize": 1,
        "tokensPerDevice": 16_384,
        "maxLength": 2048,
        "precision": "bf16",
        "saveDtype": "bfloat16",
        "seed": 42,
    },
    "gates": {"mode": "Disabled"},
}

LIDR_SAFE: Final[dict[str, Any]] = {
    **LIDR_PAPER,
    "translation": {
        **LIDR_PAPER["translation"],
        "retries": 1,
        "stopAtClosingTag": True,
        "sourceLengthBudget": True,
    },
    "pairing": {
        "dominantPairs": "one",
        "failedDirection": "dropAffected",
        "dropIdentical": True,
        "filters": {
            "language": True,
            "lengthRatio": True,
            "empty": True,
            "truncation": True,
            "repetition": True,
        },
    },
    "gates": {"mode": "Enforced"},
}

PROFILES: Final[dict[Profile, dict[str, Any]]] = {"lidr-paper": LIDR_PAPER, "lidr-safe": LIDR_SAFE}
