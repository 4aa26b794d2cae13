import json

import pytest

from perdure.core.errors import BadInput
from perdure.evaluate.matrix import Matrix, Part, Stage, build_matrix, plain_text
from perdure.evaluate.scorers import score_record

TASKS = ["banking", "a very long task name"]
STAGES = [
    Stage("e0", "base", None),
    Stage("e1", "learn", "banking"),
    Stage("e2", "learn", "a very long task name"),
]


def record(right, n=20, first=0):
    rows = [f"row {k}" for k in range(first, first + n)]
    return score_record("exact", [1.0] * right + [0.0] * (n - right), [""] * n, rows, 0.1)


def matrix(**options):
    records = [[record(2), record(1)], [record(18), record(4)], [record(14), record(16)]]
    return build_matrix(TASKS, STAGES, records, resamples=200, **options)


def test_the_json_has_the_shape_that_tools_rely_on():
    found = matrix().to_json()
    assert list(found) == ["tasks", "stages", "score", "n", "metrics"]
    assert found["tasks"] == ["banking", "a very long task name"]
    assert found["stages"][0] == {"entry": "e0", "kind": "base", "task": None}
    assert found["score"] == [[0.1, 0.05], [0.9, 0.2], [0.7, 0.8]]
    assert found["n"] == [[20, 20]] * 3
    assert set(found["metrics"]) == {"acc", "bwt", "forgetting", "fwt", "learning_accuracy"}
    for metric in found["metrics"].values():
        assert metric["low"] < metric["value"] < metric["high"]
    assert found["metrics"]["bwt"]["value"] == pytest.approx(-0.2)
    assert found["metrics"]["fwt"]["value"] == pytest.approx(0.15)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert Matrix.from_json(found) == matrix()


def test_a_cell_that_was_not_measured_is_null_and_what_needs_it_says_so():
    records = [[record(2), None], [record(18), record(4)], [record(14), record(16)]]
    found = build_matrix(TASKS, STAGES, records, resamples=50)
    assert found.score[0] == (0.1, None)
    assert found.n[0] == (20, None)
    assert found.metrics["fwt"].value is None
    assert "after stage 0" in found.metrics["fwt"].missing
    assert found.metrics["acc"].value == pytest.approx(0.75)


def test_a_stage_that_was_not_scored_is_left_out_of_forgetting_and_named():
    stages = [*STAGES, Stage("e3", "edit", None)]
    records = [[record(2), record(1)], [record(18), record(4)], [None, record(16)], [record(14), record(16)]]
    found = build_matrix(TASKS, stages, records, resamples=50)
    assert found.metrics["forgetting"].value == pytest.approx(0.1)
    assert found.metrics["forgetting"].note == "not scored and left out: 'banking' after stage 2"
    assert "forgetting: not scored and left out: 'banking' after stage 2\n" in plain_text(found)
    assert Matrix.from_json(found.to_json()) == found
    assert "note" not in matrix().to_json()["metrics"]["forgetting"]


def test_a_task_is_learned_at_its_first_learn_and_a_guarded_ability_never():
    stages = [
        *STAGES,
        Stage("e3", "edit", "banking"),
        Stage("e4", "learn", "banking"),
    ]
    assert Matrix(("banking", "manners"), tuple(stages), (), (), {}).learned == [1, None]


def test_a_new_version_of_the_test_part_is_compared_over_the_rows_in_common():
    stages = [*STAGES, Stage("e3", "learn", "banking")]
    grown = record(14)  # 14 of the old 20 right, and 20 new rows all right
    grown = score_record("exact", [*grown.items, *[1.0] * 20], [""] * 40, [*grown.rows, *map(str, range(20))], 0.1)
    records = [[record(2), record(1)], [record(18), record(4)], [record(14), record(16)], [grown, record(16)]]
    found = build_matrix(TASKS, stages, records, resamples=50)
    assert found.n[3] == (40, 20)
    assert found.score[3][0] == pytest.approx(34 / 40)
    assert found.metrics["bwt"].value == pytest.approx((14 / 20 - 18 / 20 + 0) / 2)


def test_one_column_per_task_and_one_line_per_stage():
    with pytest.raises(BadInput, match="appears twice"):
        build_matrix([TASKS[0], TASKS[0]], STAGES[:1], [[None, None]])
    for records in ([[None, None]], [[None]] * 3):
        with pytest.raises(BadInput, match="one line of scores per stage"):
            build_matrix(TASKS, STAGES, records)


def test_the_table_is_aligned_and_shows_n_and_intervals():
    text = plain_text(matrix())
    lines = text.splitlines()
    assert lines[0].split() == ["after", "banking", "a", "very", "long", "t…"]
    assert lines[1].startswith("0 base ")
    assert "90.0%*" in lines[2]
    assert "80.0%*" in lines[3]
    assert lines[4].split() == ["test", "items", "20", "20"]
    assert len({line.index("%") for line in lines[1:4] if "%" in line}) == 1
    assert lines[6].startswith("acc ")
    assert "75.0%" in lines[6]
    assert "n=40" in lines[6]
    assert "-20.0 points" in lines[7]
    assert "n=20" in lines[7]
    assert lines[-1] == "worst change: banking -20.0 points since it was learned"
    assert text.endswith("\n")
    assert all(len(line) <= 120 and line == line.rstrip() for line in lines)


def test_the_table_of_a_base_alone_says_why_there_is_no_metric():
    text = plain_text(build_matrix(TASKS, STAGES[:1], [[record(2), None]]))
    assert "0 base" in text
    assert "acc                          -  no task was learned yet" in text


def test_an_empty_workspace_has_a_table_too():
    assert plain_text(build_matrix([], STAGES[:1], [[]])).startswith("after\n0 base\n")


def test_of_a_large_table_the_newest_and_the_worst_are_shown_and_the_rest_is_counted():
    names = [f"t{i:02d}" for i in range(20)]
    stages = [Stage("base", "base", None), *(Stage(name, "learn", name) for name in names)]
    lost = {3: 4, 11: 2}  # rows of ten that these tasks lost since they were learned
    scores = [
        [record(9 - (lost.get(j, 0) if i == 20 else 0), n=10) if i > j else None for j in range(20)]
        for i in range(len(stages))
    ]
    large = build_matrix(names, stages, scores)
    part = Part.of(large, 6, 4)
    assert part.columns == (0, 3, 11, 17, 18, 19)  # two that lost, the first of the equal ones, three that are new
    assert part.rows == (0, 17, 18, 19, 20)
    assert part.hides(large) == (14, 16)
    assert Part.of(large, 20, 20) == Part.of(large)
    lines = plain_text(large, part).splitlines()
    assert lines[0].split() == ["after", "t00", "t03", "t11", "t17", "t18", "t19"]
    assert lines[5].split() == ["20", "learn", "t19", "90.0%", "50.0%", "70.0%", "90.0%", "90.0%", "90.0%*"]
    assert lines[6].split() == ["when", "learned", *["90.0%"] * 6]
    assert lines[8:] == plain_text(large).splitlines()[23:]  # the metrics are of all tasks
