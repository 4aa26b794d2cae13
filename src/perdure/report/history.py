"""The ledger: entries as a tree that keeps what was rolled back, then as a table, then every move of head."""

from perdure.ledger.records import Move
from perdure.report.fold import folded, is_long, newest
from perdure.report.gates import badge
from perdure.report.markup import Html, el, join, scrolling
from perdure.report.records import ReportData, ReportEntry, lineage
from perdure.report.words import NOTHING, clip, count, percent, short, title_of, when

LANE, TOP = 74, 46
NODES = 24  # newest entries that the tree of a long report draws
ROWS = 4  # entries of a long report that are not folded


def history(data: ReportData) -> Html:
    """Return tree, table of entries (newest first) and reflog (newest first)."""
    return join(
        _tree(data),
        el("h3", "Entries"),
        _entries(data),
        el("h3", "Where head has been"),
        _reflog(data),
        _references(data),
    )


def lanes(data: ReportData) -> dict[str, int]:
    """Return each entry's row in the tree: 0 for head and its ancestors, one more for each branch that was left."""
    main = set(lineage(data, data.head))
    rows: dict[str, int] = {}
    carried: set[str] = set()  # parents whose side branch already goes on in their own row
    for entry in data.entries:
        name, parent = entry.entry, entry.parent
        if name in main:
            rows[name] = 0
        elif parent and rows.get(parent, 0) and parent not in carried:
            rows[name] = rows[parent]
            carried.add(parent)
        else:
            rows[name] = max(rows.values(), default=0) + 1
    return rows


def backwards(data: ReportData, move: Move) -> int:
    """Return how many entries a move of head went back; 0 if it did not go to an ancestor."""
    line = lineage(data, move.old)
    return line.index(move.new) if move.new in line else 0


