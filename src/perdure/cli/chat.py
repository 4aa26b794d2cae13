"""`perdure chat`: a conversation with the model."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.options import At, Device, Folder, open_workspace
from perdure.cli.output import print_message, print_text, short, warn
from perdure.cli.predict import Compare, RouteOption, Seed, System, Temperature
from perdure.cli.progress import progress
from perdure.cli.stdin import at_terminal, read_line, refuse_no_text
from perdure.core.errors import BadInput, PerdureError
from perdure.core.words import counted, some
from perdure.workflows.signals import TERMINATED

if TYPE_CHECKING:
    from perdure.core.rows import Message
    from perdure.ledger import Entry
    from perdure.workflows.predict.request import Request
    from perdure.workflows.session import Session

HELP = """/system TEXT  set the system turn; without TEXT, remove it
/reset        forget the conversation
/at REF       go on with the model of another entry; the conversation stays
/save FILE    append the conversation to a .jsonl file, as a row that 'perdure learn' takes
/help         show this
/quit         end; so does Ctrl-D. Ctrl-C stops an answer.
A line that begins with // is sent with one /."""


@dataclass
class Speaker:
    """One state of the model, and its side of the conversation.

    Args:
        at: Ref or entry.
        entry: The entry.
        turns: The turns so far, without the system turn.
        task: The task whose adapter gave the last answer; None for what all tasks share.
    """

    at: str
    entry: "Entry"
    turns: "tuple[Message, ...]" = ()
    task: str | None = None

    def show_task(self, task: str | None, session: "Session") -> None:
        """Say which task's adapter answered, where it is another than before."""
        if task != self.task:
            print_message(f"({f'task {session.ledger.shown_name(task)}' if task else 'no task'} answers)")
        self.task = task


def chat(
    at: At = "head",
    compare: Compare = None,
    system: System = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 512,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    route: RouteOption = "single",
    folder: Folder = None,
    device: Device = None,
) -> None:
    """Talk with the model: a line is a user turn, the answer appears as it is generated. /help lists the commands.

    A conversation that the model has no room for loses its oldest turns, with a notice.
    With --compare, two states answer each line, each in a conversation of its own.
    Without a terminal, lines are read from stdin, and answers are written to stdout. A line that is wrong is reported, the chat
    goes on with the next one, and exits with 1 at the end.

    Example: perdure chat --compare base
    """
    from perdure.workflows.predict.request import Request

    refuse_no_text(system or "")
    session = open_workspace(folder, device).session
    request = Request(system=system, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, route=route)
    request.check()
    speakers = [Speaker(ref, session.ledger.resolve(ref)) for ref in (at, compare) if ref is not None]
    with progress("loading the model"):
        session.load(speakers[0].entry)
    if not session.tokenizer.chat_template:
        raise BadInput(
            "this model's tokenizer has no chat template, so there is no conversation with it; 'perdure predict TEXT' continues "
            "a text, or make a workspace for a model made for chat"
        )
    for speaker in speakers:
        print_message(
            f"{speaker.at} {short(speaker.entry.id)} answers in the chat template{_adapters(session, speaker.entry, route)}"
        )
    if at_terminal():
        print_message("/help lists the commands, Ctrl-D ends")
    Talk(session, request, speakers).run()


def _adapters(session: "Session", entry: "Entry", route: str) -> str:
    """Say which adapters answer, where tasks have some of their own."""
    from perdure.workflows.predict.request import isolated_tasks
    from perdure.workflows.routing import routes

    own = [session.ledger.shown_name(name) for name in isolated_tasks(session.ledger, entry)]
    if not own:
        return ""
    if route != "none" and routes(session.ledger, entry):
        return f", through the adapter of the task that the conversation is about ({some(own)})"
    return f", without the adapters that {some(own)} have of their own"


