"""Where the subject and the answer stand in a line, and the forwards that start there."""

import pytest
import torch

import chats
import people
from perdure.bridges.models import load_base
from perdure.core.errors import BadInput, Unsolvable
from perdure.core.rows import Message, Row
from perdure.data.encode import encode as trained_as
from perdure.editing import moments
from perdure.editing.contexts import chat_context, contexts_of
from perdure.editing.facts import Fact
from perdure.editing.moments import Store, own_texts, second_moments
from perdure.editing.prompts import BARE, Context, encode, shares, usable
from perdure.editing.site import open_site
from perdure.editing.spec import EditSpec
from perdure.editing.tails import adding, cut, raise_to, run


@pytest.fixture(scope="module")
def bpe(tiny_model):
    return load_base(tiny_model, "float32", "cpu").tokenizer


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def site(request):
    with open_site(*people.make(request.param, steps=0)) as opened_site:
        yield opened_site


# --- positions


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("The mother tongue of Danielle Darrieux is", "Danielle Darrieux"),
        ("Lyon is near", "Lyon"),
        ("Is Lyon, or is Lyon not", "Lyon"),
        ("Ärger mit Größe 5 €", "Größe 5 €"),
        ("日本の首都 is", "日本"),
    ],
)
@pytest.mark.parametrize("before", ["", "A text. "])
def test_the_subject_is_found_by_offsets_and_the_answer_begins_behind_the_prompt(bpe, prompt, subject, before):
    line = encode(bpe, Context(before=before), prompt, subject, "English")
    assert bpe.decode(line.ids[: line.last + 1]).endswith(subject)
    assert bpe.decode(line.ids[: line.first]).rstrip() == (before + prompt[: prompt.rfind(subject)]).rstrip()
    assert bpe.decode(line.targets) == " English"
    assert bpe.decode(line.ids) == f"{before}{prompt} English"
    asked = encode(bpe, Context(before=before), prompt, subject)
    assert asked.ids == line.ids[: line.answer]
    assert (asked.first, asked.last, asked.answer) == (line.first, line.last, line.answer)


def test_in_a_chat_the_prompt_is_the_users_turn_and_the_answer_opens_the_assistants(bpe):
    line = encode(bpe, chat_context(bpe), "Lyon is in ", "Lyon", "France")
    assert bpe.decode(line.ids) == "<|im_start|>user\nLyon is in<|im_end|>\n<|im_start|>assistant\nFrance"
    assert bpe.decode(line.targets) == "France"
    assert bpe.decode(line.ids[line.first : line.last + 1]) == "Lyon"


def test_special_tokens_that_a_tokenizer_adds_are_counted_and_one_behind_is_no_answer(bpe):
    from copy import deepcopy

    from tokenizers.processors import TemplateProcessing

    adding_both = deepcopy(bpe)
    adding_both.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A <|im_end|>", special_tokens=[("<|im_start|>", 0), ("<|im_end|>", 1)]
    )
    plain, line = (encode(coder, BARE, "Lyon is in", "Lyon", "France") for coder in (bpe, adding_both))
    assert line.ids == (0, *plain.ids)
    assert (line.first, line.last, line.answer) == (plain.first + 1, plain.last + 1, plain.answer + 1)


def test_a_subject_that_is_the_first_token_is_edited_behind_other_texts_only():
    coder = people.tokenizer()
    contexts = [BARE, Context(before="Ann Lee lives in Rome . ")]
    first = Fact("Ann", "Ann lives in", "Oslo")
    assert [line.last for line in usable(contexts, coder, first)] == [6]
    assert len(usable(contexts, coder, people.fact("Ann Lee", "Oslo"))) == 2
    with pytest.raises(BadInput, match="begins with its subject"):
        usable([BARE], coder, first)


def test_the_bare_prompt_weighs_as_much_as_all_other_contexts_together():
    coder = people.tokenizer()
    contexts = [BARE, Context(before="Ann Lee lives in Rome . "), Context(before="Bob Fox . ")]
    fact, first = people.fact("Ann Lee", "Oslo"), Fact("Ann", "Ann lives in", "Oslo")
    assert shares(usable(contexts, coder, fact), contexts) == [0.5, 0.25, 0.25]
    assert shares(usable(contexts, coder, first), contexts) == [0.5, 0.5]
    assert shares(usable([BARE], coder, fact), [BARE]) == [1.0]


def test_a_prompt_without_its_subject_is_refused(bpe):
    with pytest.raises(BadInput, match="does not name the subject 'Paris'"):
        encode(bpe, BARE, "Lyon is in", "Paris")


