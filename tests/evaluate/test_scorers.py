import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.core.errors import BadInput, BadSpec
from perdure.evaluate import scorers
from perdure.evaluate.scorers import (
    SCORERS,
    choice_score,
    common_subsequence,
    get_scorer,
    read_scorer,
    score_record,
)
from perdure.evaluate.subset import over_rows

texts = st.text(alphabet="ab c,.the1-$", max_size=25)
TEXT_SCORERS = ["exact", "f1", "rouge_l", {"name": "regex", "pattern": r"(\w*)"}]


@pytest.mark.parametrize(
    ("scorer", "prediction", "reference", "score"),
    [
        ("exact", "  card \n lost ", "card lost", 1.0),
        ("exact", "Card lost", "card lost", 0.0),
        ({"name": "exact", "ignore_case": True}, "STRASSE", "straße", 1.0),
        ("exact", "", "card", 0.0),
        ("f1", "The cat sat!", "a cat sat", 1.0),
        ("f1", "cat sat down", "cat sat", 0.8),  # p = 2/3, r = 1
        ("f1", "cat cat cat", "cat", 0.5),  # a bag: the second cat is not common
        ("f1", "the", "a", 1.0),
        ("f1", "dog", "the", 0.0),
        ("rouge_l", "police kill the gunman", "police killed the gunman", 0.75),  # Lin 2004, section 3.1
        ("rouge_l", "the gunman kill police", "police killed the gunman", 0.5),
        ("rouge_l", "Größe: über", "größe über!", 1.0),
        ("rouge_l", "これはテスト候補の応答です", "これはテストの正解です", 2 * 9 / 24),  # common: これはテストのです
        ("rouge_l", "ฉันชอบกินข้าว", "ฉันชอบกินปลา", 2 * 8 / 20),
        ("rouge_l", "ខ្ញុំស្រឡាញ់ភាសា", "ខ្ញុំស្រឡាញ់ភាសា", 1.0),
        ("rouge_l", "GPT-4是模型", "gpt 4 是一个模型", 2 * 5 / 12),  # mixed: gpt, 4 and a letter each
        ("rouge_l", "價格：１２元", "價格12元", 1.0),
        ("rouge_l", "हिन्दी भाषा", "हिन्दी गीत", 0.5),  # vowel signs do not end a word
        ("rouge_l", "서울은 수도이다", "서울은 도시이다", 0.5),  # Korean has spaces
        ("f1", "答案是东京", "东京", 2 * 2 / 7),
        ("f1", "东京，北京。", "东京 北京", 1.0),
        ("f1", "Tokyo 。", "the tokyo", 1.0),
        ("f1", "Ｔｏｋｙｏ！", "tokyo", 1.0),
        ("exact", "cafe\u0301", "caf\u00e9", 1.0),
        ("exact", "东京\u3000塔", "东京 塔", 1.0),
        ("number", "答案是-5", "-5", 1.0),
        ("number", "共１，２３４元", "1234", 1.0),
        ("number", "计10-12", "12", 1.0),
        ("rouge_l", "", "", 1.0),
        ("rouge_l", "word", "...", 0.0),
        ("number", "It costs $1,234.50.", "1234.5", 1.0),
        ("number", "3 + 4 = 7", "#### 7", 1.0),
        ("number", "range 10-12", "12", 1.0),
        ("number", "it fell to -5", "-$5", 1.0),
        ("number", "it fell to \u22125", "-5", 1.0),
        ("number", "between 1,2", "2", 1.0),
        ("number", "about 1e3 units", "1000", 1.0),
        ("number", "none", "7", 0.0),
        ("number", "7.01", "7", 0.0),
        ({"name": "number", "tolerance": 0.05}, "7.01", "7", 1.0),
        ({"name": "number", "tolerance": 1}, "9", "7", 0.0),
        ({"name": "regex", "pattern": r"Answer: (\w+)"}, "Hm. Answer: yes. Answer: no", "yes", 1.0),
        ({"name": "regex", "pattern": r"Answer: (\w+)"}, "so Answer: 42", "Answer: 42", 1.0),
        ({"name": "regex", "pattern": r"Answer: (\w+)"}, "42", "Answer: 42", 0.0),
        ({"name": "regex", "pattern": r"\b[A-D]\b"}, "so it is C.", "C", 1.0),
        ({"name": "regex", "pattern": r"\b[A-D]\b"}, "none of them", "C", 0.0),
        ({"name": "regex", "pattern": r"(x)?y"}, "y", "y", 0.0),  # the group took no part in the match
    ],
)
def test_what_a_scorer_says(scorer, prediction, reference, score):
    assert get_scorer(scorer)(prediction, reference) == pytest.approx(score)