def _tree(data: ReportData) -> Html:
    entries = data.entries[-NODES:] if is_long(data) else data.entries
    every = lanes(data)
    used = sorted({every[e.entry] for e in entries})
    rows = {e.entry: used.index(every[e.entry]) for e in entries}  # no empty row between branches
    step = max(112, min(150, 1000 // max(1, len(rows) - 1)))
    place = {e.entry: (56 + step * i, TOP + LANE * rows[e.entry]) for i, e in enumerate(entries)}
    width, height = step * (len(place) - 1) + 112, TOP + LANE * max(rows.values()) + 50
    links = [_link(place[e.parent], place[e.entry], every[e.entry]) for e in entries if e.parent and e.parent in place]
    drawn = [move for move in data.reflog if move.old in place and move.new in place and backwards(data, move)]
    backs = [_back(place[move.old], place[move.new]) for move in drawn if move.old]
    nodes = [_node(data, e, place[e.entry], every[e.entry]) for e in entries]
    picture = el(
        "svg",
        links,
        backs,
        nodes,
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        aria_label="Entries from the base model to head, and branches that were left",
    )
    tree = el("div", picture, class_="scroll tree", tabindex=0, role="region", aria_label="Tree of entries")
    left = len(data.entries) - len(entries)
    return join(
        tree, el("p", f"The newest {len(entries)} entries; {count(left)} came before.", class_="how") if left else None
    )


def _link(start: tuple[int, int], end: tuple[int, int], lane: int) -> Html:
    (x1, y1), (x2, y2) = start, end
    bend = f"M{x1} {y1}C{x1 + 50} {y1} {x1 + 30} {y2} {min(x2, x1 + 80)} {y2}L{x2} {y2}"
    return el("path", d=bend, class_="edge left" if lane else "edge")


def _back(start: tuple[int, int], end: tuple[int, int]) -> Html:
    (x1, y1), (x2, y2) = start, end
    arc = f"M{x1} {y1 - 9}C{x1} {y2 - 40} {x2 + 4} {y2 - 44} {x2 + 2} {y2 - 11}"
    tip = f"M{x2 - 2.5} {y2 - 18}L{x2 + 1.5} {y2 - 10}L{x2 + 8} {y2 - 16}"
    return el("g", el("title", "head was rolled back"), el("path", d=arc), el("path", d=tip), class_="back")


def _node(data: ReportData, entry: ReportEntry, at: tuple[int, int], lane: int) -> Html:
    x, y = at
    head = entry.entry == data.head
    title = f"{entry.kind} {entry.task or ''} {short(entry.entry)}, {when(entry.time)}"
    name = clip(title_of(entry), 15)
    return el(
        "g",
        el("title", title),
        el("circle", cx=x, cy=y, r=10, class_="halo") if head else None,
        el("circle", cx=x, cy=y, r=6.5),
        el("text", name, x=x, y=y + 25, text_anchor="middle", class_="name"),
        el("text", short(entry.entry) + (", head" if head else ""), x=x, y=y + 40, text_anchor="middle"),
        class_="node left" if lane else "node",
    )


def _entries(data: ReportData) -> Html:
    in_head = set(lineage(data, data.head))
    heads = ["Entry", "Kind", "What", "When", "Gate", "Own score", "Memory", "Parent"]
    shown, rest = newest(data.entries, ROWS if is_long(data) else len(data.entries))
    head = el(
        "tr", [el("th", text, scope="col", class_="num" if text in ("Own score", "Memory") else None) for text in heads]
    )

    def table(entries: list[ReportEntry], label: str) -> Html:
        rows = [_entry(data, entry, entry.entry in in_head) for entry in reversed(entries)]
        return scrolling(el("table", el("thead", head), el("tbody", rows), class_="plain entries"), label)

    tables = table(shown, "Entries of the ledger")
    return join(tables, folded(f"{count(len(rest))} earlier", table(rest, "Earlier entries")) if rest else None)


def _entry(data: ReportData, entry: ReportEntry, in_head: bool) -> Html:
    gate, memory = entry.gate, entry.memory
    own = entry.scores.get(entry.task or "")
    refs = [el("span", name, class_="ref head" if name == "head" else "ref") for name in entry.refs]
    if data.head == entry.entry and "head" not in entry.refs:
        refs.insert(0, el("span", "head", class_="ref head"))
    rows_of_tasks = ", ".join(f"{task} {count(n)}" for task, n in memory.tasks.items())
    return el(
        "tr",
        el(
            "th",
            el("code", short(entry.entry), title=entry.entry),
            refs,
            None if in_head else el("span", "not in head", class_="ref off"),
            scope="row",
        ),
        el("td", entry.kind),
        el("td", entry.task or (entry.edits.about if entry.edits else None) or NOTHING, _signed(entry)),
        el("td", el("time", when(entry.time), datetime=entry.time), class_="nowrap"),
        el("td", badge(gate.verdict) if gate else NOTHING),
        el("td", percent(own.score if own else None), class_="num"),
        el("td", count(memory.rows, "row"), class_="num nowrap", title=rows_of_tasks or None),
        el("td", el("code", short(entry.parent)) if entry.parent else NOTHING),
        class_=None if in_head else "off",
    )


def _signed(entry: ReportEntry) -> Html | None:
    """Return who made an entry and why, in small letters; None where neither is known."""
    by, message = entry.signature.author, entry.signature.message
    texts = [clip(" ".join(message.split()), 80)] if message else []
    return el("div", el("small", ", ".join([*texts, *([by] if by else [])]), title=message)) if texts or by else None


def _reflog(data: ReportData) -> Html:
    if not data.reflog:
        return el("p", "Head has not moved since the workspace was made.", class_="empty")
    moves = el("ol", [_move(data, move) for move in reversed(data.reflog)], class_="reflog")
    return folded(count(len(data.reflog), "move"), moves) if is_long(data) else moves


def _references(data: ReportData) -> Html | None:
    """Return the moves of the references of guards, where there are any."""
    if not data.references:
        return None
    moves = el("ol", [_move(data, move) for move in reversed(data.references)], class_="reflog")
    return join(el("h3", "What guards are compared with"), moves)


def _move(data: ReportData, move: Move) -> Html:
    steps = backwards(data, move)
    arrow = join(el("code", short(move.old)), " to ", el("code", short(move.new)))
    note = el("span", f"back by {count(steps)}", class_="ref back") if steps else None
    return el(
        "li",
        el("time", when(move.time), datetime=move.time),
        el("span", arrow),
        el("span", move.why, note),
        class_="rolled" if steps else None,
    )
