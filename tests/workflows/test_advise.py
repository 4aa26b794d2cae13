"""Advice: what cannot be is left out, what was measured is ranked, and the field stands beside it, with its own name."""

import json
import shlex
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands import fault
from perdure.cli.learn import overrides
from perdure.core.errors import BadInput
from perdure.core.estimates import Estimate
from perdure.core.recipe import build_recipe
from perdure.methods.registry import all_methods, load_recipe, recipe_names, recipe_spec
from perdure.workflows.advise.advise import advise
from perdure.workflows.advise.answer import Advice, PairedGap
from perdure.workflows.advise.guidance import FIELD, Needs
from perdure.workflows.advise.table import TABLE as SHIPPED_TABLE
from perdure.workflows.advise.table import (
    Arm,
    Difference,
    MeasuredSuite,
    RehearsalPair,
    WatchedPair,
    nearest_suite,
    read_rehearsal,
    read_table,
)
from perdure.workflows.advise.typed import command

METHODS = all_methods()
SHIPPED = {name: recipe_spec(name) for name in recipe_names()}


def arm(name, acc, wide=0.02, ratio=1.2, rows=150, state=0, methods=None):
    """A line of the table; the bytes are 100 a row."""
    return Arm(
        arm=name,
        seeds=(0,),
        acc=Estimate(acc, acc - wide, acc + wide, 600),
        learning_accuracy=None,
        forgetting=None,
        train_ratio=Estimate(ratio, ratio, ratio, 1),
        recipe={"name": name, "methods": methods} if methods is not None else SHIPPED[name],
        memory_rows=rows,
        memory_bytes=100 * rows,
        state_bytes=state,
    )


def suite(*arms, name="clinc5", tasks=5, are="alike"):
    return MeasuredSuite(name, "made up", "smollm2-135m", 135_000_000, tasks, are, arms)


TABLE = [
    suite(
        arm("naive", 0.44, ratio=1.0, rows=0),
        arm("joint", 0.95, ratio=3.0, rows=0),
        arm("replay", 0.84, ratio=1.7),
        arm("lora_mlp", 0.88),
        arm("lwf", 0.60, rows=0),
        arm("ewc_lwf", 0.65, rows=0, state=20_000_000, methods={"ewc": {}, "lwf": {}}),
    )
]


def advised(table=TABLE, **needs):
    return advise(Needs(**needs), table, METHODS, SHIPPED)


def said(found):
    return " ".join(reason.says for reason in found.reasons)


def why(found, name):
    return {line.recipe: line.why for line in found.refused}[name]


# --- what cannot be


def test_without_rows_no_method_that_draws_from_replay_memory_is_advised():
    found = advised(keep_rows=False)
    assert found.based_on == "ewc_lwf"
    assert "lora_mlp" not in found.recipe["methods"]
    assert "would store rows" in why(found, "lora_mlp")
    assert any("of train rows it keeps hashes alone" in text for text in found.cautions)


needed = st.builds(
    Needs,
    tasks=st.none() | st.integers(1, 200),
    keep_rows=st.booleans(),
    memory_rows=st.none() | st.integers(0, 300),
    memory_mb=st.none() | st.floats(0, 40),
    time=st.none() | st.floats(1, 4),
    parameters=st.none() | st.sampled_from([135e6, 7e9]),
    similarity=st.sampled_from([None, "alike", "mixed", "different"]),
    instructions=st.booleans(),
    task_known=st.booleans(),
    removable=st.booleans(),
    one_adapter=st.booleans(),
)


