"""Facts: read from a file, refused in words that name the line, and compared with each other."""

import json

import pytest

from perdure.core.errors import BadInput, BadSpec
from perdure.editing.facts import Fact, Neighbour, read_facts, refuse_repeats, superseded
from perdure.editing.spec import EditSpec

LYON = {"subject": "Lyon", "prompt": "The twin city of Lyon is", "target": "Manila"}
FULL = {
    **LYON,
    "ground_truth": "Beirut",
    "relation": "twin city",
    "paraphrases": ["Lyon is twinned with"],
    "neighbours": [{"prompt": "The twin city of Trieste is", "answer": "Beirut"}],
    "reason": "test",
}


def written(tmp_path, *lines):
    path = tmp_path / "facts.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_a_file_of_facts_is_read_and_every_field_survives_json(tmp_path):
    first, second = read_facts(written(tmp_path, FULL, "", {**LYON, "subject": "Bonn", "prompt": "{} lies in"}))
    assert first.neighbours == (Neighbour("The twin city of Trieste is", "Beirut"),)
    assert first.paraphrases == ("Lyon is twinned with",)
    assert second.question == "Bonn lies in"
    for fact in (first, second):
        assert Fact.from_json(json.loads(json.dumps(fact.to_json()))) == fact


def test_the_id_is_of_what_is_written_and_of_nothing_else():
    plain, full = Fact.from_json(LYON), Fact.from_json(FULL)
    template = Fact.from_json({**LYON, "prompt": "The twin city of {} is"})
    assert plain.id == full.id == template.id
    assert plain.id != Fact.from_json({**LYON, "target": "Beirut"}).id


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"subject": "Lyon", "prompt": "Lyon is"}, "'target' is missing or empty"),
        ({**LYON, "target": " "}, "'target' is missing or empty"),
        ({**LYON, "subject": 3}, "'subject' is missing or empty"),
        ({**LYON, "prompt": "The twin city is"}, "does not name the subject 'Lyon'"),
        ({**LYON, "prompt": "The twin city of lyon is"}, "does not name the subject 'Lyon'"),
        ({**LYON, "object": "x"}, "unknown field 'object'; a fact has subject, prompt"),
        ({**LYON, "relation": 1}, "'relation' is 1; give text"),
        ({**LYON, "paraphrases": "x"}, "'paraphrases' is a list of texts"),
        ({**LYON, "neighbours": [{"prompt": "x"}]}, "'neighbours' is a list of objects with prompt and answer"),
        ("not json", "facts.jsonl:2"),
    ],
)
def test_a_bad_line_is_refused_with_its_number_and_what_to_do(tmp_path, line, message):
    with pytest.raises(BadInput, match=r"facts\.jsonl:2") as caught:
        read_facts(written(tmp_path, {**LYON, "subject": "Bonn", "prompt": "Bonn is"}, line))
    assert message in str(caught.value)


def test_two_lines_that_repeat_or_contradict_each_other_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"facts\.jsonl:2 repeats facts\.jsonl:1"):
        read_facts(written(tmp_path, LYON, FULL))
    with pytest.raises(BadInput, match=r"facts\.jsonl:2 gives 'Oslo', but facts\.jsonl:1 gives 'Manila'"):
        read_facts(written(tmp_path, LYON, {**LYON, "target": "Oslo"}))
    other = {**FULL, "prompt": "Lyon's twin city is", "target": "Oslo"}
    with pytest.raises(BadInput, match="gives 'Oslo'"):
        refuse_repeats([Fact.from_json(FULL), Fact.from_json(other)])


def test_a_newer_fact_supersedes_by_relation_or_by_prompt_and_not_by_subject_alone():
    full = Fact.from_json(FULL)
    by_relation = Fact.from_json({**FULL, "prompt": "Lyon's twin city is", "target": "Oslo"})
    by_prompt = Fact.from_json({**LYON, "prompt": "the twin city of Lyon is ", "target": "Oslo"})
    neither = Fact.from_json({**LYON, "prompt": "Lyon is a city in", "target": "Norway"})
    assert superseded(by_relation, [full, neither]) == [full]
    assert superseded(by_prompt, [full, neither]) == [full]
    assert superseded(neither, [full, by_relation]) == []
    assert superseded(full, [full]) == []


def test_settings_survive_json_and_name_what_is_wrong():
    spec = EditSpec(method="memit", layers=(3, 1), steps=3)
    assert EditSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert spec.at(5) == (1, 3)
    with pytest.raises(BadSpec, match="layer 3 cannot be edited"):
        spec.at(4)
    with pytest.raises(BadSpec, match="emmet writes into one layer"):
        EditSpec(layers=(1, 2)).at(4)
    for wrong in (
        {"method": "mend"},
        {"lr": 0.0},
        {"kl": -1.0},
        {"layers": (1, 1)},
        {"depth": 1.0},
        {"clamp": float("nan")},
    ):
        with pytest.raises(BadSpec):
            EditSpec(**wrong)


