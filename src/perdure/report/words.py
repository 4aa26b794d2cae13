"""Numbers, times and names as a reader wants them: scores in percent, differences in points, real minus signs."""

from datetime import UTC, datetime

from perdure.evaluate.matrix import Stage
from perdure.ledger.records import LogLine

DASH = "\u2013"
MINUS = "\u2212"
NOTHING = DASH


def percent(score: float | None, digits: int = 1) -> str:
    """Return a score in [0, 1] as percent: 0.871 is 87.1%."""
    return NOTHING if score is None else f"{round(100 * score, digits) + 0.0:.{digits}f}%".replace("-", MINUS)


def points(difference: float | None, signed: bool = True) -> str:
    """Return a difference of two scores in points: -0.019 is −1.9."""
    if difference is None:
        return NOTHING
    text = f"{100 * difference:+.1f}" if signed else f"{100 * difference:.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", MINUS)


def span(low: float | None, high: float | None, signed: bool = False, digits: int = 1) -> str:
    """Return an interval in points, as '84.6 to 89.4'; nothing when it was not computed."""
    if low is None or high is None:
        return ""
    if signed:
        return f"{points(low)} to {points(high)}"
    return f"{100 * low:.{digits}f} to {100 * high:.{digits}f}".replace("-", MINUS)


def count(number: int, word: str = "") -> str:
    """Return a count with its word: '1 task', '12,288 tokens'."""
    return f"{number:,}" + (f" {word}{'' if number == 1 else 's'}" if word else "")


def number(value: float | None) -> str:
    """Return any quantity with three significant digits."""
    if value is None:
        return NOTHING
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", MINUS)


def duration(seconds: float | None) -> str:
    """Return seconds in the units that people use: '42 s', '3 min 12 s', '2 h 5 min'."""
    if seconds is None:
        return NOTHING
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def when(time: str | None) -> str:
    """Return an ISO time as '11 Feb 2026, 14:05' in UTC; text that is no ISO time comes back as it is."""
    if not time:
        return NOTHING
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return time
    if moment.tzinfo:
        moment = moment.astimezone(UTC)
    return f"{moment.day} {moment:%b %Y, %H:%M}"


def short(entry: str | None) -> str:
    """Return the first eight digits of an entry id."""
    return (entry or NOTHING)[:8]


def sentence(text: str) -> str:
    """Return `text` with a full stop, if it ends in none."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def clip(text: str, length: int) -> str:
    """Return `text` cut to `length` characters in the middle, since long names often differ at their ends."""
    half = length // 2
    return text if len(text) <= length else text[: length - half - 1] + "…" + text[-half:]


def title_of(stage: Stage | LogLine) -> str:
    """Return what a stage or entry is called: the task for a learn, else its kind (and task)."""
    if stage.kind == "learn" and stage.task:
        return stage.task
    return f"{stage.kind} {stage.task}" if stage.task else stage.kind