@settings(max_examples=150)
@given(needed, st.booleans())
def test_whatever_is_asked_the_recipe_builds_and_keeps_within_every_hard_limit(needs, known):
    found = advise(needs, TABLE if known else [], METHODS, SHIPPED)
    recipe = build_recipe(found.recipe, METHODS)
    assert found == Advice.from_json(json.loads(json.dumps(found.to_json())))
    assert found.reasons
    assert not (recipe.remembers and not needs.rows_allowed)
    assert (recipe.settings.data, recipe.settings.train) == ("task", "lora")
    if recipe.remembers and needs.memory_rows is not None:
        assert recipe.settings.memory_size <= needs.memory_rows
    if found.measured:
        assert needs.time is None or found.measured.train_ratio.value <= needs.time
        if needs.memory_mb is not None and recipe.remembers:
            assert 100 * recipe.settings.memory_size + found.measured.state_bytes <= 1e6 * needs.memory_mb
    if needs.instructions:
        assert "instruction_replay" in found.recipe["methods"]
    if needs.removable:
        assert ("incremental" if needs.one_adapter else "per_task") in found.recipe["methods"]
    assert not (needs.one_adapter and "per_task" in found.recipe.get("methods", {}))


PAIR = RehearsalPair(
    suite="s",
    arm="lora_mlp",
    without="alone",
    seeds=(0,),
    acc_minus=Estimate(0.01, -0.01, 0.03, 600),
    train_ratio=1.25,
    watched={"talk": WatchedPair(0.3, 0.1, 0.28, Estimate(0.18, 0.1, 0.26, 50))},
)


def test_who_needs_instructions_followed_is_told_to_name_some_and_what_that_was_measured_to_keep():
    def reasons(needs, *rehearsal):
        return [reason.says for reason in advise(needs, TABLE, METHODS, SHIPPED, rehearsal).reasons]

    for needs in (Needs(instructions=True), Needs(instructions=True, keep_rows=False)):
        said = reasons(needs, replace(PAIR, arm="other"), PAIR)
        assert any("name a file of them as `general:`" in says for says in said)
        assert any(
            "talk 0.280 with it and 0.100 without (0.300 before any task; by row +0.180 (+0.100 to +0.260), n = 50); "
            "for 1.25 times the training time, and ACC +0.010 (-0.010 to +0.030)" in says
            for says in said
        )
        assert len(reasons(needs)) == len(said) - 1
    assert any(
        "measured with lora_mlp on s" in says
        for says in reasons(Needs(instructions=True), replace(PAIR, arm="other"), PAIR)
    )
    assert not any("general" in says for says in reasons(Needs(), PAIR))


def test_a_budget_of_time_leaves_out_what_took_longer():
    found = advised(time=1.1)
    assert found.based_on == "naive"
    assert "1.70 times" in why(found, "replay")


def test_a_budget_of_megabytes_leaves_out_state_that_does_not_fit_and_bounds_the_rows():
    found = advised(memory_mb=0.005)
    assert found.recipe["memory_size"] == 50
    assert "measured with 150 rows" in said(found)
    assert "20.0 MB" in why(found, "ewc_lwf")


def test_the_field_is_compared_with_an_arm_of_its_methods_that_fits_not_with_one_that_was_refused():
    little = arm("replay_0.1", 0.79, ratio=1.09, methods={"replay": {"mix": 0.1}})
    table = [
        suite(*TABLE[0].arms, little, arm("lora_mlp_0.1", 0.86, ratio=1.02, methods={"replay": {}, "distill": {}}))
    ]
    found = advised(table, time=1.1)
    assert found.based_on == "lora_mlp_0.1"
    assert "replay" in {line.recipe for line in found.refused}
    assert "a little replay" in said(found)
    assert "training took 1.70 times" not in said(found)
    assert "above replay_0.1" in said(found) or "replay_0.1 reached" in said(found)


def routed(label, acc, unnamed, **more):
    """A line of the table with a router: ACC with the task of a request known, and without."""
    return replace(
        arm(label, acc, rows=0, **more),
        acc_routed=Estimate(unnamed, unnamed - 0.02, unnamed + 0.02, 600),
        suite="other",
    )


@pytest.mark.parametrize(("task_known", "name"), [(False, "isolated"), (True, "per_task")])
def test_who_must_be_able_to_remove_a_task_is_advised_an_adapter_for_each(task_known, name):
    found = advised(removable=True, task_known=task_known)
    assert found.based_on == name
    assert "an adapter for each task, trained on rows of this task alone" in said(found)
    assert any("'perdure revert TASK' takes a task out" in text for text in found.cautions)
    shared = "in weights that other tasks train further"
    assert all(shared in why(found, other) for other in ("naive", "lora_mlp", "lwf", "replay"))


