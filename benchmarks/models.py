"""Two tasks learned and a fact edited on twelve tiny architectures, every logit held to transformers' own unpadded forward.

`python benchmarks/models.py` prints the table of docs/models.md; some minutes on one core.
"""

import argparse
import json
import random
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from perdure import Workspace
from perdure.core.errors import PerdureError
from perdure.data.encode import encode, prompt_ids
from perdure.editing.spec import EditSpec
from perdure.model.decode import read_prompts
from perdure.model.forward import Tokens
from perdure.model.probing import batching_of

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from architectures import ARCHITECTURES, COMMON

NAMES = {
    "Llama": "llama",
    "Qwen2": "qwen2",
    "Qwen3": "qwen3",
    "Gemma 2": "gemma2",
    "Gemma 3": "gemma3_text",
    "Mistral": "mistral",
    "Phi-3": "phi3",
    "GPT-2": "gpt2",
    "GPT-NeoX": "gpt_neox",
    "OLMo 2": "olmo2",
    "Qwen3 MoE": "qwen3_moe",
    "Mixtral": "mixtral",
    "GPT-OSS": "gpt_oss",
    "DeepSeek V3": "deepseek_v3",
    "LFM2": "lfm2",
    "Mamba": "mamba",
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {name: ARCHITECTURES[kind][:2] for name, kind in NAMES.items()}
MODELS["BERT"] = ("bert", {})
PREFIX = "read what a customer of the shop writes to us today , and say in one word what it is about :"  # longer than a window
TASKS = {
    "billing": {
        "refund": "money",
        "invoice": "money",
        "bill": "money",
        "parcel": "post",
        "letter": "post",
        "stamp": "post",
    },
    "places": {
        "Bergen": "north",
        "Tromso": "north",
        "Narvik": "north",
        "Naples": "south",
        "Bari": "south",
        "Lecce": "south",
    },
}
FRAMES = ("the {}", "my {}", "it is about the {} that I asked for", "please look at the {}")  # the last one is tested
CITIES = ("Rome", "Oslo", "Lima", "Bonn")
PEOPLE = ("Anna Berg", "Bob Fox", "Cid Ray", "Dan Kim", "Eva Lux", "Fay Orr", "Gus Poe", "Ida Roe")
HOME = {name: CITIES[n % 4] for n, name in enumerate(PEOPLE)}
AT_HOME = [f"{name} lives in {city}" for name, city in HOME.items()]
FACT = {"subject": PEOPLE[0], "prompt": "{} lives in", "target": "Lima"}  # the base says Rome
QUESTION = FACT["prompt"].format(FACT["subject"])
SPEC = EditSpec(layers=(0,), steps=80, contexts=0, lr=0.2, clamp=20.0, kl=0.0, decay=0.0, ridge=1e-3, gain=1000.0)
SETTINGS = {"num_train_epochs": 40, "learning_rate": 0.004, "per_device_train_batch_size": 6}
STEPS, RATE = 1000, 5e-3  # most updates that make a base of random weights, and their largest learning rate
KNOWN = 0.02  # mean loss, in nats a token, at which a base knows its texts


@dataclass(frozen=True)
class Line:
    """What happened with one architecture."""

    name: str
    verdict: str
    scores: str = "-"
    edited: str = "-"
    difference: str = "-"
    exported: str = "-"
    adapted: str = "-"


def requests(frame: str, cut: int = 0) -> list[str]:
    """Return a request for each word and label, answered by that word; `cut` words of `PREFIX` are left out in front."""
    begin = " ".join(PREFIX.split(" ")[cut:])
    words = [word for task in TASKS.values() for word in (*task, *dict.fromkeys(task.values()))]
    return [f"{begin}{frame.format(word)}\n{word}" for word in words]


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE that has most words of the texts whole."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<end>"], initial_alphabet=letters, show_progress=False
    )
    asked = [text for frame in FRAMES for text in requests(frame)]
    bpe.train_from_iterator([*asked, *AT_HOME] * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<end>", pad_token="<end>")


def make(name: str, folder: Path) -> None:
    """Write a tiny model that knows the texts, trained here without padding.

    Every architecture is trained to the same loss. Requests begin at many positions, as models with learned positions would
    otherwise know the place of a word, and not the word.
    """
    kind, more = MODELS[name]
    words = tokenizer()
    ids = {"vocab_size": len(words), "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0}
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**COMMON, **ids, "initializer_range": 0.1, **more})
    model = AutoModelForCausalLM.from_config(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    draw = random.Random(0)
    mean = 9.0
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE * min(1, (step + 1) / 20) * (1 - step / STEPS)
        some = requests(draw.choice(FRAMES), draw.randrange(len(PREFIX.split(" "))))
        loss = (text_loss(model, words, some) + text_loss(model, words, AT_HOME)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean = 0.9 * mean + 0.1 * loss.item()
        if mean < KNOWN:
            break
    model.save_pretrained(folder)
    words.save_pretrained(folder)


def text_loss(model: Any, words: Any, texts: list[str]) -> torch.Tensor:
    """Return the mean loss of the last word and the end of texts of one length."""
    ids = torch.tensor([[*words(text)["input_ids"], 0] for text in texts])
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[:, -3:-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, -2:].flatten())


def rows(task: str, path: Path) -> Path:
    """Write the rows of a task: three frames to train, one to test."""
    lines = [
        {
            "split": "test" if frame == FRAMES[-1] else "train",
            "prompt": f"{PREFIX}{frame.format(word)}\n",
            "completion": label,
        }
        for frame in FRAMES
        for word, label in TASKS[task].items()
    ]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


@torch.no_grad()
def alone(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """Return the logits (tokens, vocab) of transformers' own forward of one row, neither padded nor cached."""
    return model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0].float()


def fact_loss(ws: Workspace) -> float:
    """Return the loss of the fact's target at head, in nats."""
    prompt, whole = (ws.tokenizer(text)["input_ids"] for text in (QUESTION, f"{QUESTION} {FACT['target']}"))
    logits = alone(ws.model(), whole)[len(prompt) - 1 : -1]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(whole[len(prompt) :]), reduction="sum").item()


