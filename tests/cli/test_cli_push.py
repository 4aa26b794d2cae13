"""`perdure export --push`: what goes to the hub, what is asked before, and what the hub's errors look like."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError, RepositoryNotFoundError
from shell import run, run_json

from perdure.cli import export as command


def refusal(kind: type[HfHubHTTPError], status: int, text: str) -> HfHubHTTPError:
    return kind(text, response=SimpleNamespace(status_code=status, headers={}, request=None))


class Hub:
    """A stand-in for the client's calls: repositories are folders, and each commit is recorded."""

    def __init__(self, folder: Path):
        self.folder, self.private, self.calls, self.errors = folder, {}, [], {}

    def make(self, name: str, private: bool) -> None:
        self.private[name] = private
        (self.folder / name).mkdir(parents=True)

    def api(self) -> SimpleNamespace:
        calls = ("whoami", "model_info", "create_repo", "upload_folder")
        return SimpleNamespace(endpoint="https://hub.example", **{name: self._call(name) for name in calls})

    def _call(self, name: str):
        def call(*words, **more):
            self.calls.append(name)
            if name in self.errors:
                raise self.errors[name]
            return getattr(self, f"_{name}")(*words, **more)

        return call

    def _whoami(self):
        return {"name": "ann"}

    def _model_info(self, name):
        if name not in self.private:
            raise refusal(RepositoryNotFoundError, 404, "Repository Not Found")
        files = [SimpleNamespace(rfilename=path.name) for path in (self.folder / name).iterdir()]
        return SimpleNamespace(private=self.private[name], siblings=files)

    def _create_repo(self, name, repo_type, private):
        self.make(name, private)

    def _upload_folder(self, *, repo_id, folder_path, repo_type, commit_message):
        shutil.copytree(folder_path, self.folder / repo_id, dirs_exist_ok=True)
        self.message = commit_message
        return SimpleNamespace(oid="c0ffee" * 7)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", made.api)
    return made


def pushed_files(hub: Hub, name: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (hub.folder / name).iterdir()}


def test_an_export_is_pushed_to_a_new_private_repository_and_then_updated(learned: Path, tmp_path: Path, hub: Hub):
    told = run("-w", learned, "export", tmp_path / "one", "--push", "acme/support", "--yes")
    local = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    assert pushed_files(hub, "acme/support") == local
    assert hub.private == {"acme/support": True}
    entry = run_json("-w", learned, "status")["head"]["entry"]
    assert hub.message == f"perdure: entry {entry[:12]}"
    for name, content in local.items():  # listed with its size before the push
        assert any(line.split()[0] == name for line in told.stderr.splitlines() if line.strip()), name
        assert content
    assert f"{len(local)} files" in told.stderr
    assert "the new repository acme/support, private" in told.stderr
    assert "pushed to https://hub.example/acme/support, commit c0ffeec0ffee" in told.stdout
    assert "experts" not in told.stdout  # a dense model has none

    (hub.folder / "acme/support" / "notes.md").write_text("mine")
    hub.calls.clear()
    found = run(
        "-w", learned, "export", tmp_path / "two", "--at", "head~1", "--push", "acme/support", "--yes", "--json"
    )
    pushed = json.loads(found.stdout)["pushed"]
    assert hub.calls == ["whoami", "model_info", "upload_folder"]
    assert (pushed["repo"], pushed["private"], pushed["commit"]) == ("acme/support", True, "c0ffee" * 7)
    assert {file["name"]: file["bytes"] for file in pushed["files"]} == {
        path.name: path.stat().st_size for path in (tmp_path / "two").iterdir()
    }
    assert "an update of acme/support, private" in found.stderr
    assert "files that are there already stay: notes.md" in found.stderr
    assert pushed_files(hub, "acme/support")["notes.md"] == b"mine"


def test_a_push_is_public_only_where_it_is_asked_for(learned: Path, tmp_path: Path, hub: Hub):
    run("-w", learned, "export", tmp_path / "one", "--push", "acme/open", "--public", "--yes")
    assert hub.private == {"acme/open": False}
    refused = run("-w", learned, "export", tmp_path / "two", "--push", "acme/open", "--yes", code=1)
    assert "acme/open is public on the hub; give --public" in refused.stderr
    assert not (tmp_path / "two").exists()  # found before anything was written
    hub.make("acme/closed", private=True)
    told = run("-w", learned, "export", tmp_path / "three", "--push", "acme/closed", "--public", "--yes")
    assert "acme/closed stays private" in told.stderr
    assert hub.private["acme/closed"] is True


def test_a_user_at_a_terminal_is_asked_and_no_is_the_default(learned: Path, tmp_path: Path, hub: Hub, monkeypatch):
    refused = run("-w", learned, "export", tmp_path / "none", "--push", "acme/support", code=2)
    assert "give --yes" in " ".join(refused.stderr.split())
    assert not (tmp_path / "none").exists()
    assert hub.calls == []
    monkeypatch.setattr(command, "at_terminal", lambda: True)
    told = run("-w", learned, "export", tmp_path / "no", "--push", "acme/support", input="\n")
    assert "nothing was pushed; the export is in" in told.stderr
    assert hub.private == {}
    assert (tmp_path / "no" / "adapter_config.json").exists()
    run("-w", learned, "export", tmp_path / "yes", "--push", "acme/support", input="y\n")
    assert hub.private == {"acme/support": True}
    for words in (["--public"], ["--yes"]):
        assert "belongs to --push" in " ".join(
            run("-w", learned, "export", tmp_path / "x", *words, code=2).stderr.split()
        )


def test_errors_of_the_hub_are_one_line_and_the_export_stays(learned: Path, tmp_path: Path, hub: Hub):
    def told(name: str = "acme/support") -> str:
        text = run("-w", learned, "export", tmp_path / "out", "--push", name, "--yes", code=1).stderr
        (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
        return line

    early = {
        "nobody is logged in to the hub; run 'hf auth login'": LocalTokenNotFoundError("Token is required"),
        "the hub does not accept the token": refusal(HfHubHTTPError, 401, "Invalid user token.\nTry again"),
        "the hub cannot be reached": HTTPError("no route"),
    }
    for words, error in early.items():
        hub.errors = {"whoami": error}
        assert words in told()
    hub.errors = {}
    assert "is no name of a repository" in told("support")
    assert "is no name of a repository" in told("a/b/c")
    assert not (tmp_path / "out").exists()
    hub.errors = {"upload_folder": refusal(HfHubHTTPError, 403, "Forbidden: pass a write token")}
    line = told()
    assert "the token may not write to acme/support: Forbidden: pass a write token" in line
    assert f"'hf upload acme/support {tmp_path / 'out'} --private' pushes it" in line
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()
