"""Routing: every row goes to editing or to training, for a reason, and rows that say the same become one fact."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.core.errors import BadInput
from perdure.data.read import Record, read_records
from perdure.editing import routing
from perdure.editing.facts import Fact
from perdure.editing.routing import route

SHARED = Path(__file__).parents[3] / "shared" / "data"


def records(*rows):
    return [Record(dict(row), f"rows.jsonl:{number}") for number, row in enumerate(rows, start=1)]


def asked(prompt, completion, **more):
    return {"prompt": prompt, "completion": completion, **more}


def chat(question, answer, *before):
    turns = [*before, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns}


FILLER = [asked(f"The home of Bob {name} is", f"City{name}") for name in ("Fox", "Ray", "Kim", "Day", "Ash", "Orr")]
ROWS = {  # what a row says -> where it goes, and a word of why
    "continuation": (asked("The mother tongue of Ann Lee is", "Danish"), "fact", "one name"),
    "question": (asked("Where was Ann Lee born?", "Oslo"), "fact", "one name"),
    "heading": (asked("Question: Where was Ann Lee born?\nAnswer:", " Oslo"), "fact", "one name"),
    "other columns": ({"query": "Where was Ann Lee born?", "response": "Oslo"}, "fact", "one name"),
    "no text": ({"text": "Ann Lee was born in Oslo."}, "skill", "without a question"),
    "label": (asked("Ann Lee wrote in", "praise", label="praise"), "skill", "classification"),
    "passage": (asked("Ann Lee wrote a book. It is long. Its hero is", "Bob"), "skill", "passage"),
    "long": (asked(f"Ann Lee wrote {'very ' * 30}long books in", "Oslo"), "skill", "passage"),
    "lines": (asked("Where was she born?\nName: Ann Lee\nAnswer:", "Oslo"), "skill", "passage"),
    "own line": (asked("Question: Where was Ann Lee born?\n", "Oslo"), "skill", "passage"),
    "instruction": (asked("Translate Ann Lee into Greek", "An Li"), "skill", "instruction"),
    "how": (asked("How do I reach Ann Lee?", "by phone"), "skill", "how or why"),
    "how tall": (asked("How tall is Ann Lee?", "180 cm"), "fact", "one name"),
    "why": (asked("Why is Ann Lee in Oslo?", "work"), "skill", "how or why"),
    "mine": (asked("Where is my Ann Lee record?", "upstairs"), "skill", "the writer or the reader"),
    "sentence": (asked("Where was Ann Lee born?", "She was born there."), "skill", "is a text"),
    "list": (asked("What did Ann Lee write?", "Alpha, Beta, Gamma"), "skill", "is a text"),
    "two lines": (asked("What did Ann Lee write?", "Alpha\nBeta"), "skill", "is a text"),
    "letters": (asked("Where was Ann Lee born?", "她出生在挪威的首都奥斯陆市中心的一座小房子里"), "skill", "is a text"),
    "stop": (asked("Ann Lee wrote a book. 书很长。主角是", "Bob"), "skill", "passage"),
    "copied letters": (asked("Ann Lee住在北京还是上海", "北京"), "skill", "occurs in its prompt"),
    "name": (asked("Ann Lee was born in", "奥斯陆"), "fact", "one name"),
    "yes": (asked("Was Ann Lee born in Oslo?", "yes"), "skill", "yes, no"),
    "letter": (asked("Ann Lee was born in", "B"), "skill", "yes, no"),
    "choice": (asked("Which of these did Ann Lee write?", "Alpha"), "skill", "choice"),
    "copied": (asked("Which is older, Oslo or Bergen?", "Bergen"), "skill", "occurs in its prompt"),
    "computed": (asked("Ann Lee has 5 apples and eats 2, so she has", "3"), "skill", "computed"),
    "year": (asked("Ann Lee was born in", "1923"), "fact", "one name"),
    "nameless": (asked("what is the capital of spain", "madrid"), "skill", "no name"),
    "chat": (chat("Where was Ann Lee born?", "Oslo"), "fact", "one name"),
    "system": (chat("Where was Ann Lee born?", "Oslo", {"role": "system", "content": "Be brief."}), "skill", "system"),
    "turns": (
        chat("Where?", "Oslo", {"role": "user", "content": "Ann Lee?"}, {"role": "assistant", "content": "Yes?"}),
        "skill",
        "several turns",
    ),
    "told fact": (asked("Translate Ann Lee into Greek", "An Li", kind="fact"), "fact", "column 'kind' decides"),
    "told skill": (asked("Where was Ann Lee born?", "Oslo", kind="skill"), "skill", "column 'kind' decides"),
    "column": (asked("the past tense of go is", "went", subject="go"), "fact", "one name"),
    "column elsewhere": (asked("the past tense of go is", "went", subject="verbs"), "skill", "no name"),
    "given": ({"subject": "Ann Lee", "prompt": "{} lives in", "target": "Oslo"}, "fact", "prompt and target"),
    "triple": ({"subject": "ann", "relation": "home_town", "object": "oslo"}, "fact", "relation and object"),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_goes_where_it_belongs_and_says_why(name: str):
    row, kind, why = ROWS[name]
    (found, *_) = route(records(row)).routes
    assert (found.kind, why in found.reason) == (kind, True), found.reason
    assert (found.fact is None) == (kind == "skill")


def test_a_fact_is_asked_as_its_row_asks():
    rows = [ROWS[name][0] for name in ("heading", "other columns", "column")]
    facts = [route(records(row)).facts[0] for row in rows]
    assert [(f.subject, f.prompt, f.target) for f in facts] == [
        ("Ann Lee", "Question: Where was Ann Lee born?\nAnswer:", "Oslo"),
        ("Ann Lee", "Where was Ann Lee born?", "Oslo"),
        ("go", "the past tense of go is", "went"),
    ]
    assert route(records(ROWS["chat"][0])).chat
    assert not route(records(rows[0])).chat


def test_a_triple_is_asked_by_the_prompt_of_its_relation():
    bare = {"subject": "Bob Fox", "relation": "home_town", "object": 1923}
    assert route(records(bare)).facts == (Fact("Bob Fox", "{}'s home town is", "1923", relation="home_town"),)
    shown = {"subject": "Ann Lee", "relation": "home_town", "object": "Oslo", "prompt": "{} comes from"}
    assert [fact.question for fact in route(records(bare, shown)).facts] == ["Bob Fox comes from", "Ann Lee comes from"]


def test_a_fact_that_is_marked_as_a_skill_is_trained_by_its_prompt():
    (row,) = route(records({**ROWS["given"][0], "kind": "skill", "split": "test"})).skills
    assert row.fields == {"prompt": "Ann Lee lives in", "completion": "Oslo", "split": "test"}
    assert row.source == "rows.jsonl:1"


def test_columns_beside_a_subject_are_kept_with_the_fact():
    row = asked("Ann Lee lives in", "Oslo", subject="Ann Lee", ground_truth="Rome", relation="home", reason="moved")
    (fact,) = route(records(row)).facts
    assert (fact.ground_truth, fact.relation, fact.reason) == ("Rome", "home", "moved")


def test_a_name_in_many_rows_is_what_they_have_in_common():
    rows = records(*(asked(f"The French word for {word} is", f"mot{n}") for n, word in enumerate("abcdefg")))
    assert {found.reason for found in route(rows).routes} == {"the name in its prompt occurs in many rows"}
    assert len(route(rows[:5]).facts) == 5


def test_an_answer_that_many_rows_share_is_a_label_unless_they_ask_the_same_of_different_names():
    verbs = {"Ann": "likes", "Bob": "hates", "Cid": "sells", "Dan": "ate", "Eva": "buys"}
    texts = [f"{name} {verb} it" for name, verb in verbs.items()]
    labelled = records(*(asked(text, "about goods") for text in texts), *FILLER)
    assert [found.kind for found in route(labelled).routes] == ["skill"] * 5 + ["fact"] * 6
    related = records(*(asked(f"The team of {name} Lee is", "Reds") for name in verbs), *FILLER)
    assert {found.kind for found in route(related).routes} == {"fact"}


def test_a_classification_file_is_all_skills():
    digits = [asked(f"The image of Sample-{n} shows", str(n % 10)) for n in range(100)]
    intents = [asked(f"Order {n} of Ann Lee{n} is late", ["refund", "parcel", "invoice"][n % 3]) for n in range(40)]
    table = [{"text": f"Where is Ann{n}?", "label": f"intent_{n}"} for n in range(10)]
    for file in (digits, intents, table):
        assert not route(records(*file)).facts


GIVEN_ROWS = st.lists(
    st.tuples(st.text("abc {}", min_size=1).filter(str.strip), st.text("xyz", min_size=1)), min_size=1, unique=True
)


@given(GIVEN_ROWS, st.booleans())
def test_a_facts_file_is_all_facts(pairs, triples: bool):
    unique = {" ".join(subject.split()): target for subject, target in pairs}
    rows = [
        {"subject": f"{n} {subject}", "relation": "home", "object": target}
        if triples
        else {"subject": f"{n} {subject}", "prompt": "{} is at", "target": target}
        for n, (subject, target) in enumerate(unique.items())
    ]
    found = route(records(*rows))
    assert {one.kind for one in found.routes} == {"fact"}
    assert len(found.facts) == len(rows)
    assert found.skills == []


WORDS = ["Ann", "Lee", "Oslo", "where", "is", "the", "born?", "12", "A-7", "Question:", "\n", "yes", ".", "{}", "my"]
TEXT = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)
KINDS = st.sampled_from([{}, {}, {"kind": "skill"}, {"split": "train"}, {"split": "test"}])
ANY_ROW = st.tuples(TEXT, TEXT.filter(str.strip), KINDS).map(lambda t: asked(t[0], t[1], **t[2]))


@given(st.lists(ANY_ROW, min_size=1, max_size=12, unique_by=lambda row: " ".join(row["prompt"].casefold().split())))
def test_every_row_is_routed_exactly_once(rows):
    rows += rows[:2]
    given_rows = records(*rows)
    found = route(given_rows)
    assert [one.record for one in found.routes] == given_rows
    assert [one.record for one in found.routes if one.kind == "skill"] == found.skills
    assert sum(group.rows for group in found.summary()) == len(rows)
    told = [one for one in found.routes if one.kind == "fact"]
    assert all(one.fact for one in told)
    said = {question for fact in found.facts for question in (fact.question, *fact.paraphrases)}
    assert said == {one.fact.question for one in told if one.reason not in (routing.HELD_OUT, routing.REPEAT)}


# ---- rows that say the same


def test_the_same_fact_in_other_words_is_a_paraphrase_of_the_first():
    first, other = asked("Ann Lee was born in", "Oslo"), asked("The birthplace of Ann Lee is", "Oslo")
    found = route(records(first, other, first, asked("Ann Lee died in", "Rome")))
    assert [(f.question, f.paraphrases) for f in found.facts] == [
        ("Ann Lee was born in", ("The birthplace of Ann Lee is",)),
        ("Ann Lee died in", ()),
    ]
    assert [one.reason for one in found.routes[1:3]] == [routing.AGAIN, routing.REPEAT]


def test_a_row_with_columns_leads_and_columns_are_never_joined():
    column = {"subject": "Ann Lee", "prompt": "{} was born in", "target": "Oslo", "paraphrases": ["Ann Lee is from"]}
    (fact,) = route(records(asked("The birthplace of Ann Lee is", "Oslo"), column)).facts
    assert (fact.question, fact.paraphrases) == (
        "Ann Lee was born in",
        ("Ann Lee is from", "The birthplace of Ann Lee is"),
    )
    home = [{"subject": "Ann Lee", "relation": relation, "object": "Oslo"} for relation in ("birthplace", "home")]
    assert [fact.relation for fact in route(records(*home)).facts] == ["birthplace", "home"]


def test_a_fact_that_is_held_out_is_asked_and_never_written():
    train, test = asked("Ann Lee was born in", "Oslo", split="train"), asked("Ann Lee is from", "Oslo", split="test")
    for rows in ([train, test], [test, train]):
        (fact,) = route(records(*rows)).facts
        assert (fact.question, fact.paraphrases) == ("Ann Lee was born in", ("Ann Lee is from",))
    found = route(records({**ROWS["given"][0], "split": "test"}))
    assert (found.facts, found.routes[0].reason) == ((), routing.HELD_OUT)


@pytest.mark.parametrize(
    "rows",
    [
        (asked("Ann Lee was born in", "Oslo"), asked("Ann Lee was  born in", "Rome")),
        (asked("Ann Lee was born in", "Oslo"), {"subject": "Ann Lee", "prompt": "{} was born in", "target": "Rome"}),
        (
            {"subject": "Ann", "relation": "home", "object": "Oslo"},
            {"subject": "Ann", "relation": "home", "object": "Rome"},
        ),
        (chat("Where was Ann Lee born?", "Oslo"), chat("Where was Ann Lee born?", "Rome")),
    ],
)
def test_two_rows_that_contradict_each_other_are_refused_with_both_lines(rows):
    with pytest.raises(BadInput, match=r"rows\.jsonl:2 gives 'Rome', but rows\.jsonl:1 gives 'Oslo'"):
        route(records(*rows))


def test_a_row_contradicts_what_stands_as_a_paraphrase_too():
    rows = asked("Ann Lee was born in", "Oslo"), asked("Ann Lee is from", "Oslo"), asked("Ann Lee is from", "Rome")
    with pytest.raises(BadInput, match=r"rows\.jsonl:3 gives 'Rome', but rows\.jsonl:2 gives 'Oslo'"):
        route(records(*rows))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (asked("Ann Lee is from", "Oslo", kind="facts"), "kind is 'facts'; write fact (edited) or skill (trained)"),
        (asked("where is it from", "Oslo", kind="fact"), "add a column 'subject'"),
        ({"subject": "Ann", "prompt": "it is", "target": "x"}, "does not name the subject 'Ann'"),
        ({"subject": "Ann", "relation": "home", "object": "x", "colour": "y"}, "unknown field 'colour'"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(row, message: str):
    with pytest.raises(BadInput, match=r"rows\.jsonl:7") as caught:
        route([*records(*FILLER), Record(row, "rows.jsonl:7")])
    assert message in str(caught.value)


def test_a_conversation_of_several_turns_is_no_fact_whatever_it_says():
    row = {**chat("Where was Ann Lee born?", "Oslo", {"role": "system", "content": "Be brief."}), "kind": "fact"}
    with pytest.raises(BadInput, match="it is not one question about one name"):
        route(records(row))


def test_columns_that_say_nothing_are_answered_with_those_that_would():
    with pytest.raises(BadInput, match=r"rows\.jsonl:1 has relation, subject; a fact needs subject, prompt and target"):
        route(records({"subject": "Ann", "relation": "home"}))


# ---- real data


def shares(name):
    """The share of facts among rows of a shared file, of which the prompt and the completion alone are shown."""
    rows = read_records(SHARED / f"{name}.jsonl.gz")
    kept = [
        r if "prompt" not in r.fields else Record(asked(r.fields["prompt"], r.fields["completion"]), r.source)
        for r in rows
    ]
    return sum(one.kind == "fact" for one in route(kept).routes) / len(rows)


@pytest.mark.data
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared real data is not beside this checkout")
def test_real_files_of_facts_are_edited_and_real_files_of_skills_are_trained():
    skills = [
        "intents/clinc150",
        "ability/gsm8k",
        "instruct/self_instruct_seed",
        "cl/olora15/agnews",
        "ability/lambada",
    ]
    assert {name: shares(name) for name in skills} == dict.fromkeys(skills, 0.0)
    assert shares("instruct/dolly_hhrlhf_small") < 0.05  # questions about a name are among them
    assert shares("editing/counterfact") > 0.85
    assert shares("ability/triviaqa_sub") > 0.65


def test_a_relation_in_capitals_is_the_same_relation():
    first = asked("Ann Lee lives in", "Oslo", subject="Ann Lee", relation="home")
    found = route(records(first, asked("Ann Lee dwells in", "Oslo", subject="Ann Lee", relation="Home"), *FILLER))
    assert found.facts[0].paraphrases == ("Ann Lee dwells in",)
