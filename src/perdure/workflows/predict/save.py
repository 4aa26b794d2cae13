"""Conversations as rows that can be learned."""

import json
from collections.abc import Sequence
from pathlib import Path

from perdure.core.errors import BadInput
from perdure.core.outputs import CONVERSATIONS, check_output, is_output
from perdure.core.rows import Message


def save_conversation(path: Path, turns: Sequence[Message], workspaces: Sequence[Path] = ()) -> None:
    """Append a conversation to a JSONL file, as a row that `perdure learn` takes.

    Args:
        path: The file; made if it is not there.
        turns: The conversation.
        workspaces: Folders of the workspaces in use, whose own files are never written.

    Raises:
        BadInput: The conversation has no answer, or the file is there and holds no conversations.
    """
    if not any(turn.role == "assistant" for turn in turns):
        raise BadInput("the conversation has no answer yet; there is nothing to save")
    check_output(path, CONVERSATIONS, force=True, workspaces=workspaces)
    if path.is_file() and path.stat().st_size and not is_output(path, CONVERSATIONS):
        raise BadInput(f"{path} is there and holds no conversations; name another file")
    if path.suffix.lower() != ".jsonl":
        raise BadInput(f"{path}: conversations are saved as JSONL; give a name that ends in .jsonl")
    line = json.dumps({"messages": [turn.fields for turn in turns]}, ensure_ascii=False)
    try:
        before = path.read_bytes()[-1:] if path.exists() else b""
        with path.open("a", encoding="utf-8") as file:
            file.write(("\n" if before not in (b"", b"\n") else "") + line + "\n")
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from error
