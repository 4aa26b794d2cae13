"""Guards in a benchmark: what arms did to each, in closed form, and their columns in the table."""

import json
import math
from dataclasses import replace

import pytest

from bench_runs import finished, task_cost
from perdure.report.bench_table import columns, markdown
from perdure.workflows.bench.compare import compare
from perdure.workflows.bench.guard_records import EARLIER
from perdure.workflows.bench.records import FinishedRun

N = 60
STAGES = [{"entry": "b", "kind": "base", "task": None}, {"entry": "l", "kind": "learn", "task": "one"}]
MATRIX = {"tasks": ["one"], "stages": STAGES, "score": [[0.0], [1.0]], "n": [[1, 1]] * 2, "metrics": {}}
METRICS = {"acc": {"value": 1.0, "low": 0.5, "high": 1.0, "n": 1}}


def scores(right, n=N, **readings):
    """What a state scores that has the first `right` of n rows right."""
    return {"items": [1] * right + [0] * (n - right), "seconds": 1.0, **({"readings": readings} if readings else {})}


def guard(ability, base, *stages, chance=None, groups=()):
    own = {"ability": ability, "version": "v", "rows": [f"r{i}" for i in range(N)], "base": base, "stages": stages}
    return own | ({"chance": chance} if chance is not None else {}) | ({"groups": groups} if groups else {})


def drift(*same):
    base = {"items": [1] * N, "seconds": 0.0, "readings": {"kl": [0.0] * N}}
    states = [
        {"items": [level] * (N - 1) + [level / 2], "seconds": 1.0, "readings": {"kl": [1.0 - level] * N}}
        for level in same
    ]
    return guard("drift", base, *states)


def run(arm, seed=0, **guards):
    return finished(
        arm=arm,
        arm_hash=arm,
        seed=seed,
        matrix={**MATRIX, "metrics": METRICS},
        items={"one": {"rows": ["t"], "scores": [[0], [1]]}},
        tasks=[task_cost(1.0)],
        **({"guards": guards} if guards else {}),
    )


RUNS = [
    run(
        "naive",
        drift=drift(0.9, 0.7),
        talk=guard("instruction", scores(30), None, scores(10)),
        sums=guard("maths", scores(40), None, scores(36)),
        letters=guard("knowledge", scores(15), None, scores(15), chance=0.25),
    ),
    run(
        "replay",
        drift=drift(0.9, 0.9),
        talk=guard("instruction", scores(30), None, scores(28)),
        sums=guard("maths", scores(40), None, scores(40)),
        letters=guard("knowledge", scores(15), None, scores(20), chance=0.25),
    ),
]


def lines(found):
    return {line.arm: line for line in found.arms}


def test_a_guard_changes_by_the_difference_of_its_rows_scores():
    naive = lines(compare(RUNS))["naive"]
    talk, letters = naive.guards["talk"], naive.guards["letters"]
    assert (talk.before, talk.after, talk.value, talk.n) == (0.5, pytest.approx(10 / N), pytest.approx(-20 / N), N)
    assert talk.low < talk.value < talk.high < 0
    assert (talk.blind, letters.blind) == (False, True)  # a quarter right of four choices
    assert talk.by_stage[0] is None
    assert talk.by_stage[1].value == pytest.approx(10 / N)


def test_drift_is_shown_as_what_is_the_same_with_its_readings():
    change = lines(compare(RUNS))["naive"].guards["drift"]
    assert change.drifts
    assert [stage.value for stage in change.by_stage] == pytest.approx([0.9 - 0.45 / N, 0.7 - 0.35 / N])
    assert change.readings["kl"].value == pytest.approx(0.3)
    assert (change.blind, change.before) == (False, 1.0)


def test_the_worst_guard_is_the_ability_that_lost_most_and_its_interval_is_wider():
    naive = lines(compare(RUNS))["naive"]
    worst, alone = naive.worst_guard, naive.guards["talk"]
    assert (worst.name, worst.value, worst.of) == ("talk", alone.value, 2)  # drift and blind guards do not count
    assert worst.low < alone.low
    assert worst.high > alone.high
    only = run("only", letters=guard("knowledge", scores(15), scores(0), chance=0.25))
    assert compare([only]).arms[0].worst_guard is None