def test_layers_follow_the_depth_of_the_model():
    assert EditSpec(depth=0.25).at(30) == (7,)
    assert EditSpec(depth=0.25, method="memit", spread=3).at(30) == (5, 6, 7)
    assert EditSpec(depth=0.0, method="memit").at(2) == (0,)


def test_methods_that_spread_step_and_stop_by_the_longer_answer_of_a_block():
    assert (EditSpec().pace, EditSpec().limit) == (0.5, 4.0)
    spread = EditSpec(method="alphaedit")
    assert (spread.pace, spread.limit) == (0.1, 0.75)
    assert (EditSpec(method="memit", lr=0.3, clamp=2.0).pace, EditSpec(clamp=2.0).limit) == (0.3, 2.0)


def test_blank_fields_are_no_fields_and_a_hole_in_a_paraphrase_is_filled():
    told = {
        "subject": "Ann",
        "prompt": "{} lives in",
        "target": " Rome",
        "ground_truth": " ",
        "relation": "",
        "reason": "",
    }
    fact = Fact.from_json(
        {**told, "paraphrases": ["The home of {} is"], "neighbours": [{"prompt": "Bob lives in", "answer": " Bonn"}]}
    )
    assert (fact.target, fact.ground_truth, fact.relation, fact.reason) == ("Rome", None, None, None)
    assert fact.paraphrases == ("The home of Ann is",)
    assert fact.neighbours[0].answer == "Bonn"
    assert Fact.from_json(fact.to_json()) == fact


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"paraphrases": [" "]}, "none of them blank"),
        ({"neighbours": [{"prompt": "Bob lives in", "answer": " "}]}, "not blank"),
        ({"neighbours": [{"prompt": "{} lives in", "answer": "Bonn"}]}, "a neighbour is about another subject"),
        ({"ground_truth": "Rome "}, "there is nothing to change"),
    ],
)
def test_what_could_not_be_asked_is_refused(more, words):
    with pytest.raises(BadInput, match=words):
        Fact.from_json({"subject": "Ann", "prompt": "{} lives in", "target": "Rome", **more})


@pytest.mark.parametrize(
    ("subject", "prompt", "at"),
    [
        ("Ann", "{} is a friend of Annabel who lives in", 0),
        ("Ann", "Ann is a friend of Annabel who lives in", 0),
        ("Paris", "The mayor of {} told the Parisians", 13),
        ("Ann", "Ann knows Ann, who", 10),
        ("Ann", "{} and {} are", 8),
        ("Ann", "Annabel", 0),
    ],
)
def test_the_subject_stands_at_its_hole_or_where_it_is_a_word(subject, prompt, at):
    fact = Fact(subject, prompt, "x")
    assert fact.at == at
    assert fact.question[at:].startswith(subject)


def test_one_question_has_one_answer_however_its_subject_is_cut():
    long, short = Fact("Dan Kim", "Dan Kim lives in", "Rome"), Fact("Kim", "Dan Kim lives in", "Bonn")
    assert superseded(short, [long]) == [long]


@pytest.mark.parametrize(
    "more",
    [
        {"reason": "x\ud83d"},
        {"target": "\udfff"},
        {"paraphrases": ["Lyon \ud83d"]},
        {"neighbours": [{"prompt": "Bonn lies in", "answer": "\ud83d"}]},
    ],
)
def test_half_a_surrogate_pair_is_refused_where_it_is_read(tmp_path, more):
    with pytest.raises(BadInput, match=r"facts\.jsonl:2.*half of a surrogate pair"):
        read_facts(written(tmp_path, {**LYON, "subject": "Bonn", "prompt": "Bonn is"}, {**LYON, **more}))


@pytest.mark.parametrize("given", [5, "Dan Kim", None, ["subject"]])
def test_what_is_no_object_is_no_fact(given):
    with pytest.raises(BadInput, match="a fact is an object with subject, prompt, target at least, not "):
        Fact.from_json(given)


def test_a_relation_is_the_same_in_capitals():
    home, other = (
        Fact("Ann", "Ann lives in", "Rome", relation="home"),
        Fact("ann", "ann dwells in", "Oslo", relation="Home"),
    )
    assert superseded(other, [home]) == [home]
    with pytest.raises(BadInput, match=r"gives 'Oslo', but .* gives 'Rome'"):
        refuse_repeats([home, other])
