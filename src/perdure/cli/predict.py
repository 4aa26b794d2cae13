"""`perdure predict`: generate answers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from perdure.cli.names import entry_names, task_names
from perdure.cli.options import AsJson, At, Device, Folder, open_workspace
from perdure.cli.output import emit, print_message, print_text, short, warn
from perdure.cli.progress import progress
from perdure.cli.side_by_side import side_by_side
from perdure.cli.stdin import read_stdin, refuse_no_text
from perdure.core.errors import BadInput

if TYPE_CHECKING:
    from perdure.workflows.predict.predict import Answer
    from perdure.workflows.predict.prompt import Prompt

Compare = Annotated[
    str | None,
    typer.Option(
        "--compare",
        metavar="REF",
        autocompletion=entry_names,
        show_default=False,
        help="Second entry, which gets the same prompts.",
    ),
]
System = Annotated[str | None, typer.Option("--system", metavar="TEXT", help="System turn of the chat template.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 takes the most likely token; above it, tokens are drawn.")]
RouteOption = Annotated[
    Literal["single", "soft", "vote", "none"],
    typer.Option(
        "--route",
        help="Without a task, where tasks were learned with a router: the likeliest task answers, likely tasks answer "
        "together (soft averages, vote counts), or what all tasks share answers (none).",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of drawn tokens: the same seed gives the same answer.")]


def predict(
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="Prompt; - reads one prompt a line from stdin.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            show_default="none: the chat template",
            autocompletion=task_names,
            help="Task whose template and adapter are used.",
        ),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the text as it is, in no template.")] = False,
    system: System = None,
    messages: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Conversation, in the place of TEXT: JSON list of {role, content}; - is stdin."
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Prompts, in the place of TEXT: one a line, or a .jsonl with a prompt a row; - is stdin.",
        ),
    ] = None,
    at: At = "head",
    compare: Compare = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, show_default="as the task needs, else 256", help="Longest answer.")
    ] = None,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, show_default="64, or 1 with a temperature", help="Most prompts that are answered together."
        ),
    ] = None,
    route: RouteOption = "single",
    folder: Folder = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    r"""Print the model's answer to TEXT, a user turn in the model's chat template, or in the template of --task.

    Where tasks were learned with a router (recipe isolated), TEXT is sent to its task, and stderr names the task.
    A model without a chat template continues TEXT as it is.
    Several prompts (- or --file) get one line of output each. A line break in an answer is printed as \n. A blank line gives
    a blank line.

    Example: perdure predict "My wifi is slow upstairs" --task broadband --compare base
    """
    from perdure.workflows.predict.predict import predict as carry_out
    from perdure.workflows.predict.request import Request

    refuse_no_text((text or "") + (system or ""))
    prompts, notices = _prompts(text, messages, file)
    ws = open_workspace(folder, device)
    request = Request(task, system, raw, max_new_tokens, temperature, seed, batch_size, route)
    with progress("loading the model") as tick:
        prediction = carry_out(
            ws.session, prompts, request, at, compare=compare, tick=tick if len(prompts) > 1 else None
        )
    print_message(prediction.how)
    for notice in (*notices, *prediction.notices):
        warn(notice)
    several = text == "-" or file is not None
    if as_json:
        answers = [answer.to_json() for answer in prediction.answers]
        return emit(answers if several else answers[0])
    for answer in prediction.answers:
        _show(answer, f"{at} {short(answer.at)}", compare, several=several)


def _prompts(text: str | None, messages: str | None, file: Path | None) -> "tuple[list[Prompt], list[str]]":
    """Return the prompts, and notices about the file that they were read from.

    Raises:
        BadInput: There is no prompt.
    """
    from perdure.workflows.predict.prompt import (
        prompt_lines,
        prompt_of,
        read_messages,
        read_messages_file,
        read_prompts,
    )

    given = [name for name, value in (("TEXT", text), ("--messages", messages), ("--file", file)) if value is not None]
    if len(given) != 1:
        both = (
            f"{' and '.join(given)} are given; give one of them"
            if given
            else "give TEXT, --messages FILE or --file FILE"
        )
        raise typer.BadParameter(both)
    if file is not None and str(file) != "-":
        return read_prompts(file)
    if messages is not None:
        return [read_messages(read_stdin(), "stdin") if messages == "-" else read_messages_file(Path(messages))], []
    if "-" in (text, str(file)):
        lines = read_stdin()
        refuse_no_text(lines)
        return prompt_lines(lines, "stdin"), []
    if not (text or "").strip():
        raise BadInput("there is no prompt: the text is empty")
    return [prompt_of(text or "", "the text")], []


def _show(answer: "Answer", name: str, compare: str | None, *, several: bool) -> None:
    """Print an answer, or two answers side by side. Of several prompts each answer takes one line."""
    if answer.compared is not None:
        if several:
            print_text(f"> {answer.prompt if isinstance(answer.prompt, str) else '...'}")
        heads = name, f"{compare} {short(answer.compared.at)}"
        return print_text(side_by_side(heads, (answer.answer, answer.compared.answer)))
    print_text(answer.answer.replace("\n", "\\n") if several else answer.answer)
