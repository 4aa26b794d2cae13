"""What `perdure trace` found, as text for a terminal."""

from collections.abc import Sequence
from typing import Any

from perdure.cli.output import NOTHING, counted, interval, table, warn
from perdure.workflows.edit.records import MEASURES

Json = dict[str, Any]


def what(found: Json) -> str:
    """Return what was found: "prompt", "average" or "sweep"."""
    return "prompt" if "tokens" in found else "sweep" if "best" in found else "average"


def told(found: Json) -> str:
    """Return what was found as text."""
    return {"prompt": _prompt_told, "average": _average_told, "sweep": _sweep_told}[what(found)](found)


def _prompt_told(found: Json) -> str:
    """Return the answer, what noise does to it, and where restoring brings it back: over all tokens, and by role."""
    if found["corrupted"] >= found["clean"]:
        warn(
            "noise on the subject does not make the answer less likely, so that nothing can bring it back; try more --noise"
        )
    noise = f"{found['noise']:g} standard deviations, {counted(found['samples'], 'sample')}"
    head = [
        f"{found['prompt']!r} goes on with {found['answer']!r}",
        f"its chance is {found['clean']:.1%}, with noise on {found['subject']!r} {found['corrupted']:.1%} ({noise})",
    ]
    rows = [
        [kind, part["window"], *_place(part["strongest"]), *_place(part["strongest_subject"])]
        for kind, part in found["kinds"].items()
    ]
    heads = ["restored", "layers", "strongest at", "layer", "chance", "within the subject", "layer", "chance"]
    roles = next(iter(found["kinds"].values()))["by_role"]
    lines = [[role, *(_peak(part["by_role"][role]) for part in found["kinds"].values())] for role in roles]
    tables = [
        table(heads, rows, right=(1, 3, 4, 6, 7)),
        f"{_by_role(found)}\n{table(['token', *found['kinds']], lines)}",
    ]
    return "\n\n".join(["\n".join(head), *tables])


def _average_told(found: Json) -> str:
    """Return how many facts were traced, the total effect, and the peak of each role."""
    left = len(found["left_out"])
    head = [f"{found['n']} of {counted(found['facts'], 'fact')} traced"]
    head[0] += f"; of {left} the model does not say the ground truth" if left else ""
    total = found["total_effect"]
    head.append(
        f"mean chance of the answer {found['clean']['value']:.1%}, with noise {found['corrupted']['value']:.1%}: "
        f"total effect {100 * total['value']:+.1f} points {_span(total)}"
    )
    lines = []
    for number, role in enumerate(found["roles"]):
        parts = found["kinds"].values()
        count = next(iter(parts))["n"][number]
        peaks = [_peak(part["mean"][number], part["low"][number], part["high"][number]) for part in parts]
        lines.append([role, count, *peaks])
    below = table(["token", "n", *found["kinds"]], lines, right=(1,))
    return "\n\n".join(["\n".join(head), f"{_by_role(found)}\n{below}"])


def _sweep_told(found: Json) -> str:
    """Return what single edits are worth by layer, and the best one, if one can be named."""
    names = [name for name in MEASURES if name in found["before"]]
    rows = [["unedited", *(_share(found["before"][name]) for name in names), NOTHING]]
    rows += [
        [line["layer"], *(_share(line[name]) for name in names), _share(line["score"])] for line in found["layers"]
    ]
    if found["best"] is None:
        none = "no layer can be named: in each of them a measure is 0, and so is the harmonic mean; try other --layers"
        return "\n\n".join([table(["layer", *names, "score"], rows), none])
    ends = {line["layer"]: line["score"] for line in found["layers"]}
    best = ends[found["best"]]
    rivals = [str(layer) for layer, score in ends.items() if layer != found["best"] and score["high"] >= best["low"]]
    best_is = f"best layer by harmonic mean: {found['best']}"
    best_is += f"; {counted(found['facts'], 'fact')} do not tell it from {', '.join(rivals)}" if rivals else ""
    return "\n\n".join([table(["layer", *names, "score"], rows), best_is])


def _by_role(found: Json) -> str:
    """Return how the table below it is to be read."""
    windows = {part["window"] for kind, part in found["kinds"].items() if kind != "block"}
    more = f"; mlp and attention in windows of {counted(max(windows), 'layer')}" if windows else ""
    return f"What restoring brings back at best, in points, by the role of the token (in layer){more}:"


def _place(strongest: Json) -> list[str]:
    return [repr(strongest["token"]), str(strongest["layer"]), f"{strongest['restored']:.1%}"]


def _peak(
    effects: Sequence[float | None] | None, low: Sequence[float | None] = (), high: Sequence[float | None] = ()
) -> str:
    """Return the largest effect over layers with its interval and layer; a role that no prompt has has none."""
    known = [(effect, layer) for layer, effect in enumerate(effects or ()) if effect is not None]
    if not known:
        return NOTHING
    effect, layer = max(known)
    span = f" {_span({'low': low[layer], 'high': high[layer]})}".rstrip() if low else ""
    return f"{100 * effect:+.1f}{span} ({layer})"


def _share(record: Json) -> str:
    return f"{record['value']:.1%} {interval(record)}"


def _span(record: Json) -> str:
    return interval(record) if record["low"] is not None else ""
