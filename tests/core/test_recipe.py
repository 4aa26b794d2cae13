"""Recipes: what is wrong is named with the nearest right word, and a recipe is the same after a trip through JSON."""

import inspect
import json
from typing import ClassVar

import pytest
from pydantic import Field
from pydantic.dataclasses import dataclass

from perdure.core.errors import BadInput, BadSpec, Conflict
from perdure.core.recipe import Recipe, build_recipe
from perdure.core.seams import SEAMS, Method, checked_method
from perdure.core.settings import Settings
from perdure.methods.registry import METHODS, all_methods, load_recipe, recipe_names, register

KNOWN = all_methods()


@dataclass(frozen=True)
class First(Method):
    name: ClassVar[str] = "first"
    family: ClassVar[str] = "test"
    source: ClassVar[str] = "arXiv"
    seams: ClassVar[tuple[str, ...]] = ("admit",)

    active: bool = Field(default=True, description="whether it acts")

    def admit(self, rows, context, state):
        return [0.0] * len(rows)


@dataclass(frozen=True)
class Second(First):
    name: ClassVar[str] = "second"


ADMITTING = {"first": First, "second": Second}


# --- what is wrong is said


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"learning_rat": 1}, ["unknown key 'learning_rat'", "did you mean 'learning_rate'?"]),
        ({"zzz": 1}, ["unknown key 'zzz'", "known are", "num_train_epochs"]),
        ({"warmup_steps": float("inf")}, ["warmup_steps", "finite"]),
        ({"learning_rate": -1}, ["learning_rate", "greater than 0", "-1"]),
        ({"keep": "bst"}, ["keep", "'last' or 'best'", "bst"]),
        ({"methods": {"replai": {}}}, ["unknown method 'replai'", "did you mean 'replay'?"]),
        ({"methods": {"replay": {"mxi": 1}}}, ["replay", "unknown field 'mxi'", "did you mean 'mix'?"]),
        ({"methods": {"replay": {"name": "x"}}}, ["replay", "unknown field 'name'"]),
        ({"methods": {"replay": {"mix": 1.5}}}, ["replay", "mix", "1.5"]),
        ({"methods": {"replay": {"mix": "much"}}}, ["replay", "mix", "much"]),
        ({"methods": {"distill": {"top_k": 2.5}}}, ["distill", "top_k", "2.5"]),
        ({"methods": {"replay": {"balance": "lable"}}}, ["replay", "balance", "'label', 'task' or 'row'", "lable"]),
        ({"methods": {"distill": {"strength": "high"}}}, ["distill", "strength", "high"]),
        *(
            (
                {"methods": {"replay": value}},
                ["methods.replay must be a mapping", repr(value), "write null", "methods.replay.mix"],
            )
            for value in (0.3, 0, False, True, "", "null", [], ["mix"])
        ),
        *(({"methods": value}, ["'methods' must map"]) for value in (["replay"], False, 0, "", "replay", [])),
        ({"methods": {"tail_averag": None}}, ["unknown method 'tail_averag'", "did you mean 'tail_average'?"]),
        ({"methods": {"replay": {"mix": None}}}, ["method replay: mix", "null", "leave it out"]),
        ({"learning_rate": None}, ["learning_rate", "null", "leave it out"]),
        ({"name": None}, ["name is a text", "None"]),
        # a truth value or a text is no number
        *(
            ({key: True}, [key, "number", "True"])
            for key in ("num_train_epochs", "learning_rate", "lora_r", "memory_size")
        ),
        *(({key: "3"}, [key, "number", "'3'", "without quotes"]) for key in ("num_train_epochs", "learning_rate")),
        ({"methods": {"replay": {"mix": True}}}, ["method replay: mix", "number", "True"]),
        ({"methods": {"distill": {"top_k": "8"}}}, ["method distill: top_k", "number", "'8'"]),
        ({"methods": {"distill": {"refresh": "maybe"}}}, ["method distill: refresh", "maybe"]),
        # sizes beyond reason
        ({"num_train_epochs": 10**20}, ["num_train_epochs", "less than or equal to 100000"]),
        ({"num_train_epochs": 10**5000}, ["num_train_epochs", "thousands of digits"]),
        ({"learning_rate": 1e6}, ["learning_rate", "less than or equal to 100"]),
        ({"learning_rate": 10**400}, ["learning_rate"]),
        ({"lora_r": 10**8}, ["lora_r", "65536"]),
        ({"lora_alpha": 1e30}, ["lora_alpha"]),
        ({"per_device_train_batch_size": 10**9}, ["per_device_train_batch_size", "65536"]),
        ({"gradient_accumulation_steps": 10**9}, ["gradient_accumulation_steps"]),
        ({"max_length": 10**12}, ["max_length"]),
        *(({key: 10**18}, [key]) for key in ("memory_size", "memory_per_label", "memory_per_task", "logging_steps")),
        ({"weight_decay": 1e9}, ["weight_decay"]),
        ({"warmup_steps": 1e12}, ["warmup_steps"]),
        ({"methods": {"ewc": {"strength": 1e300}}}, ["method ewc: strength"]),
        ({"methods": {"ewc": {"size": 10**18}}}, ["method ewc: size"]),
        ({"methods": {"distill": {"temperature": 1e-300}}}, ["method distill: temperature"]),
        *(
            ({"methods": {"replay": {"mix": wrong}}}, ["method replay: mix"])
            for wrong in (float("nan"), float("inf"), 1)
        ),
        # words
        ({"report_to": ""}, ["report_to", "name each tracker"]),
        ({"report_to": "wandb,"}, ["report_to", "name each tracker"]),
        ({"report_to": ["none", "wandb"]}, ["report_to", "none must be the only name"]),
        ({"report_to": "wandb", "host": "loop"}, ["host: loop reports to no tracker"]),
        ({"lora_target_modules": []}, ["lora_target_modules", "name each module"]),
    ],
)
def test_bad_specs_are_refused_in_words(spec, words):
    with pytest.raises(BadSpec) as caught:
        build_recipe({"name": "mine", **spec}, KNOWN)
    assert [word for word in words if word not in str(caught.value)] == []


