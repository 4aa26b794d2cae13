"""`perdure predict`: ask the model."""

from typing import Annotated

import typer

from perdure.cli.options import AsJson, At, Folder, open_workspace
from perdure.cli.output import emit, tell, warn
from perdure.cli.progress import progress
from perdure.cli.stdin import read_stdin, refuse_no_text
from perdure.core.errors import BadInput


def predict(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to ask; - reads one prompt a line from stdin.")],
    task: Annotated[
        str | None, typer.Option(show_default="the newest", help="Task whose prompt format and adapter are used.")
    ] = None,
    at: At = "head",
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer; else as the task needs.")] = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    r"""Print the model's answer to TEXT.

    With - the answers stand a line each, line breaks in them written as \n; a blank line is answered by an empty one.
    """
    from perdure.workflows.inspect.evaluate import newest_task
    from perdure.workflows.inspect.evaluate import predict as carry_out

    texts = read_stdin().removesuffix("\n").split("\n") if text == "-" else [text]
    refuse_no_text("".join(texts))
    asked = [line for line in texts if line.strip()]
    if not asked:
        raise BadInput("there is nothing to ask; give a text, or lines on stdin")
    ws = open_workspace(folder)
    task = task or newest_task(ws.ledger, ws.ledger.resolve(at))
    with progress("loading the model"):
        found = carry_out(ws.session, asked, task, at, max_new_tokens)
    given = iter(found.texts)
    answers = [next(given) if line.strip() else "" for line in texts]
    for notice in found.notices:
        warn(notice)
    if as_json:
        pairs = [{"prompt": t, "answer": a} for t, a in zip(texts, answers, strict=True)]
        return emit({"ref": at, "task": task, "answers": pairs})
    for answer in answers:
        tell(answer.replace("\n", "\\n") if text == "-" else answer)
