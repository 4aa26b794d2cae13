import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.core.errors import BadInput, BadSpec
from perdure.evaluate.evidence import GuardedTask, check_evidence, make_evidence
from perdure.evaluate.gate import Gate, decide, screen
from perdure.ledger.records import Evidence, FactKept, FactsVerdict, ItemScores, Verdict
from perdure.maths.statistics import paired_p_value
from record_examples import score


def items(right, n):
    return [1.0] * right + [0.0] * (n - right)


def scored(right, n=120, first=0):
    return score(items(right, n), [f"row {k}" for k in range(first, first + n)])


def task(learned, now, n=120):
    """A guarded task of which the first `learned` of n items were right, and the first `now` are."""
    return GuardedTask("v1", scored(learned, n), scored(now, n))


def new(right, n=120):
    return GuardedTask("v1", None, scored(right, n))


def verdict(gate=Gate(), **tasks):
    return make_evidence(gate, "new", tasks).verdict


def test_the_first_task_has_nothing_to_lose():
    found = verdict(new=new(100))
    assert (found.verdict, found.reason, found.tasks) == ("pass", "first task: nothing to lose", ())
    assert verdict().verdict == "pass"


def test_nothing_changed_in_enough_items_passes():
    found = verdict(bank=task(110, 110), new=new(100))
    assert found.verdict == "pass"
    (bank,) = found.tasks
    assert (bank.verdict, bank.drop, bank.n, bank.more_items) == ("pass", 0.0, 120, None)
    assert 0 < bank.high <= 0.03
    assert "bank can have lost most, 2.2 points at the worst" in found.reason


def test_nothing_changed_in_too_few_items_is_inconclusive_and_the_missing_items_are_counted_right():
    (bank,) = verdict(bank=task(40, 40, n=60)).tasks
    assert bank.verdict == "inconclusive"
    assert bank.more_items == 28
    assert verdict(bank=task(40, 40, n=60 + 28)).verdict == "pass"
    assert verdict(bank=task(40, 40, n=60 + 27)).verdict == "inconclusive"
    assert "about 28 more test items would decide" in bank.reason


def test_a_clear_loss_fails_and_is_told_in_numbers():
    found = verdict(bank=task(110, 70), mail=task(100, 100))
    assert found.verdict == "fail"
    assert found.reason == "bank lost more than the tolerance; the worst is bank, from 91.7% to 58.3%"
    bank, mail = found.tasks
    assert (bank.verdict, mail.verdict) == ("fail", "pass")
    assert bank.drop == pytest.approx(40 / 120)
    assert 0.03 < bank.low < bank.drop < bank.high
    assert bank.reason.startswith("91.7% when it was learned, 58.3% now (120 test items): 33.3 points lost, at least 2")


def test_a_small_loss_is_inconclusive_and_strict_counts_it_as_fail():
    loose, strict = verdict(bank=task(110, 107)), verdict(Gate(strict=True), bank=task(110, 107))
    assert loose.verdict == "inconclusive"
    assert strict.verdict == "fail"
    assert strict.tasks == loose.tasks
    assert "strict" in strict.reason
    assert strict.strict is True
    assert "do not tell whether bank stayed within the tolerance" in loose.reason


def test_one_failed_task_fails_whatever_the_others_and_the_worst_comes_first():
    found = verdict(a=task(110, 110), b=task(110, 107), c=task(110, 60), d=task(110, 20))
    assert found.verdict == "fail"
    assert [t.task for t in found.tasks] == ["d", "c", "b", "a"]
    assert [t.verdict for t in found.tasks] == ["fail", "fail", "inconclusive", "pass"]
    assert "d, c lost more" in found.reason


def test_a_gain_passes():
    (bank,) = verdict(bank=task(70, 110)).tasks
    assert bank.verdict == "pass"
    assert bank.drop < bank.high < 0
    assert "33.3 points gained, surely a gain" in bank.reason


def test_a_drop_on_the_tolerance_cannot_be_decided_by_more_items():
    (bank,) = verdict(Gate(tolerance=0.1), bank=task(110, 98)).tasks
    assert (bank.verdict, bank.more_items) == ("inconclusive", None)
    assert "would not decide" in bank.reason


def test_a_task_can_have_its_own_tolerance():
    gate = Gate(tolerances={"bank": 0.5})
    found = verdict(gate, bank=task(110, 90), mail=task(110, 110))
    assert found.verdict == "pass"
    assert {t.task: t.tolerance for t in found.tasks} == {"bank": 0.5, "mail": 0.03}


