"""What `perdure trace` shows on a terminal."""

from collections.abc import Sequence

from perdure.cli.output import NOTHING, counted, table, warn
from perdure.core.estimates import Estimate
from perdure.ledger.records import (
    EditMeasures,
    HarmonicMean,
    Strongest,
    Sweep,
    SweptLayer,
    TracedAverage,
    TracedPrompt,
    measures_of,
)


def screen(result: TracedPrompt | TracedAverage | Sweep) -> str:
    """Return a trace, an average or a sweep as text."""
    if isinstance(result, TracedPrompt):
        return _prompt(result)
    return _average(result) if isinstance(result, TracedAverage) else _sweep(result)


def _prompt(trace: TracedPrompt) -> str:
    """Return the answer, what noise does to it, and where restoring brings it back: over all tokens, and by role."""
    if trace.corrupted >= trace.clean:
        warn(
            "noise on the subject does not make the answer less likely, so that nothing can bring it back; try more --noise"
        )
    noise = f"{trace.noise:g} standard deviations, {counted(trace.samples, 'sample')}"
    head = [
        f"{trace.prompt!r} goes on with {trace.answer!r}",
        f"its chance is {trace.clean:.1%}, with noise on {trace.subject!r} {trace.corrupted:.1%} ({noise})",
    ]
    rows = [
        [kind, part.window, *_place(part.strongest), *_place(part.strongest_subject)]
        for kind, part in trace.kinds.items()
    ]
    heads = ["restored", "layers", "strongest at", "layer", "chance", "within the subject", "layer", "chance"]
    roles = next(iter(trace.kinds.values())).by_role
    lines = [[role, *(_peak(part.by_role[role]) for part in trace.kinds.values())] for role in roles]
    tables = [
        table(heads, rows, right=(1, 3, 4, 6, 7)),
        f"{_by_role(trace)}\n{table(['token', *trace.kinds], lines)}",
    ]
    return "\n\n".join(["\n".join(head), *tables])


def _average(average: TracedAverage) -> str:
    """Return how many facts were traced, the total effect, and the peak of each role."""
    left = len(average.left_out)
    head = [f"{average.n} of {counted(average.facts, 'fact')} traced"]
    head[0] += f"; of {left} the model does not say the ground truth" if left else ""
    total = average.total_effect
    head.append(
        f"mean chance of the answer {average.clean.value:.1%}, with noise {average.corrupted.value:.1%}: "
        f"total effect {100 * total.value:+.1f} points {_span(total.low, total.high)}"
    )
    lines = []
    for number, role in enumerate(average.roles):
        parts = average.kinds.values()
        peaks = [_peak(part.mean[number], part.low[number], part.high[number]) for part in parts]
        lines.append([role, next(iter(parts)).n[number], *peaks])
    below = table(["token", "n", *average.kinds], lines, right=(1,))
    return "\n\n".join(["\n".join(head), f"{_by_role(average)}\n{below}"])


def _sweep(result: Sweep) -> str:
    """Return what single edits are worth by layer, and the best one, if one can be named."""
    names = list(measures_of(result.before))
    rows = [["unedited", *_shares(result.before), NOTHING]]
    rows += [[str(line.layer), *_shares(line), _share(line.score)] for line in result.layers]
    if result.best is None:
        none = "no layer can be named: in each of them a measure is 0, and so is the harmonic mean; try other --layers"
        return "\n\n".join([table(["layer", *names, "score"], rows), none])
    scores = {line.layer: line.score for line in result.layers}
    best = scores[result.best]
    rivals = [str(layer) for layer, score in scores.items() if layer != result.best and score.high >= best.low]
    best_is = f"best layer by harmonic mean: {result.best}"
    best_is += f"; {counted(result.facts, 'fact')} cannot separate it from {', '.join(rivals)}" if rivals else ""
    return "\n\n".join([table(["layer", *names, "score"], rows), best_is])


def _by_role(result: TracedPrompt | TracedAverage) -> str:
    """Return how the table below it is to be read."""
    windows = {part.window for kind, part in result.kinds.items() if kind != "block"}
    more = f"; mlp and attention in windows of {counted(max(windows), 'layer')}" if windows else ""
    return f"What restoring brings back at best, in points, by the role of the token (in layer){more}:"


def _place(strongest: Strongest) -> list[str]:
    return [repr(strongest.token), str(strongest.layer), f"{strongest.restored:.1%}"]


def _peak(
    effects: Sequence[float | None] | None, low: Sequence[float | None] = (), high: Sequence[float | None] = ()
) -> str:
    """Return the largest effect over layers with its interval and layer; a role that no prompt has has none."""
    known = [(effect, layer) for layer, effect in enumerate(effects or ()) if effect is not None]
    if not known:
        return NOTHING
    effect, layer = max(known)
    span = f" {_span(low[layer], high[layer])}".rstrip() if low else ""
    return f"{100 * effect:+.1f}{span} ({layer})"


def _shares(measures: EditMeasures | SweptLayer) -> list[str]:
    return [_share(measure) for measure in measures_of(measures).values()]


def _share(measure: Estimate | HarmonicMean) -> str:
    return f"{measure.value:.1%} {_span(measure.low, measure.high)}"


def _span(low: float | None, high: float | None) -> str:
    """Return an interval in points: "[84.6, 89.4]"; empty where there is none."""
    return "" if low is None or high is None else f"[{100 * low:.1f}, {100 * high:.1f}]"
