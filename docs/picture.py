"""Draw the picture of the README from result files: what a model scores on each task after each learn, under two recipes."""

import json
from pathlib import Path
from typing import Any

CELL, HIGH, LEFT, TOP, GAP = (
    62,
    34,
    150,
    78,
    60,
)  # pixels: a cell's width and height, the margins, the space between the tables
RESULTS = Path(__file__).parent.parent / "benchmarks" / "results" / "clinc5_guards"
TITLES = {"naive": "naive fine-tuning", "lora_mlp": "perdure"}


def picture() -> str:
    """Return the SVG text of two score matrices of one run each, seed 0."""
    runs = {arm: json.loads((RESULTS / f"{arm}-0.json").read_text(encoding="utf-8"))["matrix"] for arm in TITLES}
    count = len(runs["naive"]["tasks"])
    width = LEFT + 2 * count * CELL + GAP + 20
    height = TOP + count * HIGH + 34
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
        ' font-family="sans-serif" font-size="13" aria-label="Scores on each task after each learn, by recipe">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for place, (arm, title) in enumerate(TITLES.items()):
        lines += table(runs[arm], title, LEFT + place * (count * CELL + GAP), labels=place == 0)
    note = "Test accuracy in percent, 120 test rows a task, one seed. A row is a moment, a column is a task."
    lines += [f'<text x="12" y="{height - 10}" fill="#555">{note}</text>', "</svg>"]
    return "\n".join(lines)


def table(matrix: dict[str, Any], title: str, left: int, labels: bool) -> list[str]:
    """Return the SVG lines of one matrix: one row per learn, one column per task, cells only for what was learned by then."""
    tasks = matrix["tasks"]
    rows = [scores for stage, scores in zip(matrix["stages"], matrix["score"], strict=True) if stage["kind"] == "learn"]
    lines = [f'<text x="{left}" y="24" font-size="16" font-weight="bold" fill="#222">{title}</text>']
    for column in range(len(tasks)):
        x = left + column * CELL + CELL / 2
        lines.append(f'<text x="{x}" y="{TOP - 10}" text-anchor="middle" fill="#222">task {column + 1}</text>')
    for row, scores in enumerate(rows):
        y = TOP + row * HIGH
        if labels:
            lines.append(
                f'<text x="{left - 12}" y="{y + 22}" text-anchor="end" fill="#222">after learn {row + 1}</text>'
            )
        for column, score in enumerate(scores[: row + 1]):
            x, dark = left + column * CELL, score > 0.55
            lines.append(
                f'<rect x="{x}" y="{y}" width="{CELL - 2}" height="{HIGH - 2}" fill="rgb{shade(score)}"/>'
                f'<text x="{x + CELL / 2 - 1}" y="{y + 22}" text-anchor="middle" fill="{"#ffffff" if dark else "#222"}">'
                f"{100 * score:.0f}</text>"
            )
    return lines


def shade(score: float) -> tuple[int, int, int]:
    """Return a colour between near white (0) and blue (1)."""
    low, high = (240, 244, 250), (24, 90, 160)
    red, green, blue = (round(a + (b - a) * score) for a, b in zip(low, high, strict=True))
    return red, green, blue
