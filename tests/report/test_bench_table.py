"""The benchmark's numbers in closed form, and its table in Markdown and HTML."""

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from bench_runs import failed, finished, machine, task_cost
from perdure.report.bench_table import markdown, page
from perdure.workflows.bench.compare import compare, mean_matrix

N = 20


def run(arm, seed, first, second, *, seconds=10.0, threads=1, written="a", of=None, time="2026-01-01", **more):
    """A run of two tasks of N rows: `first` of task one right after each stage, `second` of task two after the last."""
    counts = {"one": [0, *first], "two": [0, 0, second]}
    items = {
        name: {"rows": [f"{name}{seed}{i}" for i in range(N)], "scores": [[1] * c + [0] * (N - c) for c in column]}
        for name, column in counts.items()
    }
    stages = [
        {"entry": f"{arm}{i}", "kind": "learn" if i else "base", "task": t} for i, t in enumerate((None, "one", "two"))
    ]
    return finished(
        arm=arm,
        seed=seed,
        arm_hash=f"{of or arm} {written}",
        time=time,
        matrix={
            "tasks": ["one", "two"],
            "stages": stages,
            "score": [[counts["one"][i] / N, counts["two"][i] / N] for i in range(3)],
            "n": [[N, N]] * 3,
            "metrics": {"acc": {"value": (first[1] + second) / (2 * N), "low": 0.0, "high": 1.0, "n": 2 * N}},
        },
        items=items,
        tasks=[task_cost(seconds / 2), task_cost(seconds / 2)],
        machine=machine(threads=threads),
        peak_mib=1000.0 + seed,
        stored={"weights": 1_000_000, "memory_rows": 500_000 * seed},
        **more,
    )


RUNS = [
    run("naive", 0, (16, 4), 18),
    run("naive", 1, (14, 6), 16, seconds=20.0),
    run("replay", 0, (16, 12), 17, seconds=15.0),
    run("replay", 1, (14, 14), 15, seconds=40.0),
    failed("bad|one", 0, "Diverged: <b>nan</b>\nlower it"),
]


def arms(found):
    """The lines by arm, as the command prints them."""
    return {line["arm"]: line for line in found.to_json()["arms"]}


def test_scores_are_means_over_seeds_and_tasks():
    replay, naive = arms(compare(RUNS))["replay"], arms(compare(RUNS))["naive"]
    assert replay["acc"]["value"] == pytest.approx((12 + 17 + 14 + 15) / (4 * N))
    assert replay["bwt"]["value"] == pytest.approx((12 - 16 + 14 - 14) / (2 * N))
    assert replay["forgetting"]["value"] == pytest.approx(-replay["bwt"]["value"])
    assert replay["learning_accuracy"]["value"] == pytest.approx((16 + 17 + 14 + 15) / (4 * N))
    assert replay["acc"]["n"] == 4 * N
    assert naive["acc_by_seed"] == {"0": 22 / (2 * N), "1": 22 / (2 * N)}
    for line in (replay, naive):
        for key in ("acc", "bwt", "forgetting", "learning_accuracy"):
            assert line[key]["low"] < line[key]["value"] < line[key]["high"]


def test_the_difference_is_paired_row_by_row():
    gap = arms(compare(RUNS))["replay"]["acc_minus"]
    assert gap["value"] == pytest.approx((8 - 1 + 8 - 1) / (4 * N))
    assert gap["n"] == 4 * N
    acc = arms(compare(RUNS))["replay"]["acc"]
    assert gap["high"] - gap["low"] < acc["high"] - acc["low"]  # most rows are right in both, and say nothing
    assert arms(compare(RUNS))["naive"]["acc_minus"] is None
    assert arms(compare(RUNS, "replay"))["naive"]["acc_minus"]["value"] == pytest.approx(-gap["value"])


def test_only_seeds_that_both_have_are_paired():
    line = arms(compare(RUNS[1:]))["replay"]
    assert (line["acc_minus"]["n"], line["acc_minus"]["value"]) == (2 * N, pytest.approx(7 / (2 * N)))
    assert line["train_ratio"] == {"value": 2.0, "low": 2.0, "high": 2.0, "n": 1}
    assert arms(compare(RUNS[2:]))["replay"]["acc_minus"] is None
    assert arms(compare(RUNS[2:]))["replay"]["train_ratio"] is None


