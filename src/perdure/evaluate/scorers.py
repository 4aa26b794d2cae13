"""Scorers: how a prediction is compared with the reference answer, as pure functions with a score in [0, 1]."""

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any
from unicodedata import normalize

import regex
from regex import Pattern

from perdure.core.errors import BadInput, BadSpec
from perdure.core.keyed import seed_of
from perdure.core.plain_text import quoted
from perdure.core.rows import Row
from perdure.core.script import UNSPACED, has_unspaced, narrowed, words
from perdure.evaluate.checks import follows
from perdure.evaluate.drift import DECLINE, declined_rightly
from perdure.evaluate.own_scorers import in_file, outside_scorers, scorer_of_text
from perdure.evaluate.tool_calls import same_calls
from perdure.ledger.records import Score
from perdure.maths.statistics import mean_interval

Scorer = Callable[[str, str], float]

PROGRAMS = "programs"  # the scorer that runs what a model wrote

# Commas group digits only in threes: "1,234" is one number, "1,2" is two. A minus sign counts where no word ends right
# before it; in a script without spaces it always counts, since word ends cannot be seen.
NUMBER = re.compile(
    rf"(?:(?:(?<![\w)])|(?<=[{UNSPACED}]))[-\u2212])?"
    r"(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?!,?\d)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
)
# A brace that is a plain character in Python's patterns; `regex` may take it for a fuzzy match.
BRACE = re.compile(r"(\\N\{[^}]*\}|\\.)|\{(?![\d,])", re.DOTALL)
SECONDS = 2.0  # limit for a user's pattern to search one text; `re` and `regex` have no limit of their own
ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)
STOPS = "".join(map(chr, range(0x3000, 0x3040)))  # punctuation of Chinese and Japanese, next to the fullwidth forms


def exact(prediction: str, reference: str, *, ignore_case: bool = False) -> float:
    """Return 1 if both texts are equal, outer white space aside, inner white space collapsed and accents composed (NFC)."""
    mine, theirs = (" ".join(normalize("NFC", text).split()) for text in (prediction, reference))
    return float(mine.casefold() == theirs.casefold() if ignore_case else mine == theirs)


def f1(prediction: str, reference: str) -> float:
    """Return SQuAD's token F1: 2 p r / (p + r) over the bags of words, lower case, without punctuation and articles.

    Two texts without a word are equal (1), one without a word shares nothing (0).

    Source: Rajpurkar et al., "SQuAD", EMNLP 2016, and the official evaluation script.
    Deviation: a letter of a script without spaces is a word (as in MLQA's script), fullwidth forms are their ASCII ones.
    """
    mine, theirs = (_bag(text) for text in (prediction, reference))
    return _f_measure((Counter(mine) & Counter(theirs)).total(), len(mine), len(theirs))


def rouge_l(prediction: str, reference: str) -> float:
    """Return the ROUGE-L F-measure: 2 p r / (p + r) over the longest common subsequence of words, lower case.

    Source: Lin, "ROUGE", 2004, section 3.1, with beta = 1.
    Deviation: words are runs of letters and digits of any script, a letter each where the script has no spaces
        (`core.script`), not stemmed (`rouge_score` drops all but a-z and 0-9).
    """
    mine, theirs = (words(narrowed(text).lower()) for text in (prediction, reference))
    return _f_measure(common_subsequence(mine, theirs), len(mine), len(theirs))


def set_f1(prediction: str, reference: str, *, ignore_case: bool = False) -> float:
    """Return the F1 of two sets of labels, each written with commas: 2 |both| / (|predicted| + |reference|).

    A label that is predicted twice counts once. Labels are equal as texts are for `exact`.
    """
    mine, theirs = _label_set(prediction, ignore_case), _label_set(reference, ignore_case)
    return _f_measure(len(mine & theirs), len(mine), len(theirs))


def set_exact(prediction: str, reference: str, *, ignore_case: bool = False) -> float:
    """Return 1 if two sets of labels, each written with commas, are the same set, whatever the order."""
    return float(_label_set(prediction, ignore_case) == _label_set(reference, ignore_case))


def _label_set(text: str, ignore_case: bool) -> set[str]:
    labels = {" ".join(normalize("NFC", label).split()) for label in narrowed(text).split(",")} - {""}
    return {label.casefold() for label in labels} if ignore_case else labels


def tool_calls(prediction: str, reference: str) -> float:
    """Return 1 if the prediction makes the tool calls of the reference, names and arguments compared as JSON.

    The order of calls and of arguments and the text around the calls do not count. Where neither holds a call in JSON, the
    texts are compared as `exact` compares them.
    """
    same = same_calls(prediction, reference)
    return exact(prediction, reference) if same is None else float(same)