@torch.no_grad()
def difference(ws: Workspace) -> float:
    """Return the largest difference of a logit at head: of prompts that are read together, and of rows that are trained."""
    model, words = ws.model(), ws.tokenizer
    entry = ws.ledger.resolve("head")
    largest = 0.0
    for task in TASKS:
        data = ws.session.task(task, entry)
        prompts = [prompt_ids(row, words) for row in data.test]
        for got, ids in zip(read_prompts(model, prompts, 0).logits, prompts, strict=True):
            largest = max(largest, (got - alone(model, ids)[-1]).abs().max().item())
        encoded = [encode(row, words, 512) for row in data.train]
        reader = Tokens(0, batching_of(model).prefix)
        batch = reader.collate(encoded)
        got = reader.forward(model, batch).logits
        own = [alone(model, row.ids)[t - 1] for row in encoded for t in range(1, len(row)) if row.trained[t]]
        largest = max(largest, (got - torch.stack(own)).abs().max().item())
    return largest


@torch.no_grad()
def reloaded(ws: Workspace, base: Path, folder: Path) -> float:
    """Return the largest difference of a logit between head and its export, loaded by PEFT as anybody would."""
    ws.export(folder)
    fresh = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), str(folder)
    ).eval()
    ids = prompt_ids(ws.session.task("places", ws.ledger.resolve("head")).test[0], ws.tokenizer)
    return (alone(fresh, ids) - alone(ws.model(), ids)).abs().max().item()


def run(name: str, folder: Path) -> Line:
    """Return what a user meets with one architecture."""
    make(name, folder / "base")
    try:
        ws = Workspace.init(folder / "ws", str(folder / "base"), dtype="float32")
    except PerdureError as error:
        return Line(name, f"rejected: {str(error).partition(') ')[2]}")
    for task in TASKS:
        ws.learn(task, rows(task, folder / f"{task}.jsonl"), overrides=SETTINGS, gate=None)
    edited = "cannot be edited"
    if ws.capabilities["editing"]:
        before = fact_loss(ws)
        ws.edit(FACT, spec=SPEC, gate=None, score="none")
        edited = f"{before:.1f} to {fact_loss(ws):.1f}{', said' if ws.edits()[0].efficacy else ''}"
    found = ws.evaluate().tasks
    verdict = "works" if ws.capabilities["prefix"] else "works without prefix sharing"
    if not ws.capabilities["cache"]:
        verdict += ", without a cache"
    return Line(
        name,
        verdict,
        ", ".join(f"{found[task].score:.2f}" for task in TASKS),
        edited,
        f"{difference(ws):.1e}",
        f"{reloaded(ws, folder / 'base', folder / 'adapter'):.1e}",
        (ws.capabilities["no_adapter"] or "all").partition(" of")[0].replace("all", "-"),
    )


def row(cells: Sequence[str]) -> str:
    """Return the cells as a row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("names", nargs="*", help=f"some of {', '.join(MODELS)}; all by default")
    names = ask.parse_args().names or list(MODELS)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    head = ("model", "verdict", "tasks", "fact", "largest logit difference", "after export", "without adapter")
    print(row(head), row(["---"] * len(head)), sep="\n")
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            print(row(astuple(run(name, Path(folder) / name.replace(" ", "-")))), flush=True)


if __name__ == "__main__":
    main()
