"""Causal tracing and layer sweeps as PNG files, in the field's standard forms; drawn from records, without a model.

Needs matplotlib, the extra `plots`. Drawing goes through its object interface, so that no global state is touched.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from perdure.core.errors import PerdureError
from perdure.ledger.records import Effects, SweepResult, TracedAverage, TracedPrompt, measures_of

DPI = 150
NARROW = 4.8  # inches that a title and the words below an axis need
TICKS = 16  # most numbers below an axis of edited layers
COLOURS = {"block": "Purples", "mlp": "Greens", "attention": "Reds"}
LINES = {"block": "purple", "mlp": "green", "attention": "firebrick"}
WORDS = {"block": "state", "mlp": "MLP", "attention": "attention"}
LAST_SUBJECT = "last subject"
Draw = Callable[[Any], None]  # fills a figure


def refuse_without_matplotlib() -> None:
    """Say what to install, before any work is done.

    Raises:
        PerdureError: matplotlib is not there.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise PerdureError(
            "pictures need matplotlib, which is not installed; run: pip install 'perdure[plots]', or use --json"
        ) from error


def draw_prompt(trace: TracedPrompt, folder: Path) -> list[Path]:
    """Write the heat map of each kind of a traced prompt, tokens x layers, as `<kind>.png`; return the files.

    Args:
        trace: The trace; `TracedPrompt.from_json` reads one from `trace.json`.
        folder: An existing folder.
    """
    tokens, layers = len(trace.tokens), len(next(iter(trace.kinds.values())).restored[0])
    size = (max(NARROW, 2.4 + 0.13 * layers), 1.3 + 0.22 * tokens)
    return [_save(folder / f"{kind}.png", size, lambda f, k=kind: _prompt(f, trace, k)) for kind in trace.kinds]  # type: ignore[misc]


def draw_average(average: TracedAverage, folder: Path) -> list[Path]:
    """Write the averages over facts by role: a heat map of each kind, and the curves of all with their intervals.

    Args:
        average: The average; `TracedAverage.from_json` reads one from `trace.json`.
        folder: An existing folder.
    """
    layers = len(next(iter(average.kinds.values())).mean[0])
    wide = max(NARROW, 3.2 + 0.13 * layers)
    files = [
        _save(folder / f"average-{kind}.png", (wide, 2.8), lambda f, k=kind: _average(f, average, k))  # type: ignore[misc]
        for kind in average.kinds
    ]
    curves = _save(folder / "average-curves.png", (0.6 + 4.2 * len(average.kinds), 4.4), lambda f: _curves(f, average))
    return [*files, curves]


def draw_sweep(sweep: SweepResult, folder: Path) -> list[Path]:
    """Write what single edits are worth by layer as `sweep.png`, next to the averages of the traces if there are any.

    Args:
        sweep: The sweep; `SweepResult.from_json` reads one from `sweep.json`.
        folder: An existing folder.
    """
    wide = 13.0 if sweep.tracing else 7.2
    files = [_save(folder / "sweep.png", (wide, 4.4), lambda f: _sweep(f, sweep))]
    return files + (draw_average(sweep.tracing, folder) if sweep.tracing else [])


