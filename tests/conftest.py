"""What tests share: a tiny random language model with a real tokenizer, made here, nothing downloaded."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("perdure", deadline=None)  # a busy machine is no fault of what is tested
settings.load_profile("perdure")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("PERDURE_GUARDS", "none")  # scoring guards at each learn is the subject of few tests
CACHES = pytest.StashKey[tuple[Path, Path]]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep what tests measure out of the user's cache, which lends them the embedded model alone."""
    from perdure.bridges.embedded import cache_folder

    mine, users = Path(tempfile.mkdtemp(prefix="perdure-cache-")), cache_folder()
    for model in users.glob("smollm2*"):
        (mine / model.name).symlink_to(model.resolve())
    config.stash[CACHES] = mine, users
    os.environ["PERDURE_CACHE"] = str(mine)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Give the user's cache a model that was fetched, and remove the rest."""
    mine, users = config.stash[CACHES]
    for model in mine.glob("smollm2*"):
        if not model.is_symlink() and not (users / model.name).exists():
            users.mkdir(parents=True, exist_ok=True)
            shutil.move(model, users / model.name)
    shutil.rmtree(mine)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Run what is tiny on one thread: two wait for each other longer than they compute, 30 times longer on a busy machine."""
    if torch := sys.modules.get("torch"):
        workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
        cores = max((os.cpu_count() or 1) // workers, 1)
        torch.set_num_threads(cores if item.get_closest_marker("model") else 1)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a two-layer Llama of random weights with a byte-level BPE tokenizer and a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.set_num_threads(1)  # as the hook does, which came too early if this is what imports torch
    folder = tmp_path_factory.mktemp("tiny-model")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(["Classify the text. Text: Label: refund parcel invoice"], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|im_end|>")
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def stream(tiny_model: Path):  # type: ignore[no-untyped-def]
    """The tiny model after a first task, about to learn a second one that contradicts it; see `streams.Stream`."""
    from streams import Stream

    return Stream(tiny_model)


@pytest.fixture(scope="session")
def points():  # type: ignore[no-untyped-def]
    """The same of points in the plane and a small network; see `streams.FeatureStream`."""
    from streams import FeatureStream

    return FeatureStream()