def test_where_one_adapter_serves_all_tasks_none_is_advised_for_each():
    table = [suite(*TABLE[0].arms, routed("isolated", 0.97, 0.95))]
    assert advised(table).based_on == "isolated"
    found = advised(table, one_adapter=True)
    assert found.based_on == "lora_mlp"
    assert "'perdure merge --rank R' makes one of them" in why(found, "isolated")
    assert advised(table, one_adapter=True, removable=True).based_on == "incremental"


def test_a_recipe_that_replays_rows_into_adapters_of_other_tasks_leaves_them_there():
    mixed = arm("mixed", 0.97, methods={"per_task": {}, "color": {}, "replay": {}})
    found = advised([suite(*TABLE[0].arms, mixed)], removable=True)
    assert (
        why(found, "mixed")
        == "replay trains other tasks on rows of a task, which stays in them when the task is taken out"
    )


def test_where_nothing_that_can_be_removed_is_fast_enough_the_advice_is_refused_with_the_reasons():
    table = [suite(*TABLE[0].arms, routed("isolated", 0.87, 0.82, ratio=1.5))]
    with pytest.raises(BadInput, match=r"no recipe fits all of this.*isolated: training took 1\.50 times as long"):
        advised(table, removable=True, time=1.2)


def test_many_tasks_are_advised_isolation_by_the_field_and_the_numbers_decide():
    assert "over many tasks the field advises isolation with a router" in said(advised(tasks=50, memory_rows=500))
    assert "over many tasks" not in said(advised(tasks=5, memory_rows=500))
    table = [suite(*TABLE[0].arms, routed("isolated", 0.95, 0.93))]
    found = advised(table, tasks=50, memory_rows=500)
    assert found.based_on == "isolated"
    assert any(
        "nothing more is forgotten, but more requests are sent to a wrong task" in text for text in found.cautions
    )


def test_a_router_is_ranked_by_requests_without_a_task_unless_the_task_is_known():
    isolated = replace(routed("isolated", 0.9, 0.8), routed_minus={"lora_mlp": Difference(-0.08, -0.1, -0.06)})
    table = [suite(*TABLE[0].arms, replace(isolated, acc_minus={"lora_mlp": Difference(0.02, 0.01, 0.03)}))]
    found = advised(table)
    assert found.based_on == "lora_mlp"
    assert "isolated" not in {line.recipe for line in found.rivals}
    assert "lora_mlp is +0.080 (+0.060 to +0.100) above isolated, paired by test row" in said(found)
    without_rows = advised(table, keep_rows=False)
    assert without_rows.based_on == "isolated"
    assert "0.800 (0.780 to 0.820, requests not naming their task)" in said(without_rows)
    assert without_rows.measured.acc.value == 0.8
    known = advised(table, task_known=True)
    assert (known.based_on, known.measured.acc.value) == ("isolated", 0.9)


def test_labels_without_training_are_told_with_what_they_reached():
    found = advised([suite(*TABLE[0].arms, routed("slda", 0.89, 0.88))])
    assert found.based_on == "lora_mlp"
    assert "stores no row; on clinc5 it reached 0.880 (0.860 to 0.900, requests not naming their task)" in said(found)
    assert "--recipe slda" in said(advised([]))


def test_joint_and_full_are_never_advised():
    assert advised().based_on == "lora_mlp"
    assert "upper bound" in why(advised(), "joint")


# --- what was measured


def test_the_best_measured_is_taken_and_those_that_cannot_be_told_apart_are_named():
    table = [suite(arm("lora_mlp", 0.85), arm("replay", 0.83, ratio=1.0), arm("naive", 0.4, rows=0))]
    found = advised(table)
    assert found.based_on == "lora_mlp"
    assert [line.recipe for line in found.rivals] == ["replay"]
    assert found.reasons[0].source == "perdure bench, 1 seed, n = 600"
    assert "; 2 others fit" in said(found)
    assert "; 1 other fits" in said(advised([suite(*table[0].arms[:2])]))


