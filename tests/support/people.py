"""Tiny language models that know where some people live, trained here in seconds: enough knowledge to edit."""

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from perdure.editing.facts import Fact, Neighbour

FIRST = ["Ann", "Bob", "Cid", "Dan"]
LAST = ["Lee", "Fox", "Ray", "Kim", "Day", "Ash", "Orr", "Poe", "Lux", "Tam", "Roe", "Bly", "Eco", "Zed", "Hay", "Nye"]
PEOPLE = [f"{FIRST[n % 4]} {last}" for n, last in enumerate(LAST)]
CITIES = ["Rome", "Oslo", "Lima", "Bonn"]
FORMS = ["{} lives in", "{} is at home in"]
HOME = {name: CITIES[n * 7 % 16 // 4] for n, name in enumerate(PEOPLE)}
WORDS = [
    "<pad>",
    "<end>",
    ".",
    *{w for text in (*FORMS, *PEOPLE, *CITIES) for w in text.replace("{}", "").split()},
    "a",
]


def tokenizer():
    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(sorted(set(WORDS)))}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", pad_token="<pad>")


def make(kind, steps=80):
    """Return a trained model ("llama" or "gpt2") and its tokenizer."""
    coder = tokenizer()
    torch.manual_seed(0)
    ends = {"eos_token_id": coder.eos_token_id, "pad_token_id": coder.pad_token_id, "bos_token_id": None}
    shared = {**ends, "vocab_size": len(coder), "initializer_range": 0.1}
    if kind == "gpt2":
        size = {"n_embd": 48, "n_layer": 4, "n_head": 4, "n_positions": 64}
        dry = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        model = GPT2LMHeadModel(GPT2Config(**size, **dry, **shared))
    else:
        size = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 4, "max_position_embeddings": 64}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
        model = LlamaForCausalLM(LlamaConfig(**size, **heads, **shared))
    draw = np.random.default_rng(0)
    cities = torch.tensor(coder.convert_tokens_to_ids(CITIES))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 5e-3 * min(1, (step + 1) / 20) * (1 - step / steps)
        ids = torch.tensor([coder(_text(draw))["input_ids"][:20] for _ in range(24)])
        logp = model(input_ids=ids).logits[:, :-1].log_softmax(-1)
        loss = -logp.gather(-1, ids[:, 1:, None])[..., 0]
        (loss.mean() + 3 * loss[torch.isin(ids[:, 1:], cities)].mean()).backward()  # the rest is mostly chance
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model.eval().requires_grad_(False), coder


def fact(name, city, form=0):
    """`name` lives in `city`; the other form is the paraphrase, and two others at home where `name` was are the neighbours."""
    same = [other for other in PEOPLE if HOME[other] == HOME[name] and other != name][:2]
    near = tuple(Neighbour(FORMS[form].format(other), HOME[other]) for other in same)
    return Fact(name, FORMS[form], city, HOME[name], "home", (FORMS[1 - form].format(name),), near)


def _text(draw):
    names = draw.choice(PEOPLE, size=5)
    return " ".join(f"{draw.choice(FORMS).format(name)} {HOME[name]} ." for name in names)
