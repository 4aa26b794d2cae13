"""The machine around a command: closed streams, odd terminals, signals at any moment, variables that launchers left."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from shell import run, run_json, settings

from perdure.bridges import embedded
from perdure.cli.output import emit, encodable
from perdure.core.errors import BadInput
from perdure.core.launcher import forget_launcher, launcher_variables, without_launcher

START = "from perdure.cli.start import run; run()"


def process(code: str, *words: object, env: dict[str, str] | None = None, **options) -> subprocess.CompletedProcess:
    """Run Python code in a process of its own, as a user's shell would."""
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(
        command, capture_output=True, env={**os.environ, **(env or {})}, timeout=300, check=False, **options
    )


# --- streams


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_neither_stop_a_command_nor_become_the_files_it_opens(fresh: Path, closed: str):
    ledger = (fresh / "ledger.sqlite").read_bytes()
    shell = f'"{sys.executable}" -c "{START}" log -w "{fresh}" {closed}'
    done = subprocess.run(["sh", "-c", shell], capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert (b"base" in done.stdout) == (">&-" not in closed.replace("2>&-", ""))
    assert (fresh / "ledger.sqlite").read_bytes() == ledger


def test_without_stdin_there_is_nobody_to_ask_and_nothing_to_read(fresh: Path, monkeypatch: pytest.MonkeyPatch):
    from perdure.cli import stdin

    monkeypatch.setattr(stdin.sys, "stdin", None)
    assert not stdin.at_terminal()
    assert stdin.read_stdin() == ""


def test_what_stdin_holds_must_be_text(fresh: Path, monkeypatch: pytest.MonkeyPatch):
    from perdure.cli import stdin

    monkeypatch.setattr(stdin.sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), encoding="utf-8"))
    with pytest.raises(BadInput, match=r"stdin is not utf-8 text .*convert it to UTF-8"):
        stdin.read_stdin()
    assert "is no text: it has bytes that are not UTF-8" in run("-w", fresh, "predict", "caf\udce9", code=1).stderr


@pytest.mark.parametrize(
    ("encoding", "as_is"), [("utf-8", "é€日🙂"), ("latin-1", "é"), ("cp1252", "é€"), ("ascii", ""), ("cp437", "é")]
)
def test_json_escapes_what_the_encoding_lacks_and_is_the_same_value(
    encoding: str, as_is: str, monkeypatch: pytest.MonkeyPatch
):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    emit({"text": as_is})
    sys.stdout.flush()
    assert encoding == "ascii" or as_is in written.getvalue().decode(encoding)
    emit({"text": "é€日🙂\x81"})
    sys.stdout.flush()
    values = written.getvalue().decode(encoding).replace("}\n{", "}\0{").split("\0")
    assert [json.loads(value)["text"] for value in values] == [as_is, "é€日🙂\x81"]


def test_text_that_a_terminal_lacks_is_replaced_and_odd_widths_are_not_believed(tmp_path: Path):
    for columns in ("1", "99999999", "wide"):
        done = process(START, "--help", env={"PYTHONIOENCODING": "latin-1", "COLUMNS": columns, "TERM": "dumb"})
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"Continual fine-tuning" in done.stdout
        assert max(map(len, done.stdout.splitlines())) <= 200
    done = process(START, "status", "-w", "日本", env={"PYTHONIOENCODING": "cp1252"}, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"error: \\u65e5\\u672c is no workspace")


# --- signals and the end


def test_ctrl_c_while_a_library_is_imported_ends_in_a_line(tmp_path: Path):
    """KeyboardInterrupt raised inside the import of a C++ library aborts the process (exit -6)."""
    (tmp_path / "slow.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n")
    code = "from perdure.cli import process; process._catch_signals(); import slow"
    done = process(code, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"stopped\n")


def test_a_signal_before_anything_is_imported_ends_in_a_line(tmp_path: Path):
    (tmp_path / "typer.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(60)\n"
    )
    done = process(START, "--help", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"stopped\n")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_a_process_whose_main_thread_does_not_come_back(name: str):
    """As in a library that waits for other processes: no handler of Python's ever runs."""
    code = f"""
import os, signal, sqlite3, threading
from perdure.cli import process
process.GRACE = 0.3
process._catch_signals()
threading.Timer(0.2, os.kill, (os.getpid(), signal.{name})).start()
sqlite3.connect(":memory:").execute("with recursive n(x) as (select 1 union all select x + 1 from n) select max(x) from n")
"""
    done = process(code)
    assert (done.returncode, done.stderr) == (130, b"stopped\n")