def test_two_owners_of_an_exclusive_seam_are_named():
    with pytest.raises(Conflict, match=r"'admit' has room for one method, got \['first', 'second'\]"):
        build_recipe({"methods": {"second": {}, "first": {}}}, ADMITTING)


def test_an_inactive_owner_leaves_the_seam_free():
    recipe = build_recipe({"methods": {"second": {"active": False}, "first": {}}}, ADMITTING)
    assert recipe.owner("admit") == First()
    assert recipe.owner("settle") is None


@pytest.mark.parametrize(
    ("seams", "filled"), [((), ["admit"]), (("admit", "loss"), ["admit"]), (("admot",), ["admit"]), ((), [])]
)
def test_a_method_fills_what_it_declares(seams, filled):
    about = {"name": "made", "family": "test", "source": "arXiv"}
    made = type("Made", (Method,), {**about, "seams": seams, **dict.fromkeys(filled, lambda self: None)})
    with pytest.raises(BadSpec, match="declares seams"):
        checked_method(made)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (type("Made", (), {"name": "made"}), "derives from perdure.core.seams.Method"),
        (First(), "derives from perdure.core.seams.Method"),
        (type("Made", (First,), {"name": ""}), "method Made has no name"),
        (type("Made", (First,), {"source": ""}), "method Made has no source"),
    ],
)
def test_a_method_derives_from_the_base_and_describes_itself(method, words):
    with pytest.raises(BadSpec, match=words):
        checked_method(method)


def test_a_seam_that_is_filled_by_a_base_class_is_filled():
    assert checked_method(Second) is Second


def test_the_defaults_of_the_base_do_nothing():
    class Nothing(Method):
        pass

    made, state, grads = Nothing(), {"a": 1}, {"w": 2}
    assert (made.active, made.needs, made.columns, made.pool, made.mix) == (True, (), (), None, 0)
    assert made.prepare(None, state) is made.watch(None, state) is state
    assert made.draw(None, state) is made.loss(None, state) is None
    assert made.mask(grads, state) is made.gradient(grads, {}, None, state) is grads
    assert made.settle(None, state) == ({}, state)
    assert (made.reference(None, state), made.measure(None, state), made.admit(["a"], None, state)) == ({}, {}, [0.0])