def test_a_time_is_measured_by_the_last_run_of_naive_before_it_whatever_its_label():
    more = [
        run("early", 0, (16, 4), 18, seconds=5.0, time="2025-12-31"),
        run("between", 0, (16, 4), 18, seconds=20.0, time="2026-01-31"),
        run("naive_again", 0, (16, 4), 18, of="naive", seconds=30.0, time="2026-02-01"),
        run("late", 0, (16, 4), 18, seconds=45.0, time="2026-02-03"),
    ]
    found = arms(compare([*RUNS, *more]))
    told = {name: found[name]["train_ratio"]["value"] for name in ("naive", *(one.arm for one in more))}
    assert told == {"naive": 1.0, "early": 0.5, "between": 2.0, "naive_again": 1.0, "late": 1.5}
    assert found["replay"]["train_ratio"]["value"] == 1.75  # as without them


def test_time_is_the_median_over_seeds_of_the_ratio_to_naive():
    line = arms(compare(RUNS))["replay"]
    assert line["train_ratio"] == {"value": 1.75, "low": 1.5, "high": 2.0, "n": 2}
    assert line["train_seconds"] == {"value": 27.5, "low": 15.0, "high": 40.0, "n": 2}
    assert line["stored_bytes"]["high"] == 1_500_000
    assert line["peak_mib"]["value"] == 1000.5


def test_scores_that_were_computed_otherwise_are_told():
    assert "Computed in" not in markdown(compare(RUNS))
    other = replace(RUNS[0], machine=replace(RUNS[0].machine, dtype="bfloat16"))
    found = compare([other, *RUNS[1:]])
    assert len(found.computed) == 2
    assert "bfloat16 on" in markdown(found)


def test_times_under_other_threads_are_not_compared():
    runs = [RUNS[0], run("replay", 0, (16, 12), 17, threads=2)]
    assert arms(compare(runs))["replay"]["train_ratio"] is None
    assert arms(compare(runs))["replay"]["acc_minus"] is not None


def test_the_best_comes_first_and_failures_are_kept():
    found = compare(RUNS)
    assert [line.arm for line in found.arms] == ["replay", "naive"]
    assert found.to_json()["failed"] == [{"arm": "bad|one", "seed": 0, "error": "Diverged: <b>nan</b>\nlower it"}]


def test_runs_of_an_earlier_recipe_under_the_same_label_are_left_out_and_counted():
    newer = run("replay", 0, (10, 10), 10, written="b", time="2026-02-01")
    found = compare([*RUNS, newer])
    assert arms(found)["replay"]["seeds"] == [0]
    assert arms(found)["replay"]["acc"]["value"] == 0.5
    assert found.left_out == 2
    assert "2 results of an earlier recipe" in markdown(found)


def test_a_mean_matrix_is_the_mean_cell_by_cell():
    matrix = mean_matrix(RUNS[2:4])
    assert matrix.score[2] == pytest.approx((26 / (2 * N), 32 / (2 * N)))
    assert matrix.n[2] == (2 * N, 2 * N)
    first = (0.0, None)
    gap = [replace(r, matrix=replace(r.matrix, score=(first, *r.matrix.score[1:]))) for r in RUNS[2:4]]
    assert mean_matrix(gap).score[0] == (0.0, None)


