"""What can be known before the model is loaded is told before, in one line."""

import json
import shutil
from types import SimpleNamespace

import pytest

from perdure import Gate, Workspace
from perdure.bridges import runtime
from perdure.core.errors import BadInput, BadSpec, Busy, NotFound, PerdureError
from perdure.editing.spec import EditSpec
from perdure.ledger import writing
from perdure.methods.registry import load_recipe
from perdure.workflows.bench.bench import bench
from perdure.workflows.bench.jobs import read_arm
from perdure.workflows.bench.runner import BenchPlace
from perdure.workflows.bench.suite_files import load_suite
from perdure.workflows.inspect.sweep import sweep
from perdure.workflows.inspect.trace_spec import TraceSpec
from perdure.workflows.learn import ahead
from perdure.workflows.learn.changes import changes
from perdure.workflows.learn.plan import plan
from perdure.workflows.learn.request import Request

FAST = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "host": "loop"}
FACT = {"subject": "Ann", "prompt": "{} lives in", "target": "Oslo"}


def write(path, task, n=8, **last):
    rows = [{"prompt": f"{task} {i}?", "completion": " late"} for i in range(n)] + ([last] if last else [])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def learned(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ahead")
    ws = Workspace.init(folder / "ws", str(tiny_model), dtype="float32")
    ws.learn("parcel", write(folder / "parcel.jsonl", "parcel"), recipe="naive", overrides=FAST, gate=None)
    failing = Gate(floor=1.0)
    Workspace.open(shutil.copytree(folder / "ws", folder / "waiting")).learn(
        "bill", write(folder / "bill.jsonl", "bill"), recipe="naive", overrides=FAST, gate=failing
    )
    return folder


@pytest.fixture
def ws(learned, tmp_path, monkeypatch):
    made = Workspace.open(shutil.copytree(learned / "ws", tmp_path / "ws"))

    def load(*words, **more):
        raise AssertionError("loaded too early")

    monkeypatch.setattr(runtime, "load_base", load)
    return made


# ---- learn

SETTINGS = {
    "a tracker that is not installed": (
        {"report_to": "wandb"},
        r"report_to: wandb is not installed: pip install 'perdure\[wandb\]', or set report_to: none",
    ),
    "one of several": ({"report_to": ["all", "x"]}, "all must be the only name"),
    "a tracker that is unknown": ({"report_to": "wanbd"}, "no tracker 'wanbd'; did you mean 'wandb'"),
    "trackers in a text": ({"report_to": "trackio, mlfow"}, "report_to: trackio is not installed"),
    "more positions than the model has": ({"max_length": 300}, "max_length is 300, and the model has 256 positions"),
    "a rank above any layer's": ({"lora_r": 33, "start": "base"}, "lora_r is 33, .* its width of 32"),
    "another rank than head's": ({"lora_r": 4}, "rank 8, lora_alpha 16"),
    "another scale than head's": ({"lora_alpha": 8}, "rank 8, lora_alpha 16"),
    "other modules than head's": ({"lora_target_modules": ["q_proj"]}, "modules differ"),
    "every weight over an adapter": ({"train": "full"}, "begin a new workspace"),
    "more rows than an order holds": ({"num_train_epochs": 90_000}, "num_train_epochs is 90,000"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_a_learn_that_cannot_be_is_refused_before_the_model_is_loaded(ws, tmp_path, case, monkeypatch):
    overrides, words = SETTINGS[case]
    monkeypatch.setattr(ahead, "MOST", 8 * 80_000)
    data = write(tmp_path / "new.jsonl", "new", 10)
    for check in (ws.plan, ws.learn):
        with pytest.raises(BadSpec, match=words) as caught:
            check("new", data, recipe="naive", overrides={"host": "transformers", **overrides})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("report_to", ["none", "all", ["none"], ["all"], " none "])
def test_no_tracker_and_all_that_are_there_are_always_there(ws, tmp_path, report_to):
    ws.plan("new", write(tmp_path / "new.jsonl", "new"), overrides={"report_to": report_to})


def test_a_batch_that_no_memory_holds_blocks_without_checkpoints_and_a_disk_without_room_are_refused(
    ws, tmp_path, monkeypatch
):
    data = write(tmp_path / "new.jsonl", "new")
    from perdure.bridges import sizes

    with monkeypatch.context() as patch:
        patch.setattr(sizes, "memory_bytes", lambda device: 1000)
        with pytest.raises(BadSpec, match=r"per_device_train_batch_size is 6: such a batch takes .* GB at least"):
            ws.plan("new", data, overrides={"per_device_train_batch_size": 6})
    on = {"gradient_checkpointing": True}
    assert ws.plan("new", data, overrides=on).recipe.settings.gradient_checkpointing
    with monkeypatch.context() as patch:
        patch.setattr(sizes, "has_checkpoints", lambda model: False)
        with pytest.raises(
            BadSpec, match="no gradient checkpointing for LlamaForCausalLM; set gradient_checkpointing: false"
        ):
            ws.plan("new", data, overrides=on)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(PerdureError, match="0 MB free; free some space"):
        ws.plan("new", data)


@pytest.fixture
def strict(tiny_model, tmp_path, monkeypatch):
    """A workspace whose model's chat template refuses a system turn."""
    from transformers import AutoTokenizer

    folder = shutil.copytree(tiny_model, tmp_path / "strict")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    refusal = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role here') }}{% endif %}"
    tokenizer.chat_template = refusal + tokenizer.chat_template
    tokenizer.save_pretrained(folder)
    made = Workspace.init(tmp_path / "ws", str(folder), dtype="float32")
    monkeypatch.setattr(runtime, "load_base", lambda *words, **more: pytest.fail("loaded too early"))
    return made


@pytest.mark.parametrize("part", ["train", "validation", "test", "general"])
def test_every_row_is_written_in_the_template_before_anything_is_scored(strict, tmp_path, part):
    ws = strict

    def row(i, split, last="late"):
        turns = [{"role": "user", "content": f"q {i}"}, {"role": "assistant", "content": last}]
        return {
            "messages": [{"role": "system", "content": "be brief"}, *turns] if last == "BAD" else turns,
            "split": split,
        }

    rows = [
        row(i, split)
        for split in ("train", "validation", "test")
        for i in range(100 * len(split), 100 * len(split) + 4)
    ]
    bad = row(7, "train" if part == "general" else part, "BAD")
    good, wrong = tmp_path / "good.jsonl", tmp_path / "wrong.jsonl"
    good.write_text("".join(json.dumps(r) + "\n" for r in rows))
    wrong.write_text("".join(json.dumps(r) + "\n" for r in [*rows, bad]))

    ws.plan("new", good)
    settings = {"general": wrong} if part == "general" else {}
    with pytest.raises(BadInput, match="no system role here"):
        ws.plan("new", good if part == "general" else wrong, settings=settings)


def test_a_waiting_candidate_is_told_before_the_data_are_read(learned, ws, tmp_path):
    waiting = Workspace.open(shutil.copytree(learned / "waiting", tmp_path / "waiting"))
    nowhere = tmp_path / "nowhere.jsonl"
    for call in (
        lambda: waiting.plan("new", nowhere),
        lambda: waiting.learn("new", nowhere),
        lambda: waiting.learn("new", nowhere, kind="knowledge"),
        lambda: waiting.edit(FACT),
        lambda: waiting.revert("abc"),
    ):
        with pytest.raises(BadInput, match="a candidate is waiting; 'perdure accept' or 'perdure discard'"):
            call()


def test_a_gate_that_names_a_task_nobody_knows_is_refused(ws, tmp_path):
    data = write(tmp_path / "new.jsonl", "new")
    with pytest.raises(BadSpec, match=r"tolerances name 'parcl'.* did you mean 'parcel'"):
        ws.learn("new", data, gate=Gate(tolerances={"parcl": 0.1}))
    with pytest.raises(BadInput, match="guard names tasks that head does not know"):
        ws.plan("new", data, settings={"guard": ["parcl"]})


def test_overrides_of_a_built_recipe_reach_the_plan(ws, tmp_path):
    data = write(tmp_path / "new.jsonl", "new")
    planned = ws.plan("new", data, recipe=load_recipe("dual_replay"), overrides={"num_train_epochs": 9})
    assert planned.recipe.settings.num_train_epochs == 9
    mapping = ws.plan("new", data, recipe={"methods": {"replay": {}}}, overrides={"methods.replay.mix": 0.5})
    assert mapping.recipe.methods[0].mix == 0.5


# ---- the other verbs


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda ws, to: ws.evaluate(["parcel", "parcl"]), NotFound, "no task 'parcl'"),
        (lambda ws, to: ws.evaluate(at="hed"), NotFound, "hed"),
        (lambda ws, to: ws.predict(["x"], task="parcl"), NotFound, "no task 'parcl'"),
        (lambda ws, to: ws.predict(["x"], at="hed"), NotFound, "hed"),
        (lambda ws, to: ws.predict(["x"], max_new_tokens=0), BadInput, "max_new_tokens is 0"),
        (lambda ws, to: ws.edit(FACT, spec=EditSpec(layers=(1,))), BadSpec, "layer 1 cannot be edited"),
        (lambda ws, to: ws.edit(FACT, spec=EditSpec(method="lora")), BadInput, "leaves no edit set"),
        (lambda ws, to: ws.edit({"subject": "Ann"}), BadInput, "prompt"),
        (lambda ws, to: ws.revert("abc"), NotFound, "no fact or entry 'abc'"),
        (lambda ws, to: sweep(ws.session, FACT, [5]), BadSpec, "layer 5 cannot be edited"),
        (lambda ws, to: sweep(ws.session, FACT, at="hed"), NotFound, "hed"),
        (lambda ws, to: ws.trace("Ann lives in", "Bob"), BadInput, "does not name the subject"),
        (lambda ws, to: ws.trace("Ann lives in", "Ann", at="hed"), NotFound, "hed"),
        (lambda ws, to: ws.export(to, dtype="int8"), BadInput, "unknown dtype 'int8'"),
        (lambda ws, to: ws.export(to, rank=600), BadInput, "a rank is from 1 to the cap of 512"),
        (lambda ws, to: ws.export(to, max_rank=4), BadInput, "has rank 8, above the cap of 4"),
        (lambda ws, to: ws.export(to, merged=True, max_rank=4), BadInput, "rank and dtype are of an adapter"),
        (lambda ws, to: ws.export(ws.ledger.root), BadInput, "not an empty folder"),
        (
            lambda ws, to: ws.export(ws.ledger.root / "perdure.json" / "x"),
            PerdureError,
            "belongs to the workspace",
        ),
        (lambda ws, to: ws.export(to, at="base"), BadInput, "no adapter to export"),
    ],
)
def test_what_the_other_verbs_can_know_they_say_before(ws, tmp_path, call, error, words):
    with pytest.raises(error, match=words):
        call(ws, tmp_path / "to")