@pytest.mark.parametrize(("acc", "words"), [(0.84, "our numbers disagree"), (0.87, "do not differ significantly")])
def test_where_numbers_and_the_field_differ_both_are_told_and_the_numbers_decide(acc, words):
    table = [suite(arm("lora_mlp", 0.89, wide=0.01), arm("few", acc, wide=0.015, methods={"ewc": {}, "lwf": {}}))]
    found = advised(table, memory_rows=40)
    assert found.based_on == "lora_mlp"
    assert words in said(found)
    assert any("1612.00796" in reason.source for reason in found.reasons)


def test_a_choice_that_does_all_that_the_field_advises_and_more_does_not_disagree_with_it():
    table = [
        suite(
            arm("lora_mlp", 0.89, wide=0.01),
            arm("best", 0.8, methods={"replay": {}}),
            arm("replay_0.1", 0.7, methods={"replay": {"mix": 0.1}}),
        )
    ]
    (told,) = (reason.says for reason in advised(table).reasons if "a little replay" in reason.says)
    assert "our numbers go further: " in told
    assert "replay_0.1" in told  # the arm that is most like the advice, not the best one


def test_a_memory_budget_beyond_the_recipes_size_changes_nothing_and_says_so():
    small, large = advised(memory_rows=40), advised(memory_rows=10**6)
    assert any("memory_size 40 fits your memory budget" in reason.says for reason in small.reasons)
    assert any("the recipe stores at most 5000" in reason.says for reason in large.reasons)
    assert (small.recipe["memory_size"], large.recipe["memory_size"]) == (40, 5000)


def test_where_they_agree_it_is_said():
    found = advised(keep_rows=False)
    assert "the field agrees" in said(found)


def test_the_suite_most_like_the_work_is_taken():
    other = suite(arm("replay", 0.5), name="olora4", tasks=4, are="different")
    long = suite(arm("replay", 0.7), name="clinc10", tasks=10)
    suites = [*TABLE, other, long, suite(name="empty", tasks=20)]
    assert nearest_suite(Needs(similarity="different"), suites) is other
    assert nearest_suite(Needs(tasks=20), suites) is long
    assert nearest_suite(Needs(tasks=5, similarity="alike"), suites) is TABLE[0]
    assert nearest_suite(Needs(), [suite(name="empty")]) is None


def test_far_from_what_was_measured_it_warns():
    found = advised(parameters=7e9, tasks=50, similarity="different")
    assert sum("measured" in text for text in found.cautions) == 3
    assert advised(parameters=135e6, tasks=5, similarity="alike").cautions == ()


def test_an_arm_of_methods_that_are_not_there_is_no_candidate():
    table = [suite(arm("gone", 0.99, methods={"gone": {}}), arm("replay", 0.8))]
    assert advised(table).based_on == "replay"


def paired(above, below, gap, half=0.01):
    """The first arm with its difference by test row from the second."""
    gaps = {below.arm: Difference(gap, gap - half, gap + half)}
    return replace(above, acc_minus={**above.acc_minus, **gaps})


def test_arms_whose_intervals_overlap_are_told_apart_by_test_row():
    replay, few = arm("replay", 0.86), arm("few", 0.87, methods={"ewc": {}, "lwf": {}})
    best = paired(paired(arm("lora_mlp", 0.88), replay, 0.03), few, 0.002)
    found = advised([suite(best, few, replay)])
    assert found.based_on == "lora_mlp"
    assert [line.recipe for line in found.rivals] == ["few"]
    gap = found.rivals[0].acc_minus
    assert gap == PairedGap(-0.002, pytest.approx(-0.012), pytest.approx(0.008), 1)
    assert "lora_mlp is +0.030 (+0.020 to +0.040) above replay, paired by test row over 1 shared seed" in said(found)
    by_few = said(advised([suite(best, few)], memory_rows=40))
    assert "do not differ significantly: -0.002 (-0.012 to +0.008), paired by test row over 1 shared seed" in by_few