def test_pairing_sees_a_loss_that_two_equal_means_hide_nothing_of():
    swapped = GuardedTask("v1", scored(60), score(items(60, 120)[::-1], scored(60).rows))
    steady = task(60, 60)
    (moved,), (still,) = verdict(bank=swapped).tasks, verdict(bank=steady).tasks
    assert moved.drop == still.drop == 0
    assert moved.high > 3 * still.high
    assert (moved.verdict, still.verdict) == ("inconclusive", "pass")


def test_graded_items_are_judged_too():
    rows = [str(k) for k in range(200)]
    before = [0.6 + 0.002 * (k % 50) for k in range(200)]
    for loss, expected in ((0.0, "pass"), (0.01, "pass"), (0.2, "fail")):
        after = [x - loss * (1 + (k % 7) / 70) for k, x in enumerate(before)]
        graded = GuardedTask("v1", score(before, rows), score(after, rows))
        assert verdict(bank=graded).verdict == expected


def test_the_floor_is_for_the_new_tasks_own_score():
    gate = Gate(floor=0.7)
    assert verdict(gate, new=new(84)).verdict == "pass"
    low = verdict(gate, bank=task(110, 110), new=new(83))
    assert low.verdict == "fail"
    assert low.reason == "the new task's 69.2% (120 test items) is below the floor of 70.0%"
    assert low.floor.verdict == "fail"
    both = verdict(gate, bank=task(110, 60), new=new(83))
    assert "bank lost more" in both.reason
    assert verdict(new=new(0)).floor is None
    with pytest.raises(BadInput, match="floor"):
        verdict(gate, bank=task(110, 110))


def test_an_update_of_an_old_task_is_guarded_over_the_rows_that_both_scored():
    update = GuardedTask("v2", scored(110), scored(120, n=240, first=-120))
    found = make_evidence(Gate(), "bank", {"bank": update})
    assert found.tasks["bank"].rows == tuple(f"row {k}" for k in range(120))
    assert found.tasks["bank"].now == (0.0,) * 120
    assert found.verdict.verdict == "fail"


@pytest.mark.parametrize(
    ("guarded", "says"),
    [
        (GuardedTask("v", scored(5), None), "no score of the new state"),
        (GuardedTask("v", scored(5), scored(5, first=500)), "no test row that was scored both"),
    ],
)
def test_what_cannot_be_compared_is_an_error_never_a_zero(guarded, says):
    with pytest.raises(BadInput, match=says):
        verdict(bank=guarded)


@settings(max_examples=50)
@given(st.integers(0, 100), st.integers(0, 100), st.sampled_from([0.0, 0.03, 0.2]), st.booleans())
def test_the_verdict_follows_from_the_bounds_and_is_monotone_in_the_score_now(learned, now, tolerance, strict):
    gate = Gate(tolerance=tolerance, strict=strict)
    found = verdict(gate, bank=task(learned, now, n=100))
    (bank,) = found.tasks
    assert bank.low <= bank.drop <= bank.high
    expected = "pass" if bank.high <= tolerance else "fail" if bank.low > tolerance else "inconclusive"
    assert bank.verdict == expected
    assert found.verdict == ("fail" if strict and expected == "inconclusive" else expected)
    assert bank.more_items is None or (expected == "inconclusive" and bank.more_items >= 1)
    if now < 100:
        order = ("fail", "inconclusive", "pass")
        better = verdict(gate, bank=task(learned, now + 1, n=100)).tasks[0].verdict
        if now + 1 <= learned:  # above it, more changed items also mean more noise
            assert order.index(better) >= order.index(expected)


@pytest.mark.parametrize(
    ("settings_", "says"),
    [
        ({"tolerance": 3}, "0.03 for 3 points"),
        ({"tolerance": math.nan}, "tolerance"),
        ({"tolerance": 3}, "gate tolerance is 3"),
        ({"tolerances": {"bank": -0.1}}, "gate tolerance of bank is -0.1"),
        ({"tolerances": [1]}, "mapping"),
        ({"confidence": 95}, "0.95"),
        ({"confidence": 0.5}, "0.95"),
        ({"floor": 70}, "floor"),
        ({"strict": "yes"}, "true or false"),
        ({"mean_drop": 3}, "gate mean_drop is 3"),
        ({"worst_drop": -0.1}, "gate worst_drop"),
        ({"drift": 1}, "gate drift is 1"),
        ({"correct": "bonferroni"}, "write holm or none"),
        ({"guards": True}, "write warn or enforce"),
        ({"tolerence": 0.1}, "unknown gate setting 'tolerence'"),
    ],
)
def test_a_gate_out_of_range_is_refused(settings_, says):
    with pytest.raises(BadSpec, match=says):
        Gate.from_json(settings_)