def number(prediction: str, reference: str, *, tolerance: float = 0.0) -> float:
    """Return 1 if the last number in the prediction is within `tolerance` of the last number in the reference.

    Thousands commas and dollar signs are ignored. A prediction without a number scores 0.

    Raises:
        BadInput: The reference holds no number.
    """
    wanted = _last_number(reference)
    if wanted is None:
        raise BadInput(f"the reference {reference!r} holds no number; correct the row or choose another scorer")
    given = _last_number(prediction)
    return float(given is not None and (given == wanted or abs(given - wanted) <= tolerance))


def regex_found(prediction: str, reference: str, *, pattern: Pattern) -> float:
    """Return 1 if the first match of `pattern` in the prediction equals its first match in the reference.

    A match is the text of the first group, or the whole match where the pattern has no group; white space around it does not
    count. A prediction without a match scores 0. A reference without a match is taken whole.

    Raises:
        BadInput: The search in one text took longer than `SECONDS`: a pattern such as (a+)+$ tries every way to split a text.
    """
    given = _first_match(pattern, prediction)
    wanted = _first_match(pattern, reference)
    return float(given is not None and given == (reference.strip() if wanted is None else wanted))


def _first_match(pattern: Pattern, text: str) -> str | None:
    try:
        match = pattern.search(text, timeout=SECONDS)
    except TimeoutError:
        raise BadInput(
            f"the pattern {quoted(pattern.pattern)} of the scorer 'regex' did not end within {SECONDS:g} s on {quoted(text)}; "
            "write it without a repetition inside a repetition, such as (a+)+"
        ) from None
    text_of_match = match.group(1 if pattern.groups else 0) if match else None
    return None if text_of_match is None else text_of_match.strip()


def checks_hold(row: Row, prediction: str, *, loose: bool = False) -> float:
    """Return 1 if an answer has every property that the row's checks name. An empty answer has none.

    Args:
        row: The row.
        prediction: The answer.
        loose: Take the most favourable of several forms of the answer; see `evaluate.checks.follows`.

    Raises:
        BadInput: The row has no checks.
    """
    if not row.checks:
        raise BadInput(f"{row.source or 'a row'} has no checks, which scorer 'checks' needs; choose another scorer")
    return float(bool(prediction.strip()) and all(follows(check, prediction, loose=loose) for check in row.checks))


def choice_score(
    log_likelihoods: Sequence[float], lengths: Sequence[int], gold: int, normalise: str = "none"
) -> tuple[float, int]:
    """Return (1 or 0, index of the predicted choice): the most likely choice is the prediction, the first one on a tie.

    Args:
        log_likelihoods: log p(choice | prompt) in nats, summed over the tokens of the choice, (choices,).
        lengths: Length of each choice, (choices,): its tokens, or its characters.
        gold: Index of the right choice.
        normalise: "none", or "tokens" or "characters" to divide by `lengths` (a long choice is unlikely only because it is long).

    Raises:
        BadSpec: `normalise` is none of these.
        ValueError: Lengths differ, `gold` is no index, a length is not positive, or a likelihood is not a number.
    """
    if normalise not in NORMALISE:
        raise BadSpec(f"normalise is {normalise!r}; choose one of {', '.join(NORMALISE)}")
    if len(log_likelihoods) != len(lengths) or not 0 <= gold < len(lengths) or min(lengths) < 1:
        raise ValueError(
            f"{len(log_likelihoods)} likelihoods, lengths {list(lengths)} and gold {gold} do not fit together"
        )
    if any(x != x for x in log_likelihoods):
        raise ValueError(f"a log-likelihood is not a number: {list(log_likelihoods)}; the model's logits hold NaN")
    scaled = [x if normalise == "none" else x / n for x, n in zip(log_likelihoods, lengths, strict=True)]
    prediction = max(range(len(scaled)), key=scaled.__getitem__)
    return float(prediction == gold), prediction


def text_score(nats: float, scale: str, vocabulary: int) -> float:
    """Return the score of a text in [0, 1], by how well a model predicts it.

    On the scale "probability" that is exp(-nats): small for any text, so that a model with twice the perplexity loses a point or
    two. On "log" it is max(0, 1 - nats / ln(vocabulary)): 0 where every token is as likely as any other, and twice the perplexity
    is the same loss at any level, ln 2 / ln(vocabulary).

    Args:
        nats: Mean negative log-likelihood per token.
        scale: "probability" or "log".
        vocabulary: Number of tokens that the model chooses among, at least 2.

    Example:
        >>> round(text_score(3.77, "log", 49152), 3), round(text_score(3.77, "probability", 49152), 3)
        (0.651, 0.023)
    """
    return max(0.0, 1 - nats / math.log(vocabulary)) if scale == LOG else math.exp(-nats)