def test_every_seam_of_the_table_has_a_default_with_the_arguments_of_its_signature():
    for seam in SEAMS.values():
        function = inspect.signature(getattr(Method, seam.name))
        written = seam.signature.partition(") -> ")[0].removeprefix("(").split(", ")
        assert list(function.parameters) == ["self", *written]


@dataclass(frozen=True)
class Careless(Method):
    """Counts on seeing an update whole."""

    name: ClassVar[str] = "careless"
    family: ClassVar[str] = "test"
    seams: ClassVar[tuple[str, ...]] = ("loss",)
    source: ClassVar[str] = "arXiv"
    supports: ClassVar[frozenset[str]] = frozenset()

    need: str = "before"

    @property
    def needs(self):
        return (self.need,)

    def loss(self, step, state):
        return None


def test_a_method_that_does_not_support_accumulation_excludes_it():
    known = {**KNOWN, "careless": Careless}
    assert build_recipe({"methods": {"careless": {}}}, known).refusing("accumulation") == ["careless"]
    spec = {"gradient_accumulation_steps": 2, "methods": {"careless": {}, "replay": {}}}
    with pytest.raises(Conflict, match=r"method careless does not support .*; set gradient_accumulation_steps: 1"):
        build_recipe(spec, known)


def test_a_need_that_no_host_provides_is_refused():
    with pytest.raises(BadSpec, match=r"method careless needs \['tomorrow'\]; a host provides nll_before"):
        build_recipe({"methods": {"careless": {"need": "tomorrow"}}}, {"careless": Careless})


def test_two_methods_of_one_name_are_refused():
    clash = dataclass(frozen=True)(type("Clash", (First,), {"name": "replay"}))
    with pytest.raises(BadSpec, match="two methods are named 'replay'"):
        register(clash)
    assert METHODS["replay"] is KNOWN["replay"]


# --- what is right is kept


def test_methods_are_sorted_and_inactive_ones_dropped():
    recipe = build_recipe({"methods": {"tail_average": {}, "replay": {"mix": 0}, "distill": {}, "ewc": None}}, KNOWN)
    assert [method.name for method in recipe.methods] == ["distill", "tail_average"]


@pytest.mark.parametrize("name", ["distill", "feature_distill"])
def test_a_key_that_older_yaml_takes_for_true_is_a_word(name, tmp_path):
    (tmp_path / "mine.yaml").write_text(f"methods: {{replay: {{}}, {name}: {{on: memory, mix: 0.5}}}}")
    (method,) = (m for m in load_recipe(str(tmp_path / "mine.yaml")).methods if m.name == name)
    assert (method.on, method.mix) == ("memory", 0.5)


