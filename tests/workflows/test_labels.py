"""Tasks that are answered with labels by the untrained model: learned, scored, asked, changed, taken out and exported."""

import json
import subprocess
import sys

import pytest
import torch

from perdure import Workspace
from perdure.core.errors import BadInput, Conflict
from perdure.maths.routing import Moments
from perdure.methods.registry import load_recipe

WORDS = {
    "bank": {"card": "my card was lost", "loan": "how much can I borrow"},
    "home": {"lamp": "switch on the lamp", "door": "is the door locked", "heat": "it is cold in here"},
}
FAST = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "host": "loop", "lora_r": 4}
NO_MODEL = "the model was loaded or run"


def rows_of(task, start, number, split):
    return [
        {"text": f"{words} {n}", "label": label, "split": split}
        for n in range(start, start + number)
        for label, words in WORDS[task].items()
    ]


def write(tmp_path, rows, name="rows"):
    path = tmp_path / f"{name}.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def data(tmp_path, task, start=0, number=6):
    return write(tmp_path, [*rows_of(task, start, number, "train"), *rows_of(task, 100, 4, "test")], f"{task}{start}")


def learn(ws, tmp_path, task, recipe="slda", start=0, **more):
    overrides = None if recipe == "slda" else FAST
    return ws.learn(task, data(tmp_path, task, start), recipe=recipe, overrides=overrides, gate=None, **more)


def slots(ws, at="head"):
    return ws.ledger.slots(ws.ledger.resolve(at))


def moments(ws, task):
    return Moments.from_tensors(ws.ledger.objects.get(slots(ws)[f"route:{task}"]))


@pytest.fixture
def ws(tiny_model, tmp_path):
    return Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32", guards="none")


@pytest.fixture
def learned(ws, tmp_path):
    learn(ws, tmp_path, "bank")
    return ws


def test_it_writes_what_it_measured_and_trains_nothing(ws, tmp_path):
    result = learn(ws, tmp_path, "bank")
    assert slots(ws).keys() == {"route:bank"}
    assert result.tokens == 0
    assert result.scores["bank"].score == 1
    entry = ws.ledger.resolve("head")
    assert entry.memory is None
    assert ws.ledger.notes(entry.id)["record"]["updates"] == 0
    assert moments(ws, "bank").labels == ("card", "loan")
    assert moments(ws, "bank").counts.tolist() == [6, 6]


def test_the_score_is_that_of_the_nearest_gaussian(learned):
    task = learned.session.task("bank", learned.ledger.resolve("head"))
    known, session = moments(learned, "bank"), learned.session
    prompts = session.tasks.prompts(task, session.tokenizer)
    from perdure.workflows.row_features import own_texts

    features = session.runtime.features(own_texts(prompts, prompts)).double()
    cov = known.scatter.double() / known.counts.sum()
    cov = 0.9 * cov + 0.1 * cov.trace() / len(cov) * torch.eye(len(cov))
    apart = features[:, None] - known.means.double()
    distance = torch.einsum("nld,de,nle->nl", apart, torch.linalg.inv(cov), apart)
    wanted = [known.labels[n] for n in distance.argmin(-1)]
    assert list(learned.session.score(learned.ledger.resolve("head"), task).score.predictions) == wanted


def test_predict_answers_with_a_label_and_generates_nothing(learned):
    (answer,) = learned.predict(["is my card lost?"], task="bank")
    assert answer.answer in ("card", "loan")
    assert (answer.tokens, answer.stopped) == (0, "stop")


def test_a_later_learn_changes_no_answer_and_scores_nothing_anew(learned, tmp_path, monkeypatch):
    before = learned.ledger.seen(learned.ledger.resolve("head"), "bank")
    learn(learned, tmp_path, "home", {"methods": {}})
    learn(learned, tmp_path, "home", start=50)
    assert learned.ledger.seen(learned.ledger.resolve("head"), "bank") == before


def test_moments_of_two_learns_are_those_of_all_rows_at_once(learned, ws, tmp_path, tiny_model):
    learn(learned, tmp_path, "bank", start=3)  # three rows a label are known
    other = Workspace.init(tmp_path / "other", str(tiny_model), dtype="float32", guards="none")
    other.learn("bank", data(tmp_path, "bank", 0, 9), recipe="slda", gate=None)
    one, both = moments(learned, "bank"), moments(other, "bank")
    assert one.counts.tolist() == both.counts.tolist() == [9, 9]
    torch.testing.assert_close(one.means, both.means, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one.scatter, both.scatter, atol=1e-4, rtol=1e-4)


