"""A guard file is read as written, a wrong key is an error that helps, and the order of rows makes budgets nested."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.core.errors import BadInput, BadSpec
from perdure.core.rows import Row
from perdure.data.guard_order import boundary, in_order, pieces
from perdure.data.guard_spec import GuardSpec, guard_file, load_guard_spec, make_guard_spec
from perdure.data.load import load_probe

WHOLE = """
ability_guard: arc_easy
test: ability/arc_easy.jsonl
template: "{prompt}\\nAnswer:"
scorer: {name: choice, normalise: tokens}
ability: commonsense
items: {quick: 100, standard: 400, full: all}
chance: 0.25
where: {level: easy, subject: [physics, biology]}
group: subject
sources: {ability/arc_easy.jsonl: "ARC, CC BY-SA 4.0"}
"""


def test_a_file_is_read_as_written(tmp_path):
    (tmp_path / "arc.yaml").write_text(WHOLE)
    spec = load_guard_spec(tmp_path / "arc.yaml")
    assert (spec.name, spec.ability, spec.chance, spec.group) == ("arc_easy", "commonsense", 0.25, "subject")
    assert [file.as_posix() for file in spec.files] == ["ability/arc_easy.jsonl"]
    assert spec.where == {"level": ["easy"], "subject": ["physics", "biology"]}
    assert spec.task == {"template": "{prompt}\nAnswer:", "scorer": {"name": "choice", "normalise": "tokens"}}


MADE = {"ability_guard": "sums", "made": "arithmetic", "ability": "maths"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"abilty": "maths"}, "unknown key 'abilty', did you mean ability?"),
        ({"train": "rows.jsonl"}, "unknown key 'train'; a guard is never trained: its rows are `test`"),
        ({"general": "rows.jsonl"}, "that key belongs to tasks that are learned"),
        ({"zzz": 1}, "known keys are ability, ability_guard"),
        ({"ability": "math"}, "ability"),
        ({"ability_guard": "a b"}, "must begin with a letter"),
        ({"test": "rows.jsonl"}, "`test` and `made`"),
        ({"made": None}, "none of them"),
        ({"items": {"quick": 50, "standard": 20}}, "must not fall"),
        ({"items": {"learn": 60, "quick": 50}}, "must not fall"),
        ({"items": {"learn": 0, "quick": 0, "standard": 0, "full": 0}}, "full: 0"),
        ({"items": {"slow": 3}}, "items"),
        ({"chance": 2}, "chance"),
    ],
)
def test_what_is_wrong_is_named(values, words):
    with pytest.raises(BadSpec, match=r"guard file g\.yaml") as error:
        make_guard_spec({**MADE, **values}, "guard file g.yaml")
    assert words in str(error.value)


def test_what_is_no_guard_is_named(tmp_path):
    with pytest.raises(BadInput, match="no guard 'nothing'"):
        guard_file("nothing")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(BadSpec, match="must be a mapping"):
        load_guard_spec(tmp_path / "list.yaml")


def test_the_largest_budget_has_all_rows_by_default():
    spec = GuardSpec.model_validate(MADE)
    assert (spec.items.learn, spec.items.quick, spec.items.standard, spec.items.full) == (None, 100, 400, "all")


def test_rows_are_narrowed_and_grouped_by_columns(tmp_path):
    lines = ['{"prompt": "p%d", "completion": "c", "kind": "%s"}' % (n, "ab"[n % 2]) for n in range(6)]  # noqa: UP031
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(lines))
    task = load_probe("g", file, {"format": "prompt_completion"}, where={"kind": ["a"]}, group="kind")
    assert [(row.prompt, row.group) for row in task.test] == [("p0", "a"), ("p2", "a"), ("p4", "a")]
    for options, words in (
        ({"where": {"sort": ["a"]}}, "`where` names the column 'sort'"),
        ({"where": {"kind": ["c"]}}, "`where` leaves no row"),
        ({"group": "sort"}, "`group` names the column 'sort'"),
    ):
        with pytest.raises(BadInput, match=words):
            load_probe("g", file, {"format": "prompt_completion"}, **options)


def rows_of(groups):
    return [
        Row(prompt=f"{name} {n}", completion="x", group=name) for name, count in groups.items() for n in range(count)
    ]


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 5), min_size=1), st.randoms())
def test_the_order_is_of_the_rows_and_takes_one_of_each_group_in_turn(groups, random):
    rows = rows_of(groups)
    ordered = in_order(rows)
    shuffled = [*rows]
    random.shuffle(shuffled)
    assert in_order(shuffled) == ordered
    assert sorted(row.hash for row in ordered) == sorted(row.hash for row in rows)
    first = [row.group for row in ordered[: len(groups)]]
    assert sorted(first) == sorted(groups)  # no group twice before every group once
    assert in_order([replace(row, source="elsewhere:1") for row in rows]) == tuple(
        replace(row, source="elsewhere:1") for row in ordered
    )


def test_labels_take_turns_where_there_are_no_groups():
    rows = [Row(prompt=f"p{n}", completion="x", label="yes" if n else "no") for n in range(9)]
    assert {row.label for row in in_order(rows)[:2]} == {"yes", "no"}


@given(st.lists(st.integers(0, 400), min_size=3, max_size=3).map(sorted), st.data())
def test_pieces_end_at_the_same_boundaries_whatever_was_scored_before(budgets, data):
    rows = 400
    stops = sorted({boundary(n, budgets, rows) for n in data.draw(st.lists(st.integers(1, rows), min_size=1))})
    once = pieces(0, stops[-1], budgets)
    grown, done = [], 0
    for stop in stops:
        grown += pieces(done, stop, budgets)
        done = stop
    assert grown == once
    assert [n for piece in once for n in piece] == list(range(stops[-1]))
    assert max(map(len, once)) <= 50


def test_a_number_of_items_is_rounded_up_to_the_end_of_a_piece():
    assert [boundary(n, (40, 60), 130) for n in (0, 1, 40, 41, 51, 61, 101, 999)] == [0, 40, 40, 50, 60, 100, 130, 130]
