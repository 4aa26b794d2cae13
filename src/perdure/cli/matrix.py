"""`perdure matrix`: stage x task, and what it amounts to."""

from perdure.cli.options import AsJson, At, Folder, open_ledger
from perdure.cli.output import emit, knows_nothing, print_message, print_text


def matrix(at: At = "head", folder: Folder = None, as_json: AsJson = False) -> None:
    """Print what each stage could do on each task, with accuracy, transfer and forgetting.

    Example: perdure matrix --at head~1
    """
    from perdure.evaluate.matrix import plain_text
    from perdure.workflows.inspect.matrix import matrix as read

    table = read(open_ledger(folder), at, parts=not as_json)
    if as_json:
        return emit(table.to_json())
    if not table.tasks:
        return print_message(knows_nothing(at))
    print_text(plain_text(table).rstrip())
