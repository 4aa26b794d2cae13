"""Data sets on the hub, with a stand-in for `datasets` and for the hub's client: what is called, and what becomes of it."""

import sys
from types import ModuleType, SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

from json_files import rows_file
from perdure.bridges import hub_data
from perdure.bridges.hub_data import read_hub
from perdure.core.errors import BadInput
from perdure.data.hub_names import HubName, hub_name
from perdure.data.load import load_rows, load_task, read_again
from perdure.data.sources import HUB_ROWS, read_sources

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CLASSES = {
    "text": {"dtype": "string", "_type": "Value"},
    "label": {"names": ["no", "yes"], "_type": "ClassLabel"},
}


class Stream:
    """A split as `datasets` streams it: rows can be had one after the other, and are counted."""

    def __init__(self, rows, features=None, config="default"):
        self.rows, self.taken, self.decoded = rows, 0, True
        self.features = features and SimpleNamespace(to_dict=lambda: features)
        self.info = SimpleNamespace(config_name=config)

    def decode(self, enable=True):
        self.decoded = enable
        return self

    def __iter__(self):
        assert not self.decoded
        for row in self.rows:
            self.taken += 1
            yield row


def rows(number, start=0):
    return [{"text": f"t{i}", "label": i % 2} for i in range(start, start + number)]


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Return a stand-in of the hub: its splits, and the calls that were made."""
    there = SimpleNamespace(splits={"train": Stream(rows(10), CLASSES)}, calls=[], error=None)
    monkeypatch.chdir(tmp_path)

    class Api:
        def dataset_info(self, repo, *, revision=None):
            there.calls.append(("info", repo, revision))
            if there.error:
                raise there.error
            return SimpleNamespace(sha=COMMIT)

    def load_dataset(path, name=None, *, revision=None, streaming=False):
        there.calls.append(("load", path, name, revision, streaming))
        return there.splits

    stand_in, errors = ModuleType("datasets"), ModuleType("datasets.exceptions")
    stand_in.load_dataset = load_dataset
    errors.DatasetsError = type("DatasetsError", (Exception,), {})
    monkeypatch.setitem(sys.modules, "datasets", stand_in)
    monkeypatch.setitem(sys.modules, "datasets.exceptions", errors)
    monkeypatch.setattr(hub_data, "find_spec", lambda name: object())
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    there.DatasetsError = errors.DatasetsError
    return there


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hub:org/name", HubName("org/name")),
        ("hub:squad", HubName("squad")),
        ("hub:org/name:20220301.en", HubName("org/name", "20220301.en")),
        ("hub:org/name@refs/convert/parquet", HubName("org/name", None, "refs/convert/parquet")),
        (f"hub:org/name:sst2@{COMMIT}", HubName("org/name", "sst2", COMMIT)),
    ],
)
def test_a_name_says_repository_configuration_and_revision(text, name):
    assert hub_name(text) == name
    assert str(name) == text


@pytest.mark.parametrize(
    "text", ["hub:", "hub:/a", "hub:a/b/c", "hub:a/b:", "hub:a/b@", "hub:a b", "hub:../x", "hub:a/..", "hub:a/b@x@y"]
)
def test_what_is_no_name_is_refused(text):
    with pytest.raises(BadInput, match=r"write hub:ORG/NAME"):
        hub_name(text)


def test_the_commit_is_found_first_and_everything_is_read_at_it(hub):
    found = read_hub(HubName("org/name", "sst2", "main"), 4)
    assert hub.calls == [("info", "org/name", "main"), ("load", "org/name", "sst2", COMMIT, True)]
    assert str(found.name) == f"hub:org/name:sst2@{COMMIT}"
    assert [(split.name, len(split.rows), split.more) for split in found.splits] == [("train", 4, True)]
    assert hub.splits["train"].taken == 5  # streamed, and no further than needed to know that there is more


def test_a_learn_reads_a_data_set_with_columns_classes_and_parts(hub, tmp_path):
    hub.splits = {
        "train": Stream(rows(10), CLASSES, "english"),
        "validation": Stream(rows(2, 20), CLASSES),
        "test": Stream(rows(3, 30), CLASSES),
        "unsupervised": Stream(rows(2, 40), CLASSES),
    }
    file = tmp_path / "t.yaml"
    file.write_text("train: hub:org/name\ncolumns: {text: text}\n")
    task = load_task("t", file, hub=read_hub)
    assert [len(part) for part in (task.train, task.validation, task.test)] == [10, 2, 3]
    assert task.labels == ["no", "yes"]
    assert task.test[0].source == "org/name/test:1"
    assert task.to_json()["spec"]["train"] == f"hub:org/name:english@{COMMIT}"
    assert f"hub:org/name is read at revision {COMMIT}" in task.notices
    assert any("the split unsupervised is not read" in told for told in task.notices)
    again = read_again(task, task.spec.train, read_hub)
    assert hub.calls[-1] == ("load", "org/name", "english", COMMIT, True)
    assert len(again) == 15


def test_the_same_rows_have_the_version_that_a_file_gives_them(hub, tmp_path):
    data = rows_file(tmp_path / "a.jsonl", [{**row, "label": ["no", "yes"][row["label"]]} for row in rows(10)])
    task, same = load_task("t", hub_name("hub:org/name").path, hub=read_hub), load_task("t", data)
    assert (task.version, task.fingerprint) == (same.version, same.fingerprint)


def test_rows_are_read_to_a_cap_that_is_reported(hub):
    hub.splits["train"] = Stream({"text": f"t{i}", "label": 0} for i in range(HUB_ROWS + 10))
    found = read_sources(HubName("org/name").path, hub=read_hub)
    assert len(found.records) == HUB_ROWS
    assert any(f"more rows than {HUB_ROWS:,}" in told for told in found.notices)
    hub.splits["train"] = Stream(rows(10))
    task = load_task("t", HubName("org/name").path, overrides={"max_rows": 5}, hub=read_hub)
    assert len(task.train) + len(task.test) == 5


def test_one_split_is_trained_whatever_its_name(hub):
    hub.splits = {"validation": Stream(rows(10), CLASSES)}
    assert load_task("t", HubName("org/name").path, hub=read_hub).test_made


def test_hub_and_files_are_one_task(hub, tmp_path):
    data = rows_file(tmp_path / "a.jsonl", [{"text": "more", "label": "no"}])
    task = load_task("t", (HubName("org/name").path, data), hub=read_hub)
    assert len(task.train) + len(task.test) == 11
    assert task.to_json()["spec"]["train"] == [f"hub:org/name@{COMMIT}", str(data)]
    assert len(load_rows(HubName("org/name").path, hub=read_hub)) == 10


def test_without_datasets_the_error_is_one_line_and_nothing_is_asked_of_the_hub(hub, monkeypatch):
    monkeypatch.setattr(hub_data, "find_spec", lambda name: None)
    with pytest.raises(BadInput) as caught:
        read_hub(HubName("org/name"), 3)
    assert str(caught.value) == (
        "hub:org/name: data sets of the hub need the package datasets, which is not installed: pip install 'perdure[datasets]'"
    )
    assert hub.calls == []


def test_a_folder_of_the_same_name_is_not_read_in_the_place_of_the_hub(hub, tmp_path):
    (tmp_path / "org" / "name").mkdir(parents=True)
    with pytest.raises(BadInput, match="org/name is a folder here"):
        read_hub(HubName("org/name"), 3)


def test_what_the_libraries_raise_is_told_in_words(hub):
    response = SimpleNamespace(headers={}, request=None, status_code=404)
    cases = [
        (
            OfflineModeIsEnabled("offline mode is enabled"),
            "the hub cannot be reached (offline mode is enabled); go online",
        ),
        (RepositoryNotFoundError("404", response=response), "the hub has no data set hub:org/name that you can read"),
        (
            ValueError("Config name is missing.\nPick one of\n['a', 'b']"),
            "Pick one of ['a', 'b']; a configuration is given",
        ),
        (hub.DatasetsError("no data files"), "hub:org/name cannot be read: no data files"),
    ]
    for error, message in cases:
        hub.error = error
        with pytest.raises(BadInput) as caught:
            read_hub(HubName("org/name"), 3)
        assert message in str(caught.value)


def test_rows_of_no_class_and_no_rows_are_errors(hub):
    hub.splits = {"train": Stream([{"text": "x", "label": 2}], CLASSES)}
    with pytest.raises(BadInput, match=r"org/name/train:1: label is class 2"):
        read_sources(HubName("org/name").path, hub=read_hub)
    hub.splits = {"train": Stream([], CLASSES)}
    with pytest.raises(BadInput, match="holds no rows"):
        read_sources(HubName("org/name").path, hub=read_hub)
    with pytest.raises(BadInput, match="are not read here"):
        read_sources(HubName("org/name").path)
