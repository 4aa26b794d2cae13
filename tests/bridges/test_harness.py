"""lm-evaluation-harness: the loaded runtime as its model, its tasks as rows of a guard, all without a network."""

import json
import re
import shutil
import socket

import pytest
import torch

from perdure import Workspace
from perdure.bridges import harness
from perdure.bridges.harness import HarnessTask, evaluate_harness, harness_rows
from perdure.core.errors import BadInput
from perdure.core.rows import Row
from perdure.model.decode import choice_log_likelihoods, generate
from perdure.workflows.guards.measure import score_guard
from perdure.workflows.guards.read import read_guard

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}, cache_dir: {cache}}}
output_type: {kind}
test_split: test
doc_to_text: "{text}"
doc_to_target: {target}
target_delimiter: "{between}"
"""
QUESTION = "Question: {{prompt}}\\nAnswer:"
CHOICES = 'doc_to_choice: "{{choices}}"\nmetric_list: [{metric: acc}, {metric: acc_norm}]\n'
PLAIN = 'doc_to_choice: "{{choices}}"\nmetric_list: [{metric: acc}]\n'
BYTES = 'doc_to_choice: "{{choices}}"\nmetric_list: [{metric: acc_bytes}]\n'
WRITTEN = 'generation_kwargs: {until: ["\\n"], max_gen_toks: 6}\nmetric_list: [{metric: exact_match}]\n'
FILTERED = """generation_kwargs: {until: ["zzz"], max_gen_toks: 6}
metric_list: [{metric: exact_match, regexes_to_ignore: [","]}]
filter_list:
  - {name: first, filter: [{function: regex, regex_pattern: "(\\\\S)"}, {function: take_first}]}
  - {name: whole, filter: [{function: take_first}]}