def test_a_busy_workspace_is_told_before(ws, tmp_path):
    data = write(tmp_path / "new.jsonl", "new")
    with writing(ws.ledger.root):
        for call in (lambda: ws.learn("new", data), lambda: ws.edit(FACT), lambda: ws.revert("x"), ws.verify_edits):
            with pytest.raises(Busy):
                call()


def test_a_merged_export_needs_room_for_the_model(ws, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(PerdureError, match="free some space"):
        ws.export(tmp_path / "to", merged=True)


# ---- settings of editing and tracing


@pytest.mark.parametrize(
    ("make", "fields", "words"),
    [
        (EditSpec, {"steps": True}, "steps is True"),
        (EditSpec, {"steps": 2.5}, "steps is 2.5"),
        (EditSpec, {"steps": 10**18}, "steps is 10{18}"),
        (EditSpec, {"batch": "8"}, "batch is '8'"),
        (EditSpec, {"seed": -1}, "seed is -1"),
        (EditSpec, {"lr": float("inf")}, "lr is inf"),
        (EditSpec, {"kl": float("nan")}, "kl is nan"),
        (EditSpec, {"decay": None}, "decay is None"),
        (EditSpec, {"gain": True}, "gain is True"),
        (EditSpec, {"layers": (True,)}, "layers are"),
        (EditSpec, {"layers": "12"}, "layers are"),
        (EditSpec, {"chat": "no"}, "chat is 'no'"),
        (TraceSpec, {"samples": True}, "samples is True"),
        (TraceSpec, {"samples": 10**18}, "samples is"),
        (TraceSpec, {"noise": float("nan")}, "noise is nan"),
    ],
)
def test_settings_of_edits_and_traces_are_numbers_within_reason(make, fields, words):
    with pytest.raises(BadSpec, match=words):
        make(**fields)


def test_plans_without_a_host_are_what_the_facade_gives(ws, tmp_path):
    data = write(tmp_path / "new.jsonl", "new")
    assert (
        plan(ws.session, Request("new", data, load_recipe("naive"))).encoded
        == ws.plan("new", data, recipe="naive").encoded
    )


# ---- two ways of saying one thing


def test_what_a_task_file_says_and_is_template_arguments_it_is_told(ws, tmp_path):
    write(tmp_path / "new.jsonl", "new")
    write(tmp_path / "test.jsonl", "asked")
    (tmp_path / "new.yaml").write_text("name: other\ntrain: new.jsonl\ntest: test.jsonl\nscorer: rouge_l\n")
    same = ws.plan("other", tmp_path / "new.yaml", test=tmp_path / "test.jsonl", settings={"scorer": "rouge_l"})
    assert not [told for told in same.notices if "overridden" in told]
    other = write(tmp_path / "others.jsonl", "others")
    planned = ws.plan("new", tmp_path / "new.yaml", test=other, settings={"scorer": "exact"})
    told = [notice for notice in planned.notices if "is overridden by the value given with it" in notice]
    assert [notice.split(" has ")[1].split(":")[0] for notice in told] == ["name", "test", "scorer"]
    assert planned.task.test[0].prompt.startswith("others")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"settings": {"name": "x"}}, "name the task 'x', and 'new' is to be learned"),
        ({"settings": {"train": "x.jsonl"}}, "name the train file x.jsonl, and the data file is"),
        ({"settings": {"test": "x.jsonl"}, "test": "y.jsonl"}, "test rows are given twice"),
        ({"settings": {"test_size": True}}, "`test_size` is a number, got True"),
        ({"settings": {"test_size": 1.5}}, "test_size"),
        ({"settings": {"max_new_tokens": "8"}}, "`max_new_tokens` is a number, got '8'"),
        ({"settings": {"max_new_tokens": 10**18}}, "`max_new_tokens` is 10+; it is 100,000 at most"),
        ({"settings": {"seed": True}}, "`seed` is a number"),
        ({"settings": {"seed": 10**30}}, "`seed` is"),
        ({"settings": {"guard": "parcel"}}, "guard"),
    ],
)
def test_settings_of_a_task_that_contradict_or_make_no_sense_are_refused(ws, tmp_path, options, words):
    data = write(tmp_path / "new.jsonl", "new")
    with pytest.raises(BadSpec, match=words):
        ws.plan("new", data, **options)


