"""The loaded runtime as a model of lm-evaluation-harness. Import it where `harness` has checked that the package is there."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from lm_eval.api.model import LM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from perdure.bridges.harness_task import moved
from perdure.bridges.runtime import Runtime
from perdure.core.errors import BadInput
from perdure.core.rows import Message
from perdure.data.chat import chat_text
from perdure.model.decode import choice_log_likelihoods, generate

LONGEST = 2048  # tokens of a text, where the model sets no limit
NEW = 256  # tokens of an answer, where the task sets no limit


class RuntimeLM(LM):
    """The state that a runtime has loaded, for `lm_eval.simple_evaluate(model=...)`. Nothing is cached.

    Tokens are those of the harness' own `hf` models: context and continuation are tokenised together, without special tokens.

    Args:
        runtime: Holds the model.
    """

    def __init__(self, runtime: Runtime):
        super().__init__()
        self.runtime, self._device = runtime, runtime.base.device
        self.tokenizer = runtime.base.tokenizer
        self.longest = runtime.base.positions or LONGEST

    @property
    def tokenizer_name(self) -> str:
        """Name of the tokenizer."""
        return self.runtime.folder.name

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Return the chat template; empty without one."""
        return str(self.tokenizer.chat_template or "")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return turns in the chat template."""
        turns = [Message(turn["role"], turn["content"]) for turn in chat_history]
        return chat_text(turns, self.tokenizer, prompt=add_generation_prompt)

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Return log p(continuation | context) in nats, and whether greedy decoding writes the continuation, of each request."""
        return self._likelihoods([self.pair(*request.args) for request in requests])

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """Return log p(text) in nats of each request, in windows of the model's positions."""
        found = []
        for (text,) in (request.args for request in requests):
            windows = get_rolling_token_windows(self._ids(text), self._first, max_seq_len=self.longest, context_len=1)
            pairs = [make_disjoint_window(window) for window in windows]
            found.append(sum(value for value, _ in self._likelihoods(pairs)))
        return found

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Return the greedy continuation of each request up to the first of its texts that end it.

        Raises:
            BadInput: A task wants samples.
        """
        prompts, most, ends = [], [], []
        for context, options in (request.args for request in requests):
            if options.get("do_sample") and options.get("temperature", 1.0):
                raise BadInput("a task of lm-evaluation-harness wants sampled answers, and answers are greedy here")
            new = min(int(options.get("max_gen_toks", NEW)), self.longest // 2)
            until = options.get("until") or []
            prompts.append((self._ids(context) or [self._first])[-(self.longest - new) :])
            most.append(new)
            ends.append([until] if isinstance(until, str) else list(until))
        texts = []
        written = self._generated(prompts, most, (*self.runtime.base.stops, *self._single(ends)))
        for ids, stops in zip(written, ends, strict=True):
            text = self.tokenizer.decode(ids, skip_special_tokens=True)
            for stop in filter(None, stops):
                text = text.split(stop)[0]
            texts.append(text)
        return texts

    def _single(self, ends: Sequence[Sequence[str]]) -> list[int]:
        """Return the tokens that are one of the texts that end every request: writing can stop there."""
        shared = set(ends[0]).intersection(*ends[1:]) if ends else set()
        tokens = [self._ids(text) for text in sorted(shared)]
        return [own[0] for own in tokens if len(own) == 1]

    def pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Return the tokens of a context and of its continuation, which gets the white space at the end of the context."""
        context, continuation = moved(context, continuation)
        before = self._ids(context)
        whole = self._ids(context + continuation)
        return (before, whole[len(before) :]) if before else ([self._first], whole)

    def _likelihoods(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """Return log-likelihood and greediness of continuations; neighbours with one context run it once."""
        groups = [list(group) for _, group in groupby(range(len(pairs)), key=lambda n: pairs[n][0])]
        choices = [[pairs[n][1] for n in group] for group in groups]
        longest = [max(map(len, own)) for own in choices]
        prompts = [pairs[group[0]][0][-(self.longest - new) :] for group, new in zip(groups, longest, strict=True)]
        base = self.runtime.base
        values = choice_log_likelihoods(
            self.runtime.model, prompts, choices, pad=base.pad, precision=self.runtime.precision
        )
        written = self._generated(prompts, longest, ())
        return [
            (value, ids[: len(own)] == list(own))
            for likelihoods, texts, ids in zip(values, choices, written, strict=True)
            for value, own in zip(likelihoods, texts, strict=True)
        ]

    def _generated(self, prompts: Sequence[list[int]], most: Sequence[int], stops: Sequence[int]) -> list[list[int]]:
        runtime = self.runtime
        return generate(
            runtime.model, prompts, max_new_tokens=most, stops=stops, pad=runtime.base.pad, precision=runtime.precision
        )

    @property
    def _first(self) -> int:
        """The token before a text that has no context."""
        begin = self.tokenizer.bos_token_id
        return int(self.tokenizer.eos_token_id if begin is None else begin)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids
