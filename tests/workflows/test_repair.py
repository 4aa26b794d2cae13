"""Repair before refusal: the update of a refused learn, scaled down until the gate does not refuse it."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from perdure import Gate, Workspace
from perdure.cli.main import app
from perdure.core.errors import BadInput, Interrupted
from perdure.ledger.records import Evidence, LearnRecord
from perdure.maths.intruders import intruders
from perdure.maths.low_rank import from_tensors
from perdure.workflows.learn import repair as repairing
from perdure.workflows.learn.intruders import reduction
from perdure.workflows.learn.scaled import scaled_slots

SUMMED = {"name": "summed", "methods": {"o_lora": {}}}
STRONG = {"num_train_epochs": 4, "per_device_train_batch_size": 4, "learning_rate": 0.1, "host": "loop"}


def rows(path, task, n=12):
    """A task whose every answer is its own name, one token of the tiny model's."""
    lines = [
        {"prompt": f"{'about ' if split == 'test' else ''}{task} {i}?", "completion": task, "split": split}
        for split, count in (("train", n), ("test", 8))
        for i in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def learn(ws, tmp_path, task, *, gate, recipe="naive", **about):
    path = rows(tmp_path / f"{task}.jsonl", task)
    overrides = {**STRONG, **about.pop("overrides", {})}
    return ws.learn(task, path, recipe=recipe, overrides=overrides, settings={"max_new_tokens": 1}, gate=gate, **about)


@pytest.fixture(scope="module")
def learned_at(tiny_model, tmp_path_factory):
    """Folder of a workspace that learned parcel."""
    folder = tmp_path_factory.mktemp("learned")
    learn(Workspace.init(folder / "ws", str(tiny_model), dtype="float32"), folder, "parcel", gate=None)
    return folder / "ws"


@pytest.fixture(scope="module")
def refused_at(learned_at, tmp_path_factory):
    """Folder of that workspace, with invoice refused by its gate."""
    folder = tmp_path_factory.mktemp("refused")
    ws = Workspace.open(shutil.copytree(learned_at, folder / "ws"))
    assert learn(ws, folder, "invoice", gate=Gate()).gate.verdict == "fail"
    return folder / "ws"


@pytest.fixture
def ws(learned_at, tmp_path):
    """A copy of the workspace that learned parcel."""
    return Workspace.open(shutil.copytree(learned_at, tmp_path / "ws"))


@pytest.fixture
def refused(refused_at, tmp_path):
    """A copy of the workspace whose gate refused invoice."""
    return Workspace.open(shutil.copytree(refused_at, tmp_path / "refused"))


def weights(ws, slots):
    """The dense update of every weight by the shared slots."""
    total = {}
    for name in slots.values():
        for module, patch in from_tensors(ws.ledger.objects.get(name)).items():
            total[module] = total.get(module, 0) + patch.delta.double()
    return total


def test_a_scaled_update_is_exact(refused):
    ledger = refused.ledger
    candidate, head = ledger.candidate(), ledger.resolve("head")
    old, new = weights(refused, ledger.view(head)), weights(refused, ledger.view(candidate))
    for scale in (1.0, 0.6, 0.2):
        draft = replace(candidate, slots=scaled_slots(ledger, candidate, scale))
        got = weights(refused, ledger.view(draft))
        assert ledger.slots(draft)["skill"] == ledger.slots(head)["skill"]  # so that the next learn goes on from it
        for module, before in old.items():
            torch.testing.assert_close(got[module], before + scale * (new[module] - before), atol=1e-5, rtol=1e-5)


def test_a_first_update_is_scaled_in_its_own_slot(tiny_model, tmp_path):
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32")
    refused = learn(ws, tmp_path, "parcel", gate=Gate(floor=1.0), overrides={"learning_rate": 1e-6})
    assert refused.gate.verdict == "fail"
    candidate = ws.ledger.candidate()
    assert scaled_slots(ws.ledger, candidate, 1.0) == candidate.slots  # to the bit
    half = weights(ws, scaled_slots(ws.ledger, candidate, 0.5))
    for module, delta in weights(ws, candidate.slots).items():
        torch.testing.assert_close(half[module], delta / 2)


def test_a_refused_learn_passes_at_a_smaller_scale_and_is_recorded_with_what_was_tried(refused, tmp_path):
    ledger, head = refused.ledger, refused.ledger.resolve("head")
    candidate = ledger.candidate()
    result = refused.repair()
    assert result.moved
    assert result.gate.verdict != "fail"
    entry = ledger.resolve("head")
    assert entry.id == result.entry != candidate.id
    assert (entry.parent, entry.memory, entry.columns, entry.tasks) == (
        head.id,
        candidate.memory,
        candidate.columns,
        candidate.tasks,
    )
    assert entry.data["scale"] == result.repair.scale < 1
    scales = [one.scale for one in result.repair.tried]
    assert scales == list(repairing.SCALES[: len(scales)])
    verdicts = [one.verdict for one in result.repair.tried]
    wanted = "pass" if "pass" in verdicts else "inconclusive"
    assert result.gate.verdict == wanted
    assert result.repair.scale == scales[verdicts.index(wanted)]
    assert any("not proven" in text for text in result.warnings) == (wanted == "inconclusive")
    taken = next(one for one in result.repair.tried if one.scale == result.repair.scale)
    assert taken.scores == {name: score.score for name, score in result.scores.items()}
    assert result.scores["parcel"].score > ledger.score(ledger.seen(candidate, "parcel"), entry.tasks["parcel"]).score
    record, evidence = (
        ledger.note(entry.id, "record", LearnRecord),
        ledger.note(entry.id, "evidence", Evidence),
    )
    assert record.repair == result.repair
    assert evidence.verdict == record.gate == result.gate
    assert ledger.candidate() is None
    assert [line.entry for line in ledger.discarded()] == [candidate.id]
    assert refused.verify().ok
    assert learn(refused, tmp_path, "refund", gate=None).moved  # the next learn goes on from the repaired head


@pytest.mark.parametrize(
    ("verdicts", "scale"),
    [
        (
            ("inconclusive", "fail", "pass"),
            0.4,
        ),  # a smaller one that passes comes before a larger one that is not decided
        (("fail", "inconclusive", "inconclusive", "fail"), 0.6),
        (("pass",), 0.8),
        (("fail",) * 4, None),
    ],
)
def test_the_largest_scale_that_passes_is_taken_else_the_largest_that_is_not_refused(
    refused, monkeypatch, verdicts, scale
):
    left = iter(verdicts)
    judge = repairing._judge

    def judged(*given):
        found, verdict = judge(*given), next(left)
        return replace(
            found, evidence=replace(found.evidence, verdict=replace(found.evidence.verdict, verdict=verdict))
        )

    monkeypatch.setattr(repairing, "_judge", judged)
    result = refused.repair()
    assert (result.repair.scale, result.moved) == (scale, scale is not None)
    assert [one.verdict for one in result.repair.tried] == list(verdicts)
    assert any("not proven" in text for text in result.warnings) == (scale == 0.6)


def test_learn_with_repair_is_the_ordinary_learn_where_the_gate_passes(learned_at, ws, tmp_path):
    other = Workspace.open(shutil.copytree(learned_at, tmp_path / "other"))
    gate = Gate(tolerance=0.99)
    plain, repaired = (
        learn(ws, tmp_path, "invoice", gate=gate),
        learn(other, tmp_path, "invoice", gate=gate, repair=True),
    )
    assert plain.entry == repaired.entry
    assert repaired.repair is None


def test_learn_with_repair_scales_a_refused_update(ws, tmp_path):
    result = learn(ws, tmp_path, "invoice", gate=Gate(), repair=True)
    assert result.moved
    assert result.repair.scale is not None
    assert ws.ledger.resolve("head").id == result.entry


def test_where_no_scale_passes_the_candidate_waits_as_before(refused):
    candidate, head = refused.ledger.candidate(), refused.ledger.resolve("head")
    evidence = refused.ledger.note(candidate.id, "evidence", Evidence)
    result = repairing.repair(refused.session, scales=[0.99, 0.98])
    assert (result.moved, result.entry, result.gate.verdict) == (False, candidate.id, "fail")
    assert result.repair.scale is None
    assert [one.scale for one in result.repair.tried] == [0.99, 0.98]
    assert refused.ledger.candidate() == candidate
    assert refused.ledger.resolve("head") == head
    assert refused.ledger.note(candidate.id, "evidence", Evidence) == evidence
    assert result.gate == evidence.verdict


def test_a_repair_that_is_stopped_goes_on_with_the_scores_that_it_has(refused, monkeypatch):
    whole = []

    def stop(what, done, total):
        whole.append(what)
        if len({one for one in whole}) > 1:
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        repairing.repair(refused.session, tick=stop)
    assert refused.ledger.candidate() is not None
    assert refused.repair().moved


def test_what_cannot_be_repaired_is_refused_by_name(ws, tmp_path):
    with pytest.raises(BadInput, match="no candidate waits"):
        ws.repair()
    learn(ws, tmp_path, "refund", gate=None, recipe=SUMMED, overrides={"learning_rate": 1e-6})
    learn(ws, tmp_path, "invoice", gate=Gate(floor=1.0), overrides={"learning_rate": 1e-6, "start": "base"})
    with pytest.raises(BadInput, match="this learn took sum:refund away"):
        ws.repair()
    ws.discard()
    ws.rollback("base")
    learn(ws, tmp_path, "invoice", gate=Gate(floor=1.0), overrides={"learning_rate": 1e-9, "train": "full"})
    with pytest.raises(BadInput, match="trained every weight"):
        ws.repair()
    with pytest.raises(BadInput, match="shares above 0"):
        repairing.repair(ws.session, scales=[1.5])


@pytest.fixture(scope="module")
def measured_at(tiny_model, tmp_path_factory):
    """Folder of a workspace where ewc measured parcel, with invoice refused by its gate."""
    folder = tmp_path_factory.mktemp("measured")
    ws = Workspace.init(folder / "ws", str(tiny_model), dtype="float32")
    learn(ws, folder, "parcel", gate=None, recipe="ewc")
    assert (
        learn(ws, folder, "invoice", gate=Gate(), recipe={"methods": {"ewc": {"strength": 1e-6}}}).gate.verdict
        == "fail"
    )
    return folder / "ws"


def test_a_scaled_update_leaves_the_state_that_belongs_to_the_adapter_which_goes_on(measured_at, tmp_path):
    ws = Workspace.open(shutil.copytree(measured_at, tmp_path / "ws"))
    before, held = ws.ledger.resolve("head"), ws.ledger.candidate()
    assert None not in (before.state, held.state)
    assert held.state != before.state
    done = ws.repair()
    head = ws.ledger.resolve("head")
    assert done.repair.scale < 1
    assert head.state == before.state
    assert any(
        "ewc: what was measured of the weights that learned invoice does not hold" in text for text in done.warnings
    )
    anchors = ws.ledger.objects.get(head.state)
    adapter = ws.ledger.objects.get(ws.ledger.slots(head)["skill"])
    down = next(name for name in anchors if name.startswith("ewc/anchor.") and "layers.0" in name and "lora_A" in name)
    module = down.partition("base_model.model.")[2].partition(".lora_A")[0]
    torch.testing.assert_close(anchors[down], adapter[f"{module}.down"])  # a later learn begins where it is anchored
    learn(ws, tmp_path, "refund", gate=None, recipe="ewc")
    assert ws.verify().ok


def test_without_its_intruders_the_adapter_stays_and_so_does_what_was_measured_of_it(measured_at, tmp_path):
    ws = Workspace.open(shutil.copytree(measured_at, tmp_path / "ws"))
    held = ws.ledger.candidate()
    made = repairing._reduction(ws.session, repairing._waiting(ws.session), "intruders", lambda *_: None)
    assert (made.state, made.notices) == (held.state, ())


def test_the_command_repairs_the_candidate_and_prints_the_scales(refused):
    told = CliRunner().invoke(app, ["-w", str(refused.ledger.root), "learn", "--repair", "--json"])
    assert told.exit_code == 0, told.stderr
    printed = json.loads(told.stdout)
    assert printed["moved"] is True
    assert printed["repair"]["scale"] in [one["scale"] for one in printed["repair"]["tried"]]
    again = CliRunner().invoke(app, ["-w", str(refused.ledger.root), "learn", "--repair"])
    assert again.exit_code == 1
    assert "no candidate waits" in again.stderr
    missing = CliRunner().invoke(app, ["-w", str(refused.ledger.root), "learn"])
    assert missing.exit_code == 2
    assert "give TASK and DATA" in missing.stderr


def test_the_screen_of_a_learn_that_is_refused_offers_the_repair(ws, tmp_path):
    path, root = rows(tmp_path / "invoice.jsonl", "invoice"), str(ws.ledger.root)
    words = ["learn", "invoice", str(path), "--recipe", "naive"]
    words += [word for key, value in STRONG.items() for word in ("--set", f"{key}={value}")]
    told = CliRunner().invoke(app, ["-w", root, *words])
    assert told.exit_code == 3
    assert "'perdure learn --repair'" in told.stderr
    repaired = CliRunner().invoke(app, ["-w", root, "learn", "--repair"])
    assert repaired.exit_code == 0, repaired.stderr
    assert [line for line in repaired.stdout.splitlines() if line.split()[:2] == ["0.8", "fail"]]


def test_without_its_intruder_directions_an_update_is_the_rest_of_itself(refused):
    ledger = refused.ledger
    candidate, head = ledger.candidate(), ledger.resolve("head")
    old, new = weights(refused, ledger.view(head)), weights(refused, ledger.view(candidate))
    found = reduction(refused.session, candidate, lambda *_: None)
    refused.session.load(ledger.resolve("base"))
    base = {module: refused.runtime.weight(module).double() for module in new}
    expected = {module: intruders(base[module] + old[module], base[module] + new[module]) for module in new}
    assert found.count == sum(map(len, expected.values())) > 0
    for share in (1.0, 0.5, 0.0):
        draft = replace(candidate, slots=found.slots(share))
        assert ledger.slots(draft)["skill"] == candidate.slots["skill"]  # so that the next learn goes on from it
        got = weights(refused, ledger.view(draft))
        for module, one in expected.items():
            gone = (1 - share) * (one.left * one.values) @ one.right.mT
            torch.testing.assert_close(got[module], new[module] - gone, atol=1e-4, rtol=1e-4)


def test_a_task_whose_update_was_scaled_down_can_be_taken_out(refused):
    ledger = refused.ledger
    before = ledger.slots(ledger.resolve("head"))
    assert refused.repair().moved
    assert "sum:invoice/repair" in ledger.slots(ledger.resolve("head"))
    assert refused.revert("invoice").removed == ("sum:invoice/repair",)
    assert ledger.slots(ledger.resolve("head")) == before


def test_a_refused_learn_is_repaired_by_its_intruder_directions(refused, tmp_path):
    ledger = refused.ledger
    candidate = ledger.candidate()
    result = refused.repair("intruders")
    assert result.repair.by == "intruders"
    assert result.repair.directions > 0
    shares = [one.scale for one in result.repair.tried]
    assert shares == list(repairing.SHARES[: len(shares)])
    if result.moved:
        entry = ledger.resolve("head")
        assert entry.data["intruders"] == result.repair.scale
        assert set(entry.slots) == {"skill", "sum:invoice/repair"}
        assert learn(refused, tmp_path, "refund", gate=None).moved
    else:
        assert ledger.candidate() == candidate
    assert refused.verify().ok


def test_an_update_without_intruder_directions_is_not_repaired_by_them(ws, tmp_path):
    learn(ws, tmp_path, "invoice", gate=Gate(floor=1.0), overrides={"learning_rate": 1e-6})
    with pytest.raises(BadInput, match="no weight has an intruder direction"):
        ws.repair("intruders")
    with pytest.raises(BadInput, match="a repair by 'magic' is not known; it is by scale or intruders"):
        ws.repair("magic")
    assert ws.ledger.candidate() is not None


def test_the_command_takes_the_way_of_the_repair(refused):
    root = str(refused.ledger.root)
    told = CliRunner().invoke(app, ["-w", root, "learn", "--repair=intruders", "--json"])
    printed = json.loads(told.stdout)
    assert told.exit_code == (0 if printed["moved"] else 3)
    assert printed["repair"]["by"] == "intruders"
    wrong = CliRunner().invoke(app, ["-w", root, "learn", "--repair=magic"])
    assert wrong.exit_code == 2
    assert "is no way to repair" in wrong.stderr


def test_guards_are_scored_and_judged_again_at_the_scaled_update(ws, tmp_path):
    """A guard of what parcel taught, its reference moved there: the refused update ruins it, the scaled one less so."""
    lines = [{"prompt": f"where is parcel {i}?", "completion": "parcel"} for i in range(40)]
    (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    file = tmp_path / "asked.yaml"
    file.write_text("ability_guard: asked\nability: other\ntest: asked.jsonl\nitems: {learn: 40}\nmax_new_tokens: 1\n")
    ws.guard_add(file)
    ws.guard_accept("asked")
    refused = learn(ws, tmp_path, "invoice", gate=Gate(), guards="warn")
    assert refused.gate.guards.verdict == "fail"
    assert any(text.startswith("guards: asked") for text in refused.warnings)
    repaired = ws.repair()
    before, now = refused.gate.guards.guards[0], repaired.gate.guards.guards[0]
    assert now.guard == "asked"
    assert now.n == before.n
    assert now.now > before.now
    evidence = ws.ledger.note(repaired.entry, "evidence", Evidence)
    assert evidence.verdict.guards == repaired.gate.guards
    assert any("guards:" in text for text in repaired.warnings) == repaired.gate.guards.alarms
