"""The command line of selfimprove: the only place that reads arguments and exit codes.

0: done. 1: something failed. 2: the input is wrong. 75: the store or an endpoint did not
answer, try again later. 130: stopped by Ctrl-C, 143: by SIGTERM; running again resumes.
"""

import os
import signal
import sys
import threading
from argparse import ArgumentParser, ArgumentTypeError, Namespace, _SubParsersAction
from pathlib import Path
from types import FrameType
from typing import Any, Final

from rich.console import Console

from selfimprove_pipeline.contract.errors import SelfImproveError
from selfimprove_pipeline.contract.keys import SFT
from selfimprove_pipeline.contract.recipe import SUITE_KINDS
from selfimprove_pipeline.machine import devices
from selfimprove_pipeline.train.processes import launch
from selfimprove_pipeline.workers.events import Emitter

STOPPED: Final = 130
TERMINATED: Final = 143
MOST_GPUS: Final = 4096
SECONDS_TO_END: Final = 45
"""Longer than the 30 s that torchrun gives its ranks."""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _terminate)
    if arguments.command == "worker":
        return _worker(arguments)
    from selfimprove_pipeline.cli import commands  # noqa: PLC0415  after --help has been answered

    try:
        commands.COMMANDS[arguments.command](arguments, Console())
    except SelfImproveError as error:
        print(error, file=sys.stderr)  # noqa: T201  the one line that the person reads
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped; run again to go on where it was", file=sys.stderr)  # noqa: T201
        return STOPPED
    return 0


def _worker(arguments: Namespace) -> int:
    """Run a worker; its error is an event, so that the runner can raise it as its own."""
    os.environ |= devices.environment(devices.usable_gpus())  # before anything heavy is loaded
    signal.signal(signal.SIGTERM, _terminate_in_time)
    from selfimprove_pipeline.workers import command  # noqa: PLC0415  as above

    emitter = Emitter()
    if arguments.worker == "rank":
        with launch.worker():
            command.rank(arguments, emitter)
        return 0
    return command.run(arguments, emitter)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)


def _terminate_in_time(_signal: int, _frame: FrameType | None) -> None:
    """End a worker in order, or without when a library holds it: a pod is killed after 60 s."""
    timer = threading.Timer(SECONDS_TO_END, os._exit, [TERMINATED])
    timer.daemon = True
    timer.start()
    raise SystemExit(TERMINATED)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="selfimprove",
        description="A language model becomes better in many languages at once, "
        "without labels or a judge.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    validate = _with_file(commands, "validate", "judge the file: every mistake with its line")
    validate.add_argument("--cluster", action="store_true", help="judge as the API server will")
    plan = _with_engine(
        _with_file(commands, "plan", "show the resolved recipe, what would run and what it needs")
    )
    plan.add_argument("--gpu", metavar="NAME", help="judge for these GPUs, such as h100-80gb")
    plan.add_argument("--gpus", type=_count, default=8, metavar="N", help="of them; unset means 8")
    _with_engine(_with_file(commands, "run", "run it, or resume it where it was"))
    _add_evaluate(commands)
    _add_compare(commands)
    show = _with_file(commands, "show", "show what the run has come to")
    show.add_argument("-o", "--output", choices=("table", "json"), default="table")
    report = _with_file(commands, "report", "write the report as HTML and Markdown")
    report.add_argument("--out", type=Path, default=Path("report"), help="folder to write to")
    _add_upload(commands)
    _add_export(commands)
    worker = _with_engine(
        _with_file(commands, "worker", "run one worker of one iteration", "worker")
    )
    worker.add_argument("--iteration", type=int, required=True)
    worker.add_argument(
        "--stages", type=_names, metavar="A,B", help="some of the worker's stages; unset means all"
    )
    worker.add_argument("--scratch", type=Path)
    worker.add_argument(
        "--only-evaluate", action="store_true", help="the file is a model's, measured without a run"
    )
    return parser


def _with_file(
    commands: "_SubParsersAction[Any]", name: str, text: str, *first: str
) -> ArgumentParser:
    """Add a command that reads a run file."""
    parser: ArgumentParser = commands.add_parser(name, help=text, description=text)
    for argument in first:
        parser.add_argument(argument)
    parser.add_argument("file", type=Path, help="the run file")
    _with_store(parser)
    _with_settings(parser, "a value in place of the file's, such as training.beta=0.1")
    return parser


def _with_settings(parser: ArgumentParser, text: str) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help=f"{text}; may be repeated",
    )


def _with_store(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--store",
        type=_folder,
        metavar="DIR",
        help="a folder in place of the S3 server: s3://bucket/key is DIR/bucket/key",
    )