def test_a_gate_survives_json():
    gate = Gate(0.05, 0.9, True, 0.6, {"bank": 0.1}, mean_drop=0.02, correct="none", guards="enforce")
    assert Gate.from_json(json.loads(json.dumps(gate.to_json()))) == gate
    assert Gate.from_json({}) == Gate()


# Evidence on disk


@pytest.fixture
def evidence():
    gate = Gate(floor=0.5, tolerances={"mail": 0.04})
    return make_evidence(gate, "new", {"bank": task(110, 107), "mail": task(100, 100), "new": new(90)}).to_json()


def check(tmp_path, evidence):
    path = tmp_path / "evidence.json"
    path.write_text(evidence if isinstance(evidence, str) else json.dumps(evidence), encoding="utf-8")
    return check_evidence(path)


def test_evidence_is_self_contained_and_judged_the_same_again(tmp_path, evidence):
    assert set(evidence) == {"format", "gate", "new_task", "tasks", "facts", "verdict"}
    found, whole = check(tmp_path, evidence), Evidence.from_json(evidence)
    assert found.differences == ()
    assert found.to_json() == {**evidence["verdict"], "differences": []}
    assert found.verdict == whole.verdict == decide(whole.gate, whole.new_task, whole.tasks)


def test_graded_evidence_is_judged_the_same_again(tmp_path):
    rows = [str(k) for k in range(40)]
    half, more = score([k / 40 for k in range(40)], rows), score([(k * 7 % 40) / 40 for k in range(40)], rows)
    made = make_evidence(Gate(), "new", {"bank": GuardedTask("v1", half, more)}).to_json()
    assert check(tmp_path, made).differences == ()


@pytest.mark.parametrize(
    ("tamper", "where"),
    [
        (lambda e: e["verdict"].update(verdict="pass"), 'verdict.verdict is "pass" in the file, "inconclusive"'),
        (lambda e: e["verdict"]["tasks"][0].update(high=0.01), "verdict.tasks[0].high is 0.01"),
        (lambda e: e["verdict"].pop("reason"), "verdict.reason is missing"),
        (lambda e: e["verdict"].update(signed=True), "verdict.signed is true in the file, missing when"),
        (lambda e: e["verdict"]["tasks"].pop(), "verdict.tasks is ["),
        (lambda e: e["tasks"]["bank"].update(now=[0.0] * 120), 'verdict.verdict is "inconclusive" in the file, "fail"'),
        (lambda e: e["gate"].update(strict=True), "verdict.strict is false in the file, true"),
        (lambda e: e["gate"].update(tolerance=0.5), 'verdict.verdict is "inconclusive" in the file, "pass"'),
        (lambda e: e["tasks"].pop("mail"), "verdict.tasks is ["),
        (lambda e: e["tasks"]["new"].update(now=[0.0] * 120), "verdict.floor.now is 0.75 in the file, 0.0"),
    ],
)
def test_evidence_that_was_changed_afterwards_is_told(tmp_path, evidence, tamper, where):
    tamper(evidence)
    differences = check(tmp_path, evidence).differences
    assert any(line.startswith(where) for line in differences), differences


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda e: e.update(format=3), "format is 3, this version reads 1 and 2"),
        (lambda e: e.pop("format"), "'format' is missing"),
        (lambda e: e.update(tasks=[]), "'tasks' is missing or is not an object"),
        (lambda e: e.pop("verdict"), "'verdict' is missing"),
        (lambda e: e["tasks"]["bank"].pop("now"), "task 'bank' needs"),
        (lambda e: e["tasks"]["bank"].update(rows=[]), "no list of rows"),
        (lambda e: e["tasks"]["bank"]["now"].pop(), "has 120 rows, and 'now'"),
        (lambda e: e["tasks"]["bank"].update(learned=0.9), "'learned' is not a list"),
        (lambda e: e["tasks"]["bank"]["now"].__setitem__(3, 1.5), "1.5 among 'now'"),
        (lambda e: e["tasks"]["bank"]["now"].__setitem__(3, math.nan), "nan among 'now'"),
        (lambda e: e["tasks"]["bank"]["now"].__setitem__(3, True), "True among 'now'"),
        (lambda e: e["tasks"].pop("new"), "floor"),
        (lambda e: e["gate"].update(tolerance="lax"), "tolerance"),
        (lambda e: e["gate"].update(secret=1), "unknown gate setting 'secret'"),
        (lambda e: e["gate"].update(correct="bonferroni"), "write holm or none"),
        (lambda e: e.update(guards=[1]), "'guards' is not an object"),
        (lambda e: e.update(format=1, guards={"drift": {}}), "or its format has none"),
        (lambda e: e.update(guards={"drift": {"rows": ["a"], "before": [1.0]}}), "guard 'drift' needs"),
        (lambda e: e.update(guards={"d": {"rows": ["a"], "before": [1], "now": [2]}}), "guard 'd' has 2 among 'now'"),
        (lambda e: e.update(guards={"d": {"rows": ["a"], "before": [1], "now": [1]}}), "ability is missing"),
    ],
)
def test_what_is_no_evidence_is_refused_with_what_is_wrong(tmp_path, evidence, damage, says):
    damage(evidence)
    with pytest.raises(BadInput, match=says) as caught:
        check(tmp_path, evidence)
    assert "evidence.json" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"), [("", "line 1"), ('{\n"format": 1,\n', "line 3"), ("[1]", "not a JSON object")]
)
def test_what_is_no_json_object_is_refused_with_its_line(tmp_path, text, says):
    with pytest.raises(BadInput, match=says):
        check(tmp_path, text)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(BadInput, match="No such file"):
        check_evidence(tmp_path / "none.json")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="not text"):
        check_evidence(tmp_path / "binary")