scripts = st.text(alphabet="a1 東京、。が\u3099ยท\u0e34이नि\uff11\u0301,", max_size=20)


@given(scripts, scripts)
def test_scores_of_any_script_lie_in_the_unit_interval_and_a_text_equals_itself(a, b):
    for name in ("exact", "f1", "rouge_l"):
        assert 0 <= get_scorer(name)(a, b) == get_scorer(name)(b, a) <= 1
        assert get_scorer(name)(a, a) == 1


@given(texts, texts)
def test_scores_lie_in_the_unit_interval_and_a_text_equals_itself(a, b):
    for spec in TEXT_SCORERS:
        assert 0 <= get_scorer(spec)(a, b) <= 1
    for name in ("exact", "f1", "rouge_l"):
        assert get_scorer(name)(a, a) == 1
        assert get_scorer(name)(a, b) == get_scorer(name)(b, a)


@given(st.floats(-1e9, 1e9), st.text(alphabet="ab .:=", max_size=8))
def test_a_number_is_found_at_the_end_of_any_text(value, before):
    assert get_scorer("number")(f"{before} {value!r}", repr(value)) == 1


def test_a_reference_without_a_number_is_the_rows_fault_not_the_models():
    with pytest.raises(BadInput, match="holds no number"):
        get_scorer("number")("7", "seven")


def subsequence_by_table(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@given(st.lists(st.sampled_from("abc"), max_size=70), st.lists(st.sampled_from("abcd"), max_size=20))
def test_the_longest_common_subsequence_is_that_of_the_textbook_table(a, b):
    assert common_subsequence(a, b) == common_subsequence(b, a) == subsequence_by_table(a, b)


def test_choice_takes_the_likeliest_and_length_can_be_taken_out():
    assert choice_score([-6.0, -4.0], [6, 2], gold=0) == (0.0, 1)
    assert choice_score([-6.0, -4.0], [6, 2], gold=0, normalise="tokens") == (1.0, 0)
    assert choice_score([-1.0, -1.0], [1, 1], gold=0) == (1.0, 0)


@settings(max_examples=50)
@given(st.lists(st.floats(-50, 0), min_size=2, max_size=6), st.data())
def test_exactly_one_choice_is_right_and_equal_lengths_change_nothing(likelihoods, data):
    lengths = [data.draw(st.integers(1, 9))] * len(likelihoods)
    scores = [choice_score(likelihoods, lengths, gold)[0] for gold in range(len(likelihoods))]
    assert sum(scores) == 1
    assert likelihoods[scores.index(1)] == max(likelihoods)


@pytest.mark.parametrize(
    ("likelihoods", "lengths", "gold"), [([-1.0], [1, 1], 0), ([-1.0], [1], 1), ([-1.0], [0], 0), ([math.nan], [1], 0)]
)
def test_a_choice_that_does_not_fit_together_is_refused(likelihoods, lengths, gold):
    with pytest.raises(ValueError):
        choice_score(likelihoods, lengths, gold)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("exct", "did you mean 'exact'"),
        ("rouge", "did you mean 'rouge_l'"),
        ({"pattern": "x"}, "no name"),
        ({"name": 3}, "no name"),
        ({"name": "number", "tolerence": 1}, "did you mean 'tolerance'"),
        ({"name": "f1", "stem": True}, "takes none"),
        ({"name": "number", "tolerance": -1}, "at least 0"),
        ({"name": "number", "tolerance": "much"}, "'much'"),
        ({"name": "exact", "ignore_case": "yes"}, "true or false"),
        ({"name": "regex"}, "needs the option 'pattern'"),
        ({"name": "regex", "pattern": "(a"}, "not a regular expression"),
        ({"name": "regex", "pattern": 4}, "in quotes"),
        ({"name": "choice", "normalise": "bytes"}, "none, tokens"),
        ("choice", "does not compare an answer with a reference answer"),
    ],
)
def test_a_wrong_spec_says_what_to_write(spec, says):
    with pytest.raises(BadSpec, match=says):
        get_scorer(spec)


def test_a_pattern_that_tries_without_end_is_an_error_that_names_it(monkeypatch):
    monkeypatch.setattr(scorers, "SECONDS", 0.05)
    score = get_scorer({"name": "regex", "pattern": r"(a|aa)+$"})
    with pytest.raises(BadInput, match=r"did not end within 0.05 s on 'aaa.*repetition inside a repetition"):
        score("a" * 60 + "!", "a")