def _with_place(parser: ArgumentParser) -> None:
    """Add the arguments that say where evaluations lie, for a model that no run file names."""
    _with_store(parser)
    parser.add_argument(
        "--artifacts",
        type=_place_uri,
        metavar="s3://BUCKET[/PREFIX]",
        help="where evaluations lie; unset means the run file's storage, else s3://runs",
    )
    parser.add_argument("--endpoint", help="the S3 server; unset means AWS_ENDPOINT_URL")


def _folder(text: str) -> Path:
    return Path(text).absolute()


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_GPUS:
        message = f"expected a whole number from 1 to {MOST_GPUS}, found {text}"
        raise ArgumentTypeError(message)
    return int(text)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _with_engine(parser: ArgumentParser) -> ArgumentParser:
    parser.add_argument(
        "--engine",
        choices=("vllm", "transformers"),
        default="vllm",
        help="what generates; transformers is slow and needs no vLLM",
    )
    return parser


def _add_upload(commands: "_SubParsersAction[Any]") -> None:
    text = "upload a folder, such as a model or prompts"
    upload = commands.add_parser("upload", help=text, description=text)
    upload.add_argument("folder", type=Path)
    upload.add_argument("uri", type=_bucket_uri, metavar="s3://BUCKET/PREFIX")
    upload.add_argument("--endpoint", help="the S3 server; unset means AWS_ENDPOINT_URL")
    _with_store(upload)


def _add_evaluate(commands: "_SubParsersAction[Any]") -> None:
    text = "measure any model on suites, without a run"
    parser = commands.add_parser("evaluate", help=text, description=text)
    parser.add_argument("model", help="a Hugging Face folder, s3://, hf:// or file:///")
    parser.add_argument(
        "--suite",
        action="append",
        metavar="KIND=URI",
        help="a suite and its folder or URI, such as mgsm=s3://eval/mgsm; NAME:KIND=URI gives it a "
        f"name of its own; KIND is one of {', '.join(SUITE_KINDS)}; may be repeated; unset means "
        "those of --recipe",
    )
    parser.add_argument(
        "--languages",
        type=_names,
        metavar="A,B,...",
        help="the dominant language first; unset means those of --recipe, else every language "
        "that all suites have, English first",
    )
    parser.add_argument(
        "--recipe",
        type=Path,
        metavar="RUN.yaml",
        help="measure as this run does: its languages, suites, template, sampling and storage",
    )
    _with_judge(parser, "judges xAlpacaEval")
    _with_settings(parser, "a value of the recipe, such as generation.maxTokens=256")
    _with_engine(parser)
    _with_place(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")


def _add_compare(commands: "_SubParsersAction[Any]") -> None:
    text = "tell two models apart: differences with intervals, B minus A"
    parser = commands.add_parser("compare", help=text, description=text)
    for side in ("a", "b"):
        parser.add_argument(
            side,
            metavar=side.upper(),
            help="a run file (its last model), RUN.yaml@ITERATION, or a model that was evaluated",
        )
    _with_judge(parser, "tells whose answers are better, on suites without right ones")
    _with_place(parser)
    parser.add_argument("--out", type=Path, help="folder to write to; unset means print alone")


def _with_judge(parser: ArgumentParser, task: str) -> None:
    parser.add_argument(
        "--judge-url", metavar="URL", help=f"OpenAI-compatible endpoint that {task}"
    )
    parser.add_argument("--judge-model", metavar="NAME", help="model that the endpoint serves")


def _place_uri(text: str) -> str:
    if not text.startswith("s3://"):
        message = f"expected s3://BUCKET or s3://BUCKET/PREFIX, found {text}"
        raise ArgumentTypeError(message)
    return text


def _bucket_uri(text: str) -> str:
    if not text.startswith("s3://") or "/" not in text.removeprefix("s3://"):
        message = f"expected s3://BUCKET/PREFIX, found {text}"
        raise ArgumentTypeError(message)
    return text


def _add_export(commands: "_SubParsersAction[Any]") -> None:
    text = "export pairs for LLaMA-Factory, or a model as a plain folder"
    export = commands.add_parser("export", help=text, description=text)
    kinds = export.add_subparsers(dest="kind", required=True)
    for kind in ("pairs", "model"):
        parser = _with_file(kinds, kind, f"export {kind}")
        parser.set_defaults(command=f"export {kind}")
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--iteration", type=int, help="unset means the last one")
        if kind == "model":
            which.add_argument("--baseline", choices=(SFT,), help="the model of a baseline")
        parser.add_argument("--out", type=Path, required=True, help="new folder to write to")


if __name__ == "__main__":
    sys.exit(main())