def test_a_handled_signal_leaves_the_process_running():
    code = """
import os, signal, time
from perdure.cli import process
process.GRACE = 0.2
process._catch_signals()
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
except KeyboardInterrupt:
    time.sleep(1)
    print("cleaned up")
"""
    done = process(code)
    assert (done.returncode, done.stdout) == (0, b"cleaned up\n" if os.linesep == "\n" else b"cleaned up\r\n")


@pytest.mark.parametrize("name", ["SIGALRM", "SIGINT"])
def test_neither_a_signal_of_others_nor_one_handled_long_before_it_is_noticed_ends_the_process(name: str):
    """On a machine with more to do than it can, the watching thread may come seconds after the handler."""
    code = f"""
import os, signal, time
from perdure.cli import process
from perdure.workflows import signals
process.GRACE = 0.2
signals.unheard()
signal.signal(signal.{name}, lambda *_: "{name}" == "SIGINT" and signals.heard())
os.kill(os.getpid(), signal.{name})
time.sleep(1.5)
signal.signal(signal.SIGTERM, process._interrupt)
import threading
threading.Thread(target=process._end_if_deaf, args=(signals.unheard(),), daemon=True).start()
time.sleep(1)
print("still here")
"""
    done = process(code)
    assert (done.returncode, done.stdout) == (0, b"still here\n"), done.stderr


def test_reading_parquet_starts_no_thread_that_could_abort_the_process_at_its_end(tmp_path: Path):
    code = """
import os, sys
import pyarrow
from pyarrow import parquet
from perdure.data.read import read_records
parquet.write_table(pyarrow.table({"prompt": ["a", "b"] * 5000, "completion": ["c", "d"] * 5000}), "rows.parquet")
before = os.listdir("/proc/self/task")
from pathlib import Path
assert len(read_records(Path("rows.parquet"))) == 10000
print(len(os.listdir("/proc/self/task")) - len(before))
"""
    if not Path("/proc/self/task").is_dir():
        pytest.skip("threads are counted in Linux's /proc")
    done = process(code, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, b"0\n"), done.stderr


# --- variables of launchers


def test_variables_of_launchers_are_known_and_others_left_alone(monkeypatch: pytest.MonkeyPatch):
    left = {
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "ACCELERATE_MIXED_PRECISION": "fp16",
        "PMI_RANK": "1",
        "OMPI_COMM_WORLD_SIZE": "2",
    }
    kept = {"RANKING": "1", "MASTER_KEY": "1", "OMP_NUM_THREADS": "1", "SLURM_JOB_ID": "7"}
    for name in launcher_variables():
        monkeypatch.delenv(name)
    for name, value in {**left, **kept}.items():
        monkeypatch.setenv(name, value)
    with without_launcher():
        assert launcher_variables() == {}
    assert launcher_variables() == left
    assert forget_launcher() == sorted(left)
    assert all(os.environ[name] == value for name, value in kept.items())


@pytest.mark.timeout(600)
def test_what_a_launcher_left_changes_no_bit_of_a_learn(fresh: Path, files: Path, monkeypatch: pytest.MonkeyPatch):
    words = [
        "learn",
        "parcel",
        files / "parcel.yaml",
        "--no-gate",
        *settings("host=transformers", "num_train_epochs=1"),
    ]
    left = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29571", "LOCAL_RANK": "0"}
    for name, value in {**left, "ACCELERATE_MIXED_PRECISION": "bf16"}.items():
        monkeypatch.setenv(name, value)
    first = run_json("-w", fresh, *words)["entry"]
    assert os.environ["WORLD_SIZE"] == "2"  # the caller's environment is the caller's
    run("-w", fresh, "rollback", "base")
    for name in (*left, "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name)
    assert run_json("-w", fresh, *words)["entry"] == first


def test_the_command_line_names_the_variables_it_ignores():
    done = process(START, "--version", env={"WORLD_SIZE": "2", "RANK": "0"})
    assert done.returncode == 0
    assert (
        b"notice: perdure runs as one process, and ignores variables of a launcher of several: RANK, WORLD_SIZE"
        in done.stderr
    )


# --- no home


def test_without_a_home_the_error_says_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("PERDURE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(BadInput, match=r"no home folder .*set PERDURE_CACHE to a folder"):
        embedded.embedded_model()
    (tmp_path / "file").write_text("")
    for name in ("PERDURE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "file" / "under"))
        with pytest.raises(BadInput, match=r"cannot keep fetched models in .*Not a directory; set PERDURE_CACHE"):
            embedded.embedded_model()
        monkeypatch.delenv(name)


def test_json_lines_on_stdout_are_json_in_any_encoding(monkeypatch: pytest.MonkeyPatch):
    rows = [{"prompt": f"日本 {i}?", "completion": "🙂"} for i in range(2)]
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="latin-1"))
    text = encodable("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    assert text.isascii()
    assert [json.loads(line) for line in text.splitlines()] == rows
