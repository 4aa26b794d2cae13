"""lm-evaluation-harness: the loaded runtime as its model, its tasks as rows of a guard, all without a network."""

import json
import socket

import pytest
import torch

from perdure import Workspace
from perdure.bridges import harness
from perdure.bridges.harness import HarnessTask, evaluate_harness, harness_rows
from perdure.core.errors import BadInput
from perdure.model.decode import choice_log_likelihoods
from perdure.workflows.guards.read import read_guard

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}, cache_dir: {cache}}}
output_type: {kind}
test_split: test
doc_to_text: "Question: {{{{prompt}}}}\\nAnswer:"
doc_to_target: {target}
target_delimiter: " "
"""
CHOICES = 'doc_to_choice: "{{choices}}"\nmetric_list: [{metric: acc}, {metric: acc_norm}]\n'
WRITTEN = 'generation_kwargs: {until: ["\\n"], max_gen_toks: 6}\nmetric_list: [{metric: exact_match}]\n'
ROWS = [
    {"prompt": f"what is {n}?", "choices": ["refund", "parcel now", "an invoice"], "gold": n % 3, "answer": "refund"}
    for n in range(7)
]
needs_harness = pytest.mark.skipif(
    harness.find_spec("lm_eval") is None, reason="lm-eval is not installed; pip install '.[eval]'"
)


@pytest.fixture
def offline(monkeypatch):
    """No socket connects; what tries fails."""

    def refuse(*_):
        raise AssertionError("a socket connects")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def ws(tiny_model, tmp_path):
    return Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32", guards="none")


@pytest.fixture
def folder(tmp_path, offline):
    """Folder with two tasks over the same rows: one with choices, one whose answers are written."""
    place = tmp_path / "tasks"
    place.mkdir()
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for name, kind, target, more in (
        ("colours", "multiple_choice", "gold", CHOICES),
        ("words", "generate_until", "answer", WRITTEN),
    ):
        text = TASK.format(name=name, file=file, cache=tmp_path / "cache", kind=kind, target=target)
        (place / f"{name}.yaml").write_text(text + more)
    return place


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"perdure\[eval\]"):
        harness_rows(HarnessTask("boolq"))


def test_a_task_is_written_with_its_folder_or_without(tmp_path):
    assert HarnessTask.of("boolq") == HarnessTask("boolq", None)
    assert HarnessTask.of("own/boolq", tmp_path) == HarnessTask("boolq", tmp_path / "own")
    assert HarnessTask.of(f"{tmp_path}/boolq") == HarnessTask("boolq", tmp_path)


@needs_harness
def test_likelihoods_are_those_of_the_logits(ws, offline):
    from lm_eval.api.instance import Instance

    from perdure.bridges.harness_lm import RuntimeLM

    lm, model, tokenizer = RuntimeLM(ws.runtime), ws.runtime.model, ws.tokenizer
    texts = [("what is it? ", "a refund"), ("", "parcel"), ("Answer:", " invoice"), ("Answer:", " parcel")]
    requests = [Instance("loglikelihood", {}, text, n) for n, text in enumerate(texts)]
    for (value, greedy), (context, continuation) in zip(lm.loglikelihood(requests), texts, strict=True):
        before = tokenizer(context.rstrip())["input_ids"] or [tokenizer.eos_token_id]
        after = tokenizer(context + continuation)["input_ids"][len(before) if context else 0 :]
        ids = torch.tensor([[*before, *after]])
        with torch.no_grad():
            logits = model(ids).logits[0, len(before) - 1 : -1].log_softmax(-1)
        assert value == pytest.approx(logits[range(len(after)), after].sum().item(), abs=1e-4)
        assert greedy == (logits.argmax(-1).tolist() == after)


@needs_harness
def test_a_rolling_likelihood_counts_each_token_once(ws, offline):
    from lm_eval.api.instance import Instance

    from perdure.bridges.harness_lm import RuntimeLM

    lm = RuntimeLM(ws.runtime)
    short, long = "a refund for the parcel", "parcel " * 600
    requests = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in (short, long)]
    whole, windows = lm.loglikelihood_rolling(requests)
    ((value, _),) = lm.loglikelihood([Instance("loglikelihood", {}, ("", short), 0)])
    assert whole == pytest.approx(value, abs=1e-4)
    assert len(ws.tokenizer(long)["input_ids"]) > 2 * lm.longest  # three windows
    assert windows < whole


@needs_harness
def test_the_rows_of_a_task_score_as_the_harness_scores_them(ws, folder):
    from perdure.bridges.harness_lm import RuntimeLM

    task = HarnessTask("colours", folder)
    found = evaluate_harness(ws.runtime, [task])
    samples = sorted(found["samples"]["colours"], key=lambda sample: sample["doc_id"])
    rows, lm = harness_rows(task), RuntimeLM(ws.runtime)
    assert [row.prompt for row in rows] == [f"Question: what is {n}?\nAnswer:" for n in range(7)]
    assert [row.completion for row in rows] == [f" {row['choices'][row['gold']]}" for row in ROWS]
    pairs = [[lm.pair(row.prompt, choice) for choice in row.choices] for row in rows]
    prompts, choices = [own[0][0] for own in pairs], [[ids for _, ids in own] for own in pairs]
    values = choice_log_likelihoods(ws.runtime.model, prompts, choices, pad=ws.runtime.base.pad)
    for row, likelihoods, sample in zip(rows, values, samples, strict=True):
        assert [value for value, _ in sample["filtered_resps"]] == pytest.approx(likelihoods, abs=1e-4)
        assert sample["acc"] == float(likelihoods.index(max(likelihoods)) == row.gold)
    assert found["results"]["colours"]["acc,none"] == pytest.approx(sum(s["acc"] for s in samples) / 7)


@needs_harness
def test_answers_are_greedy_and_end_where_the_task_says(ws, folder):
    from perdure.workflows.scoring import answers

    found = evaluate_harness(ws.runtime, [HarnessTask("words", folder)], limit=3)
    rows = [harness.Row(prompt=f"Question: what is {n}?\nAnswer:") for n in range(3)]
    written = [text.split("\n")[0] for text in answers(ws.runtime, rows, 6).texts]
    assert [sample["resps"][0][0].strip() for sample in found["samples"]["words"]] == [text.strip() for text in written]


@needs_harness
def test_a_task_is_a_guard_by_its_name_or_in_a_guard_file(folder, tmp_path):
    by_name = read_guard("harness:tasks/colours", tmp_path)
    assert (by_name.spec.name, by_name.source, len(by_name.task.test)) == ("colours", "harness:tasks/colours", 7)
    file = tmp_path / "own.yaml"
    file.write_text("ability_guard: own\nharness: tasks/colours\nability: knowledge\nitems: {learn: 2, quick: 3}\n")
    by_file = read_guard(str(file), tmp_path)
    assert {row.hash for row in by_file.task.test} == {row.hash for row in by_name.task.test}
    assert by_file.items.quick == 3


@needs_harness
@pytest.mark.parametrize(
    ("written", "message"), [("words", "takes tasks with choices"), ("colors", "no task 'colors' in")]
)
def test_what_is_no_guard_is_told(folder, written, message):
    with pytest.raises(BadInput, match=message):
        harness_rows(HarnessTask(written, folder))


@needs_harness
def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(BadInput, match="there is no folder"):
        harness_rows(HarnessTask("colours", tmp_path / "none"))