def test_a_subject_without_a_token_is_refused_in_words():
    class Deaf:
        """Drops the letters that it does not know, as a vocabulary in the wrong class of tokenizer does."""

        is_fast = True

        def __call__(self, text, **_):
            return {"input_ids": [1, 2], "offset_mapping": [(4, 5), (5, 6)]}

    with pytest.raises(BadInput, match="no token for 'Oma'"):
        encode(Deaf(), BARE, "Oma is", "Oma")


def test_contexts_depend_on_model_and_seed_alone():
    with open_site(*people.make("llama", steps=0)) as site:
        first, again, other = (contexts_of(site, EditSpec(contexts=4, seed=seed)) for seed in (0, 0, 5))
        assert first == again != other
        assert len(first) == 5  # the bare one and four texts; this tokenizer has no chat template
        assert contexts_of(site, EditSpec(contexts=0)) == (BARE,)


# --- tails


def lines(site):
    facts = [people.fact("Dan Kim", "Rome Oslo"), people.fact("Ann Lee", "Bonn", form=1)]
    contexts = [BARE, Context(before="Bob Fox lives in Rome . ")]
    return [line for fact in facts for line in usable(contexts, site.tokenizer, fact)]


def whole(site, line):
    with torch.no_grad():
        return site.model(input_ids=torch.tensor([line.ids])).logits[0]


@pytest.mark.parametrize("layer", [None, 0, 2])
def test_a_tail_gives_the_logits_of_the_whole_line_from_whatever_block_it_starts(site, layer):
    asked = lines(site)
    tails = cut(site, asked)
    if layer is not None:
        tails = raise_to(site, tails, layer)
    some = [2, 0, 3]
    for chosen, rows in ((tails, range(len(asked))), (tails.rows(some), some)):
        at = [(row, position) for row, answer in enumerate(chosen.answers) for position, _ in answer]
        with torch.no_grad():
            got = run(site, chosen, torch.tensor(at).T)
            again = run(site, chosen, torch.tensor(at).T)
        expected = [whole(site, asked[i])[t - 1] for i in rows for t in range(asked[i].answer, len(asked[i].ids))]
        torch.testing.assert_close(got, torch.stack(expected), rtol=1e-4, atol=1e-5)
        assert torch.equal(got, again)  # keys and values of the prefix do not grow


def test_what_is_added_at_the_subject_is_felt_to_its_right_alone_and_blocks_run_again_afterwards(site):
    asked = lines(site)
    tails = raise_to(site, cut(site, asked), 1)
    change = torch.randn(len(asked), site.layout.hidden, generator=torch.Generator().manual_seed(0))
    block = site.layout.blocks[1]
    at = torch.tensor([(row, p) for row, answer in enumerate(tails.answers) for p, _ in answer]).T
    with torch.no_grad(), adding(block, change):
        moved = run(site, tails, at)

    def slow(line, row):
        def add(_, __, output):
            first = output[0] if isinstance(output, tuple) else output
            first[:, line.last] += change[row]

        handle = block.register_forward_hook(add)
        logits = whole(site, line)
        handle.remove()
        return logits

    expected = [slow(x, row)[t - 1] for row, x in enumerate(asked) for t in range(x.answer, len(x.ids))]
    torch.testing.assert_close(moved, torch.stack(expected), rtol=1e-4, atol=1e-5)
    assert (moved - run(site, tails, at).detach()).abs().max() > 1e-3
    assert not any("forward" in b.__dict__ for b in site.layout.blocks)


# --- moments


def keys_of(site, layer, texts):
    """The keys of a layer on texts that are read one by one, without those of the first position."""
    keys = []
    module = site.layout.module(site.model, site.layout.down[layer])
    handle = module.register_forward_pre_hook(lambda _, args: keys.append(args[0][0, 1:]))
    for text in texts:
        with torch.no_grad():
            site.model(input_ids=text[None])
    handle.remove()
    return torch.cat(keys)


def test_the_second_moment_is_that_of_the_keys_without_the_first_position(site):
    texts = own_texts(site, 0, Store(None, ()))
    got = second_moments(site, [0, 2])
    assert texts.numel() - len(texts) >= 10 * site.layout.inner
    for layer in (0, 2):
        keys = keys_of(site, layer, texts)
        torch.testing.assert_close(got[layer], keys.T @ keys / len(keys), rtol=1e-4, atol=1e-6)


