"""Programs run in processes of their own: what is right passes, and every attack fails and leaves nothing."""

import gzip
import json
import os
import socket
import tempfile
import uuid
from pathlib import Path

import pytest

from perdure.core.errors import BadInput
from perdure.core.rows import Row
from perdure.data.programs import program_check
from perdure.evaluate import run_code
from perdure.evaluate.program_child import from_plain, program_of, to_plain
from perdure.evaluate.run_code import program_outcome, run_program
from program_isolation import refusal

HUMANEVAL = Path(__file__).parents[3] / "shared/data/ability/humaneval.jsonl.gz"
TEST = "SECRET = 41\nassert f(1) == SECRET + 1"
FORGED = r"""b'{"passed": true, "reason": ""}'"""


REASON = refusal()
needs_namespaces = pytest.mark.skipif(bool(REASON), reason=REASON)


@pytest.fixture
def short(monkeypatch):
    """Limits that end an endless program soon."""
    monkeypatch.setattr(run_code, "LIMITS", {**run_code.LIMITS, "RLIMIT_CPU": 1})
    monkeypatch.setattr(run_code, "WALL", 3)


def judged(program: str) -> run_code.Outcome:
    whole = program if "def f(" in program else f"{program}\ndef f(x): return 0"
    return run_program("", whole, TEST, "f", "isolated")


@needs_namespaces
def test_a_right_program_passes_and_a_wrong_one_does_not():
    assert judged("def f(x): return 42").passed
    assert judged("def f(x): return 43").reason == "the test raised AssertionError"
    assert judged("def g(x): return 42\ndef f(x): return g(x)").passed
    assert judged("def f(x) return 42").reason == "the program raised SyntaxError"


@needs_namespaces
def test_a_test_may_catch_what_a_program_raises_and_call_its_other_functions():
    program = "def half(x): return x / 2\ndef f(x):\n    raise KeyError('no')"
    test = "def check(f):\n    assert half(3) == 1.5\n    try: f(1)\n    except KeyError: return\n    assert False"
    assert run_program("", program, test, "f", "isolated").passed


ATTACKS = {
    "endless loop": "while True: pass",
    "endless sleep": "import time\ntime.sleep(1000)",
    "fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "10 GB of memory": "kept = bytearray(10 << 30)",
    "memory in pieces": "kept = []\nwhile True: kept.append(bytearray(1 << 26))",
    "a large file": "file = open('big', 'wb')\nwhile True: file.write(b'x' * 65536)",
    "many files": "n = 0\nwhile True:\n    n += 1\n    open(str(n), 'wb').write(b'x' * 900_000)",
    "writes to the system": "open('/usr/perdure-attack', 'w')",
    "writes to the root": "open('/perdure-attack', 'w')",
    "writes to /tmp": "open('/tmp/perdure-attack', 'w')",
    "reads users": "open('/etc/passwd').read()",
    "reads processes": "import os\nopen(f'/proc/{os.getppid()}/mem', 'rb')",
    "traces the judge": "import ctypes, os\nassert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0",
    "kills all": "import os\nos.kill(-1, 9)\nos.kill(os.getppid(), 9)\nos._exit(0)",
    "kills the judge": "import os\nos.kill(os.getppid(), 9)\nos._exit(0)",
    "mounts anew": "import ctypes\nassert ctypes.CDLL(None).mount(b'', b'/', b'', 32, b'') == 0",
    "namespaces of its own": "import ctypes\nassert ctypes.CDLL(None).unshare(0x10020000) == 0\n"
    "assert ctypes.CDLL(None).mount(b'', b'/usr', b'', 4128, b'') == 0\nopen('/usr/perdure-attack', 'w')",
    "leaves early": "import os\nos._exit(0)",
    "exits well": "raise SystemExit(0)",
    "prints a verdict and waits": f"import os\nos.write(1, {FORGED})\nwhile True: pass",
    "writes verdicts everywhere": f"import os\nfor n in range(64):\n    try: os.write(n, {FORGED})\n    except OSError: 0",
    "equals everything": "class Equal:\n    def __eq__(self, other): return True\ndef f(x): return Equal()",
    "a number that equals everything": "class Equal(int):\n    def __eq__(self, other): return True\ndef f(x): return Equal()",
    "changes AssertionError": "import builtins\nbuiltins.AssertionError = type('No', (Exception,), {})",
    "a large answer": "def f(x): return 'x' * 100_000_000",
    "a deep answer": "def f(x):\n    found = []\n    for _ in range(100_000): found = [found]\n    return found",
}


@needs_namespaces
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_fails_and_leaves_nothing(name, short, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # other tests run programs at the same time
    assert not judged(ATTACKS[name]).passed
    assert not any(Path(place, "perdure-attack").exists() for place in ("/", "/usr", "/tmp"))
    assert list(tmp_path.iterdir()) == []


@needs_namespaces
def test_a_program_reads_and_writes_no_file_of_the_user(tmp_path):
    (tmp_path / "secret").write_text("42")
    assert not judged(f"def f(x): return int(open({str(tmp_path / 'secret')!r}).read())").passed
    assert not judged(f"open({str(tmp_path / 'attack')!r}, 'w')\ndef f(x): return 42").passed
    assert judged("open('own', 'w').write('42')\ndef f(x): return int(open('own').read())").passed
    assert [file.name for file in tmp_path.iterdir()] == ["secret"]


@needs_namespaces
def test_a_program_reaches_no_network():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0.1)
        connect = f"import socket\nsocket.create_connection({server.getsockname()!r}, 1)\ndef f(x): return 42"
        assert not judged(connect).passed
        with pytest.raises(TimeoutError):
            server.accept()


