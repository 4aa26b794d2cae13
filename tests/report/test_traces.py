"""Traces on the page, and as PNG files: from records alone, without a model."""

import json
import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread
from report_examples import four_tasks, one_task, with_entry
from test_report_page import Page

from perdure.cli.trace_screen import screen
from perdure.core.estimates import Estimate
from perdure.ledger.records import (
    AverageKind,
    EditMeasures,
    HarmonicMean,
    Mean,
    Strongest,
    SweepResult,
    SweptLayer,
    TracedAverage,
    TracedKind,
    TracedPrompt,
    TraceNotes,
)
from perdure.report import render
from perdure.report.plots import DPI, NARROW, draw_average, draw_prompt, draw_sweep

ROLES = ("first subject", "middle subject", "last subject", "first after", "further", "last")
TOKENS = ("Ann", " Lee", "<b>", "\n", " $x", " in")
LAYERS = 12


def a_prompt():
    """A trace with one strong cell for each kind, in another layer each."""
    kinds = {}
    for number, kind in enumerate(("block", "mlp", "attention")):
        restored = np.full((6, LAYERS), 0.1)
        restored[1, 2 + number] = 0.8
        at = Strongest(" Lee", 1, 2 + number, 0.8)
        by_role = {role: None if role == "middle subject" else (0.1,) * LAYERS for role in ROLES}
        kinds[kind] = TracedKind(1 if number == 0 else 3, tuple(map(tuple, restored.tolist())), at, at, by_role)
    about = {"entry": "e" * 64, "prompt": "Ann Lee<b>", "subject": "Ann Lee", "tokens": TOKENS, "span": (0, 2)}
    chances = {"answer": " $Rome", "clean": 0.9, "corrupted": 0.1, "noise": 3.0, "samples": 10, "seed": 0}
    return TracedPrompt(**about, **chances, kinds=kinds)


def an_average(n=20, certain=True):
    """An average in which the second role never occurs."""
    mean = [[None] * LAYERS if role == 1 else [0.01 * role * layer for layer in range(LAYERS)] for role in range(6)]
    low, high = ([[None if v is None or not certain else v + d for v in row] for row in mean] for d in (-0.02, 0.02))
    arrays = [tuple(map(tuple, rows)) for rows in (mean, low, high)]
    part = AverageKind(1, *arrays, (n, 0, n, n, n - 1, n))
    total = Mean(0.4, 0.3 if certain else None, 0.5 if certain else None, n)
    about = {"entry": "e" * 64, "facts": n + 5, "n": n, "clean": total, "corrupted": total, "total_effect": total}
    more = {"noise": 3.0, "samples": 10, "seed": 0, "roles": ROLES, "traced": (), "left_out": ()}
    return TracedAverage(**about, **more, kinds={"block": part, "attention": replace(part, window=3)})


def a_sweep(tracing=None, most=0.9):
    def cell(value):
        return Estimate(value, value - 0.1, min(1.0, value + 0.1), 20)

    def measures(value):
        return dict.fromkeys(("efficacy", "paraphrase", "neighbourhood", "generation"), cell(value))

    values = {n: most * (1 - 0.1 * n) for n in (0, 2)}
    ends = {n: HarmonicMean(value, value - 0.1, min(1.0, value + 0.1)) for n, value in values.items()}
    layers = tuple(SweptLayer(layer=n, **measures(value), score=ends[n]) for n, value in values.items())
    about = {"entry": "e" * 64, "facts": 20, "method": "emmet", "seed": 0, "best": 0 if most else None}
    return SweepResult(**about, before=EditMeasures(**measures(0.5)), layers=layers, tracing=tracing, kept=True)


def page(**notes):
    return Page(render(with_entry(four_tasks(), -1, traces=TraceNotes(**notes))))


def test_a_page_without_traces_has_no_such_section():
    assert "traces" not in [a.get("id") for a in Page(render(one_task())).of("section")]


def test_a_prompts_heat_maps_are_drawn_with_the_subject_marked_and_every_text_escaped():
    found = page(
        prompts=(TracedPrompt.from_json(json.loads(json.dumps(a_prompt().to_json(), sort_keys=True))),)
    )  # as the ledger gives it back
    assert found.words.index("State") < found.words.index("MLP") < found.words.index("Attention")
    assert "traces" in [a.get("id") for a in found.of("section")]
    assert "#traces" in [a["href"] for a in found.of("a")]
    assert not found.of("b", "<b>")
    cells = found.of("rect", "point")
    assert len(cells) == 3  # one strong cell a kind; what is no stronger than under noise is left blank
    assert {cell["fill-opacity"] for cell in cells} == {"1"}
    assert len({cell["x"] for cell in cells}) == 3
    assert "Lee*, layer 3: 80.0%" in found.words
    assert "<b>, layer" not in found.words  # as weak as under noise
    assert "3 layers together" in found.words