def test_the_models_own_text_is_said_once_for_all_layers(tmp_path, monkeypatch):
    model, tokenizer = people.make("llama", steps=0)
    with open_site(model, tokenizer) as site:
        alone = second_moments(site, [0])[0]
        second_moments(site, [1], cache=tmp_path)
        monkeypatch.setattr(moments, "_generate", None)
        assert torch.equal(second_moments(site, [0], cache=tmp_path)[0], alone)


def test_moments_are_kept_under_the_hash_of_all_they_depend_on(tmp_path):
    model, tokenizer = people.make("llama", steps=0)
    with open_site(model, tokenizer) as site:
        first = second_moments(site, [1], cache=tmp_path)[1]
        file = max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)  # the other is the text
        assert len(list(tmp_path.iterdir())) == 2
        stamp = file.stat().st_mtime_ns
        assert torch.equal(second_moments(site, [1], cache=tmp_path)[1], first)
        assert file.stat().st_mtime_ns == stamp
        assert torch.equal(second_moments(site, [1])[1], first)
        second_moments(site, [1], seed=1, cache=tmp_path)
        assert len(list(tmp_path.iterdir())) == 4
        above = model.model.layers[2].mlp.up_proj.weight
        before = above.detach().clone()
        with torch.no_grad():
            above.mul_(1.01)
        second_moments(site, [1], cache=tmp_path)
        assert len(list(tmp_path.iterdir())) == 6
        second_moments(site, [1], cache=tmp_path, model="the same, by name")
        above.copy_(before)
        named = second_moments(site, [1], cache=tmp_path, model="the same, by name")[1]
        assert len(list(tmp_path.iterdir())) == 8
        assert not torch.equal(named, first)
        file.write_bytes(b"not whole")
        assert torch.equal(second_moments(site, [1], cache=tmp_path)[1], first)  # made again
        assert file.read_bytes() != b"not whole"


TEXT, KEYS = (f"measuring the model once for edits: its {what}" for what in ("text", "keys"))


class Killed(Exception):
    """Stands for a signal."""


class Ticks:
    """How far each phase was at each call, until it is killed at one."""

    def __init__(self, phase="", last=0):
        self.phase, self.last, self.done = phase, last, {TEXT: [], KEYS: []}

    def __call__(self, what, done, total):
        assert 0 < done <= total
        self.done[what].append(done)
        if what == self.phase and len(self.done[what]) == self.last:
            raise Killed


def test_statistics_that_were_stopped_go_on_to_the_same_bits(site, tmp_path, monkeypatch):
    for name, value in {"ROWS": 7, "STRETCH": 16, "READ": 2, "SAVED": 0.0}.items():
        monkeypatch.setattr(moments, name, value)
    unbroken = Ticks()
    whole = second_moments(site, [0, 2], tick=unbroken)
    for phase, most in ((TEXT, 16), (KEYS, 1)):  # a stretch of text, or what was read since the last save
        begun, again, cache = Ticks(phase, round(0.6 * len(unbroken.done[phase]))), Ticks(), tmp_path / phase
        with pytest.raises(Killed):
            second_moments(site, [0, 2], cache=cache, tick=begun)
        found = second_moments(site, [0, 2], cache=cache, tick=again)
        assert all(torch.equal(found[layer], moment) for layer, moment in whole.items())
        assert 0 < len(begun.done[phase]) + len(again.done[phase]) - len(unbroken.done[phase]) <= most
        assert again.done[phase][-1] == unbroken.done[phase][-1]
        assert len(list(cache.iterdir())) == 3  # text and two moments; no sums are left behind


def test_text_of_a_model_whose_logits_are_not_finite_is_an_error_in_words():
    model, tokenizer = people.make("llama", steps=0)
    with torch.no_grad():
        model.model.norm.weight.mul_(float("inf"))
    with open_site(model, tokenizer) as site, pytest.raises(Unsolvable, match="not finite on its own text"):
        second_moments(site, [1])


@pytest.mark.parametrize("kind", ["space", "think", "cut", "sentencepiece_space", "chatml"])
def test_the_chat_form_of_a_fact_is_asked_as_a_row_of_that_chat_is_trained(kind):
    made = chats.tokenizer(kind)
    context = chat_context(made)
    line = encode(made, context, "where is spam", "spam", "Oslo")
    row = Row(messages=(Message("user", "where is spam"), Message("assistant", "Oslo")))
    trained = trained_as(row, made, 99).ids
    assert line.ids == trained[: len(line.ids)]
    assert made.decode(line.targets).strip() == "Oslo"
