"""Options that several commands share, and the workspace they name."""

import os
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from perdure.cli.names import devices, entry_names
from perdure.cli.output import warn
from perdure.core.device import ANY, check_name
from perdure.core.errors import BadInput

if TYPE_CHECKING:
    from perdure.ledger import Ledger
    from perdure.workflows.guards.attach import Mode
    from perdure.workflows.rescore import Rows
    from perdure.workspace.facade import Workspace

OPENED: "ContextVar[tuple[Ledger, ...]]" = ContextVar("ledgers that the command opened", default=())
NAMES = ("-w", "--workspace")
RUN_CODE = "--run-code"
REPAIR = "--repair"
MAY_STAND_ALONE = {RUN_CODE: "isolated", REPAIR: "scale"}  # options whose value may be left out, and what it is then
DEVICE = "perdure.device"  # what was given before a command's name, in `ctx.meta`


class WarningCommand(TyperCommand):
    """A command that warns of an option given twice that takes one value. The last value counts, as everywhere."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, and name options that stand twice."""
        args = with_value(args)
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        single = [p for p in order if p.param_type_name == "option" and not (p.multiple or p.is_flag or p.count)]  # type: ignore[attr-defined]
        for param in dict.fromkeys(p for p in single if single.count(p) > 1):
            warn(f"{param.opts[-1]} is given {single.count(param)} times; the last one counts")
        return super().parse_args(ctx, args)


def with_value(args: list[str]) -> list[str]:
    """Return arguments in which an option whose value may be left out has it, so that it takes no other argument for it."""
    end = args.index("--") if "--" in args else len(args)
    return [
        f"{arg}={MAY_STAND_ALONE[arg]}" if n < end and arg in MAY_STAND_ALONE else arg for n, arg in enumerate(args)
    ]


class App(typer.Typer):
    """A group of commands, each a `WarningCommand`."""

    def command(self, name: str | None = None, *, cls: Any = WarningCommand, **more: Any) -> Any:
        """Register a command."""
        return super().command(name, cls=cls, **more)


def _remember(ctx: typer.Context, value: Path | None) -> Path | None:
    """Store the value given before a command's name, for the command to read."""
    if value is not None:
        ctx.obj = value
    return value


def _chosen(ctx: typer.Context, value: Path | None) -> Path:
    """Return what was given after the command's name, else before it, else in the environment, else here."""
    if value and ctx.obj and value.resolve() != ctx.obj.resolve():
        raise typer.BadParameter(f"{ctx.obj} before the command's name and {value} after it; give one of them")
    return value or ctx.obj or Path(os.environ.get("PERDURE_WORKSPACE") or ".")


def _remember_device(ctx: typer.Context, value: str | None) -> str | None:
    """Store the value given before a command's name, for the command to read."""
    if value is not None:
        ctx.meta[DEVICE] = _device_name(value)
    return value


def _chosen_device(ctx: typer.Context, value: str | None) -> str:
    """Return what was given after the command's name, else before it, else in the environment, else auto."""
    above = ctx.meta.get(DEVICE)
    if value and above and value != above:
        raise typer.BadParameter(f"{above} before the command's name and {value} after it; give one of them")
    return _device_name(value or above or os.environ.get("PERDURE_DEVICE") or ANY)


def _device_name(value: str) -> str:
    try:
        return check_name(value)
    except BadInput as error:
        raise typer.BadParameter(str(error)) from None


def _how_to_run(value: str) -> str:
    if value not in ("no", "isolated", "unsafe"):
        raise typer.BadParameter(f"{value!r} is no way to run programs; write {RUN_CODE}, or {RUN_CODE}=unsafe")
    return value


Above = Annotated[
    Path | None,
    typer.Option(*NAMES, callback=_remember, metavar="DIR", help="Workspace; else PERDURE_WORKSPACE, else here."),
]
Folder = Annotated[
    Path | None, typer.Option(*NAMES, callback=_chosen, metavar="DIR", show_default=False, help="Workspace to work in.")
]
DeviceAbove = Annotated[
    str | None,
    typer.Option(
        "--device",
        callback=_remember_device,
        metavar="NAME",
        autocompletion=devices,
        help="Where the model is loaded; else PERDURE_DEVICE, else auto. Commands that load no model ignore it.",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        callback=_chosen_device,
        metavar="NAME",
        autocompletion=devices,
        show_default="auto",
        help="Where the model is loaded: auto, cpu, cuda, cuda:N or mps.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there, whatever it is.")]
Message = Annotated[
    str | None,
    typer.Option("-m", "--message", metavar="TEXT", help="Why, for 'log', 'show' and the report; it changes no id."),
]
TrustFile = Annotated[
    list[Path] | None,
    typer.Option("--trust-file", metavar="FILE", help="Python file whose code may run as a scorer; repeatable."),
]
RunsCode = Annotated[
    str,
    typer.Option(
        RUN_CODE,
        metavar="[=unsafe]",
        callback=_how_to_run,
        show_default=False,
        help="Run programs that the model writes, without network and files; '=unsafe' limits them alone.",
    ),
]
Quick = Annotated[bool, typer.Option("--quick", help="Score a sample of each task: 100 of its test rows.")]
NoScore = Annotated[bool, typer.Option("--no-score", help="Do not score the tasks afterwards.")]
Guards = Annotated[
    Literal["warn", "enforce", "none"] | None,
    typer.Option(
        "--guards",
        show_default="of the workspace",
        help="What a guard that falls does: warn, enforce (exit with 3), or none (no guard is scored).",
    ),
]
NoGuards = Annotated[bool, typer.Option("--no-guards", help="Score no guard, as --guards none.")]
At = Annotated[
    str,
    typer.Option(
        "--at",
        metavar="REF",
        autocompletion=entry_names,
        help="Entry: head, base, its id or the first digits of it, or REF~N, which is N entries before REF.",
    ),
]


def guard_mode(guards: "Mode | None", no_guards: bool) -> "Mode | None":
    """Return what `--guards` and `--no-guards` say of guards; None where both are left out."""
    if no_guards and guards not in (None, "none"):
        raise typer.BadParameter(f"--no-guards scores no guard, --guards {guards} does; give one of them")
    return "none" if no_guards else guards


def rows_to_score(quick: bool, no_score: bool) -> "Rows":
    """Return which test rows `--quick` and `--no-score` let a command score."""
    if quick and no_score:
        raise typer.BadParameter("--quick scores a sample, --no-score nothing; give one of them")
    return "quick" if quick else "none" if no_score else "all"


def open_ledger(folder: Path | None) -> "Ledger":
    """Open the ledger of a workspace alone, without torch."""
    from perdure.ledger import Ledger

    return _opened(Ledger.open(folder or Path()))


def open_workspace(folder: Path | None, device: str | None = None, run_code: str = "no") -> "Workspace":
    """Open a workspace; `device` is for commands that load its model, `run_code` for those that score with it."""
    from perdure.workspace.facade import Workspace

    ws = Workspace.open(folder or Path(), device or ANY)
    ws.session.run_code = run_code  # type: ignore[assignment]  # checked by the option
    _opened(ws.ledger)
    return ws


def damage() -> str | None:
    """Return the damage of a ledger that the command opened; None without damage."""
    checks = ((ledger, ledger.damage()) for ledger in OPENED.get())
    return next((f"{ledger.path} is damaged: {problem}" for ledger, problem in checks if problem), None)


def _opened(ledger: "Ledger") -> "Ledger":
    """Record a ledger that was opened, so that `damage` can check it after an error."""
    OPENED.set((*OPENED.get(), ledger))
    return ledger