def _save(path: Path, size: tuple[float, float], draw: Draw) -> Path:
    """Let `draw` fill a figure of `size` inches and write it as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    figure.savefig(path, format="png")
    return path


def _prompt(figure: Any, trace: TracedPrompt, kind: str) -> None:
    import numpy as np

    part, (first, stop) = trace.kinds[kind], trace.span
    restored = np.array(part.restored)
    axes = figure.subplots()
    top = max(float(restored.max()), trace.corrupted + 1e-9)  # nothing above the noise: one pale colour
    drawn = axes.pcolormesh(restored, cmap=COLOURS[kind], vmin=trace.corrupted, vmax=top)
    labels = [_seen(token) + ("*" if first <= n < stop else "") for n, token in enumerate(trace.tokens)]
    _grid(axes, labels, restored.shape[1])
    figure.suptitle("Restoring the state after noise" if kind == "block" else f"Restoring {WORDS[kind]} after noise")
    axes.set_xlabel(_restored(kind, part.window))
    bar = figure.colorbar(drawn, ax=axes)
    bar.set_label(f"p({_seen(trace.answer.strip())})", parse_math=False)


def _average(figure: Any, average: TracedAverage, kind: str) -> None:
    import numpy as np

    part = average.kinds[kind]
    mean = np.ma.masked_invalid(np.array(part.mean, dtype=float))
    axes = figure.subplots()
    axes.set_facecolor("0.92")  # a role that no prompt has
    drawn = axes.pcolormesh(mean, cmap=COLOURS[kind], vmin=0, vmax=max(float(mean.max()), 1e-9))
    _grid(axes, _roles(average, kind), mean.shape[1])
    figure.suptitle(f"Average indirect effect of {WORDS[kind]} (n = {average.n} facts)")
    axes.set_xlabel(_restored(kind, part.window))
    figure.colorbar(drawn, ax=axes).set_label("AIE")


def _curves(figure: Any, average: TracedAverage) -> None:
    every = figure.subplots(1, len(average.kinds), sharey=True, squeeze=False)[0]
    for axes, (kind, part) in zip(every, average.kinds.items(), strict=True):
        for role, label in enumerate(_roles(average, kind)):
            if part.n[role]:
                _line(axes, part.mean[role], part.low[role], part.high[role], label, f"C{role}")
        axes.axhline(0, color="0.6", linewidth=0.8)
        axes.set_title(f"{WORDS[kind]}, n = {average.n} facts, 95% intervals")
        axes.set_xlabel(_restored(kind, part.window))
        axes.legend(fontsize=7)
    every[0].set_ylabel("average indirect effect on p(answer)")


def _sweep(figure: Any, sweep: SweepResult) -> None:
    every = figure.subplots(1, 2 if sweep.tracing else 1, squeeze=False)[0]
    axes, layers = every[0], [line.layer for line in sweep.layers]
    before, swept = measures_of(sweep.before), [measures_of(line) for line in sweep.layers]
    for number, name in enumerate(before):
        lines = [measures[name] for measures in swept]
        values = [line.value for line in lines]
        ends = [[line.value - line.low for line in lines], [line.high - line.value for line in lines]]
        at = [layer + 0.12 * (number - len(before) / 2) for layer in layers]  # shifted, so that no bar hides another
        style = {"color": f"C{number}", "marker": "o", "markersize": 4, "linewidth": 1.2, "capsize": 2}
        axes.errorbar(at, values, ends, label=f"{name} (n = {lines[0].n})", **style)
    if unedited := sweep.before.neighbourhood:
        colour = f"C{list(before).index('neighbourhood')}"
        axes.axhline(unedited.value, color=colour, linestyle=":", label="neighbourhood before")
    if sweep.best is not None:
        axes.axvline(sweep.best, color="0.6", linewidth=0.8, label=f"best by harmonic mean: {sweep.best}")
    axes.set(
        xlabel="edited layer",
        ylabel="share, 95% intervals",
        ylim=(-0.03, 1.03),
        xticks=layers[:: -(-len(layers) // TICKS)],
    )
    axes.set_title(f"Single edits by layer ({sweep.facts} facts)")
    axes.legend(fontsize=7)
    if sweep.tracing:
        _draw_traces(every[1], sweep.tracing)
        axes.set_xlim(every[1].get_xlim())


def _draw_traces(axes: Any, traced: TracedAverage) -> None:
    """Draw the averages at the subject's last token. They show where a fact is read, not where to edit it."""
    role = traced.roles.index(LAST_SUBJECT)
    for kind, part in traced.kinds.items():
        if part.n[role]:
            _line(axes, part.mean[role], part.low[role], part.high[role], WORDS[kind], LINES[kind])
    axes.set_title(f"Tracing at the last subject token (n = {traced.n} facts)")
    axes.set(xlabel="restored layer", ylabel="average indirect effect, 95% intervals")
    axes.legend(fontsize=7)


def _line(axes: Any, mean: Effects, low: Effects, high: Effects, label: str, colour: str) -> None:
    at = range(len(mean))
    axes.plot(at, mean, color=colour, label=label, marker="o", markersize=3, linewidth=1.2)
    if None not in low:
        axes.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)


def _grid(axes: Any, labels: Sequence[str], layers: int) -> None:
    """Name the rows, the first on top, and the layers, every fifth where there are many."""
    axes.invert_yaxis()
    axes.set_yticks([0.5 + n for n in range(len(labels))])
    axes.set_yticklabels(labels, fontsize=8, parse_math=False)
    every = 1 if layers <= 8 else 5
    axes.set_xticks([0.5 + n for n in range(0, layers, every)])
    axes.set_xticklabels(range(0, layers, every))


def _restored(kind: str, window: int) -> str:
    if kind == "block" or window == 1:
        return f"single restored layer{'' if kind == 'block' else f' ({WORDS[kind]})'}"
    return f"centre of interval of {window} restored {WORDS[kind]} layers"


def _roles(average: TracedAverage, kind: str) -> list[str]:
    """Return the roles as labels; a role that some prompts lack has the number of prompts with it."""
    counts = average.kinds[kind].n
    return [
        f"{role} token" + ("" if n == average.n else f" (n = {n})")
        for role, n in zip(average.roles, counts, strict=True)
    ]


def _seen(token: str) -> str:
    """Return a token so that its line breaks can be seen."""
    return token.replace("\n", "\\n").replace("\t", "\\t")