"""
LAST = "metric_list: [{metric: perplexity}, {metric: acc}]\n"
CORPUS = "metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]\n"
SAMPLED = WRITTEN.replace("max_gen_toks: 6", "do_sample: true, temperature: 0.7")
UNSAFE = WRITTEN + "unsafe_code: true\n"
ROWS = [
    {"prompt": f"what is {n}?", "choices": ["refund", "parcel now", "an invoice"], "gold": n % 3, "answer": "refund"}
    for n in range(7)
]
TASKS = (
    ("colours", "multiple_choice", "gold", CHOICES),
    ("plain", "multiple_choice", "gold", PLAIN),
    ("spaced", "multiple_choice", "gold", CHOICES),
    ("bytes", "multiple_choice", "gold", BYTES),
    ("words", "generate_until", "answer", WRITTEN),
    ("letters", "generate_until", "letter", FILTERED),
    ("last", "loglikelihood", "last", LAST),
    ("corpus", "loglikelihood_rolling", "prompt", CORPUS),
    ("sampled", "generate_until", "answer", SAMPLED),
    ("unsafe", "generate_until", "answer", UNSAFE),
)
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
def folder(ws, tmp_path, offline):
    """Folder with tasks of every kind over the same rows; the model answers some of them rightly."""
    place = tmp_path / "tasks"
    place.mkdir()
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in _rows(ws)))
    for name, kind, target, more in TASKS:
        spaced = name == "spaced"  # the space is in the prompt, which the harness moves into the choices
        text, between = (f"{QUESTION} ", "") if spaced else (QUESTION, " ")
        task = TASK.format(
            name=name, file=file, cache=tmp_path / "cache", kind=kind, target=target, text=text, between=between
        )
        (place / f"{name}.yaml").write_text(task + more)
    return place


def _rows(ws):
    """Return `ROWS` with texts that the model writes for every second row: an answer, its first letter, its first token."""
    runtime, tokenizer = ws.runtime, ws.tokenizer
    found = []
    for n, row in enumerate(ROWS):
        ids = tokenizer(f"Question: {row['prompt']}\nAnswer:", add_special_tokens=False)["input_ids"]
        base = runtime.base
        (new,) = generate(runtime.model, [ids], max_new_tokens=6, stops=base.stops, pad=base.pad)
        text = tokenizer.decode(new, skip_special_tokens=True)
        letter = next(iter(re.findall(r"\S", tokenizer.decode(new, skip_special_tokens=True))), "")
        own = {"answer": text.split("\n")[0], "letter": letter, "last": tokenizer.decode(new[:1])}
        found.append({**row, **(own if n % 2 else {"answer": "refund", "letter": "?", "last": " refund"})})
    return found


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
    rows, lm = harness_rows(task).rows, RuntimeLM(ws.runtime)
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
    rows = [Row(prompt=f"Question: what is {n}?\nAnswer:") for n in range(3)]
    written = [text.split("\n")[0] for text in answers(ws.runtime, rows, 6).texts]
    assert [sample["resps"][0][0].strip() for sample in found["samples"]["words"]] == [text.strip() for text in written]


@needs_harness
def test_writing_stops_at_a_token_that_ends_every_answer(ws, offline, monkeypatch):
    from lm_eval.api.instance import Instance

    from perdure.bridges import harness_lm

    stops = []
    monkeypatch.setattr(
        harness_lm, "generate", lambda model, prompts, **given: stops.append(given["stops"]) or [[] for _ in prompts]
    )
    (line,) = ws.tokenizer("\n", add_special_tokens=False)["input_ids"]
    for second in (["\n"], ["a parcel"]):
        options = [{"until": ["\n", "a parcel"]}, {"until": second}]
        harness_lm.RuntimeLM(ws.runtime).generate_until(
            [Instance("generate_until", {}, ("what?", own), n) for n, own in enumerate(options)]
        )
    assert stops == [(*ws.runtime.base.stops, line), tuple(ws.runtime.base.stops)]


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
    ("name", "scorer", "metric", "filter"),
    [
        ("colours", "choice", "acc_norm", "none"),
        ("plain", "choice", "acc", "none"),
        ("spaced", "choice", "acc_norm", "none"),
        ("bytes", "harness", "acc_bytes", "none"),
        ("words", "harness", "exact_match", "none"),
        ("letters", "harness", "exact_match", "first"),
        ("last", "harness", "acc", "none"),
    ],
)
def test_the_score_of_a_guard_is_that_of_the_harness_item_by_item(ws, folder, name, scorer, metric, filter):
    samples = evaluate_harness(ws.runtime, [HarnessTask(name, folder)])["samples"][name]
    theirs = {
        sample["arguments"][0][0].rstrip(): float(sample[metric]) for sample in samples if sample["filter"] == filter
    }
    ws.guard_add(f"harness:{folder}/{name}")
    guard, base = ws.ledger.guards()[0], ws.ledger.resolve("base")
    score = score_guard(ws.session, guard, base, 7).score
    rows = {row.hash: row for row in ws.ledger.task_rows(guard.version, "test")}
    assert (score.scorer, score.n) == (scorer, 7)
    assert {rows[key].prompt.rstrip(): item for key, item in zip(score.rows, score.items, strict=True)} == theirs
    if name in ("words", "letters", "last"):
        assert 0 < score.score < 1  # some are right, so that a score of nothing would differ
    again = ws.ledger.score(ws.ledger.seen(base, None), guard.score_version)
    assert again.items == score.items  # stored with us; nothing of the harness' own caches is


@needs_harness
def test_a_task_of_the_harness_is_measured_without_being_added(ws, folder):
    found = ws.checkup(only=[f"harness:{folder}/last"])
    assert (list(found.guards), found.guards["last"].n, list(ws.guards())) == (["last"], 7, [])
    assert ws.checkup(only=[f"harness:{folder}/last"]).cost.seconds == 0
    ws.guard_add(f"harness:{folder}/last")
    assert ws.checkup(only=[f"harness:{folder}/last"]).cost.seconds == 0  # the guard that is there
    with pytest.raises(BadInput, match="--name OTHER"):
        ws.checkup(only=[f"harness:{folder.parent}/./tasks/last"])


@needs_harness
def test_without_the_package_a_guard_that_needs_it_is_left_out_with_a_notice(ws, folder, monkeypatch):
    ws.guard_add(f"harness:{folder}/words")
    ws.guard_add(f"harness:{folder}/colours")
    monkeypatch.setattr("perdure.workflows.guards.measure.find_spec", lambda name: None)
    found = ws.checkup(only=["words", "colours"])
    assert list(found.guards) == ["colours"]
    assert any("words is not scored" in text and "perdure[eval]" in text for text in found.warnings)


@needs_harness
def test_task_files_that_changed_are_not_run(ws, folder):
    ws.guard_add(f"harness:{folder}/words")
    (folder / "words.yaml").write_text((folder / "words.yaml").read_text() + "num_fewshot: 0\n")
    with pytest.raises(BadInput, match=r"changed since the guard was added"):
        ws.checkup(only=["words"])
    shutil.rmtree(ws.ledger.root / "trusted")
    (folder / "words.yaml").write_text((folder / "words.yaml").read_text().replace("num_fewshot: 0\n", ""))
    with pytest.raises(BadInput, match=r"not trusted in this workspace"):
        ws.checkup(only=["words"])


@needs_harness
@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("corpus", r"word_perplexity, bits_per_byte\) are computed over the whole set"),
        ("sampled", "wants sampled answers"),
        ("unsafe", "runs programs that the model writes"),
        ("colors", "no task 'colors' in"),
    ],
)
def test_what_is_no_guard_is_told(folder, written, message):
    with pytest.raises(BadInput, match=message):
        harness_rows(HarnessTask(written, folder))


@needs_harness
def test_a_guard_file_chooses_metric_and_filter(ws, folder, tmp_path):
    file = tmp_path / "own.yaml"
    head = "ability_guard: own\nharness: tasks/letters\nability: knowledge\n"
    file.write_text(head + "scorer: {name: harness, filter: whole}\n")
    scorer = read_guard(str(file), tmp_path).task.scorer
    assert (scorer["metric"], scorer["filter"], scorer["folder"]) == ("exact_match", "whole", "tasks")
    for more, message in (
        ("scorer: {name: harness, metric: bleu}", "no metric 'bleu'"),
        ("scorer: {name: harness, filter: last}", "no filter 'last'; it has first, whole"),
        ("scorer: choice", "no plain choices"),
        ("max_new_tokens: 5", "max_new_tokens has no effect"),
        ("chat: true", "chat has no effect"),
    ):
        file.write_text(f"{head}{more}\n")
        with pytest.raises(BadInput, match=message):
            read_guard(str(file), tmp_path)


@needs_harness
def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(BadInput, match="there is no folder"):
        harness_rows(HarnessTask("colours", tmp_path / "none"))
