"""Merge: one adapter of bounded rank from those in force, what other verbs do with it, and what the gate says of it."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from perdure import Gate, Workspace
from perdure.cli.main import app
from perdure.core.errors import BadInput, Interrupted, NotFound
from perdure.data.encode import encode
from perdure.ledger.records import Evidence, MergeNote
from perdure.maths.low_rank import from_tensors
from perdure.workflows.learn.remember import LedgerMemory

FAST = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "host": "loop", "lora_r": 4, "learning_rate": 0.01}
WORDS = {"refund": "money back", "parcel": "where is it", "invoice": "what do I owe", "tariff": "what does it cost"}
OWN = {"methods": {"per_task": {}}}
SUM = {"methods": {"incremental": {}}}
REMEMBERING = {"methods": {"incremental": {}, "replay": {}}}
THREE = ("refund", "parcel", "invoice")


def learn(ws, folder, task, recipe, settings=None, **overrides):
    rows = [
        {"text": f"{WORDS[task]} {i}", "label": f"{task} {i % 2}", "split": split}
        for split, start in (("train", 0), ("test", 100))
        for i in range(start, start + 8)
    ]
    path = folder / f"{task}.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    given = {name: value for name, value in {**FAST, **overrides}.items() if value is not None}
    return ws.learn(task, path, recipe=recipe, overrides=given, settings=settings, gate=None)


def made(folder, model, recipe, tasks=THREE, **more):
    ws = Workspace.init(folder / "ws", str(model), dtype="float32")
    for task in tasks:
        learn(ws, folder, task, recipe, **more)
    return folder / "ws"


@pytest.fixture(scope="module")
def summed_at(tiny_model, tmp_path_factory):
    """Three tasks in a sum, with rows in memory."""
    return made(tmp_path_factory.mktemp("summed"), tiny_model, REMEMBERING)


@pytest.fixture(scope="module")
def isolated_at(tiny_model, tmp_path_factory):
    """Three tasks with adapters of their own, and no row in memory."""
    return made(tmp_path_factory.mktemp("isolated"), tiny_model, OWN)


@pytest.fixture
def summed(summed_at, tmp_path):
    return Workspace.open(shutil.copytree(summed_at, tmp_path / "ws"))


@pytest.fixture
def isolated(isolated_at, tmp_path):
    return Workspace.open(shutil.copytree(isolated_at, tmp_path / "ws"))


def slots(ws, at="head"):
    return ws.ledger.slots(ws.ledger.resolve(at))


def logits(ws, task=None, at="head"):
    ids = ws.tokenizer("money back 3", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return ws.model(at, task)(input_ids=ids).logits


def patches(ws, name):
    return from_tensors(ws.ledger.objects.get(name))


def test_a_sum_becomes_one_adapter_and_with_room_for_its_rank_the_model_stays_the_same(summed):
    before, ranks = logits(summed), set()
    done = summed.merge(12)
    assert (done.moved, done.rank, done.how, done.kept) == (True, 12, "svd", ())
    assert done.tasks == tuple(sorted(THREE))
    assert done.error == 0
    assert list(slots(summed)) == ["skill"]
    torch.testing.assert_close(logits(summed), before, atol=1e-5, rtol=1e-5)
    ranks = {patch.rank for patch in patches(summed, slots(summed)["skill"]).values()}
    assert ranks == {12}
    assert done.gate.verdict == "pass" or done.gate.verdict == "inconclusive"
    assert done.scores == done.before
    assert summed.verify().ok


def test_the_error_of_the_truncation_falls_with_the_rank_and_ids_are_the_same_again(summed):
    errors, entries = [], []
    for rank in (2, 4, 8, 2):
        done = summed.merge(rank, gate=None)
        errors.append(done.error)
        entries.append(done.entry)
        summed.rollback("head~1")
    assert errors[0] > errors[1] > errors[2] > 0
    assert entries[3] == entries[0]
    assert len(set(entries)) == 3


def test_adapters_of_single_tasks_stay_and_the_merged_one_serves_all_other_requests(isolated):
    before = {task: logits(isolated, task) for task in THREE}
    own = slots(isolated)
    done = isolated.merge(12, gate=None)
    assert done.kept == tuple(sorted(THREE))
    assert {name: found for name, found in slots(isolated).items() if name != "skill"} == own
    for task in THREE:
        assert torch.equal(logits(isolated, task), before[task])
    total = {}
    for task in THREE:
        for module, patch in patches(isolated, own[f"task:{task}"]).items():
            total[module] = total.get(module, 0) + patch.delta
    for module, patch in patches(isolated, slots(isolated)["skill"]).items():
        torch.testing.assert_close(patch.delta, total[module], atol=1e-5, rtol=1e-4)
    # what was scored is the merged adapter, not the adapters of the tasks
    head = isolated.ledger.resolve("head")
    for task, score in done.scores.items():
        stored = isolated.ledger.score(isolated.ledger.seen(head, None), head.tasks[task])
        assert stored.summary == score
    assert isolated.verify().ok


def test_dropped_adapters_are_gone_and_requests_go_through_the_merged_one(isolated):
    done = isolated.merge(8, how="average", drop=True, gate=None)
    assert list(slots(isolated)) == ["skill"]
    assert done.kept == ()
    assert torch.equal(logits(isolated, "refund"), logits(isolated))
    assert isolated.matrix().score[-1] == tuple(done.scores[task].score for task in isolated.matrix().tasks)


def test_adapters_that_were_merged_are_dropped_later_and_a_rollback_brings_them_back(isolated):
    merged = isolated.merge(8, how="average", gate=None)
    kept, own = slots(isolated), {task: logits(isolated, task) for task in THREE}
    done = isolated.merge(drop=True, tasks=["refund"], gate=None)
    assert (done.how, done.rank, done.tasks, done.kept) == ("drop", merged.rank, ("refund",), ())
    assert slots(isolated) == {name: found for name, found in kept.items() if name != "task:refund"}
    assert torch.equal(logits(isolated, "refund"), logits(isolated))
    assert torch.equal(logits(isolated, "parcel"), own["parcel"])
    assert set(done.scores) == set(done.before) == {"refund"}
    assert done.scores["refund"] == merged.scores["refund"]
    rest = isolated.merge(drop=True, gate=None)
    assert rest.tasks == ("invoice", "parcel")
    assert slots(isolated) == {"skill": kept["skill"]}
    assert isolated.export(isolated.ledger.root.parent / "one").rank == 8
    with pytest.raises(BadInput, match=rf"refund was merged with others \(entry {merged.entry[:12]}\)"):
        isolated.revert("refund")
    isolated.rollback(merged.entry)
    assert slots(isolated) == kept
    assert torch.equal(logits(isolated, "refund"), own["refund"])
    assert isolated.verify().ok


def test_a_drop_that_loses_too_much_waits_as_a_candidate(isolated, monkeypatch):
    isolated.merge(8, how="average", gate=None)
    head, real = isolated.ledger.resolve("head").id, isolated.session.score

    def score(entry, task, *args, **options):
        found = real(entry, task, *args, **options)
        level = 0.0 if options.get("shared") else 1.0
        return found.__class__(replace(found.score, score=level, items=(level,) * found.score.n))

    monkeypatch.setattr(isolated.session, "score", score)
    done = isolated.merge(drop=True)
    assert (done.gate.verdict, done.moved, done.scores["refund"].score) == ("fail", False, 0.0)
    assert isolated.ledger.resolve("head").id == head
    isolated.accept()
    assert list(slots(isolated)) == ["skill"]


def test_only_adapters_of_their_own_that_are_in_a_merge_are_dropped(isolated, tmp_path):
    with pytest.raises(BadInput, match=r"no merge in force has .*'perdure merge --rank R --drop'"):
        isolated.merge(drop=True)
    isolated.merge(6, gate=None, tasks=["refund", "parcel"])
    with pytest.raises(BadInput, match=r"invoice is in no merge, .*'perdure merge --rank R --tasks invoice --drop'"):
        isolated.merge(drop=True, tasks=["invoice"])
    with pytest.raises(NotFound, match=r"no task 'refnd' is known at head.*refund"):
        isolated.merge(drop=True, tasks=["refnd"])
    with pytest.raises(BadInput, match="so that --density has no effect; leave it out"):
        isolated.merge(drop=True, density=0.5)
    with pytest.raises(BadInput, match="no rank is given"):
        isolated.merge()
    learn(isolated, tmp_path, "refund", OWN)
    done = isolated.merge(drop=True, gate=None)
    assert set(slots(isolated)) == {"skill", "task:invoice"}
    assert any(text.startswith("refund was learned again since merge ") for text in done.warnings)


def test_a_sum_that_was_merged_has_nothing_to_drop(summed):
    summed.merge(6, gate=None)
    with pytest.raises(BadInput, match="task refund has no adapter of its own"):
        summed.merge(drop=True, tasks=["refund"])


def test_an_average_has_the_weights_that_were_given_and_some_tasks_can_be_left_out(isolated):
    own = slots(isolated)
    isolated.merge(8, how="average", tasks=["refund", "parcel"], weights={"refund": 3.0}, gate=None)
    refund, parcel = (patches(isolated, own[f"task:{task}"]) for task in ("refund", "parcel"))
    for module, patch in patches(isolated, slots(isolated)["skill"]).items():
        wanted = 0.75 * refund[module].delta + 0.25 * parcel[module].delta
        torch.testing.assert_close(patch.delta, wanted, atol=1e-6, rtol=1e-4)
    note = isolated.ledger.note(isolated.ledger.resolve("head").id, "merge", MergeNote)
    assert set(note.scores) == {"refund", "parcel"}


@pytest.mark.parametrize("how", ["ties", "dare", "knots"])
def test_other_ways_give_an_adapter_of_the_rank_and_the_same_one_again(isolated, how):
    done = isolated.merge(3, how=how, gate=None)
    first = slots(isolated)["skill"]
    assert done.rank == 3
    assert 0 < done.error < 1
    isolated.rollback("head~1")
    assert isolated.merge(3, how=how, gate=None).entry == done.entry
    assert slots(isolated)["skill"] == first
    isolated.rollback("head~1")
    assert isolated.merge(3, how=how, density=0.9, gate=None).entry != done.entry


def test_slerp_takes_two_and_notes_the_angle(isolated):
    with pytest.raises(BadInput, match=r"slerp merges two adapters, and there are 3 .*name two with --tasks"):
        isolated.merge(4, how="slerp")
    with pytest.raises(BadInput, match=r"slerp merges two adapters, and there is one \(refund\); learn another task"):
        isolated.merge(4, how="slerp", tasks=["refund"])
    isolated.merge(4, how="slerp", tasks=["refund", "parcel"], gate=None)
    note = isolated.ledger.note(isolated.ledger.resolve("head").id, "merge", MergeNote)
    assert 0 < note.angle < 3.15


def test_part_of_a_sum_is_merged_and_the_rest_stays_under_it(summed):
    before = logits(summed)
    summed.merge(8, tasks=["refund", "parcel"], gate=None)
    assert list(slots(summed)) == ["skill", "sum:invoice"]
    torch.testing.assert_close(logits(summed), before, atol=1e-5, rtol=1e-5)
    done = summed.merge(12, gate=None)  # and later all of it
    assert done.tasks == ("invoice",)
    assert list(slots(summed)) == ["skill"]
    torch.testing.assert_close(logits(summed), before, atol=1e-5, rtol=1e-5)


def test_what_all_tasks_share_is_added_as_it_is(tiny_model, tmp_path):
    ws = Workspace.open(made(tmp_path, tiny_model, "naive", ["refund"]))
    shared = patches(ws, slots(ws)["skill"])
    learn(ws, tmp_path, "parcel", OWN)
    own = patches(ws, slots(ws)["task:parcel"])
    before = logits(ws, "parcel")
    done = ws.merge(8, how="average", gate=None)
    for module, patch in patches(ws, slots(ws)["skill"]).items():
        torch.testing.assert_close(patch.delta, shared[module].delta + own[module].delta, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(logits(ws), before, atol=1e-5, rtol=1e-5)
    assert torch.equal(logits(ws, "parcel"), before)
    assert set(done.scores) == {"refund", "parcel"}  # the shared task goes through it, too
    with pytest.raises(BadInput, match=r"parcel is in the shared adapter already, through merge \w+; .*rollback \w+~1"):
        ws.merge(8)
    with pytest.raises(BadInput, match="refund has no adapter that could be merged"):
        ws.merge(8, tasks=["refund"])


def test_a_copy_of_the_shared_adapter_is_not_added_twice(tiny_model, tmp_path):
    ws = Workspace.open(made(tmp_path, tiny_model, "naive", ["refund"]))
    for _ in range(2):  # begun as a copy, then learned again
        learn(ws, tmp_path, "parcel", {"methods": {"per_task": {"start": "shared"}}})
    before = logits(ws, "parcel")
    assert "task:parcel/skill" not in slots(ws)
    ws.merge(12, gate=None)
    torch.testing.assert_close(logits(ws), before, atol=1e-5, rtol=1e-5)


def test_the_adapter_that_a_workspace_was_made_with_stays_under_a_merge(tiny_model, tmp_path):
    donor = Workspace.open(made(tmp_path, tiny_model, "naive", ["refund"]))
    donor.export(tmp_path / "donor")
    ws = Workspace.init(tmp_path / "over", str(tiny_model), dtype="float32", adapter=tmp_path / "donor")
    for task in ("parcel", "invoice"):
        learn(ws, tmp_path, task, REMEMBERING)
    initial, before = slots(ws)["initial"], logits(ws)
    ws.merge(8, gate=None)
    assert set(slots(ws)) == {"initial", "skill"}
    assert slots(ws)["initial"] == initial
    torch.testing.assert_close(logits(ws), before, atol=1e-5, rtol=1e-5)
    ws.rollback("head~1")
    assert ws.merge(2, distill_epochs=1, gate=None).rows > 0
    assert slots(ws)["initial"] == initial


def test_bad_requests_are_refused_with_what_to_do(summed):
    bad = [
        ({"rank": 0}, "rank of at least 1"),
        ({"rank": 4, "density": 0.5}, "svd keeps every entry"),
        ({"rank": 4, "how": "ties", "density": 0.0}, "share above 0"),
        ({"rank": 4, "how": "mean"}, "how is 'mean'; it is svd, average"),
        ({"rank": 4, "weights": {"refund": -1.0}}, "the weight of refund is -1.0"),
        ({"rank": 4, "weights": {"tariff": 1.0}}, "a weight is given for tariff, which is not merged"),
        ({"rank": 4, "weights": dict.fromkeys(THREE, 0.0)}, "every weight is 0"),
        ({"rank": 4, "drop": True}, "drop takes adapters of single tasks away"),
    ]
    for request, words in bad:
        with pytest.raises(BadInput, match=words):
            summed.merge(**request)
    with pytest.raises(NotFound, match=r"no task 'refnd' is known at head.*refund"):
        summed.merge(4, tasks=["refnd"])
    assert summed.ledger.resolve("head").kind == "learn"


def test_without_any_adapter_the_message_says_what_the_workspace_has(tiny_model, tmp_path):
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32")
    with pytest.raises(BadInput, match="nothing to merge; learn tasks first, with a recipe such as isolated"):
        ws.merge(4)
    for task in ("refund", "parcel"):
        learn(ws, tmp_path, task, "slda", **dict.fromkeys(FAST))
    with pytest.raises(BadInput, match=r"its tasks answer from a classifier, which 'perdure export --classifier'"):
        ws.merge(4)


def test_one_shared_adapter_is_nothing_to_merge(tiny_model, tmp_path):
    ws = Workspace.open(made(tmp_path, tiny_model, "naive", ["refund"]))
    with pytest.raises(BadInput, match=r"no adapter of a single task.*export --rank"):
        ws.merge(4)


def test_the_gate_refuses_a_merge_that_loses_too_much_and_the_candidate_waits(isolated, monkeypatch):
    head = isolated.ledger.resolve("head").id
    real = isolated.session.score

    def score(entry, task, *args, **options):
        found = real(entry, task, *args, **options)
        level = 0.0 if options.get("shared") else 1.0
        score = found.score.__class__(**{**vars(found.score), "score": level, "items": (level,) * found.score.n})
        return found.__class__(score)

    monkeypatch.setattr(isolated.session, "score", score)
    done = isolated.merge(4)
    assert (done.gate.verdict, done.moved) == ("fail", False)
    assert isolated.ledger.resolve("head").id == head
    candidate = isolated.ledger.candidate()
    assert (candidate.id, candidate.kind) == (done.entry, "merge")
    assert isolated.ledger.note(candidate.id, "evidence", Evidence).verdict == done.gate
    assert {task.reference for task in done.gate.tasks} == {1.0}
    with pytest.raises(BadInput, match="the candidate is a merge, and --repair scales what a learn trained"):
        isolated.repair()
    with pytest.raises(BadInput, match="a candidate is waiting"):
        isolated.merge(4)
    text = CliRunner().invoke(app, ["status", "-w", str(isolated.ledger.root)]).output
    assert f"candidate {candidate.id[:12]} (merge) waits for 'perdure accept' or 'perdure discard'" in text
    assert isolated.accept().id == done.entry
    assert isolated.ledger.resolve("head").id == done.entry


def test_a_later_learn_goes_on_with_a_merged_adapter_in_its_shape(summed, tmp_path):
    summed.merge(6, gate=None)
    before = slots(summed)["skill"]
    done = learn(summed, tmp_path, "tariff", "naive", lora_r=None)
    entry = summed.ledger.resolve("head")
    assert (entry.recipe["lora_r"], entry.recipe["lora_alpha"]) == (6, 24.0)  # the scale of the adapters: 16 / 4
    assert any("goes on as it is (lora_r: 6, lora_alpha: 24.0)" in text for text in done.warnings)
    assert {p.rank for p in patches(summed, slots(summed)["skill"]).values()} == {6}
    assert slots(summed)["skill"] != before


def test_a_later_learn_of_its_own_lies_over_a_merged_adapter(isolated, tmp_path):
    isolated.merge(6, gate=None)
    merged = slots(isolated)["skill"]
    learn(isolated, tmp_path, "tariff", OWN)
    assert slots(isolated)["task:tariff/skill"] == merged == slots(isolated)["skill"]
    learn(isolated, tmp_path, "tariff", OWN)
    done = isolated.merge(8, gate=None)
    assert done.tasks == ("tariff",)
    assert sum("is in the shared adapter already" in text for text in done.warnings) == 3
    learn(isolated, tmp_path, "refund", OWN)
    with pytest.raises(BadInput, match=r"refund is in the shared adapter already.*and was learned again since"):
        isolated.merge(8, tasks=["refund"])


def test_a_later_learn_of_a_sum_lies_over_a_merged_adapter_and_can_be_taken_out_again(summed, tmp_path):
    summed.merge(6, gate=None)
    merged, before = slots(summed), logits(summed)
    learn(summed, tmp_path, "tariff", SUM)
    assert set(slots(summed)) == {"skill", "sum:tariff"}
    summed.revert("tariff")
    assert slots(summed) == merged
    assert torch.equal(logits(summed), before)


def test_a_merged_task_of_a_sum_is_not_taken_out(summed):
    done = summed.merge(6, gate=None)
    words = rf"refund was merged with others \(entry {done.entry[:12]}\).*rollback {done.entry[:12]}~1"
    with pytest.raises(BadInput, match=words):
        summed.revert("refund")
    summed.rollback("head~1")
    assert "sum:refund" in slots(summed)
    summed.revert("refund")
    assert "sum:refund" not in slots(summed)


def test_a_merged_task_of_its_own_is_taken_out_and_what_stays_of_it_is_named(isolated):
    merged = isolated.merge(6, gate=None)
    done = isolated.revert("refund")
    assert "task:refund" not in slots(isolated)
    assert any(f"merged from the adapter of refund too (entry {merged.entry[:12]})" in text for text in done.warnings)
    isolated.rollback(f"{merged.entry}~1")
    isolated.merge(6, drop=True, gate=None)
    with pytest.raises(BadInput, match="refund was merged with others"):
        isolated.revert("refund")


def test_shared_weights_that_are_begun_anew_have_nothing_of_a_merge(summed, tmp_path):
    summed.merge(6, gate=None)
    learn(summed, tmp_path, "tariff", "naive", start="base")
    with pytest.raises(BadInput, match=r"tariff was learned in weights that other tasks go through too"):
        summed.revert("tariff")
    assert summed.revert("refund").task == "refund"


def test_state_about_the_merged_weights_is_left_out(tiny_model, tmp_path):
    ws = Workspace.open(made(tmp_path, tiny_model, "ewc", ["refund"]))
    learn(ws, tmp_path, "parcel", OWN)
    assert ws.ledger.resolve("head").state
    done = ws.merge(4, gate=None)
    assert ws.ledger.resolve("head").state is None
    assert any(text.startswith("ewc: what was measured") for text in done.warnings)
    learn(ws, tmp_path, "invoice", "ewc", lora_r=None)
    assert {p.rank for p in patches(ws, slots(ws)["skill"]).values()} == {4}


def test_memory_stays(summed):
    before = [row.key for row in LedgerMemory.at(summed.ledger, summed.ledger.resolve("head")).rows]
    summed.merge(6, gate=None)
    assert [row.key for row in LedgerMemory.at(summed.ledger, summed.ledger.resolve("head")).rows] == before


def test_distillation_brings_the_answers_back_to_those_of_the_adapters_before(tiny_model, tmp_path):
    ws = Workspace.open(made(tmp_path, tiny_model, REMEMBERING, num_train_epochs=8))
    start = ws.ledger.resolve("head")
    rows = [one.row for one in LedgerMemory.at(ws.ledger, start).rows]
    encoded = [encode(row, ws.tokenizer, 256) for row in rows]

    def answers():
        """Return the log-probabilities of every token at the label positions of the rows in memory, at head."""
        ws.session.load(ws.ledger.resolve("head"))
        found = ws.runtime.top_k(encoded, 300)
        return [
            torch.zeros(len(one.index), 300).scatter(1, one.index.long(), one.logprob.float()).double() for one in found
        ]

    def gap():
        pairs = zip(wanted, answers(), strict=True)
        return sum((one.exp() * (one - other)).sum().item() for one, other in pairs)

    wanted = answers()
    ws.merge(1, gate=None)
    plain = gap()
    ws.rollback(start.id)
    done = ws.merge(1, distill_epochs=20, gate=None)
    assert gap() < 0.8 * plain
    entry = ws.ledger.resolve("head")
    assert (done.rank, done.rows) == (1, len(rows))
    assert entry.recipe["num_train_epochs"] == 20
    note = ws.ledger.note(entry.id, "merge", MergeNote)
    assert note.loss[-1] < note.loss[0]
    assert not list((ws.ledger.root / "runs").glob("*"))
    first = slots(ws)["skill"]
    ws.rollback(start.id)
    assert ws.merge(1, distill_epochs=20, gate=None).entry == done.entry
    assert slots(ws)["skill"] == first


def test_a_distillation_that_is_stopped_goes_on_to_the_same_bits(summed, monkeypatch):
    done = summed.merge(2, distill_epochs=3, gate=None)
    wanted = slots(summed)["skill"]
    summed.rollback("head~1")
    from perdure.train.checkpoint import Keeper

    real = Keeper.after

    def after(self, update, optimizer):
        self.stop = lambda: "SIGTERM" if update == 2 else None
        real(self, update, optimizer)

    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "after", after)
        with pytest.raises(Interrupted, match="after update 3"):
            summed.merge(2, distill_epochs=3, gate=None)
    assert [run.task for run in summed.status().unfinished] == ["merge"]
    again = summed.merge(2, distill_epochs=3, gate=None)
    assert (again.entry, slots(summed)["skill"]) == (done.entry, wanted)


def test_without_rows_distillation_is_refused_with_what_helps(isolated):
    with pytest.raises(
        BadInput, match=r"no row of invoice, parcel, refund is stored.*--rows invoice=FILE.*--keep-rows all"
    ):
        isolated.merge(4, distill_epochs=1)


def test_files_give_the_rows_that_are_not_stored(isolated, tmp_path):
    for task in THREE:
        learn(isolated, tmp_path, task, OWN)
    files = {task: tmp_path / f"{task}.jsonl" for task in THREE}
    done = isolated.merge(2, distill_epochs=1, rows=files, gate=None)
    assert done.rows == 24  # the files have the test rows too, which are never trained on
    isolated.rollback("head~1")
    with pytest.raises(BadInput, match=r"no row of invoice is stored.*--rows invoice=FILE"):
        isolated.merge(2, distill_epochs=1, rows={t: files[t] for t in ("refund", "parcel")})
    with pytest.raises(BadInput, match="16 of 16 rows are not rows of task refund"):
        isolated.merge(2, distill_epochs=1, rows={**files, "refund": files["parcel"]})
    with pytest.raises(BadInput, match="rows are read to distill on"):
        isolated.merge(2, rows=files)
    with pytest.raises(BadInput, match="rows are given for tariff"):
        isolated.merge(2, distill_epochs=1, rows={"tariff": files["refund"]})


def test_stored_train_rows_serve_where_memory_has_none(tiny_model, tmp_path):
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32")
    for task in ("refund", "parcel"):
        learn(ws, tmp_path, task, OWN, settings={"keep_rows": "all"})
    done = ws.merge(2, distill_epochs=2, drop=True, gate=None)
    assert done.rows == 16
    assert list(slots(ws)) == ["skill"]


def test_part_of_a_sum_is_distilled_under_what_stays(summed):
    done = summed.merge(2, tasks=["refund", "parcel"], distill_epochs=1, gate=None)
    assert set(slots(summed)) == {"skill", "sum:invoice"}
    assert set(done.scores) == set(THREE)


def test_every_view_knows_a_merge(isolated, tmp_path):
    done = isolated.merge(4, gate=Gate(tolerance=0.9), message="smaller")
    root = str(isolated.ledger.root)
    run = CliRunner()
    log = run.invoke(app, ["log", "-w", root]).output
    assert "merge svd, rank 4" in log
    assert "smaller" in log
    shown = json.loads(run.invoke(app, ["show", "--json", "-w", root]).stdout)
    assert (shown["kind"], shown["about"]) == ("merge", "svd, rank 4")
    assert shown["data"]["merge"]["rank"] == 4
    assert shown["merge"]["scores"] == {name: json.loads(json.dumps(s.to_json())) for name, s in done.scores.items()}
    assert "merge svd, rank 4" in run.invoke(app, ["show", "-w", root]).output
    assert "merge svd, rank 4" in run.invoke(app, ["status", "-w", root]).output
    gate = run.invoke(app, ["gate", "-w", root])
    assert gate.exit_code == 0
    assert "warns" not in gate.output
    assert [stage.kind for stage in isolated.matrix().stages] == ["base", "learn", "learn", "learn", "merge"]
    page = tmp_path / "page.html"
    isolated.report(page)
    assert "merge" in page.read_text(encoding="utf-8")
    diff = json.loads(run.invoke(app, ["diff", "head~1", "head", "--json", "-w", root]).stdout)
    assert set(diff["slots"]) == {"skill"}
    out = isolated.export(tmp_path / "adapter")
    assert (out.rank, out.task) == (8, None)  # the least rank that servers take
    card = (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "merge" in card


def test_the_command_drops_later_and_prints_what_it_dropped(isolated):
    root, run = str(isolated.ledger.root), CliRunner()
    done = run.invoke(app, ["merge", "--rank", "4", "--no-gate", "-w", root])
    assert "through the adapters of their own, as before ('perdure merge --drop' drops these)" in done.output
    done = run.invoke(app, ["merge", "--drop", "--tasks", "refund", "--no-gate", "-w", root])
    assert done.exit_code == 0, done.output
    assert "dropped refund: 1 own adapter, in the place of which the shared one of rank 4 answers" in done.output
    found = json.loads(run.invoke(app, ["merge", "--drop", "--no-gate", "--json", "-w", root]).stdout)
    assert (found["rank"], found["how"], found["tasks"]) == (4, "drop", ["invoice", "parcel"])
    assert "merge 2 own adapters dropped" in run.invoke(app, ["log", "-w", root]).output


def test_of_a_task_whose_adapter_was_dropped_deleted_rows_name_what_takes_the_rest_out(tiny_model, tmp_path):
    routed = {"methods": {"per_task": {}, "color": {}}}
    root, run = str(made(tmp_path, tiny_model, routed, ["refund"])), CliRunner()
    ws = Workspace.open(root)
    ws.merge(4, drop=True, gate=None)
    told = run.invoke(app, ["memory", "delete", "--task", "refund", "-w", root]).output
    assert "stays in head, in route:refund; 'perdure task remove refund' takes it out" in told
    assert run.invoke(app, ["task", "remove", "refund", "-w", root]).exit_code == 0
    assert set(slots(ws)) == {"skill"}


def test_the_command_prints_what_it_did_and_exits_with_3_where_the_gate_fails(summed, monkeypatch):
    root, run = str(summed.ledger.root), CliRunner()
    done = run.invoke(app, ["merge", "--rank", "4", "--how", "average", "--weights", "refund=2", "-w", root])
    assert done.exit_code == 0, done.output
    assert "merged invoice, parcel, refund by average into rank 4" in done.output
    summed.rollback("head~1")
    found = json.loads(run.invoke(app, ["merge", "--rank", "4", "--no-gate", "--json", "-w", root]).stdout)
    assert {"entry", "rank", "how", "gate", "scores"} <= set(found)
    assert (found["rank"], found["how"], found["gate"]["verdict"]) == (4, "svd", "off")
    bare = run.invoke(app, ["merge", "-w", root])
    assert (bare.exit_code, "give a rank, or --drop alone" in " ".join(bare.output.split())) == (2, True)
    for words, wanted in (
        (["--weights", "refund"], "is no TASK=NUMBER"),
        (["--no-gate", "--tolerance", "0.1"], "without a gate there is nothing for --tolerance"),
    ):
        bad = run.invoke(app, ["merge", "--rank", "4", *words, "-w", root])
        assert bad.exit_code == 2
        assert wanted in bad.output