# Edited facts


def fact(number, now=True, before=True):
    return FactKept(f"id {number}", f"P{number} is in", "Oslo", before, now)


def judged(*facts, gate=Gate(), **tasks):
    return make_evidence(gate, "new", tasks, facts).verdict


def test_facts_that_are_all_said_pass_and_no_facts_are_not_judged():
    found = judged(fact(1), fact(2))
    assert found.verdict == "pass"
    assert found.facts == FactsVerdict("pass", 2, (), 0.0, "all 2 edited facts are still said")
    assert screen(found).splitlines()[-1] == "all 2 edited facts are still said"
    assert judged().facts is None
    assert judged(fact(1, now=False, before=False)).facts is None  # it had nothing to lose


def test_one_lost_fact_fails_the_gate_and_is_named():
    found = judged(fact(1), fact(2, now=False), bank=task(110, 110))
    assert found.verdict == "fail"
    assert found.reason == "1 of 2 edited facts is no longer said ('P2 is in' 'Oslo'); none may be lost"
    assert found.facts.lost == ("id 2",)
    assert [t.verdict for t in found.tasks] == ["pass"]
    many = judged(*(fact(n, now=False) for n in range(5)), bank=task(110, 20))
    assert "5 of 5 edited facts are no longer said ('P0 is in' 'Oslo', 'P1" in many.reason
    assert "and 2 more" in many.reason
    assert "bank lost more than the tolerance" in many.reason


@pytest.mark.parametrize(("allowed", "verdict"), [(0.0, "fail"), (0.09, "fail"), (0.1, "pass"), (1.0, "pass")])
def test_a_share_of_the_facts_may_be_lost_where_the_gate_allows_it(allowed, verdict):
    found = judged(*(fact(n, now=n > 0) for n in range(10)), gate=Gate(lost_facts=allowed))
    assert found.verdict == found.facts.verdict == verdict
    assert "1 of 10 edited facts is no longer said" in screen(found)


def test_evidence_of_facts_is_judged_again_and_what_was_changed_is_told(tmp_path):
    made = make_evidence(Gate(lost_facts=0.5), "new", {"bank": task(110, 110)}, [fact(1), fact(2, now=False)]).to_json()
    assert made["verdict"]["verdict"] == "pass"
    assert check(tmp_path, made).differences == ()
    made["facts"][0]["now"] = False
    again = check(tmp_path, made)
    assert again.verdict.verdict == "fail"
    assert any(line.startswith("verdict.facts.lost") for line in again.differences)
    made["facts"][0]["now"] = "yes"
    with pytest.raises(BadInput, match="'facts' is no list"):
        check(tmp_path, made)


def test_evidence_from_before_facts_were_judged_is_judged_as_it_was(tmp_path, evidence):
    del evidence["facts"], evidence["verdict"]["facts"], evidence["gate"]["lost_facts"]
    assert check(tmp_path, evidence).differences == ()


@pytest.mark.parametrize("share", [-0.1, 1.1, "few", True])
def test_the_share_of_facts_is_a_share(share):
    with pytest.raises(BadSpec, match="lost_facts"):
        Gate(lost_facts=share)


# Many tasks judged together