@needs_namespaces
def test_a_process_that_a_program_leaves_is_ended():
    mark = uuid.uuid4().hex
    child = f"os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(1000) # {mark}'])"
    program = (
        f"import os, sys, time\nif os.fork() == 0:\n    os.setsid()\n    {child}\ntime.sleep(.2)\ndef f(x): return 42"
    )
    assert judged(program).passed
    lines = [file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline") if file.exists()]
    assert not any(mark.encode() in line for line in lines)


@needs_namespaces
def test_at_most_sixteen_processes_run():
    count = (
        "import os, time\ndef f(x):\n    n = 0\n    try:\n        while n < 100:\n"
        "            if os.fork() == 0: time.sleep(100)\n            n += 1\n    except OSError: return n\n    return n"
    )
    test = "n = f(1)\nassert 8 <= n <= 16, n"
    assert run_program("", count, test, "f", "isolated").passed


@needs_namespaces
def test_a_program_finds_neither_its_test_nor_an_environment():
    look = (
        "import gc, os, sys\ndef f(x):\n"
        "    texts = [o for o in gc.get_objects() if isinstance(o, (dict, list, tuple))]\n"
        "    seen = str(sys.argv) + str(sys.orig_argv) + str(dict(os.environ)) + ''.join(map(repr, texts[:20000]))\n"
        "    return 42 if 'SECRE' + chr(84) not in seen and set(os.environ) <= {'LC_CTYPE'} and not os.listdir('.') else 0"
    )
    assert judged(look).passed


@needs_namespaces
def test_a_row_has_its_test_among_its_checks():
    row = Row("def two():\n", checks=(program_check("assert two() == 2", "two"),))
    assert program_outcome(row, "return 2", "isolated").passed
    assert not program_outcome(row, "return 3", "isolated").passed
    with pytest.raises(BadInput, match="has no test"):
        program_outcome(Row("def two():\n"), "return 2", "isolated")


def test_nothing_runs_unless_it_is_demanded():
    with pytest.raises(BadInput, match="--run-code"):
        run_program("", "def f(x): return 42", TEST, "f", "no")


def test_root_runs_nothing_without_namespaces(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(BadInput, match="not run as root without namespaces"):
        run_program("", "def f(x): return 42", TEST, "f", "unsafe")


def test_another_user_may_run_without_namespaces(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run_program("", "def f(x): return 42", TEST, "f", "unsafe").passed
    assert not run_program("", "def f(x): return 43", TEST, "f", "unsafe").passed


@pytest.mark.parametrize(("name", "value"), [("PATH", "/nowhere"), ("SPACES", ("--no-such-namespace",))])
def test_without_namespaces_a_program_is_refused(name, value, monkeypatch):
    monkeypatch.setattr(run_code, name, value)
    with pytest.raises(BadInput, match="--run-code=unsafe"):
        run_program("", "def f(x): return 42", TEST, "f", "isolated")


def test_other_systems_are_refused(monkeypatch):
    monkeypatch.setattr(run_code.sys, "platform", "darwin")
    with pytest.raises(BadInput, match="Linux"):
        run_program("", "def f(x): return 42", TEST, "f", "isolated")


@pytest.mark.parametrize(
    ("prompt", "answer", "program"),
    [
        ("def two():\n", "    return 2\n\ndef main():\n    pass", "def two():\n    return 2\n"),
        ("def two():\n", "return 2", "def two():\n    return 2"),
        ('def two():\n    """Return 2."""', "    return 2", 'def two():\n    """Return 2."""\n    return 2'),
        (
            "import re\ndef two():\n",
            "```python\ndef two():\n    return 2\n```\nTwo.",
            "import re\ndef two():\n    return 2",
        ),
        ("", "def two():\n    return 2\nThis returns 2.", "def two():\n    return 2"),
    ],
)
def test_the_program_of_an_answer(prompt, answer, program):
    assert program_of(prompt, answer, "two") == program


def test_plain_values_are_restored_with_their_types():
    value = [None, True, 1, 1.5, float("inf"), 1j, "a", b"\x00", (1,), {2}, frozenset({3}), {"a": {(1, 2): [{}]}}]
    restored = from_plain(json.loads(json.dumps(to_plain(value))))
    assert restored == value
    assert [type(one) for one in restored] == [type(one) for one in value]


@needs_namespaces
@pytest.mark.data
@pytest.mark.skipif(not HUMANEVAL.is_file(), reason="no shared data")
def test_the_published_solutions_pass():
    with gzip.open(HUMANEVAL, "rt") as file:
        rows = [json.loads(line) for line in file][::16]
    for row in rows:
        given = row["test"], row["entry_point"], "isolated"
        assert run_program(row["prompt"], row["completion"], *given).passed
        assert not run_program(row["prompt"], "    return None", *given).passed