def test_what_is_watched_is_compared_row_by_row_with_the_time_before_and_averaged_over_seeds():
    def watched(after):
        return {"watched": {"talk": {"rows": ["a", "b", "c", "d"], "before": [1, 1, 0, 1], "after": after}}}

    runs = [
        run("naive", 0, (16, 4), 18, **watched([0, 1, 0, 0])),
        run("naive", 1, (16, 4), 18, **watched([0, 1, 1, 1])),
    ]
    runs.append(run("old", 0, (10, 10), 10))
    found = compare(runs)
    drift = arms(found)["naive"]["watched"]["talk"]
    assert {key: drift[key] for key in ("before", "after", "value", "n")} == {
        "before": 0.75,
        "after": 0.5,
        "value": -0.25,
        "n": 4,
    }
    assert drift["low"] < -0.25 < drift["high"]
    lines = markdown(found).splitlines()
    assert "| talk change | train time / naive |" in lines[0]
    assert "| -0.250 (" in lines[2] + lines[3]
    assert len({line.count("|") for line in lines[:4]}) == 1
    assert "Before: talk 0.750 (n = 4)." in lines[-1]
    assert "talk change" in page("two", "", found, runs)
    assert "change" not in markdown(compare(RUNS)).splitlines()[0]


def test_markdown_has_a_row_for_each_arm_and_each_failed_run():
    lines = markdown(compare(RUNS)).splitlines()
    assert lines[0].startswith(
        "| arm | seeds | ACC | ACC minus naive | BWT | forgetting | learning accuracy | train time / naive |"
    )
    assert lines[2].startswith("| replay | 2 | 0.725 (")
    assert "| 1.75 (1.50 to 2.00) | 28 (15 to 40) |" in lines[2]
    assert lines[3].startswith("| naive | 2 | 0.550 (")
    assert "| bad\\|one | 0 | Diverged: <b>nan</b> lower it |" in lines
    columns = {line.replace("\\|", "").count("|") for line in lines[:4]}
    assert columns == {12}


class Texts(HTMLParser):
    """The texts and tags of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def test_rows_that_ran_have_columns_where_they_are_known():
    def counted(new, drawn, forwards):
        rows = {"new": new, "drawn": drawn, "forwards": forwards}
        return [{**task_cost(5.0), "rows": rows}, {**task_cost(5.0), "rows": rows}]

    base = run("naive", 0, (16, 4), 18).to_json()
    ran = [
        finished(**{**base, "tasks": counted(30, 0, 30)}),
        finished(**{**base, "arm": "replay", "arm_hash": "replay", "tasks": counted(30, 10, 55)}),
        run("older", 0, (16, 4), 18),
    ]
    found = compare(ran)
    replay, older = found.arm("replay"), found.arm("older")
    assert (replay.rows_new.value, replay.rows_drawn.value, replay.forwards.value) == (60, 20, 110)  # both tasks
    assert older.forwards is None
    table = markdown(found)
    assert "| new rows | replayed rows | row forwards |" in table
    assert "| 60 | 20 | 110 |" in table
    assert "row forwards" not in markdown(compare([run("older", 0, (16, 4), 18)]))
    assert type(found).from_json(found.to_json()) == found


def test_rows_that_were_left_out_before_the_draw_are_counted_by_task():
    counts = {"train_of": 1000, "test_of": 90}
    left_out = {"one": {"train": 17, "test": 3, **counts}, "two": {"train": 0, "test": 0, **counts}}
    found = compare([run("naive", 0, (16, 4), 18, left_out=left_out)])
    told = "as training would cut them: one 17 of 1,000 train rows and 3 of 90 test rows."
    assert told in markdown(found)
    assert type(found).from_json(found.to_json()) == found
    assert "too_long" not in compare(RUNS).to_json()
    assert "training would cut" not in markdown(compare(RUNS))


def test_the_page_needs_nothing_else_and_escapes_what_it_is_given():
    html = page("mine", "Two tasks.", compare(RUNS), RUNS)
    found = Texts(html)
    words = " ".join("".join(found.text).split())
    assert "Diverged: <b>nan</b> lower it" in words
    assert not any(tag == "b" and attrs for tag, attrs in found.tags)
    assert not [attrs for _, attrs in found.tags for key in ("src", "href") if attrs.get(key, "").startswith("http")]
    assert "mine: benchmark" in html
    assert len([tag for tag, attrs in found.tags if tag == "figure"]) == 2


def test_a_suite_without_results_has_a_page_all_the_same():
    found = compare([])
    assert markdown(found).startswith("| arm |")
    assert "How to read it" in page("mine", "", found, [])