def read_scorer(spec: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return (name, options), checked, of a scorer written as its name or as `{"name": ..., option: value, ...}`.

    Raises:
        BadSpec: Unknown name or option, with the nearest known one; an option that is missing or of the wrong kind.
    """
    settings = {"name": spec} if isinstance(spec, str) else dict(spec)
    if not isinstance(name := settings.pop("name", None), str):
        raise BadSpec(f"scorer {spec!r} has no name; choose one of {', '.join(SCORERS)}")
    if in_file(name):
        if settings.keys() != {"sha256"}:
            raise BadSpec(f"scorer {name!r} takes no options, and a learn gives it the hash of its file")
        return name, settings
    if name == SAME:
        if settings:
            raise BadSpec(f"unknown option {next(iter(settings))!r} of scorer {name!r}; it takes none")
        return name, settings
    if name == HARNESS:
        if unknown := [
            option for option in settings if option not in OF_HARNESS or not isinstance(settings[option], str)
        ]:
            raise BadSpec(
                f"unknown or no text: option {unknown[0]!r} of scorer {name!r}; a guard file may give it metric and filter"
            )
        return name, settings
    outside = {} if name in SCORERS else outside_scorers(SCORERS)
    if name not in SCORERS and name not in outside:
        choices = [*SCORERS, *outside]
        raise BadSpec(
            f"unknown scorer {name!r}{_nearest(name, dict.fromkeys(choices))}; choose one of {', '.join(choices)}"
        )
    known = SCORERS[name][1] if name in SCORERS else {}
    options = {}
    for option, value in settings.items():
        if option not in known:
            allowed = f"it takes {', '.join(known)}" if known else "it takes none"
            raise BadSpec(f"unknown option {option!r} of scorer {name!r}{_nearest(option, known)}; {allowed}")
        options[option] = known[option](f"option {option!r} of scorer {name!r}", value)
    if name == "regex" and "pattern" not in options:
        raise BadSpec("scorer 'regex' needs the option 'pattern', as {name: regex, pattern: 'Answer: (\\w+)'}")
    return name, options


def runs_programs(spec: str | Mapping[str, Any]) -> bool:
    """Return whether a scorer runs programs that a model wrote, which happens only where the user demands it."""
    return read_scorer(spec)[0] == PROGRAMS


def get_scorer(spec: str | Mapping[str, Any], code: Callable[[str, str], str] | None = None) -> Scorer:
    """Return the scorer of `spec` as a function of (prediction, reference).

    Args:
        spec: The scorer.
        code: Returns the text of a trusted file, given the scorer's name and the hash of the text; None where no file is trusted.

    Raises:
        BadSpec: As `read_scorer`; or one that does not compare texts, such as "choice" (see `choice_score`).
    """
    name, options = read_scorer(spec)
    if in_file(name):
        if code is None:
            raise BadSpec(f"scorer {name!r} runs the code of a file, and no file is trusted here")
        return scorer_of_text(code(name, options["sha256"]), name)
    if name == SAME:
        raise BadSpec(
            f"scorer {name!r} compares with the answers of a reference, which only a guard has; make it a guard"
        )
    if name == HARNESS:
        raise BadSpec(
            f"scorer {name!r} lets a task of lm-evaluation-harness score itself, which only a guard does ('perdure guard add "
            "harness:NAME'); make it a guard"
        )
    if name not in SCORERS:
        return outside_scorers(SCORERS)[name]
    function = SCORERS[name][0]
    if name == PROGRAMS:
        raise BadSpec("scorer 'programs' runs the test of a row, and compares no texts; use run_code.program_outcome")
    if function is None:
        raise BadSpec(f"scorer {name!r} does not compare an answer with a reference answer; choose another scorer here")
    return partial(function, **options)


def score_record(
    scorer_name: str,
    items: Sequence[float],
    predictions: Sequence[str],
    row_hashes: Sequence[str],
    seconds: float,
    readings: Mapping[str, Sequence[float]] | None = None,
) -> Score:
    """Return the score of one task at one state: the mean with its 95% interval, and everything per item.

    Args:
        scorer_name: Name of the scorer.
        items: Score of each test row, (n,), in [0, 1].
        predictions: What the model answered, (n,).
        row_hashes: `Row.hash` of each test row, (n,).
        seconds: Wall time that scoring took.
        readings: Further numbers of each test row by name, (n,) each.

    Raises:
        BadInput: No rows, or lists of different lengths.
    """
    readings = readings or {}
    if not items or not len(items) == len(predictions) == len(row_hashes):
        raise BadInput(
            f"{len(items)} scores, {len(predictions)} predictions and {len(row_hashes)} rows; "
            "a score needs at least one test row, and one prediction for each"
        )
    if uneven := [name for name, values in readings.items() if len(values) != len(items)]:
        raise BadInput(f"the reading {uneven[0]!r} has {len(readings[uneven[0]])} values for {len(items)} test rows")
    score, low, high = mean_interval(items, seed=seed_of("score", list(row_hashes)))
    return Score(
        scorer=scorer_name,
        score=score,
        low=low,
        high=high,
        n=len(items),
        items=tuple(float(x) for x in items),
        predictions=tuple(predictions),
        rows=tuple(row_hashes),
        seconds=float(seconds),
        readings={name: tuple(map(float, values)) for name, values in readings.items()},
    )


def common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the length of the longest common subsequence of two word lists.

    Cost: len(b) operations on integers of len(a) bits, a row of the usual table at a time.
    Source: Hyyrö, "Bit-parallel LCS-length computation revisited", 2004.
    """
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    full = (1 << len(a)) - 1
    row = full  # bit i is 0 where the subsequence grows at a[i]
    for word in b:
        hits = row & places.get(word, 0)
        row = ((row + hits) | (row - hits)) & full
    return len(a) - row.bit_count()


def _f_measure(common: int, mine: int, theirs: int) -> float:
    return 2 * common / (mine + theirs) if mine + theirs else 1.0


def _bag(text: str) -> list[str]:
    """Return the words of a text as SQuAD counts them, of a script without spaces its letters."""
    pieces = ARTICLES.sub(" ", narrowed(text).lower().translate(PUNCTUATION)).split()
    split = [words(piece) if has_unspaced(piece) else [piece.strip(STOPS)] for piece in pieces]
    return [word for piece in split for word in piece if word]


def _last_number(text: str) -> float | None:
    numbers = NUMBER.findall(narrowed(text).replace("$", ""))
    return float(numbers[-1].replace(",", "").replace("\u2212", "-")) if numbers else None


def _flag(what: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise BadSpec(f"{what} is {value!r}; write true or false")
    return value


def _amount(what: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise BadSpec(f"{what} is {value!r}; write a number of at least 0")
    return float(value)


def _pattern(what: str, value: object) -> Pattern:
    if not isinstance(value, str):
        raise BadSpec(f"{what} is {value!r}; write a regular expression in quotes")
    try:
        re.compile(value)  # accept only what Python's re accepts, not the extensions of regex
        return regex.compile(BRACE.sub(lambda match: match[1] or r"\{", value), regex.VERSION0)
    except (re.error, regex.error) as error:
        raise BadSpec(f"{what} is not a regular expression: {error} in {value!r}; correct it") from error


def _normalise(what: str, value: object) -> str:
    if not isinstance(value, str) or value not in NORMALISE:
        raise BadSpec(f"{what} is {value!r}; choose one of {', '.join(NORMALISE)}")
    return value


def _scale(what: str, value: object) -> str:
    if not isinstance(value, str) or value not in SCALES:
        raise BadSpec(f"{what} is {value!r}; choose one of {', '.join(SCALES)}")
    return value


def _nearest(name: str, known: Mapping[str, object]) -> str:
    near = get_close_matches(name, list(known), n=1)
    return f", did you mean {near[0]!r}?" if near else ""


def _label(what: str, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()  # as a label that is true or false is read
    if not isinstance(value, str) or not value.strip():
        raise BadSpec(
            f"{what} is {value!r}; write the label of the questions that ought to be declined, such as {DECLINE}"
        )
    return value


LOG = "log"
SCALES = ("probability", LOG)
NORMALISE = ("none", "tokens", "characters")
BY_LIKELIHOOD = ("choice", "likelihood")  # scorers for which nothing is generated; see `workflows.likelihoods`
OF_ROWS = (*BY_LIKELIHOOD, "checks", PROGRAMS)  # scorers that need more of a row than its reference answer
HARNESS = "harness"  # for guards alone: a task of lm-evaluation-harness computes its items, see `bridges.harness_items`
OF_HARNESS = ("task", "folder", "sha256", "metric", "filter")  # its options; the first three are for perdure to set
SAME = "same"  # for guards alone: compares with the answers of a reference, see `workflows.guards.drift`
SCORERS: dict[str, tuple[Callable[..., float] | None, dict[str, Callable[[str, object], Any]]]] = {
    "exact": (exact, {"ignore_case": _flag}),
    "choice": (None, {"normalise": _normalise}),
    "f1": (f1, {}),
    "rouge_l": (rouge_l, {}),
    "set_f1": (set_f1, {"ignore_case": _flag}),
    "set_exact": (set_exact, {"ignore_case": _flag}),
    "tool_calls": (tool_calls, {}),
    "number": (number, {"tolerance": _amount}),
    "regex": (regex_found, {"pattern": _pattern}),
    "declines": (declined_rightly, {"when": _label}),
    PROGRAMS: (None, {}),
    "checks": (None, {"loose": _flag}),
    "likelihood": (None, {"scale": _scale}),
}