def test_of_many_tasks_one_fails_by_itself_and_not_among_the_others(tmp_path):
    """A drop of which one of twenty is chance is no proof where eight tasks had the chance."""
    marginal, kept = task(110, 101), {f"kept {k}": task(100, 100) for k in range(7)}
    alone, many = verdict(mail=marginal), verdict(mail=marginal, **kept)
    assert (alone.verdict, alone.correct, alone.tasks[0].p) == ("fail", "none", None)
    assert (many.verdict, many.correct) == ("inconclusive", "holm")
    mail = many.tasks[0]
    assert (mail.task, mail.verdict) == ("mail", "inconclusive")
    assert mail.low > 0.03
    assert mail.p == pytest.approx(8 * paired_p_value(items(110, 120), items(101, 120), 0.03, continuity=True))
    assert mail.more_items > 0
    assert "not certain for all tasks together; about" in mail.reason
    assert verdict(Gate(correct="none"), mail=marginal, **kept).verdict == "fail"
    clear = verdict(mail=task(110, 70), **kept)
    assert (clear.verdict, clear.tasks[0].verdict) == ("fail", "fail")


def test_the_format_of_evidence_names_the_rule_that_judged_it(tmp_path):
    """Format 1 is the rule of one task at a time: what it states is judged again as it was, whatever the rule is now."""
    marginal, kept = task(110, 101), {f"kept {k}": task(100, 100) for k in range(7)}
    new_rule = make_evidence(Gate(), "new", {"mail": marginal, **kept})
    old_rule = make_evidence(Gate(correct="none"), "new", {"mail": marginal, **kept})
    assert (new_rule.format, old_rule.format) == (2, 1)
    assert (new_rule.verdict.verdict, old_rule.verdict.verdict) == ("inconclusive", "fail")
    assert make_evidence(Gate(), "new", {"mail": marginal, "new": new(100)}).format == 1  # one task: both rules are one
    assert make_evidence(Gate(), "new", {}).format == 1
    stored = old_rule.to_json()
    del stored["gate"]["correct"]  # as it was written before there was a choice
    assert check(tmp_path, stored).differences == ()
    assert check(tmp_path, new_rule.to_json()).differences == ()
    assert check(tmp_path, {**stored, "format": 2}).verdict.verdict == "inconclusive"


def test_twelve_tasks_at_their_tolerance_are_rarely_refused():
    generator, refused, before = np.random.default_rng(1), 0, 0
    for counts in generator.multinomial(200, [0.09, 0.06, 0.85], size=(200, 12)):
        tasks = {}
        for k, (lost, won, same) in enumerate(counts):
            a, b = np.repeat([1.0, 0.0, 1.0], [lost, won, same]), np.repeat([0.0, 1.0, 1.0], [lost, won, same])
            rows = tuple(map(str, range(200)))
            tasks[f"t{k}"] = ItemScores("v", rows, tuple(a.tolist()), tuple(b.tolist()))
        refused += decide(Gate(), "new", tasks).verdict == "fail"
        before += decide(Gate(correct="none"), "new", tasks).verdict == "fail"
    assert refused / 200 <= 0.08
    assert before / 200 > 0.3


# The screen


def test_the_screen_says_what_was_decided_and_why(evidence):
    text = screen(Verdict.from_json(evidence["verdict"]))
    lines = text.splitlines()
    assert (
        lines[0] == "gate: INCONCLUSIVE (tolerance 3.0 points, bounds with 95% confidence, fail corrected for 2 tasks)"
    )
    assert "would decide" in lines[1]
    assert lines[3].startswith(
        "inconclusive  bank   91.7% ->  89.2%  n=120    2.5 points lost, could be 0.2 lost to 6.1 lost;"
    )
    assert lines[4].startswith(
        "pass          mail   83.3% ->  83.3%  n=120    no change, at most 2.2 points lost (tolerance 4.0"
    )
    assert lines[-1] == "new: the new task's 75.0% (120 test items) reaches the floor of 50.0%"


def test_the_screen_tells_that_the_stored_verdict_differs(tmp_path, evidence):
    evidence["verdict"]["verdict"] = "pass"
    assert "differs from the stored verdict: verdict.verdict" in screen(*vars(check(tmp_path, evidence)).values())


def test_many_tasks_still_fit_on_one_screen():
    tasks = {f"task {k:02}": task(110, 110) for k in range(40)} | {"lost": task(110, 20)}
    text = screen(verdict(**tasks))
    assert len(text.splitlines()) <= 24
    assert text.splitlines()[3].split()[:5] == ["fail", "lost", "91.7%", "->", "16.7%"]
    assert "... and 26 more: 26 pass" in text


def test_the_screen_of_a_first_task_is_two_lines():
    assert (
        screen(verdict(new=new(90)))
        == "gate: PASS (tolerance 3.0 points, bounds with 95% confidence)\nfirst task: nothing to lose\n"
    )