def test_an_arm_of_easier_seeds_that_is_below_another_by_test_row_is_passed_over():
    replay = arm("replay", 0.86)
    found = advised([suite(paired(arm("easy", 0.87, methods={"mir": {}}), replay, -0.03), replay)])
    assert found.based_on == "replay"
    assert "easy reached 0.870 (0.850 to 0.890), but replay is +0.030 (+0.020 to +0.040) above easy" in said(found)
    assert found.rivals == ()


# --- where nothing was measured


def test_without_a_table_the_advice_rests_on_the_field_and_says_so():
    found = advised([], time=1.1)
    assert found.recipe == {"name": "advised", "methods": {"ewc": {}, "lwf": {}}}
    assert "literature alone" in said(found)
    assert "nothing was measured here yet" in said(found)
    assert found.suite is None


def test_a_baseline_alone_is_no_measured_best():
    found = advised([suite(arm("naive", 0.44, rows=0))], keep_rows=False)
    assert set(found.recipe["methods"]) == {"ewc", "lwf"}


def test_what_is_not_here_yet_is_named_and_not_advised():
    found = advised(keep_rows=False)
    names = {part for rule in FIELD for part in rule.parts if part not in METHODS}
    assert any(line.what.startswith("replay of generated samples") for line in found.not_here)
    assert not names & found.recipe["methods"].keys()


def test_every_rule_of_the_field_names_its_source_and_what_is_here_builds():
    for rule in FIELD:
        assert "arXiv" in rule.source
        if all(name in METHODS for name in rule.parts):
            build_recipe({"methods": {name: {} for name in rule.parts}}, METHODS)


# --- the table that is shipped


def test_the_shipped_table_can_be_read_and_every_arm_in_it_builds():
    for entry in read_table():
        assert entry.tasks_are in ("alike", "different")
        for line in entry.arms:
            build_recipe(line.recipe, METHODS)
            assert line.acc.low <= line.acc.value <= line.acc.high
            assert line.memory_rows >= 0
            assert line.state_bytes >= 0


def test_the_records_of_the_shipped_table_are_its_json_with_the_same_keys_in_the_same_order():
    written = json.loads(SHIPPED_TABLE.read_text(encoding="utf-8"))
    assert json.dumps([entry.to_json() for entry in read_table()]) == json.dumps(written["suites"])
    assert json.dumps([pair.to_json() for pair in read_rehearsal()]) == json.dumps(written["rehearsal"])


def test_the_keys_of_an_advice_as_it_is_printed_stay():
    found = advised(instructions=True, keep_rows=False).to_json()
    assert list(found) == [
        *("recipe", "from", "measured", "suite", "reasons", "rivals", "refused", "not_here", "cautions"),
        *("command", "commands"),
    ]
    assert list(found["suite"]) == ["name", "about", "model", "tasks"]
    assert list(found["reasons"][0]) == ["says", "source"]
    assert list(found["refused"][0]) == ["recipe", "why"]
    assert list(found["not_here"][0]) == ["what", "says", "source"]
    few = arm("few", 0.87, methods={"ewc": {}, "lwf": {}})
    (rival,) = advised([suite(paired(arm("lora_mlp", 0.88), few, 0.002), few)]).to_json()["rivals"]
    assert list(rival) == ["recipe", "acc", "acc_minus", "train_ratio"]
    assert list(rival["acc_minus"]) == ["value", "low", "high", "seeds"]


def test_in_the_shipped_table_each_difference_lies_in_its_interval_and_is_from_an_arm_that_shares_a_seed():
    for entry in read_table():
        seeds = {line.arm: set(line.seeds) for line in entry.arms}
        for line in entry.arms:
            for other, gap in line.acc_minus.items():
                assert gap.low <= gap.value <= gap.high
                assert seeds[line.arm] & seeds[other]


def test_of_the_shipped_table_nothing_below_lora_mlp_by_test_row_is_as_good():
    found = advised(read_table(), tasks=5)
    assert found.based_on == "lora_mlp"
    assert not {line.recipe for line in found.rivals} & {"replay_2e-3", "adversarial_replay_0.02", "der_pp"}
    assert all(line.acc_minus.low <= 0 <= line.acc_minus.high for line in found.rivals)