@pytest.mark.parametrize("text", ["3: 4", "methods: {true: {}}", "methods: {replay: {3: 4}}"])
def test_a_key_that_is_no_word_is_refused_in_words(text, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(BadSpec, match=r"(3|True).*known are"):
        load_recipe(str(tmp_path / "mine.yaml"))


def test_numbers_may_be_written_as_yaml_reads_them(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "learning_rate: 1e-4\nmemory_size: 10\nmethods: {replay: {mix: 5e-1}}\n"
    )  # 1e-4 is a string
    recipe = load_recipe(str(tmp_path / "mine.yaml"))
    assert recipe.name == "mine"
    assert recipe.settings.learning_rate == 1e-4
    assert (recipe.methods[0].mix, recipe.settings.memory_size) == (0.5, 10)


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_comes_back_from_json_as_itself(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert build_recipe(json.loads(json.dumps(recipe.to_json())), KNOWN) == recipe


def test_the_shipped_recipes_are_those_the_documents_name():
    assert {"naive", "replay", "joint", "full", "dual_replay"} <= set(recipe_names())
    assert not load_recipe("naive").methods
    assert {"replay", "distill", "instruction_replay"} <= {method.name for method in load_recipe("dual_replay").methods}


def test_a_spec_is_the_fields_and_nothing_else():
    assert KNOWN["tail_average"](share=0.5).to_json() == {"share": 0.5}
    assert build_recipe({}, KNOWN) == Recipe("custom", Settings(), ())


def test_overrides_reach_settings_and_method_fields():
    recipe = load_recipe("naive", {"learning_rate": 0.5, "methods.replay.mix": 0.3, "memory_size": 7})
    assert recipe.settings.learning_rate == 0.5
    assert recipe.settings.memory_size == 7
    assert recipe.methods == (KNOWN["replay"](mix=0.3),)


@pytest.mark.parametrize(
    "taken", ["dual_replay", load_recipe("dual_replay"), load_recipe("dual_replay").to_json(), "file"]
)
def test_null_takes_a_method_out_of_whatever_says_the_recipe(tmp_path, taken):
    if taken == "file":
        taken = tmp_path / "mine.yaml"
        taken.write_text(
            "methods: {replay: {mix: 0.25}, distill: {}, instruction_replay: {}, tail_average: {share: 0.3}}"
        )
    recipe = load_recipe(taken, {"methods.tail_average": None, "methods.replay.mix": 0.4})
    assert [method.name for method in recipe.methods] == ["distill", "instruction_replay", "replay"]
    assert recipe.methods[-1].mix == 0.4


@pytest.mark.parametrize(
    "overrides", [{"num_train_epochs": 7}, {"methods.replay.mix": 0.5}, {"methods.ewc": {"strength": 2}}]
)
def test_overrides_of_a_recipe_that_is_built_are_never_dropped(overrides):
    built = load_recipe("dual_replay")
    assert load_recipe(built, overrides) == load_recipe("dual_replay", overrides) != built
    assert load_recipe(built) is built


def test_a_recipe_file_may_leave_a_method_out_by_null_but_not_by_saying_nothing(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("methods:\n  replay: {}\n  tail_average: null\n  distill: ~\n")
    assert [method.name for method in load_recipe(path).methods] == ["replay"]
    path.write_text("name: x\nmethods:\n  replay:\n  distill: {}\n")
    with pytest.raises(BadSpec, match=r"mine.yaml:3: method replay has no value; write {} for its defaults, or null"):
        load_recipe(path)


def test_words_that_people_write_for_truth_values_are_read_where_one_is_wanted():
    for word, refresh in {"yes": True, "on": True, "true": True, "no": False, "off": False}.items():
        assert load_recipe("naive", {"methods.distill.refresh": word}).methods[0].refresh is refresh


@pytest.mark.parametrize(
    ("name", "overrides", "error", "words"),
    [
        (
            "naive",
            {"methods.replay": None, "methods.replay.mix": 0.3},
            BadSpec,
            "methods.replay and methods.replay.mix",
        ),
        ("naive", {"methods..mix": 1}, BadSpec, "is no key of a recipe"),
        ("naive", {3: 1}, BadSpec, "is no key of a recipe"),
        ("naive", {"methods.replay.mix.x": 1}, BadSpec, "mix"),
        ("replay", {"methods.replay.mix.x": 1}, BadSpec, "mix is not a mapping"),
        ("dual_repaly", {}, BadInput, "did you mean 'dual_replay'?"),
        ("none.yaml", {}, BadInput, "cannot read recipe"),
        ("broken.yaml", {}, BadSpec, "recipe broken.yaml:1 is broken YAML: expected"),
        ("binary.yaml", {}, BadInput, "binary.yaml"),
        ("list.yaml", {}, BadSpec, "expected a mapping of settings, got list"),
        ("full", {"learning_rate.x": 1}, BadSpec, "learning_rate is not a mapping"),
        ("naive", {"lerning_rate": 1}, BadSpec, "did you mean 'learning_rate'?"),
    ],
)
def test_bad_recipe_names_files_and_overrides(tmp_path, monkeypatch, name, overrides, error, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.yaml").write_text("a: [1")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    (tmp_path / "list.yaml").write_text("- replay")
    with pytest.raises(error) as caught:
        load_recipe(name, overrides)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"early_stopping_patience": 2}, "stops some validations after the best weights.*set keep: best"),
        ({"eval_steps": 2.5}, "eval_steps: from 1 on it is a whole number of updates, got 2.5"),
        ({"max_steps": -2}, "max_steps"),
    ],
)
def test_settings_of_validation_that_make_no_sense_are_refused(spec, words):
    with pytest.raises(BadSpec, match=words):
        build_recipe(spec, KNOWN)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("use_dora", True, "DoRA's magnitudes are none; use plain LoRA"),
        ("modules_to_save", ["lm_head"], "name layers in lora_target_modules, or set train: full"),
        ("trainable_token_indices", [1], "rows of the embedding are none"),
        ("new_tokens", ["<x>"], "the base model is never written"),
    ],
)
def test_what_other_tools_train_is_rejected_by_name_with_what_to_use(tmp_path, name, value, words):
    (tmp_path / "mine.yaml").write_text(f"{name}: {json.dumps(value)}")
    for given in (lambda: load_recipe("naive", {name: value}), lambda: load_recipe(str(tmp_path / "mine.yaml"))):
        with pytest.raises(BadSpec, match=f"{name} is not supported: .*{words}"):
            given()