def test_rows_that_are_all_counted_are_refused(learned, tmp_path):
    with pytest.raises(BadInput, match="every train row of bank is counted"):
        learn(learned, tmp_path, "bank")


def test_a_task_that_is_learned_by_training_is_generated_from_then_on(learned, tmp_path):
    learn(learned, tmp_path, "bank", {"methods": {}})
    assert "route:bank" not in slots(learned)
    assert not learned.ledger.labelled_by(learned.ledger.resolve("head"))
    learn(learned, tmp_path, "bank")  # and back: rows that training saw are counted anew
    assert learned.ledger.labelled_by(learned.ledger.resolve("head")) == ["bank"]
    assert moments(learned, "bank").counts.tolist() == [6, 6]


def test_verbs_one_after_another(learned, tmp_path):
    learn(learned, tmp_path, "home", "dual_replay")
    skill = slots(learned)["skill"]
    matrix = learned.matrix()
    assert matrix.tasks == ("bank", "home")
    entry = learned.ledger.resolve("head").id
    learned.revert("bank")
    assert slots(learned) == {"skill": skill}
    with pytest.raises(BadInput, match="no task of entry"):
        learned.export_classifier(tmp_path / "none")
    learned.export(tmp_path / "adapter")
    learned.rollback(entry)
    assert slots(learned).keys() == {"route:bank", "skill"}
    assert learned.predict(["my card was lost 7"], task="bank")[0].answer == "card"


def test_revert_of_one_leaves_the_other_as_if_it_had_been_alone(learned, tmp_path, tiny_model):
    learn(learned, tmp_path, "home")
    learned.revert("bank")
    alone = Workspace.init(tmp_path / "alone", str(tiny_model), dtype="float32", guards="none")
    learn(alone, tmp_path, "home")
    assert slots(learned) == slots(alone)
    again = learn(learned, tmp_path, "bank")  # all its rows are new once more
    assert again.scores["bank"].score == 1


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([{"prompt": f"say {n}", "completion": f"{n} and more"} for n in range(20)], {}, "column 'label'"),
        ([{"text": f"one {n}", "label": "same"} for n in range(20)], {}, "have the same, 'same'"),
        ([{"text": f"one {n}", "labels": ["a", "b"]} for n in range(20)], {}, "several labels"),
        ([{"text": f"one {n}", "label": f"l{n % 2}"} for n in range(20)], {"scorer": "rouge_l"}, "scorer rouge_l"),
    ],
)
def test_what_it_cannot_answer_is_refused_before_a_model_is_loaded(ws, tmp_path, rows, settings, message):
    with pytest.raises(BadInput, match=message):
        ws.learn("task", write(tmp_path, rows), recipe="slda", settings=settings, gate=None)
    assert "runtime" not in vars(ws.session)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": "lora"}, "train: lora trains what no answer would use"),
        ({"methods.slda": None}, "no method that answers"),
        ({"methods.replay": {}}, "drop replay"),
        ({"start": "base"}, "start: base"),
        ({"data": "all"}, "data: all"),
    ],
)
def test_recipes_that_contradict_themselves_are_refused(changes, message):
    with pytest.raises(Conflict, match=message):
        load_recipe("slda", changes)


def test_export_is_refused_and_offers_the_tensors(learned, tmp_path):
    for more in ({}, {"task": "bank"}, {"task": "bank", "merged": True}):
        with pytest.raises(BadInput, match="--classifier"):
            learned.export(tmp_path / "adapter", **more)


def test_the_exported_program_gives_the_same_labels_without_perdure(learned, tmp_path):
    made = learned.export_classifier(tmp_path / "out")
    assert made.files == ("README.md", "classifier.json", "classifier.safetensors", "classify.py")
    texts = [row["text"] for row in rows_of("bank", 200, 3, "test")]
    script = [sys.executable, "-I", str(tmp_path / "out" / "classify.py"), "bank", *texts]
    said = subprocess.run(script, capture_output=True, text=True, check=True).stdout.split()
    assert said == [one.answer for one in learned.predict(texts, task="bank")]


def test_features_of_test_rows_are_read_once(learned, monkeypatch):
    task = learned.session.task("bank", learned.ledger.resolve("head"))
    head = learned.ledger.resolve("head")
    monkeypatch.setattr(type(learned.session.runtime), "features", lambda *_: pytest.fail(NO_MODEL))
    from perdure.workflows.labelling import measure_labels

    prompts = learned.session.tasks.prompts(task, learned.session.tokenizer)
    assert measure_labels(learned.session.runtime, learned.ledger, head, task, prompts).score.score == 1
