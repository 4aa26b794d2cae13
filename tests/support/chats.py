"""Tokenizers of the kinds that models have, made here: what is trained must be what the model is asked with, for each."""

from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

WORDS = ["is it spam? yes no maybe cancel help user assistant system question answer Response: the bill"] * 20
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINK = (  # the newest answer is opened by a thought block, older ones lose theirs
    "{%- set ns = namespace(last=0) -%}{%- for m in messages -%}{%- if m.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}"
    "{%- endfor -%}{%- for m in messages -%}{%- if m.role == 'assistant' -%}{%- set c = m.content -%}{%- set r = m.reasoning_content or '' -%}"
    "{%- if '</think>' in c -%}{%- set r = c.split('</think>')[0].split('<think>')[-1].strip() -%}"
    "{%- set c = c.split('</think>')[-1].lstrip() -%}{%- endif -%}{{- '<|im_start|>assistant\n' -}}"
    "{%- if loop.index0 > ns.last -%}{{- '<think>\n' + r + '\n</think>\n\n' -}}{%- endif -%}{{- c + '<|im_end|>\n' -}}"
    "{%- else -%}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' -}}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
CUT = (  # thoughts are cut out of every answer, and the generation prompt opens one
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[U]{{ m['content'] }}{% elif m['role'] == 'assistant' %}"
    "[A]{{ m['content'].split('</think>')[-1] }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[A]<think>\n{% endif %}"
)
STRICT = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role here') }}{% endif %}{% for m in messages %}"
    "<turn>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)
SPACE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}USER: {{ m['content'] }}\n{% elif m['role'] == 'assistant' %}"
    "ASSISTANT: {{ m['content'] }}{{ eos_token }}\n{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT: {% endif %}"
)
NO_END = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
TRIMMED_PROMPT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}:{{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}"
)
CLOSED = (  # the prompt writes an empty thought, which no old answer has
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}"
)
TOOLS = (
    "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'] or '' }}{% for call in m['tool_calls'] or [] %}<call>{{ call.function.name }} {{ call.function.arguments | tojson }}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_bpe(chat=CHATML, eos="<|im_end|>", trim=None, more=(), nfc=False):
    """Return a byte-level BPE; `trim` is the post-processor's `trim_offsets`, None is no such post-processor."""
    tokens = Tokenizer(models.BPE())
    if nfc:
        tokens.normalizer = normalizers.NFC()
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    special = list(dict.fromkeys(t for t in ("<pad>", "<s>", eos, "<|im_start|>", "<|im_end|>", *more) if t))
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokens.train_from_iterator(WORDS, trainer)
    if trim is not None:
        tokens.post_processor = processors.ByteLevel(trim_offsets=trim)
    names = {k: v for k, v in {"bos_token": "<s>", "eos_token": eos, "pad_token": "<pad>"}.items() if v}
    made = PreTrainedTokenizerFast(tokenizer_object=tokens, **names)
    made.chat_template = chat
    return made


def sentencepiece(chat=None):
    """Return a BPE as Llama 2 has it: a mark goes in front of every text and in place of spaces, and <s> before it."""
    tokens = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokens.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    special = ["<unk>", "<s>", "</s>", "<pad>", *(f"<0x{i:02X}>" for i in range(256))]
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;?!#'\"-()\u2581"
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, show_progress=False, initial_alphabet=list(letters)
    )
    tokens.train_from_iterator(WORDS, trainer)
    tokens.pre_tokenizer = None
    tokens.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    replaced = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokens.decoder = decoders.Sequence(replaced)
    tokens.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokens.token_to_id("<s>"))]
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokens, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    made.chat_template = chat
    return made


@cache
def tokenizer(kind):
    """Return the tokenizer of a kind, with the chat template that goes with it."""
    if kind in ("think", "cut", "closed"):
        made = byte_bpe({"think": THINK, "cut": CUT, "closed": CLOSED}[kind])
        made.add_tokens(["<think>", "</think>"])
        return made
    if kind == "turn":
        made = byte_bpe(CHATML.replace("<|im_end|>", "<|turn_end|>"), eos="</s>")
        made.add_tokens([AddedToken("<|turn_end|>", special=False)])
        return made
    if kind == "labels":
        made = byte_bpe(more=("<yes>", "<no>"))
        made.add_special_tokens({"additional_special_tokens": ["<yes>", "<no>"]})
        return made
    if kind in ("sentencepiece", "sentencepiece_space"):
        return sentencepiece(SPACE if kind == "sentencepiece_space" else CUT.replace("<think>\n", ""))
    chats = {"strict": STRICT, "space": SPACE, "no_end": NO_END, "trimmed_prompt": TRIMMED_PROMPT, "tools": TOOLS}
    options = {"space": {"trim": False}, "trimmed": {"trim": True}, "nfc": {"nfc": True}}
    return byte_bpe(chats.get(kind, CHATML), **options.get(kind, {}))


KINDS = (
    "chatml", "think", "cut", "closed", "turn", "labels", "sentencepiece", "sentencepiece_space", "strict", "space", "no_end",
    "trimmed_prompt", "trimmed", "nfc", "tools",
)  # fmt: skip