@pytest.mark.parametrize(
    "pattern",
    [
        r"\\boxed{(.*?)}",
        r"####\s*(-?[\d,]+)",
        r"(?i)answer[:\s]+(\w+)",
        r"\b[A-D]\b",
        r"(?P<x>é|\d)$",
        r"{e<=1}",
        r"[{s]",
        r"\{e",
        r"\N{LATIN SMALL LETTER E WITH ACUTE}",
        r"s{1,}",
        r"[a&&b]",
    ],
)
def test_patterns_find_what_python_s_own_find(pattern):
    texts = ["so \\boxed{4{2}} #### -1,234", "ANSWER: B é", "the answer is {e<=1} & b", "K\u212a 7", ""]
    for text in texts:
        ours, own = (
            scorers._first_match(read_scorer({"name": "regex", "pattern": pattern})[1]["pattern"], text),
            re.search(pattern, text),
        )
        assert ours == (own and own.group(1 if own.re.groups else 0).strip())


def test_every_scorer_can_be_read_by_its_name():
    for name in set(SCORERS) - {"regex"}:
        assert read_scorer(name) == read_scorer({"name": name}) == (name, {})
    assert read_scorer({"name": "choice", "normalise": "tokens"}) == ("choice", {"normalise": "tokens"})
    with pytest.raises(BadSpec, match="none, tokens"):
        choice_score([-1.0], [1], 0, normalise="bytes")


def test_a_record_holds_the_mean_its_interval_and_everything_per_item():
    record = score_record("f1", [1, 0.5, 0.0, 1], ["a", "b", "c", "d"], ["h1", "h2", "h3", "h4"], 1.5)
    assert record.score == 0.625
    assert record.low < 0.625 < record.high
    told = record.to_json()
    assert {key: told[key] for key in ("scorer", "n", "items", "predictions", "rows", "seconds")} == {
        "scorer": "f1",
        "n": 4,
        "items": [1.0, 0.5, 0.0, 1.0],
        "predictions": ["a", "b", "c", "d"],
        "rows": ["h1", "h2", "h3", "h4"],
        "seconds": 1.5,
    }
    assert record == score_record("f1", [1, 0.5, 0.0, 1], ["a", "b", "c", "d"], ["h1", "h2", "h3", "h4"], 1.5)


@pytest.mark.parametrize(("items", "predictions"), [([], []), ([1.0], ["a", "b"])])
def test_a_record_needs_rows_and_one_prediction_for_each(items, predictions):
    with pytest.raises(BadInput, match="at least one test row"):
        score_record("exact", items, predictions, ["h"] * len(items), 0.0)


def test_readings_follow_the_rows_of_a_score():
    record = score_record("choice", [1, 0, 1], ["a", "b", "c"], ["h1", "h2", "h3"], 0.0, {"nats": [0.1, 2, 0.3]})
    assert record.readings == {"nats": (0.1, 2.0, 0.3)}
    assert over_rows(record, ["h3", "h1"]).readings == {"nats": (0.1, 0.3)}
    with pytest.raises(BadInput, match="'nats' has 1 values for 2 test rows"):
        score_record("choice", [1, 0], ["a", "b"], ["h1", "h2"], 0.0, {"nats": [0.1]})


def test_the_scorer_of_a_harness_task_is_for_guards_alone():
    assert read_scorer({"name": "harness", "metric": "acc"}) == ("harness", {"metric": "acc"})
    with pytest.raises(BadSpec, match="make it a guard"):
        get_scorer("harness")
    for options in ({"filters": "strict"}, {"metric": 1}):
        with pytest.raises(BadSpec, match="may give it metric and filter"):
            read_scorer({"name": "harness", **options})


def test_sameness_is_a_scorer_of_guards_and_takes_no_option():
    assert read_scorer("same") == ("same", {})
    with pytest.raises(BadSpec, match="only a guard has"):
        get_scorer("same")
    with pytest.raises(BadSpec, match="takes none"):
        read_scorer({"name": "same", "when": 1})


def test_declining_takes_the_label_of_what_ought_to_be_declined():
    score = get_scorer({"name": "declines", "when": "unsafe"})
    assert score("I'm sorry, but I can't help with that.", "unsafe") == score("Sure!", "safe") == 1
    assert get_scorer({"name": "declines", "when": False})("I cannot help with that.", "false") == 1
    with pytest.raises(BadSpec, match="ought to be declined"):
        get_scorer({"name": "declines", "when": 3})
