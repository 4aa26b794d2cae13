"""The notebook of the first steps runs from top to bottom in a kernel, on a tiny model."""

import os
import re
import sys
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "docs" / "first-steps.ipynb"


def test_the_notebook_runs_and_shows_its_tables(tiny_model, tmp_path, monkeypatch):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code), "it is stored without outputs"
    code[0].source, replaced = re.subn(
        r'^MODEL = ".*"', f"MODEL = {str(tiny_model)!r}", code[0].source, flags=re.MULTILINE
    )
    assert replaced == 1
    source = str(NOTEBOOK.parents[1] / "src")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])]))
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))
    kernel = AsyncKernelManager(ip="127.0.0.1")  # loopback
    kernel.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    client = NotebookClient(notebook, timeout=None, km=kernel, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    tables = ["".join(out.get("data", {}).get("text/html", "") for out in cell.outputs) for cell in code]
    assert sum("<table>" in table for table in tables) == 3  # matrix, facts, log
    assert "topic" in tables[2]
    assert "Eiffel Tower" in tables[4]
    printed = ["".join(out.text for out in cell.outputs if out.get("name") == "stdout") for cell in code]
    assert re.fullmatch(r"topic \d[.\d]*\nproduct \d[.\d]*\n", printed[1])
    assert printed[-1] == "0 facts\n"
