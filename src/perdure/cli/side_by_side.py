"""Two texts in two columns, as wide as the terminal."""

from perdure.core.plain_text import visible


def side_by_side(heads: tuple[str, str], texts: tuple[str, str]) -> str:
    """Return two texts under their heads, each wrapped to half of the terminal; wide characters count as two columns."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=SIMPLE_HEAD, expand=True, padding=(0, 1, 0, 0), show_edge=False)
    for head in heads:
        shown.add_column(Text(visible(head)), ratio=1, overflow="fold")
    shown.add_row(*(Text(visible(text)) for text in texts))
    console = Console(color_system=None, force_terminal=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(shown)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