def test_the_scale_of_rslora_is_by_the_root_of_the_rank():
    assert Settings(lora_r=16, lora_alpha=8).lora_scale == 0.5
    assert Settings(lora_r=16, lora_alpha=8, use_rslora=True).lora_scale == 2.0
    assert "use_rslora" not in Settings().to_json()


def test_settings_that_came_later_are_in_the_json_of_a_recipe_that_sets_them_alone():
    later = {"max_steps": 9, "eval_steps": 0.25, "early_stopping_patience": 3}
    assert not later.keys() & load_recipe("dual_replay").to_json().keys()
    recipe = load_recipe("dual_replay", {**later, "keep": "best"})
    assert {name: recipe.to_json()[name] for name in later} == later
    assert build_recipe(recipe.to_json(), KNOWN) == recipe
    assert [recipe.settings.epochs(rows) for rows in (16, 17, 160)] == [9, 5, 1]


def test_keep_best_and_a_method_that_measures_the_whole_way_are_a_conflict():
    with pytest.raises(Conflict, match=r"keep: best goes back to an earlier epoch, and si measures"):
        build_recipe({"keep": "best", "methods": {"si": {}}}, KNOWN)
    assert load_recipe("dual_replay", {"keep": "best"}).owner("settle").name == "tail_average"


@pytest.mark.parametrize(
    ("method", "field", "value"),
    [("instruction_replay", "size", -1), ("distill", "strength", float("nan")), ("distill", "top_k", -1)],
)
def test_a_field_out_of_its_range_is_refused_by_name(method, field, value):
    with pytest.raises(BadSpec, match=f"method {method}: {field}"):
        build_recipe({"methods": {method: {field: value}}}, all_methods())


def test_a_method_that_acts_on_new_rows_alone_keeps_none():
    assert build_recipe({"methods": {"feature_distill": {}}}, KNOWN).remembers
    assert not build_recipe({"methods": {"feature_distill": {"on": "new"}}}, KNOWN).remembers


def test_methods_that_protect_parameters_exclude_those_that_train_fresh_ones():
    with pytest.raises(
        Conflict, match="ewc protects the parameters of the tasks before, and per_task does not go on with these"
    ):
        load_recipe({"methods": {"ewc": {}, "per_task": {}}})
    assert load_recipe({"methods": {"ewc": {}, "shared": {}}}).owner("adapter").name == "shared"
    assert load_recipe({"methods": {"lwf": {}, "incremental": {}}})


def test_one_method_says_which_adapter_trains_and_none_where_every_weight_does():
    with pytest.raises(Conflict, match=r"seam 'adapter' has room for one method, got \['incremental', 'o_lora'\]"):
        load_recipe({"methods": {"incremental": {}, "o_lora": {}}})
    with pytest.raises(Conflict, match="train: full trains every weight, and per_task plans the adapter that trains"):
        load_recipe({"train": "full", "methods": {"per_task": {}}})


def test_a_column_with_labels_is_shared_with_a_method_that_wants_more_of_it():
    methods = {"token_weight": {"scheme": "stm"}, "lwf": {"teacher": "base", "top_k": 16}}
    (column,) = build_recipe({"methods": methods}, KNOWN).columns("new")
    assert (column.name, column.teacher, column.top_k, column.labels) == ("teacher@base", "base", 16, True)