@pytest.mark.parametrize("certain", [True, False])
def test_averages_and_a_sweep_are_shown_with_their_intervals_and_n(certain):
    found = page(average=an_average(certain=certain), sweep=a_sweep())
    assert "n = 20 of 25 facts" in found.words
    assert ("+30.0 to +50.0" in found.words) == certain
    assert len(found.of("path", "band")) >= (4 if certain else 0)
    assert len(found.of("path", "other")) >= 2
    assert "0, the best" in found.words
    assert "80.0 to 100.0, n = 20" in found.words


def size(path):
    """Return width and height of a PNG file, from its header."""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:24])


def saturated(path):
    """Return which pixels are strongly coloured (rows, columns)."""
    pixels = imread(path)[..., :3]
    return pixels.max(-1) - pixels.min(-1) > 0.25


def test_each_kind_has_its_own_heat_map_whose_strong_cell_is_where_the_trace_has_it(tmp_path):
    found = TracedPrompt.from_json(json.loads(json.dumps(a_prompt().to_json())))  # as trace.json holds it
    files = draw_prompt(found, tmp_path)
    assert [path.name for path in files] == ["block.png", "mlp.png", "attention.png"]
    wide, high = size(files[0])
    assert (wide, high) == (int(max(NARROW, 2.4 + 0.13 * LAYERS) * DPI), int((1.3 + 0.22 * 6) * DPI))
    centres = []
    for path, channel in zip(files, (2, 1, 0), strict=True):  # Purples, Greens, Reds
        strong = saturated(path)
        strong[:, int(0.7 * wide) :] = False  # the colour bar
        rows, columns = np.nonzero(strong)
        centres.append((rows.mean(), columns.mean()))
        inside = imread(path)[int(rows.mean()), int(columns.mean()), :3]
        assert inside.argmax() == channel
        assert np.ptp(imread(path)[..., :3]) > 0.9
    assert centres[0][1] < centres[1][1] - 5 < centres[2][1] - 10  # a layer further each
    assert np.ptp([row for row, _ in centres]) < 3  # the same token
    draw_prompt(replace(found, corrupted=1.0), tmp_path)  # restoring brings nothing back: pale, but drawn
    assert not saturated(files[0])[:, : int(0.7 * wide)].any()


@pytest.mark.parametrize("certain", [True, False])
def test_averages_and_curves_are_drawn(tmp_path, certain):
    files = draw_average(an_average(certain=certain), tmp_path)
    assert [path.name for path in files] == ["average-block.png", "average-attention.png", "average-curves.png"]
    for path in files:
        assert saturated(path).any()
    assert size(files[2]) == (int((0.6 + 4.2 * 2) * DPI), int(4.4 * DPI))
    narrow, wide = ((tmp_path / name) for name in ("narrow", "wide"))
    narrow.mkdir()
    wide.mkdir()
    draw_average(an_average(certain=False), narrow)
    draw_average(an_average(certain=True), wide)
    pictures = [imread(folder / "average-curves.png") for folder in (narrow, wide)]
    assert (pictures[0] != pictures[1]).mean() > 0.02  # the bands


def test_a_sweep_is_drawn_alone_or_beside_the_tracing(tmp_path):
    (alone,) = draw_sweep(a_sweep(), tmp_path)
    narrow = size(alone)
    beside, *averages = draw_sweep(a_sweep(an_average()), tmp_path)
    assert beside == alone
    assert narrow[0] < size(beside)[0] == 13 * DPI
    assert len(averages) == 3
    assert saturated(beside)[:, : narrow[0] // 2].any()
    assert saturated(beside)[:, -narrow[0] // 2 :].any()


def test_drawing_touches_no_global_state_and_loads_no_torch(tmp_path):
    script = (
        "import json, pathlib, sys\nfrom perdure.ledger.records import TracedPrompt\n"
        "from perdure.report.plots import draw_prompt\n"
        "draw_prompt(TracedPrompt.from_json(json.loads(sys.argv[1])), pathlib.Path(sys.argv[2]))\n"
        "assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)\n"
    )
    words = [sys.executable, "-c", script, json.dumps(a_prompt().to_json()), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["attention.png", "block.png", "mlp.png"]


def test_where_all_layers_score_nothing_none_is_named(tmp_path):
    nothing = a_sweep(most=0.0)
    assert "no layer can be named" in screen(nothing)
    assert "best layer" not in screen(nothing)
    assert "best layer by harmonic mean: 0" in screen(a_sweep())
    draw_sweep(nothing, tmp_path)
    for sweep in (nothing, replace(nothing, best=0)):  # as it was noted before
        assert "the best" not in page(sweep=sweep).words
    assert "the best" in page(sweep=a_sweep()).words