@pytest.mark.parametrize("seed", [-1, True, 1.5, "3", 2**63, None])
def test_the_seed_of_a_workspace_is_a_whole_number_within_bounds(tiny_model, tmp_path, seed):
    with pytest.raises(BadInput, match="seed is"):
        Workspace.init(tmp_path / "ws", str(tiny_model), seed=seed)
    assert not (tmp_path / "ws").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("task: {scorer: exat}", "exat"),
        ("task: {test_sise: 0.2}", "test_sise"),
        ("task: {max_new_tokens: true}", "max_new_tokens"),
        ("task: {train: x.jsonl}", "`train` is the suite's to say"),
        ("labels: true", "labels"),
        ("labels: 0", "labels"),
    ],
)
def test_a_suite_whose_second_task_cannot_be_is_refused_before_the_first_runs(tmp_path, more, words):
    first = "{name: a, file: a.jsonl, train: {split: train}, test: {split: test}}"
    second = first.replace("name: a", "name: b").removesuffix("}") + f", {more}}}"
    (tmp_path / "s.yaml").write_text(f"tasks: [{first}, {second}]\n")

    def run():
        suite = load_suite(str(tmp_path / "s.yaml"))
        bench(suite, [read_arm("naive")], [0], BenchPlace(tmp_path, tmp_path / "out"))

    with pytest.raises(BadSpec, match=words):
        run()