class Talk:
    """The conversation in a terminal, or over pipes.

    Args:
        session: The session.
        request: Settings of generation.
        speakers: The state that answers, and the one that it is compared with, if any.
    """

    def __init__(self, session: "Session", request: "Request", speakers: list[Speaker]):
        self.session, self.request, self.speakers = session, request, speakers
        self.patient = at_terminal()  # a user can try again: Ctrl-C ends the answer, not the chat
        self.wrong = 0  # lines that could not be carried out
        self.commands: dict[str, Callable[[str], None]] = {
            "/system": self._system,
            "/reset": self._reset,
            "/at": self._at,
            "/save": self._save,
            "/help": lambda _: print_message(HELP),
        }

    def run(self) -> None:
        """Read lines until there are no more, or one is /quit."""
        while True:
            line = None
            try:
                line = read_line("> ")
                if line is None or line.strip() == "/quit":
                    break
                self._take(line)
            except KeyboardInterrupt as stopped:
                if not self.patient or stopped.args == TERMINATED:
                    raise
                print_message("\n(stopped; Ctrl-D ends the chat)")
            except PerdureError as error:
                if line is None and not self.patient:  # stdin is no text, so there is no next line
                    raise
                self.wrong += 1
                print_message(f"error: {error}", fg=typer.colors.RED)
        if self.wrong and not self.patient:
            print_message(f"{counted(self.wrong, 'line')} could not be carried out")
            raise typer.Exit(PerdureError.exit_code)

    def _take(self, line: str) -> None:
        refuse_no_text(line)
        word, _, rest = line.strip().partition(" ")
        if word in self.commands:
            self.commands[word](rest.strip())
        elif word.startswith("//"):
            self._answer(line.strip()[1:])
        elif word.startswith("/"):
            raise BadInput(f"{word} is no command; /help lists them, and a line that begins with // is sent with one /")
        elif word:
            self._answer(line.strip())

    def _answer(self, text: str) -> None:
        """Print what each state answers; a conversation whose answer was stopped is as it was before."""
        from perdure.core.rows import Message
        from perdure.workflows.predict.predict import predict
        from perdure.workflows.predict.prompt import Prompt

        conversations = []
        for speaker in self.speakers:
            if len(self.speakers) > 1:
                print_text(f"{speaker.at} {short(speaker.entry.id)}:", bold=True)
            turns = (*speaker.turns, Message("user", text))
            prompt = Prompt(turns=turns, source="the conversation")
            prediction = predict(
                self.session,
                [prompt],
                self.request,
                speaker.entry.id,
                on_text=lambda _, piece: print_text(piece, nl=False, reset=False),
            )
            (answer,) = prediction.answers
            print_text("")
            if answer.routed is not None:
                speaker.show_task(answer.routed.task, self.session)
            for notice in prediction.notices:
                warn(notice)
            if not answer.answer:
                warn("the answer is empty; the conversation goes on after it, and /save leaves both turns out")
            if answer.stopped == "length":
                warn(f"the answer was cut after {answer.tokens} tokens; --max-new-tokens allows more")
            conversations.append((*turns, Message("assistant", answer.answer)))
        for speaker, turns in zip(self.speakers, conversations, strict=True):
            speaker.turns = turns

    def _system(self, text: str) -> None:
        self.request = replace(self.request, system=text or None)
        print_message("system turn set" if text else "system turn removed")

    def _reset(self, _: str) -> None:
        for speaker in self.speakers:
            speaker.turns = ()
        print_message("conversation forgotten")

    def _at(self, ref: str) -> None:
        if not ref:
            raise BadInput("/at needs the name of an entry, as in '/at head~1'")
        entry = self.session.ledger.resolve(ref)
        self.speakers[0].at, self.speakers[0].entry = ref, entry
        print_message(f"answers are by {ref} {short(entry.id)} from here on")

    def _save(self, file: str) -> None:
        from perdure.core.rows import Message
        from perdure.workflows.predict.save import save_conversation

        if not file:
            raise BadInput("/save needs the name of a file, as in '/save chats.jsonl'")
        first = (Message("system", self.request.system),) if self.request.system else ()
        said = self.speakers[0].turns
        pairs = [pair for pair in zip(said[::2], said[1::2], strict=True) if pair[1].content]
        save_conversation(Path(file), (*first, *(turn for pair in pairs for turn in pair)), [self.session.ledger.root])
        print_message(f"conversation appended to {file}")