# --- names


def test_every_name_that_advice_prints_is_a_recipe_or_comes_with_its_command():
    for needs in (
        Needs(),
        Needs(keep_rows=False),
        Needs(memory_rows=40, parameters=7e9),
        Needs(time=1.1, instructions=True),
    ):
        found = advise(needs, read_table(), METHODS, SHIPPED, read_rehearsal())
        printed = {found.based_on, *(r.recipe for r in found.rivals), *(r.recipe for r in found.refused)}
        assert printed <= {*SHIPPED, *found.commands}
        given = {"advised": (found.command, found.recipe)}
        measured = {arm.arm: arm.recipe for suite in read_table() for arm in suite.arms}
        given |= {name: (line, measured[name]) for name, line in found.commands.items() if name in measured}
        for name, (line, written) in given.items():
            assert learned_by(line) == nameless(build_recipe(written, METHODS)), name
        assert found.command.startswith("perdure learn TASK DATA --recipe ")


def test_a_recipe_is_typed_as_the_shipped_one_nearest_to_it():
    def words(**written):
        return command({"name": "mine", **written}, METHODS, SHIPPED).removeprefix("perdure learn TASK DATA ")

    assert words(methods={}) == "--recipe naive"
    assert words(methods={}, learning_rate=2e-3) == "--recipe naive --set learning_rate=0.002"
    assert words(methods={"ewc": {}, "lwf": {}}).startswith("--recipe ewc --set ")
    dual = {**SHIPPED["lora_mlp"], "methods": {**SHIPPED["lora_mlp"]["methods"], "tail_average": None}}
    assert words(**dual) == "--recipe lora_mlp --set methods.tail_average=null"


def learned_by(line):
    """The recipe that a command trains with, by the program's own reading of its words."""
    assert fault(line) is None
    words = shlex.split(line)
    pairs = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    return nameless(load_recipe(words[words.index("--recipe") + 1], overrides(pairs)))


def nameless(recipe):
    return {**recipe.to_json(), "name": None}


@pytest.mark.parametrize(
    ("needs", "names"),
    [
        ({"task_known": True, "keep_rows": False}, ["per_task"]),
        ({"keep_rows": False, "tasks": 20}, ["isolated", "slao"]),
        ({}, ["isolated"]),
    ],
)
def test_policies_of_adapters_are_advised_by_the_names_of_their_recipes_and_ranked_once_they_are_measured(needs, names):
    found = advised(**needs)
    assert not set(names) & {line.recipe for line in found.refused}
    for name in names:
        assert f"{name} was not measured here" in said(found)
        measured = suite(*TABLE[0].arms, arm(name, 0.97, rows=0))
        best = advised([measured], **needs)
        assert (best.based_on, best.command) == (name, f"perdure learn TASK DATA --recipe {name}")


def test_an_adapter_for_each_task_without_a_router_needs_requests_that_name_their_task():
    measured = suite(*TABLE[0].arms, arm("per_task", 0.97, rows=0))
    (why,) = (line.why for line in advised([measured], keep_rows=False).refused if line.recipe == "per_task")
    assert why.endswith("so that a request must name its task")
    assert advised([measured], keep_rows=False, task_known=True).based_on == "per_task"


def test_a_command_sets_fields_that_the_json_of_a_method_leaves_out_at_their_defaults():
    written = {"name": "mine", "methods": {"per_task": {"start": "shared"}}}
    assert "--set methods.per_task.start=shared" in command(written, METHODS, SHIPPED)


def test_a_field_that_the_json_leaves_out_at_its_default_is_set_back_by_the_command():
    """The nearest shipped recipe may have changed it."""
    near = {"base_kl": {"methods": {"lwf": {"teacher": "base", "strength": 0.1, "temperature": 1.0}}}}
    wanted = {"methods": {"lwf": {"strength": 0.1, "temperature": 1.0}}}
    assert command(wanted, METHODS, near).endswith("--recipe base_kl --set methods.lwf.teacher=start")