@pytest.mark.parametrize(
    ("arm", "words"),
    [
        ("naive:report_to=wandb", "report_to: wandb is not installed"),
        ("dual_replay:methods.tail_average=false", "methods.tail_average must be a mapping"),
        ("naive:learning_rate=", "no KEY=VALUE"),
        ("naive:lora_r=4,lora_r=8", "sets a key twice"),
    ],
)
def test_an_arm_that_cannot_run_is_refused_before_any_runs(arm, words):
    with pytest.raises(BadSpec, match=words):
        read_arm(arm)
    assert "tail_average" not in read_arm("dual_replay:methods.tail_average=null").recipe["methods"]


@pytest.mark.parametrize("recipe", [3, None, ["naive"]])
def test_what_is_no_recipe_is_refused_in_words(ws, tmp_path, recipe):
    with pytest.raises(BadSpec, match="is no recipe; give a name, a path, a mapping, or a Recipe"):
        ws.plan("new", write(tmp_path / "new.jsonl", "new"), recipe=recipe)


def test_a_field_that_the_json_leaves_out_at_its_default_is_a_change_of_a_recipe_that_sets_it(tiny_model):
    session = SimpleNamespace(base_folder=tiny_model)
    assert changes(session, load_recipe("base_kl", {"methods.lwf.teacher": "start"})) == {
        "methods.lwf.teacher": "start"
    }
    assert changes(session, load_recipe("base_kl")) == {}
