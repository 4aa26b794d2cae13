"""Instructions by kind: what a model that has become terse loses, beside what it gains."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.cli.checkup_screen import _guards
from perdure.data.made import made_rows
from perdure.evaluate.scorers import checks_hold, score_record
from perdure.ledger.records import Guard, GuardBudget
from perdure.workflows.checkup.readings import guard_reading
from perdure.workflows.checkup_records import GuardReading
from perdure.workflows.guards.kinds import by_kind
from perdure.workflows.guards.measure import MeasuredGuard

# kinds that ask for a short answer, or for one that leaves something out
TERSE = {
    *("few words", "one sentence", "one word", "short title", "under 15 words"),
    *("forbidden word", "no comma", "without a letter"),
}
LONG = "Well, thank you! Is it so? First, a word on this, second, another one, and third, so much more that nobody reads on!"
ROWS = made_rows("instructions")


def items(answer):
    return [checks_hold(row, answer) for row in ROWS]


@pytest.mark.parametrize("word", ["refund", "Parcel", "Billing."])
def test_a_state_that_answers_with_one_word_fails_all_but_the_terse_kinds(word):
    followed = {row.group for row, item in zip(ROWS, items(word), strict=True) if item}
    assert len({row.group for row in ROWS}) == 40
    assert followed == TERSE


def reading(before, now):
    hashes = [row.hash for row in ROWS]
    then, present = (
        score_record("checks", found, [""] * len(ROWS), hashes, 1.0, {}) for found in (items(before), items(now))
    )
    guard = Guard(
        name="instructions",
        version="v",
        ability="instruction",
        items=GuardBudget(40, 120, 200, 200),
        chance=None,
        reference="base",
        source="made",
    )
    return guard_reading(MeasuredGuard(guard, tuple(ROWS), then, present))


def test_gains_stand_beside_losses():
    found = reading(LONG, "Refund")
    kinds = {one.kind: one for one in found.kinds}
    assert (len(kinds), sum(one.n for one in kinds.values())) == (40, 200)
    assert (kinds["one word"].gained, kinds["one word"].lost) == (5, 0)
    assert (kinds["one word"].before, kinds["one word"].now) == (0.0, 1.0)
    assert {name for name, one in kinds.items() if one.gained} <= TERSE
    assert kinds["exclamation"].lost == 5
    assert not any(one.gained for one in kinds.values() if one.lost)
    assert GuardReading.from_json(found.to_json()) == found
    assert found.to_json()["kinds"][0] == found.kinds[0].to_json()
    changed = [one for one in found.kinds if one.changed]
    first, *lines, last = _guards({"instructions": found}, {}, lambda ability: True)
    assert first.startswith("instruction  instructions  ")
    assert len(lines) == 6
    assert [line.split("  ")[1] for line in lines] == [one.kind for one in found.kinds[:6]]
    assert last == f"  of the other kinds {len(changed) - 6} more changed, {40 - len(changed)} did not change"


def test_where_nothing_changed_no_kind_is_shown():
    found = reading(LONG, LONG)
    assert not any(one.changed for one in found.kinds)
    assert len(_guards({"instructions": found}, {}, lambda ability: True)) == 1


scored = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0])))


@given(scored)
def test_kinds_add_up_to_the_whole(rows):
    groups, before, now = (list(part) for part in zip(*rows, strict=True)) if rows else ([], [], [])
    found = by_kind(groups, before, now)
    if len(set(groups)) == len(groups):
        assert found == ()
        return
    assert sum(one.n for one in found) == len(rows)
    assert sum(one.n * one.now for one in found) == pytest.approx(sum(now))
    assert sum(one.gained for one in found) == sum(b > a for a, b in zip(before, now, strict=True))
    assert sum(one.lost for one in found) == sum(b < a for a, b in zip(before, now, strict=True))
    net = [abs(one.gained - one.lost) for one in found]
    assert net == sorted(net, reverse=True)
