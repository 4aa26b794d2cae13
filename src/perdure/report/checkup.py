"""The last checkup of head: each guard that it measured, the readings of drift, verdict, cost, and all of it as a file."""

import base64
import json
from collections.abc import Iterator
from dataclasses import fields

from perdure.report.markup import Html, el, join, scrolling
from perdure.report.records import ReportData
from perdure.report.words import count, percent, span
from perdure.workflows.checkup_records import Change, Checkup, GuardReading, Reading

FILE = "checkup.json"  # name of the file that a reader downloads
KL = "kl"  # the reading in nats


def checkup(data: ReportData) -> dict[str, Html]:
    """Return the section by its name: none where head has no checkup."""
    if data.checkup is None:
        return {}
    return {"checkup": join(_guards(data.checkup), _drift(data.checkup), _verdict(data.checkup), _cost(data.checkup))}


def _guards(found: Checkup) -> Html | None:
    if not found.guards:
        return None
    heads = ("ability", "guard", "reference", "now", "change", "n")
    order = sorted(found.guards.items(), key=lambda pair: (pair[1].blind, pair[1].ability, pair[0]))
    rows = [el("tr", _guard(name, one), class_="blind" if one.blind else None) for name, one in order]
    return _table(heads, rows, "Guards of the last checkup")


def _guard(name: str, one: GuardReading) -> Iterator[Html]:
    yield el("td", one.ability)
    yield el("td", name)
    yield el("td", "" if one.base is None else percent(one.base), class_="num")
    yield el("td", f"{percent(one.now)} ({span(one.low, one.high)})", class_="num")
    yield el("td", "blind" if one.blind else _change(one.change), class_="num")
    n = f"{one.n} in {one.groups} groups" if one.groups else str(one.n)
    yield el("td", f"{n}, selected" if one.selected else n, class_="num")


def _drift(found: Checkup) -> Html | None:
    drift = found.instruction_drift
    readings = {field.name: one for field in fields(drift) if (one := getattr(drift, field.name)) is not None}
    if not readings:
        return None
    rows = [el("tr", _reading(name, one)) for name, one in readings.items()]
    return _table(("drift", "now", "n"), rows, "Readings of drift of the last checkup")


def _reading(name: str, one: Reading) -> Iterator[Html]:
    unit = " nats a token" if name == KL else ""
    yield el("td", name)
    yield el("td", f"{one.now:.2f}{unit} ({one.low:.2f} to {one.high:.2f})", class_="num")
    yield el("td", one.n, class_="num")


def _verdict(found: Checkup) -> Html:
    verdict = found.gate
    return el("p", el("b", f"Gate, budget {found.budget}: {verdict.verdict}. "), verdict.reason, class_="how")


def _cost(found: Checkup) -> Html:
    """Return what the checkup cost, and a link to all of it, which is in the page itself."""
    cost, whole = found.cost, json.dumps(found.to_json(), indent=2, ensure_ascii=False).encode()
    more = ""
    if cost.next_budget:
        time = "" if cost.next_seconds is None else f" in about {cost.next_seconds:.0f} s more"
        more = f" The budget {cost.next_budget} measures more rows{time}."
    address = f"data:application/json;base64,{base64.b64encode(whole).decode()}"
    link = el("a", f"The whole checkup as {FILE}", href=address, download=FILE)
    return el(
        "p", f"{count(cost.items, 'item')}, {cost.seconds:.0f} s of scoring in the last run.{more} ", link, class_="how"
    )


def _change(change: Change | None) -> str:
    if change is None:
        return ""
    return f"{100 * change.mean:+.1f} ({100 * change.low:+.1f} to {100 * change.high:+.1f})"


def _table(heads: tuple[str, ...], rows: list[Html], label: str) -> Html:
    head = el("tr", [el("th", text) for text in heads])
    return scrolling(el("table", el("thead", head), el("tbody", rows), class_="plain"), label)
