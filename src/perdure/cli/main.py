"""`perdure`: the commands by name, and how errors become exit codes."""

import errno
import warnings
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from perdure.cli.bench import Lists, bench
from perdure.cli.candidate import accept, discard
from perdure.cli.chat import chat
from perdure.cli.checkup import checkup
from perdure.cli.demo import demo
from perdure.cli.diff import diff
from perdure.cli.edit import edit
from perdure.cli.edits import edits
from perdure.cli.eval import evaluate
from perdure.cli.export import export
from perdure.cli.gate import gate
from perdure.cli.guard import guard
from perdure.cli.help import help_command
from perdure.cli.init import init
from perdure.cli.learn import learn
from perdure.cli.log import log
from perdure.cli.matrix import matrix
from perdure.cli.memory import memory
from perdure.cli.merge import merge
from perdure.cli.methods import methods
from perdure.cli.options import Above, App, DeviceAbove, damage
from perdure.cli.output import print_message, print_text
from perdure.cli.predict import predict
from perdure.cli.recipe import recipe
from perdure.cli.report import report
from perdure.cli.revert import revert
from perdure.cli.rollback import rollback
from perdure.cli.show import show
from perdure.cli.status import status
from perdure.cli.store import gc, verify
from perdure.cli.task import task
from perdure.cli.trace import trace
from perdure.cli.workspace import relocate, workspace
from perdure.core.errors import Interrupted, PerdureError

PANELS: dict[str, dict[str, Callable[..., None]]] = {
    "Learn": {"init": init, "learn": learn, "edit": edit, "merge": merge, "accept": accept, "discard": discard},
    "Measure": {"eval": evaluate, "matrix": matrix, "gate": gate, "checkup": checkup},
    "Inspect and undo": {
        "status": status,
        "log": log,
        "show": show,
        "diff": diff,
        "rollback": rollback,
        "revert": revert,
    },
    "Use": {"demo": demo, "predict": predict, "chat": chat, "report": report, "export": export},
    "Recipes and methods": {"methods": methods, "help": help_command},
    "Maintain the workspace": {"verify": verify, "gc": gc, "relocate": relocate},
}


class Commands(TyperGroup):
    """The group of all commands; errors of perdure are printed without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command and turn its errors into exit codes."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print_message("stopped")
            raise typer.Exit(Interrupted.exit_code) from None
        except PerdureError as error:
            print_message(f"error: {error}", fg=typer.colors.RED)
            raise typer.Exit(error.exit_code) from None
        except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError):
            if (problem := damage()) is None:
                raise  # a bug in perdure
            print_message(
                f"error: {problem}; restore it from a backup ('perdure verify' lists all)", fg=typer.colors.RED
            )
            raise typer.Exit(PerdureError.exit_code) from None
        except OSError as error:
            if error.errno in (None, errno.EPIPE):  # no file is the cause: the reader of our output has gone
                raise
            print_message(f"error: cannot use {error.filename or 'a file'}: {error.strerror}", fg=typer.colors.RED)
            raise typer.Exit(PerdureError.exit_code) from None


warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft")  # not for our users
app = App(
    cls=Commands,
    name="perdure",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for panel, commands in PANELS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=panel)(command)
app.command("bench", cls=Lists, rich_help_panel="Measure")(bench)
app.command("trace", cls=Lists, rich_help_panel="Measure")(trace)
app.add_typer(guard, name="guard", rich_help_panel="Measure")
app.add_typer(task, name="task", rich_help_panel="Inspect and undo")
app.add_typer(edits, name="edits", rich_help_panel="Inspect and undo")
app.add_typer(recipe, name="recipe", rich_help_panel="Recipes and methods")
app.add_typer(memory, name="memory", rich_help_panel="Maintain the workspace")
app.add_typer(workspace, name="workspace", rich_help_panel="Maintain the workspace")


def _version(wanted: bool) -> None:
    if wanted:
        from perdure import __version__

        print_text(f"perdure {__version__}")
        raise typer.Exit


@app.callback()
def main(
    folder: Above = None,
    device: DeviceAbove = None,
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Continual fine-tuning for language models that keeps what it learned.

    'perdure help' lists pages on topics, and 'perdure COMMAND --help' has the options of a command.

    Example: perdure init support --model smollm2-135m
    """


def run() -> None:
    """Entry point for `python -m perdure.cli.main`."""
    from perdure.cli.start import run as start

    start()


if __name__ == "__main__":
    run()
