"""Where a run's inputs come from and where its artifacts go."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from selfimprove_pipeline.contract.recipe.base import (
    NOT_A_FILE,
    Argument,
    Language,
    Name,
    ObjectUri,
    Part,
    Rule,
    SecretRef,
    Text,
    affects,
    repeated,
)

ModelUri = Annotated[
    str,
    StringConstraints(
        max_length=1024,
        pattern=r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/.+"
        r"|hf://[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)?|pvc://[a-z0-9.-]+(/.*)?|file:///.+)$",
    ),
    Field(json_schema_extra={"x-kubernetes-validations": [NOT_A_FILE.schema()]}),
]


class Model(Part):
    """The model that the run starts from (M0)."""

    uri: ModelUri
    """uri of a Hugging Face model folder: `s3://BUCKET/PREFIX`, `hf://OWNER/NAME`, on a cluster
    `pvc://CLAIM/PATH`, on one machine `file:///FOLDER`."""

    revision: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = None
    """revision of an `hf://` model. A branch is resolved to a commit once. Default: the default
    branch."""

    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"],
        affects("generate", "translate", "evaluate"),
    ] = "auto"
    """dtype in which inference loads the weights, unless inference.dtype is set. Default: auto."""

    secret_ref: SecretRef | None = None
    """secretRef names the Secret with HF_TOKEN, for gated models."""


class Languages(Part):
    """The languages of a run."""

    rules = (
        Rule(
            "!(self.dominant in self.others)"
            " && self.others.all(a, self.others.exists_one(b, b == a))",
            "expected each language once",
            lambda self: repeated(self.all()),
        ),
    )

    dominant: Annotated[Language, affects("pair", "evaluate", "gate", "judge")]
    """dominant is the language whose answers are preferred, as a BCP-47 tag."""

    others: Annotated[
        tuple[Language, ...],
        Field(min_length=1, max_length=64),
        affects("pair", "evaluate", "gate", "judge"),
    ]
    """others are the languages to improve, as BCP-47 tags. The order matters to
    pairing.dominantPairs."""

    def all(self) -> tuple[str, ...]:
        """Return the dominant language, then the others in the order of the recipe."""
        return (self.dominant, *self.others)

    def directions(self) -> tuple[tuple[str, str], ...]:
        """Return (source, target) of every translation: into each other language, and back."""
        return tuple(
            direction
            for other in self.others
            for direction in ((self.dominant, other), (other, self.dominant))
        )


class Prompts(Part):
    """The parallel prompts: one `<language>.jsonl` per language, rows `{id, prompt}`."""

    uri: ObjectUri
    """uri of the folder with one `<language>.jsonl` per language, rows `{id, prompt}`."""

    per_iteration: Annotated[int, Field(ge=1, le=10_000_000)]
    """perIteration is the number of prompts that each iteration uses."""

    selection: Literal["same", "disjoint"] = "same"
    """selection gives each iteration the same first prompts (`same`), as the paper's code does, or
    the next ones (`disjoint`). Default: same."""

    secret_ref: SecretRef | None = None
    """secretRef names the Secret with the credentials for the prompts' bucket. Default:
    storage's."""


class CaRef(Part):
    """A certificate authority in a ConfigMap or Secret of the run's namespace."""

    name: Name
    """name of the ConfigMap. On one machine set AWS_CA_BUNDLE instead."""

    key: Name = "ca.crt"
    """key of the PEM bundle in the ConfigMap. Default: ca.crt."""


class Storage(Part):
    """The bucket that holds every artifact."""

    endpoint: (
        Annotated[str, StringConstraints(max_length=512, pattern=r"^https?://[!-.0-?A-~]+/?$")]
        | None
    ) = None
    """endpoint of the S3 server, such as `https://minio:9000`. Default: AWS_ENDPOINT_URL."""

    region: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    """region of the bucket. Default: AWS_REGION, else us-east-1."""

    bucket: Annotated[
        str, StringConstraints(max_length=63, pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    ]
    """bucket for the artifacts. It must exist."""

    prefix: Annotated[
        str, StringConstraints(max_length=512, pattern=r"^([A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*)?$")
    ] = ""
    """prefix of every key in the bucket. Empty: the bucket's root."""

    addressing_style: Literal["Auto", "Path", "VirtualHost"] = "Auto"
    """addressingStyle puts the bucket in the URL's path (`Path`) or host name (`VirtualHost`);
    `Auto` lets the client choose. Default: Auto."""

    ca_ref: CaRef | None = None
    """caRef is the certificate authority of the endpoint, if it is a private one."""

    secret_ref: SecretRef | None = None
    """secretRef names the Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, if needed,
    AWS_SESSION_TOKEN. Default: ambient credentials."""


class Chat(Part):
    """How messages become tokens: the same in generate, translate, train and evaluate."""

    system_prompt: Annotated[Text | None, affects("generate", "translate", "pair", "evaluate")] = (
        None
    )
    """systemPrompt begins every conversation. Default: none."""

    template: Annotated[
        Annotated[str, StringConstraints(min_length=1, max_length=65_536)] | None,
        affects("generate", "translate", "reference", "train", "evaluate"),
    ] = None
    """template is the chat template, in Jinja. Default: that of the model's tokenizer."""

    template_kwargs: Annotated[
        dict[Name, Argument],
        Field(max_length=32),
        affects("generate", "translate", "reference", "train", "evaluate"),
    ] = Field(default={})
    """templateKwargs are passed to the template, such as `enable_thinking: "false"`, or
    `date_string` for one that writes today's date; both must be set where a template leaves them
    open. On a cluster write booleans and fractions as text."""