def test_two_arms_are_compared_row_by_row_over_shared_seeds():
    minus = lines(compare(RUNS))["replay"].guards_minus
    assert minus["talk"].value == pytest.approx(18 / N)
    assert minus["drift"].value == pytest.approx(0.2 * (N - 0.5) / N)
    assert minus["drift"].low > 0
    assert lines(compare(RUNS))["naive"].guards_minus == {}
    other_seed = run("replay", 1, talk=guard("instruction", scores(30), None, scores(28)))
    assert lines(compare([RUNS[0], other_seed]))["replay"].guards_minus == {}


def test_a_row_s_score_is_its_mean_over_the_seeds():
    more = run("naive", 1, talk=guard("instruction", scores(30), None, scores(20)))
    talk = lines(compare([RUNS[0], more]))["naive"].guards["talk"]
    assert (talk.after, talk.n) == (pytest.approx(15 / N), N)
    assert "drift" not in lines(compare([RUNS[0], more]))["naive"].guards  # the second seed was not scored on it


def test_rows_of_a_group_are_resampled_together():
    kinds = [f"kind {i // 20}" for i in range(N)]  # all of a kind or nothing
    talk = {
        groups: run("naive", talk=guard("instruction", scores(40), scores(20), groups=kinds if groups else ()))
        for groups in (False, True)
    }
    alone, grouped = (lines(compare([talk[key]]))["naive"].guards["talk"] for key in (False, True))
    assert (alone.groups, grouped.groups) == (0, 3)
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)
    states = [
        {"items": [1] * N, "seconds": 0.0, "readings": {"kl": [2.0 * (i < 20) * k for i in range(N)]}} for k in (0, 1)
    ]
    rows, kind = (
        compare([run("naive", drift=guard("drift", *states, groups=own))]).arms[0].guards["drift"].readings["kl"]
        for own in ((), kinds)
    )
    assert rows.value == kind.value == pytest.approx(2 / 3)
    assert kind.high - kind.low > 2 * (rows.high - rows.low)


def test_a_guard_that_scores_no_more_than_the_tolerance_is_blind_as_it_is_in_the_gate():
    low = guard("instruction", scores(1), scores(0))  # 1.7 points, and the tolerance is 3
    line = compare([run("naive", low=low)]).arms[0]
    assert line.guards["low"].blind
    assert line.worst_guard is None


def passages(nats):
    """What a state scored on the earlier guard `language`."""
    readings = {"nats": [nats] * N, "tokens": [40.0] * N}
    return {"items": [math.exp(-nats)] * N, "seconds": 1.0, "readings": readings}


@pytest.mark.parametrize("model", ["smollm2-135m", "another"])
def test_an_earlier_result_of_the_guard_language_is_read_on_today_s_scale(model):
    earlier = guard("language", passages(3.77), passages(3.77 + math.log(2))) | {"version": EARLIER[0]}
    line = compare([replace(run("naive", language=earlier), model=model)]).arms[0]
    change = line.guards["language"]
    if model == "another":  # whose number of tokens is not known
        assert (change.before, change.blind) == (pytest.approx(math.exp(-3.77)), True)
    else:
        assert (change.before, change.blind) == (pytest.approx(1 - 3.77 / math.log(49152)), False)
        assert change.value == pytest.approx(-math.log(2) / math.log(49152))
        assert line.worst_guard.name == "language"


def test_a_run_without_guards_has_no_columns_and_is_stored_as_before():
    plain = run("naive")
    assert "guards" not in plain.to_json()
    assert "guards" not in compare([plain]).to_json()
    assert not any("same" in head or "guard" in head for head in columns(compare([plain])))


def test_guards_are_columns_of_the_table():
    text = markdown(compare([*RUNS, run("older")]))
    heads, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line
    ]
    cells = {row[0]: dict(zip(heads, row, strict=True)) for row in rows}
    naive = cells["naive"]
    assert naive["drift same"].startswith("0.694 (0.6")
    assert naive["drift KL"].startswith("0.300 (0.2")
    assert naive["talk change"].startswith("-0.333 (-0.4")
    assert naive["letters change"] == "blind"
    assert naive["worst guard"].startswith("talk -0.333 (")
    assert cells["older"]["drift same"] == cells["older"]["worst guard"] == "–"
    assert f"talk 0.500 (n = {N})" in text
    assert "Same: 1 less" in text


def test_a_result_with_guards_is_read_as_it_was_written():
    written = json.loads(json.dumps(RUNS[0].to_json()))
    assert FinishedRun.from_json(written) == RUNS[0]
    assert math.isclose(FinishedRun.from_json(written).guards["drift"].stages[1].readings["kl"][0], 0.3)
