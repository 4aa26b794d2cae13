"""The demo stream is what its README says: balanced, disjoint between lines, and fair between train and test."""

import json
import re
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
import yaml

import perdure.data

DEMO = Path(perdure.data.__file__).parent / "demo"
LINES = ("broadband", "mobile", "smart_home", "tv")


def read(line: str) -> list[dict[str, str]]:
    return [json.loads(text) for text in (DEMO / f"{line}.jsonl").read_text(encoding="utf-8").splitlines()]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    return [row for line in LINES for row in read(line)]


def test_the_folder_holds_the_four_lines_and_nothing_unknown():
    assert {path.stem for path in DEMO.glob("*.jsonl")} == {path.stem for path in DEMO.glob("*.yaml")} == set(LINES)


@pytest.mark.parametrize("line", LINES)
def test_each_line_has_8_intents_with_12_train_and_12_test_messages(line):
    rows = read(line)
    counts = Counter((row["label"], row["split"]) for row in rows)
    labels = {row["label"] for row in rows}

    assert all(row.keys() == {"text", "label", "split"} for row in rows)
    assert len(labels) == 8
    assert counts == {cell: 12 for cell in product(labels, ("train", "test"))}


def test_no_label_belongs_to_two_lines():
    owners = Counter(label for line in LINES for label in {row["label"] for row in read(line)})
    assert set(owners.values()) == {1}


def test_labels_are_two_to_four_plain_words(rows):
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+){1,3}", row["label"]) for row in rows)


def test_no_message_occurs_twice_even_in_other_case_or_punctuation(rows):
    counts = Counter(" ".join(words(row["text"])) for row in rows)
    assert [text for text, count in counts.items() if count > 1] == []


def test_no_test_message_resembles_a_train_message(rows):
    train, test = (
        [frozenset(words(row["text"])) for row in rows if row["split"] == part] for part in ("train", "test")
    )
    assert [(a, b) for a, b in product(test, train) if jaccard(a, b) > 0.7] == []


def test_messages_have_3_to_30_words_and_most_have_6_to_18(rows):
    lengths = [len(row["text"].split()) for row in rows]
    assert min(lengths) >= 3
    assert max(lengths) <= 30
    assert sum(6 <= length <= 18 for length in lengths) > 0.8 * len(lengths)


def test_messages_are_clean_text_without_contact_data(rows):
    assert all(row["text"] == " ".join(row["text"].split()) for row in rows)
    assert [row["text"] for row in rows if re.search(r"@|https?:|www\.|\d{5,}", row["text"])] == []


@pytest.mark.parametrize("line", LINES)
def test_the_task_file_names_its_data_and_the_shared_prompt(line):
    task = yaml.safe_load((DEMO / f"{line}.yaml").read_text(encoding="utf-8"))
    assert task == {
        "name": line,
        "train": f"{line}.jsonl",
        "format": "text+label",
        "template": "Classify the customer's message.\nMessage: {text}\nIntent:",
        "scorer": "exact",
    }


def test_the_readme_lists_every_label(rows):
    readme = (DEMO / "README.md").read_text(encoding="utf-8")
    assert {row["label"] for row in rows} <= set(re.findall(r"\w+", readme))
