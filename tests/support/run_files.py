"""Good and bad run files, each with the place that is complained of.

`selfimprove validate --cluster` and the API server must judge every one of them equally.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

RECIPES: Final = tuple(sorted(Path(__file__).resolve().parents[2].glob("examples/recipes/*.yaml")))
"""The recipes of the released checkpoints."""

BASE: Final = {
    "model": "{uri: s3://models/m0}",
    "languages": "{dominant: en, others: [es, de]}",
    "prompts": "{uri: s3://prompts/set, perIteration: 2}",
    "storage": "{bucket: runs}",
}
"""The smallest good spec, as YAML text by field."""


@dataclass(frozen=True)
class Row:
    """A file, made from the smallest good one."""

    name: str
    """What is special about it, in words."""
    spec: dict[str, str] = field(default_factory=dict)
    """Fields of the spec as YAML text, over those of BASE; an empty key removes nothing."""
    bad: str | None = None
    """The path that is complained of; None when the file is good."""
    server: str | None = None
    """What the API server or kubectl says instead of the path, where it knows no path."""
    metadata: str = "{name: test}"
    head: str = "apiVersion: selfimprove.dev/v1alpha1\nkind: SelfImproveRun\n"
    tail: str = ""
    """Text after the spec."""
    without: str = ""
    """A field of BASE that is left out."""

    @property
    def text(self) -> str:
        """The file."""
        fields = {key: text for key, text in (BASE | self.spec).items() if key != self.without}
        lines = "".join(f"  {key}: {text}\n" for key, text in fields.items())
        return f"{self.head}metadata: {self.metadata}\nspec:\n{lines}{self.tail}"


def pods(text: str) -> dict[str, str]:
    """Return the spec with settings of the training pods."""
    return {"pods": f"{{training: {{{text}}}}}"}


def _long(count: int) -> str:
    return "a" * count


GOOD: Final = (
    Row("the smallest file"),
    Row("5e-7 is a number", {"training": "{learningRate: 5e-7}"}),
    Row("2.0 is a whole number", {"iterations": "2.0"}),
    Row("1e1 is a whole number", {"iterations": "1e1"}),
    Row("an octal number", {"iterations": "010"}),
    Row("no is a boolean", {"suspend": "no"}),
    Row("y is a boolean", {"suspend": "y"}),
    Row("a whole number where a fraction may be", {"training": "{beta: 1}"}),
    Row("a field that a profile sets is null", {"training": "{beta: null}"}),
    Row("a field with a default is null", {"iterations": "null"}),
    Row("an optional object is null", {"scheduling": "null"}),
    Row("an optional reference is null", {"model": "{uri: s3://models/m0, secretRef: null}"}),
    Row("a list with a default is null", {"evaluation": "{suites: null}"}),
    Row("a field of a toleration is null", pods("tolerations: [{key: null}]")),
    Row("a value of a map is null", {"chat": "{templateKwargs: {a: null}}"}),
    Row("labels are null", metadata="{name: test, labels: null}"),
    Row("an empty object", {"training": "{}"}),
    Row("an empty object nested", {"pairing": "{filters: {lengthRatioBand: {}}}"}),
    Row("empty pods", {"pods": "{training: {}}"}),
    Row("a hundred iterations", {"iterations": "100"}),
    Row("a model of the hub", {"model": "{uri: hf://owner/name, revision: main}"}),
    Row("a model on a volume", {"model": "{uri: pvc://claim/models/m0}"}),
    Row("a script and a region", {"languages": "{dominant: zh-Hant, others: [pt-BR, es-419]}"}),
    Row("offload to the CPU with ZeRO 3", {"training": "{offload: all, zeroStage: 3}"}),
    Row("offload with the profile's ZeRO", {"training": "{offload: all}"}),
    Row(
        "an external translator",
        {
            "translation": "{translator: external, external: "
            "{kind: openai, model: m, baseUrl: 'http://mt/v1'}}"
        },
    ),
    Row(
        "a suite with its own name",
        {"evaluation": "{suites: [{name: sums, kind: exactMatch, uri: s3://eval/sums}]}"},
    ),
    Row(
        "a suite in languages of its own",
        {"evaluation": "{suites: [{name: mgsm, uri: s3://eval/m, languages: [en, ja, sw]}]}"},
    ),
    Row(
        "a suite that a judge grades",
        {
            "evaluation": "{suites: [{name: mtBench, uri: s3://eval/mt}], "
            "judge: {baseUrl: 'http://j/v1', model: j}}"
        },
    ),
    Row(
        "tasks of lm-eval by folder and by name",
        {
            "evaluation": "{suites: [{name: nlp, uri: s3://eval/tasks, numFewshot: 3}, {name: arc, "
            "kind: nlp, tasks: [arc_de, arc_es], applyChatTemplate: true, limit: 100}]}"
        },
    ),
    Row(
        "a suite of another package",
        {"evaluation": "{suites: [{name: t, kind: my-evals/tone, uri: s3://eval/tone}]}"},
    ),
    Row("a suite named by its kind", {"evaluation": "{suites: [{name: mgsm, uri: s3://eval/m}]}"}),
    Row("gates", {"gates": "{mode: Enforced, rewardAccuracy: 0.5, minimumGain: -0.01}"}),
    Row(
        "a judge of pairs with a price",
        {
            "evaluation": "{judge: {baseUrl: 'http://j/v1', model: j, pairs: 200,"
            " budget: {money: 5, promptPrice: 0.1, completionPrice: 0.4}}}"
        },
    ),
    Row("baselines", {"evaluation": "{baselines: [languageInstruction, sft]}"}),
    Row("a number as an argument", {"inference": "{extraArgs: {max_num_seqs: 8}}"}),
    Row("a fraction as text", {"inference": '{extraArgs: {ratio: "0.5"}}'}),
    Row("a boolean as text", {"chat": '{templateKwargs: {enable_thinking: "false"}}'}),
    Row("a number too large to be one is text", {"chat": "{templateKwargs: {a: 1e400}}"}),
    Row("an endpoint", {"storage": "{bucket: runs, endpoint: 'https://minio:9000'}"}),
    Row("a certificate authority", {"storage": "{bucket: runs, caRef: {name: ca}}"}),
    Row("the longest name", metadata=f"{{name: {_long(40)}}}"),
    Row("labels and annotations", metadata="{name: t, labels: {a.b/c: d}, annotations: {e: f}}"),
    Row("GPUs as a number", pods("resources: {limits: {nvidia.com/gpu: 8}}")),
    Row("memory as text", pods("resources: {requests: {memory: 16Gi, cpu: 500m}}")),
    Row("memory with an exponent", pods("resources: {requests: {memory: '1e9'}}")),
    Row("a toleration", pods("tolerations: [{key: gpu, operator: Exists, effect: NoSchedule}]")),
    Row(
        "an affinity",
        pods(
            "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: "
            "[{topologyKey: zone, labelSelector: {matchLabels: {a: b}}}]}}"
        ),
    ),
    Row("a variable from a Secret", pods("env: [{name: A, valueFrom: {secretKeyRef: {key: k}}}]")),
    Row("variables from a Secret", pods("envFrom: [{secretRef: {name: s}}]")),
    Row(
        "a cache on a claim",
        pods(
            "volumes: [{name: cache, persistentVolumeClaim: {claimName: c}}], "
            "volumeMounts: [{name: cache, mountPath: /cache}]"
        ),
    ),
    Row(
        "an ephemeral volume",
        pods(
            "volumes: [{name: v, ephemeral: {volumeClaimTemplate: {spec: "
            "{accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}}]"
        ),
    ),
    Row("an image as a volume", pods("volumes: [{name: m, image: {reference: 'r/m:1'}}]")),
    Row("a pull secret", pods("imagePullSecrets: [{name: s}]")),
    Row("deadlines", {"deadlines": "{runSeconds: 60, startSeconds: 1, nodeLostSeconds: 1}"}),
    Row("no retries", {"retries": "{limit: 0, disruptionLimit: 0}"}),
    Row("deleted at once", {"ttlSecondsAfterFinished": "{succeeded: 0}"}),
    Row("a queue", {"scheduling": "{queueName: gpu, workloadPriorityClassName: low}"}),
    Row("another controller", {"managedBy": "other.dev/operator"}),
    Row("separate pods", {"stagePods": "Separate", "deletionPolicy": "Delete"}),
)

BAD: Final = (
    Row("a number below its bound", {"training": "{beta: -1}"}, "spec.training.beta"),
    Row("a number at an open bound", {"training": "{beta: 0}"}, "spec.training.beta"),
    Row("a number above an open bound", {"training": "{warmupRatio: 1}"}, "training.warmupRatio"),
    Row("a number as text", {"training": '{beta: "0.1"}'}, "spec.training.beta"),
    Row("a boolean for a number", {"training": "{beta: no}"}, "spec.training.beta"),
    Row("text for a boolean", {"suspend": "'no'"}, "spec.suspend"),
    Row("a number for a boolean", {"suspend": "0"}, "spec.suspend"),
    Row("a fraction for a whole number", {"iterations": "1.5"}, "spec.iterations"),
    Row("too many iterations", {"iterations": "101"}, "spec.iterations"),
    Row("no iterations", {"iterations": "0"}, "spec.iterations"),
    Row("a ZeRO stage that is none", {"training": "{zeroStage: 4}"}, "spec.training.zeroStage"),
    Row("an unknown field", {"training": "{bata: 1}"}, "spec.training.bata"),
    Row("an unknown field that is null", {"training": "{bata: null}"}, "spec.training.bata"),
    Row("an unknown field of the spec", {"trainer": "{}"}, "spec.trainer"),
    Row("a field in the wrong case", {"training": "{maxlength: 9}"}, "spec.training.maxlength"),
    Row("a Python name", {"training": "{max_length: 9}"}, "spec.training.max_length"),
    Row("an unknown field of the file", tail="extra: 1\n", bad="extra"),
    Row("a doubled key", {"training": "{beta: 1, beta: 1}"}, "beta"),
    Row("a doubled key of the spec", tail="  model: {uri: s3://models/m1}\n", bad="model"),
    Row("infinity", {"training": "{beta: .inf}"}, "inf", server="+Inf"),
    Row("an anchor in itself", {"training": "&a {lora: *a}"}, "itself"),
    Row("a needed object is null", {"model": "null"}, "spec.model"),
    Row("a needed field is null", {"model": "{uri: null}"}, "spec.model.uri"),
    Row("a needed object is missing", without="prompts", bad="spec.prompts"),
    Row("a needed object is empty", {"storage": "{}"}, "spec.storage.bucket"),
    Row("a list for an object", {"model": "[]"}, "spec.model"),
    Row("text for an object", {"training": "full"}, "spec.training"),
    Row("text for a list", {"languages": "{dominant: en, others: es}"}, "spec.languages.others"),
    Row("an empty list", {"languages": "{dominant: en, others: []}"}, "spec.languages.others"),
    Row("null in a list", {"languages": "{dominant: en, others: [~]}"}, "languages.others[0]"),
    Row(
        "Norwegian without quotes",
        {"languages": "{dominant: en, others: [es, no]}"},
        "spec.languages.others[1]",
    ),
    Row("a language twice", {"languages": "{dominant: en, others: [es, es]}"}, "spec.languages"),
    Row("the dominant again", {"languages": "{dominant: en, others: [en]}"}, "spec.languages"),
    Row(
        "a language by its name",
        {"languages": "{dominant: english, others: [es]}"},
        "spec.languages.dominant",
    ),
    Row(
        "a language in other digits",
        {"languages": "{dominant: es-٤١٩, others: [de]}"},
        "spec.languages.dominant",
    ),
    Row(
        "too many languages",
        {"languages": f"{{dominant: en, others: [{', '.join(['de'] * 65)}]}}"},
        "spec.languages.others",
    ),
    Row("a model on this machine", {"model": "{uri: 'file:///m0'}"}, "spec.model.uri"),
    Row(
        "prompts on this machine",
        {"prompts": "{uri: 'file:///p', perIteration: 2}"},
        "spec.prompts.uri",
    ),
    Row(
        "a suite on this machine",
        {"evaluation": "{suites: [{name: exactMatch, uri: 'file:///s'}]}"},
        "spec.evaluation.suites[0].uri",
    ),
    Row("a model that is a folder", {"model": "{uri: /models/m0}"}, "spec.model.uri"),
    Row("a model with a line break", {"model": '{uri: "s3://models/m\\n0"}'}, "spec.model.uri"),
    Row("a hub name in other letters", {"model": "{uri: 'hf://ówner/name'}"}, "spec.model.uri"),
    Row("a URI that is too long", {"model": f"{{uri: s3://m0/{_long(1020)}}}"}, "spec.model.uri"),
    Row("a bucket with capitals", {"storage": "{bucket: Runs_}"}, "spec.storage.bucket"),
    Row("a bucket that is too short", {"storage": "{bucket: ab}"}, "spec.storage.bucket"),
    Row(
        "an endpoint with a password",
        {"storage": "{bucket: runs, endpoint: 'http://a:b@c'}"},
        "spec.storage.endpoint",
    ),
    Row(
        "an endpoint with a wide space",
        {"storage": '{bucket: runs, endpoint: "http://a\\u2003b"}'},
        "spec.storage.endpoint",
    ),
    Row(
        "a prefix in other letters",
        {"storage": "{bucket: runs, prefix: 'é'}"},
        "spec.storage.prefix",
    ),
    Row(
        "a Secret without name",
        {"storage": "{bucket: runs, secretRef: {}}"},
        "spec.storage.secretRef.name",
    ),
    Row(
        "a style that is none",
        {"storage": "{bucket: runs, addressingStyle: path}"},
        "spec.storage.addressingStyle",
    ),
    Row("a profile that is none", {"profile": "lidr"}, "spec.profile"),
    Row("no translator", {"translation": "{translator: external}"}, "spec.translation"),
    Row(
        "a translator for nothing",
        {"translation": "{external: {kind: transformers, model: m}}"},
        "spec.translation",
    ),
    Row(
        "a translator without address",
        {"translation": "{translator: external, external: {kind: openai, model: m}}"},
        "spec.translation.external",
    ),
    Row("offload without ZeRO", {"training": "{offload: optimizer, zeroStage: 0}"}, "training"),
    Row("offload with ZeRO 2", {"training": "{offload: all, zeroStage: 2}"}, "spec.training"),
    Row(
        "a suite of no kind",
        {"evaluation": "{suites: [{name: sums, uri: s3://eval/sums}]}"},
        "spec.evaluation.suites[0]",
    ),
    Row(
        "a suite of an unknown kind",
        {"evaluation": "{suites: [{name: sums, kind: mgms, uri: s3://eval/sums}]}"},
        "spec.evaluation.suites[0]",
    ),
    Row(
        "a package without a suite",
        {"evaluation": "{suites: [{name: tone, kind: my-evals/, uri: s3://eval/tone}]}"},
        "spec.evaluation.suites[0].kind",
    ),
    Row(
        "grades without a judge",
        {"evaluation": "{suites: [{name: mtBench, uri: s3://eval/mt}]}"},
        "spec.evaluation",
    ),
    Row(
        "tasks from nowhere",
        {"evaluation": "{suites: [{name: nlp, numFewshot: 3}]}"},
        "spec.evaluation.suites[0]",
    ),
    Row(
        "a suite from nowhere",
        {"evaluation": "{suites: [{name: mgsm}]}"},
        "spec.evaluation.suites[0]",
    ),
    Row(
        "tasks in languages",
        {"evaluation": "{suites: [{name: nlp, uri: s3://eval/tasks, languages: [en]}]}"},
        "spec.evaluation.suites[0]",
    ),
    Row(
        "tasks of another kind",
        {"evaluation": "{suites: [{name: mgsm, uri: s3://eval/m, tasks: [arc_de]}]}"},
        "spec.evaluation.suites[0]",
    ),
    Row(
        "a suite in no language",
        {"evaluation": "{suites: [{name: mgsm, uri: s3://eval/m, languages: []}]}"},
        "spec.evaluation.suites[0].languages",
    ),
    Row(
        "a suite twice",
        {
            "evaluation": "{suites: [{name: exactMatch, uri: s3://eval/a}, "
            "{name: exactMatch, uri: s3://eval/b}]}"
        },
        "spec.evaluation",
    ),
    Row(
        "money without prices",
        {"evaluation": "{judge: {baseUrl: 'http://j/v1', model: j, budget: {money: 5}}}"},
        "evaluation.judge.budget",
    ),
    Row("a gate above all", {"gates": "{rewardAccuracy: 1.1}"}, "spec.gates.rewardAccuracy"),
    Row("a mode that is none", {"gates": "{mode: Soft}"}, "spec.gates.mode"),
    Row("a baseline twice", {"evaluation": "{baselines: [sft, sft]}"}, "spec.evaluation"),
    Row("a baseline that is none", {"evaluation": "{baselines: [none]}"}, "evaluation.baselines"),
    Row("an argument without name", {"inference": '{extraArgs: {"": 1}}'}, "inference.extraArgs"),
    Row(
        "an argument with a long name",
        {"inference": f"{{extraArgs: {{{_long(254)}: 1}}}}"},
        "spec.inference.extraArgs",
    ),
    Row(
        "an argument that is a boolean",
        {"chat": "{templateKwargs: {enable_thinking: false}}"},
        "spec.chat.templateKwargs.enable_thinking",
    ),
    Row(
        "an argument that is a fraction",
        {"inference": "{extraArgs: {ratio: 0.5}}"},
        "spec.inference.extraArgs.ratio",
    ),
    Row(
        "an argument that is a list",
        {"inference": "{extraArgs: {a: [1]}}"},
        "spec.inference.extraArgs.a",
    ),
    Row("an image that is empty", pods("image: ''"), "spec.pods.training.image"),
    Row("a policy that is none", pods("imagePullPolicy: always"), "pods.training.imagePullPolicy"),
    Row("GPUs as a fraction", pods("resources: {limits: {gpu: 0.5}}"), "resources.limits"),
    Row("memory in no unit", pods("resources: {limits: {memory: 16GB}}"), "resources.limits"),
    Row("claims of resources", pods("resources: {claims: []}"), "resources.claims"),
    Row(
        "an effect that is none",
        pods("tolerations: [{effect: NoRun}]"),
        "spec.pods.training.tolerations[0].effect",
    ),
    Row(
        "an unknown field of a toleration",
        pods("tolerations: [{kee: a}]"),
        "spec.pods.training.tolerations[0].kee",
    ),
    Row(
        "a folder of the node",
        pods("volumes: [{name: v, hostPath: {path: /}}]"),
        "spec.pods.training.volumes[0].hostPath",
    ),
    Row("a volume without name", pods("volumes: [{emptyDir: {}}]"), "volumes[0].name"),
    Row("a variable twice", pods("env: [{name: A}, {name: A}]"), "spec.pods.training.env"),
    Row("a number in a variable", pods("env: [{name: A, value: 1}]"), "env[0].value"),
    Row(
        "a path mounted twice",
        pods("volumeMounts: [{name: a, mountPath: /a}, {name: b, mountPath: /a}]"),
        "spec.pods.training.volumeMounts",
    ),
    Row("a label of a pod", pods("labels: {a: 'b c'}"), "spec.pods.training.labels"),
    Row("a label's key", pods("labels: {'a b': c}"), "spec.pods.training.labels"),
    Row("a role that is none", {"pods": "{gpu: {}}"}, "spec.pods.gpu"),
    Row("a deadline of 0", {"deadlines": "{runSeconds: 0}"}, "spec.deadlines.runSeconds"),
    Row("a deadline in minutes", {"deadlines": "{runSeconds: 5m}"}, "spec.deadlines.runSeconds"),
    Row("retries below 0", {"retries": "{limit: -1}"}, "spec.retries.limit"),
    Row("a policy of deletion", {"deletionPolicy": "delete"}, "spec.deletionPolicy"),
    Row("a queue's name", {"scheduling": "{queueName: 'a b'}"}, "spec.scheduling.queueName"),
    Row("a controller without name", {"managedBy": "''"}, "spec.managedBy"),
    Row("a name with a capital", metadata="{name: Test}", bad="metadata.name"),
    Row("a name that starts with a digit", metadata="{name: 1test}", bad="metadata.name"),
    Row("a name with a dot", metadata="{name: a.b}", bad="metadata.name"),
    Row("a name that is too long", metadata=f"{{name: {_long(41)}}}", bad="metadata.name"),
    Row("no name", metadata="{}", bad="name"),
    Row("a label of the run", metadata="{name: t, labels: {a: 'b c'}}", bad="metadata.labels"),
    Row("a label that is a number", metadata="{name: t, labels: {a: 1}}", bad="labels"),
    Row(
        "another version",
        head="apiVersion: selfimprove.dev/v1\nkind: SelfImproveRun\n",
        bad="apiVersion",
        server='version "v1" cannot be handled',
    ),
)
