"""Scores by likelihood: each is what the model says of the text alone, unbatched, and a choice falls to chance with its gold."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from perdure import Workspace
from perdure.bridges.embedded import embedded_model
from perdure.bridges.runtime import Runtime
from perdure.core.errors import BadInput, BadSpec
from perdure.core.rows import Message, Row
from perdure.data.spec import make_spec
from perdure.data.task import TaskData
from perdure.evaluate.choosing import chance_level, probability_of
from perdure.model import likelihoods
from perdure.workflows.scoring import measure

ROWS = (
    Row("Text: refund", " Label", choices=(" Label", " Label it", " Text"), gold=0),  # two begin with the same token
    Row("Classify\n", "parcel", choices=("the", "parcel"), gold=1),
    Row("invoice:", "  two", choices=(" two", "  two", "two"), gold=1),  # spaces are part of the text
    Row("The invoi", "ce", choices=("ce", "d"), gold=0),  # prompt and choice would share a token
    Row("x", " a long answer, with many words", choices=(" a long answer, with many words", " no"), gold=0),
)
PAIRS = (
    Row("Ann", " ran to the parcel.", choices=(" ran to the parcel.",), contexts=("Ann", "The text"), gold=0),
    Row("Bob was", " it.", choices=(" it.",), contexts=("Bo", "Bob was", "Label:"), gold=1),
)


@pytest.fixture(scope="module")
def runtime(tiny_model) -> Runtime:
    """The tiny model with wider weights, so that it has opinions."""
    made = Runtime(tiny_model, "float32", "cpu")
    torch.manual_seed(1)
    with torch.no_grad():
        for value in made.base.model.parameters():
            if value.dim() > 1:
                value.normal_(0, 0.25)
    made.load({})
    return made


def task(rows, scorer="choice", format="choices"):
    return TaskData(make_spec({"name": "t", "train": "a.jsonl", "scorer": scorer}, "test"), (), (), tuple(rows), format)


def alone(runtime, prompt, text):
    """Return log p of the tokens of a text after a prompt, from one forward of both, and their number."""
    tokenizer = runtime.base.tokenizer
    before, ids = tokenizer(prompt)["input_ids"], tokenizer(prompt + text)["input_ids"]
    if ids[: len(before)] != before:  # a token covers both: the text is tokenised by itself, as it is in generation
        ids = before + tokenizer(text)["input_ids"]
    with torch.no_grad():
        told = runtime.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    return sum(told[t - 1, ids[t]].item() for t in range(len(before), len(ids))), len(ids) - len(before)


def by_hand(runtime, row):
    """Return log p and tokens of each answer of a row."""
    if row.contexts:
        return [alone(runtime, context, row.choices[0]) for context in row.contexts]
    return [alone(runtime, row.prompt, choice) for choice in row.choices]


@pytest.mark.parametrize("rows", [ROWS, PAIRS, (*ROWS, *PAIRS)])
def test_choices_are_as_likely_as_each_is_alone(runtime, rows):
    score = measure(runtime, task(rows)).score
    for n, row in enumerate(rows):
        found = by_hand(runtime, row)
        values = [value for value, _ in found]
        assert score.readings["nats"][n] == pytest.approx(-values[row.gold] / found[row.gold][1], abs=1e-3)
        assert score.readings["p_gold"][n] == pytest.approx(probability_of(row.gold, values), abs=1e-3)
        best = values.index(max(values))
        assert score.items[n] == (best == row.gold)
        assert score.predictions[n] == (row.contexts or row.choices)[best].strip()


@pytest.mark.parametrize(
    ("normalise", "length"),
    [("tokens", lambda text, tokens: tokens), ("characters", lambda text, tokens: len(text.removeprefix(" ")))],
)
def test_normalised_choices_are_divided_by_their_length(runtime, normalise, length):
    score = measure(runtime, task(ROWS, {"name": "choice", "normalise": normalise})).score
    plain = measure(runtime, task(ROWS)).score
    for n, row in enumerate(ROWS):
        found = by_hand(runtime, row)
        scaled = [value / length(text, tokens) for text, (value, tokens) in zip(row.choices, found, strict=True)]
        assert score.predictions[n] == row.choices[scaled.index(max(scaled))].strip()
    assert (score.predictions != plain.predictions) == (normalise == "characters")
    assert score.readings == plain.readings  # these are of the texts as they are


def test_a_permuted_gold_falls_to_chance(runtime):
    rows = [row for row in (*ROWS, *PAIRS) if row.prompt != "invoice:"]
    counts = [len(row.contexts or row.choices) for row in rows]
    best = measure(runtime, task(rows)).score
    chosen = [
        [text.strip() for text in row.contexts or row.choices].index(said)
        for row, said in zip(rows, best.predictions, strict=True)
    ]
    told = [replace(row, gold=gold) for row, gold in zip(rows, chosen, strict=True)]
    assert measure(runtime, task(told)).score.score == 1
    turns = math.lcm(*counts)
    scores = [
        measure(runtime, task([replace(r, gold=(r.gold + turn) % c) for r, c in zip(told, counts, strict=True)])).score
        for turn in range(turns)
    ]
    assert sum(score.score for score in scores) / turns == pytest.approx(chance_level(task(rows)))


def test_chance_is_the_mean_of_one_in_as_many_choices():
    assert chance_level(task((ROWS[0], PAIRS[0]))) == pytest.approx((1 / 3 + 1 / 2) / 2)
    labels = [Row("a", " x"), Row("b", " y"), Row("c", " z"), Row("d", " x")]
    assert chance_level(task(labels, format="query_response")) == pytest.approx(1 / 3)
    assert chance_level(task(labels, "exact", "query_response")) is None


def test_rows_of_which_only_some_have_choices_are_refused(runtime):
    with pytest.raises(BadInput, match="'t' scores by choice, and f:1 has no choices or no right one"):
        measure(runtime, task((*ROWS, Row("a", " b", source="f:1"))))
    with pytest.raises(BadInput, match="f:2 has no choices or no right one"):
        measure(runtime, task((replace(ROWS[0], gold=None, source="f:2"),)))


def test_a_conversation_chooses_among_answers_after_its_prompt(runtime):
    turns = (Message("user", "Text: refund"), Message("assistant", "Label"))
    row = Row(messages=turns, choices=(" Label", " Text"), gold=0)
    score = measure(runtime, task((row,), format="messages")).score
    prompt = "<|im_start|>user\nText: refund<|im_end|>\n<|im_start|>assistant\n"
    value, tokens = alone(runtime, prompt, "Label")
    assert score.readings["nats"][0] == pytest.approx(-value / tokens, abs=1e-3)


# --- likelihood of texts

TEXTS = (
    Row(completion="Classify the text. Label: refund"),
    Row(completion="parcel invoice"),
    Row("Text:", " refund parcel"),
)


def test_texts_are_as_likely_as_each_is_alone(runtime):
    score = measure(runtime, task(TEXTS, "likelihood", "text")).score
    for n, row in enumerate(TEXTS):
        first = runtime.base.tokenizer(row.completion)["input_ids"][:1]
        before = row.prompt or runtime.base.tokenizer.decode(first)  # nothing predicts the first token
        value, tokens = alone(runtime, before, (row.prompt + row.completion).removeprefix(before))
        assert score.readings["tokens"][n] == tokens
        assert score.readings["nats"][n] == pytest.approx(-value / tokens, abs=1e-4)
        assert score.items[n] == pytest.approx(math.exp(-score.readings["nats"][n]))
        assert 0 < score.items[n] <= 1


def test_on_the_log_scale_a_model_that_guesses_has_nothing(runtime):
    score = measure(runtime, task(TEXTS, {"name": "likelihood", "scale": "log"}, "text")).score
    top = math.log(len(runtime.base.tokenizer))
    assert score.items == pytest.approx([max(0.0, 1 - nats / top) for nats in score.readings["nats"]])
    assert score.score < 0.03  # weights at random: no token is more likely than another
    with pytest.raises(BadSpec, match="choose one of probability, log"):
        measure(runtime, task(TEXTS, {"name": "likelihood", "scale": "nats"}, "text"))


def test_a_long_text_is_read_in_windows_with_half_a_window_before_each(runtime, monkeypatch):
    text = Row(completion="Classify the text. Text: refund parcel invoice Label: " * 3)
    ids = runtime.base.tokenizer(text.completion)["input_ids"]
    monkeypatch.setattr(likelihoods, "WINDOW", 16)
    score = measure(runtime, task((*TEXTS[:1], text), "likelihood", "text")).score
    told = []
    with torch.no_grad():
        for t in range(1, len(ids)):
            end = 16 if t < 16 else min(16 + 8 * math.ceil((t - 15) / 8), len(ids))
            logits = runtime.model(torch.tensor([ids[max(end - 16, 0) : t]])).logits[0, -1].float()
            told.append(logits.log_softmax(-1)[ids[t]].item())
    assert score.readings["tokens"][1] == len(told) == len(ids) - 1
    assert score.readings["nats"][1] == pytest.approx(-sum(told) / len(told), abs=1e-4)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (Row(completion="", source="f:1"), "f:1 has no token to predict"),
        (Row(messages=(Message("user", "a"), Message("assistant", "b")), source="f:1"), "f:1 is a conversation"),
    ],
)
def test_a_text_that_cannot_be_predicted_is_refused(runtime, row, says):
    with pytest.raises(BadInput, match=says):
        measure(runtime, task((row,), "likelihood", "text"))


# --- whole

FAST = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "host": "loop"}


def test_a_task_with_choices_is_learned_and_scored(tiny_model, tmp_path):
    rows = [
        {"prompt": f"Text {n}", "choices": ["refund", "parcel"], "gold": n % 2, "split": "test" if n > 5 else "train"}
        for n in range(10)
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32", guards=())
    learned = ws.learn("a", path, overrides=FAST, gate=None)
    score = learned.scores["a"]
    assert (score.scorer, score.n) == ("choice", 4)
    (entry,) = [entry for entry in ws.ledger.entries() if entry.tasks]
    stored = ws.ledger.score(ws.ledger.seen(entry, "a"), entry.tasks["a"])
    assert set(stored.readings) == {"p_gold", "nats"}
    assert all(len(values) == 4 for values in stored.readings.values())


ARC = [
    ("Question: What do plants need to make food?", ["Sunlight", "Rocks", "Sugar water", "Darkness"]),
    ("Question: Which animal lays eggs?", ["A hen", "A dog", "A horse", "A hen house"]),
    ("Question: What is frozen water called?", ["Ice", "Steam", "Rain", "Iron"]),
]


@pytest.mark.model
def test_smollm2_chooses_as_lm_evaluation_harness_reads_it():
    """The harness tokenises prompt and choice together, cuts at the prompt's length, and runs each pair by itself."""
    made = Runtime(Path(embedded_model()), "float32", "cpu")
    made.load({})
    rows = [
        Row(f"{prompt}\nAnswer:", f" {texts[0]}", choices=tuple(f" {text}" for text in texts), gold=0)
        for prompt, texts in ARC
    ]
    score = measure(made, task(rows)).score
    for n, row in enumerate(rows):
        found = [alone(made, row.prompt, choice) for choice in row.choices]
        values = [value for value, _ in found]
        assert score.readings["nats"][n] == pytest.approx(-values[0] / found[0][1], abs=1e-3)
        assert score.predictions[n] == row.choices[values.index(max(values))].strip()
