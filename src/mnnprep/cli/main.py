"""The command group, and the one place where an error becomes a message and an exit code."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import Any

import click

from mnnprep import errors
from mnnprep._version import __version__
from mnnprep.cli import streams
from mnnprep.safety import faults

# name -> (module, what it does); a command's module is imported when it is called, not for --help
COMMANDS = {
    "prepare": ("mnnprep.cli.prepare", "Prepare a model for MNN and prove the result."),
    "inspect": ("mnnprep.cli.inspect", "Show what a file is: format, signature, operators, parameters."),
    "check": ("mnnprep.cli.check", "List what MNN will refuse, crash on or get wrong in a model."),
    "verify": ("mnnprep.cli.verify", "Prove a bundle again, from the bundle alone."),
    "kit": ("mnnprep.cli.kit", "Write what runs a bundle's model and cases on a device."),
    "compare": ("mnnprep.cli.compare", "Compare two models of any two formats on the same inputs."),
    "bisect": ("mnnprep.cli.bisect", "Find the first node at which MNN departs from the reference."),
    "json": ("mnnprep.cli.json", "Write an MNN model as JSON, or that JSON as a model."),
    "consolidate": ("mnnprep.cli.consolidate", "Gather a checkpoint's weights into one safetensors file."),
    "target": ("mnnprep.cli.target", "Make and list the environments of other CPUs and versions of MNN."),
    "ops": (
        "mnnprep.cli.ops",
        "Show which operators MNN reads, and what it does with ONNX's own test cases.",
    ),
    "sign": ("mnnprep.cli.sign", "Sign a bundle with your key."),
    "replay": ("mnnprep.cli.replay", "Make a bundle's artifact again and compare the hashes."),
    "report": ("mnnprep.cli.report", "Write a bundle's report.html again."),
    "doctor": (
        "mnnprep.cli.doctor",
        "Show the installed packages, the formats that work and what to install.",
    ),
}
ISSUES = "please report it with this text, the command and the output of `mnnprep doctor --json`"


class LazyGroup(click.Group):
    """A group whose commands are imported one by one, when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command and return the command; None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        import importlib

        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with their help texts, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120}
)
@click.version_option(__version__, prog_name="mnnprep", message="%(prog)s %(version)s")
def cli() -> None:
    """Take a trained model to a file that MNN's converter takes, and prove that it computes the same.

    \b
    Exit codes: 0 proven or done, 1 not proven (check: hazards found), 2 wrong call, 3 refused, 70 a defect of
    mnnprep, 130 interrupted.
    """


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    arguments = sys.argv[1:] if argv is None else argv
    as_json = "--json" in arguments
    try:
        if argv is None:  # this process is ours
            streams.take_over()
            _end_cleanly()
        code = cli.main(args=arguments, prog_name="mnnprep", standalone_mode=False)
        sys.stdout.flush()
    except (click.exceptions.Abort, KeyboardInterrupt):
        code = _tell(
            errors.Interrupted("interrupted", next="run it again: nothing was left half-written"), as_json
        )
    except click.ClickException as error:
        hint = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "mnnprep"
        code = _tell(errors.UsageError(error.format_message(), next=f"see {hint} --help"), as_json)
    except errors.MnnprepError as error:
        code = _tell(faults.fault_in(error) or error, as_json)
    except Exception as error:
        import traceback

        trace = "".join(traceback.format_exception(error))
        internal = errors.InternalError(f"{type(error).__name__}: {error}", seen=trace)
        code = _tell(faults.fault_in(error) or internal, as_json)
    sys.exit(code if isinstance(code, int) else 0)


def _end_cleanly() -> None:
    """Have the signals that end a program end this one as Ctrl-C does.

    Those that it was started deaf to (nohup) stay ignored.
    """
    ending = [
        number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN
    ]

    def end(number: int, _: object) -> None:
        for other in ending:  # a terminal that closes sends more than one: nothing breaks the cleaning off
            signal.signal(other, signal.SIG_IGN)
        sys.exit(128 + number)

    for number in ending:
        signal.signal(number, end)


def _tell(error: errors.MnnprepError, as_json: bool) -> int:
    if isinstance(error, errors.InternalError) and not error.next:
        error.next = ISSUES
    with contextlib.suppress(
        errors.SystemFault
    ):  # stdout: the message says what is wrong, or what was before
        if as_json:
            echo_json({"error": error.to_dict()})
        sys.stdout.flush()
    head = {
        "usage": "error: ",
        "refused": "refused: ",
        "system": "refused: ",
        "internal": "a defect of mnnprep: ",
    }.get(error.kind, "")
    click.echo(head + _message(error), err=True)
    return error.exit_code


def _message(error: errors.MnnprepError) -> str:
    """Return the error as a person sees it.

    Text that a file brought in can neither steer the terminal nor pass for a line of ours.
    """
    from mnnprep.safety.printable import plain

    what, seen, next_ = (plain(part).replace("\n", "\n    ") for part in (error.what, error.seen, error.next))
    return str(errors.MnnprepError(what, seen=seen, next=next_))


def say(text: object) -> None:
    """Tell a person on stderr how it goes, in one line."""
    from mnnprep.safety.printable import one_line

    click.echo(one_line(text), err=True)


def echo_json(document: Any) -> None:
    """Print the one document of a ``--json`` run, in UTF-8 where stdout is, else in ASCII."""
    from mnnprep.safety.printable import json_text

    click.echo(
        json_text(document, ascii_only=(sys.stdout.encoding or "utf-8").lower().replace("-", "") != "utf8")
    )
