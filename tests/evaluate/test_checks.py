"""Checks of answers: each kind on texts that have the property and on texts that lack it."""

import json

import pytest

from perdure.core.errors import BadInput
from perdure.core.rows import Check
from perdure.evaluate.checks import KINDS, follows, refuse_wrong
from perdure.evaluate.checks.language import language_of
from perdure.evaluate.checks.wording import count_sentences

ENGLISH = "the weather is nice today and we will go to the park"
AT_LEAST, LESS_THAN = "at least", "less than"

CASES: list[tuple[str, dict, list[str], list[str]]] = [
    ("keywords:existence", {"keywords": ["Moon", "tide"]}, ["Tides follow the MOON."], ["The moon.", "High tide."]),
    (
        "keywords:frequency",
        {"keyword": "sun", "frequency": 2, "relation": AT_LEAST},
        ["Sun after sun.", "On Sunday the sun shone."],
        ["The sun.", "Rain."],
    ),
    ("keywords:frequency", {"keyword": "c++", "frequency": 2, "relation": LESS_THAN}, ["C++", "ccc"], ["C++ or c++"]),
    (
        "keywords:forbidden_words",
        {"forbidden_words": ["bad", "c++"]},
        ["A badge in c+.", "Good."],
        ["Too bad!", "BAD", "I like C++."],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "Q", "let_frequency": 2, "let_relation": AT_LEAST},
        ["Quick question"],
        ["Quiet", "none"],
    ),
    ("keywords:letter_frequency", {"letter": "!", "let_frequency": 1, "let_relation": LESS_THAN}, ["Hi."], ["Hi!"]),
    ("language:response_language", {"language": "de"}, ["Das ist nicht mein Hund."], ["That is not my dog.", "1234"]),
    (
        "length_constraints:number_words",
        {"num_words": 3, "relation": AT_LEAST},
        ["One two three", "It's me"],
        ["One-two"],
    ),
    ("length_constraints:number_words", {"num_words": 3, "relation": LESS_THAN}, ["Two words."], ["Now three words"]),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": AT_LEAST},
        ["One. Two!"],
        ["Dr. Who is in."],
    ),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": LESS_THAN}, ["Just one"], ["One? Two."]),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["One\n***\nTwo", "***\nOne\n***\nTwo\n***"],
        ["One\n\nTwo", "One\n***\n\n***\nTwo", "1 *** 2 *** 3"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"},
        ["First.\n\nthen, more.", 'A\n\n"Then it" ended'],
        ["Then.\n\nFirst.", "A\n\nThence", "A\n\nB\n\nThen", "Then"],
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["[name] at [place]"],
        ["[name]", "[na\nme] [x]"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.P.S"},
        ["Bye.\nP.P.S. Call me", "p. p. s hello"],
        ["Bye.\nP.S. Call me"],
    ),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["p. s. call"], ["PS call"]),
    ("detectable_content:postscript", {"postscript_marker": "N.B."}, ["n.b. this"], ["nobe"]),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* one\n* two", "- one\n  - two", "* one\n- two\n**bold**"],
        ["* one", "- one\n- two\n- three", "1. one\n2. two"],
    ),
    (
        "detectable_format:constrained_response",
        {},
        ["My answer is maybe.", "Well. My answer is no. Sorry"],
        ["Yes.", "my answer is yes."],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*one* and *two*", "**one** and *two*"],
        ["*one*", "* one\n* two", "****"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Part", "num_sections": 2},
        ["Part 1\nA\nPart 2\nB"],
        ["Part 1\nA", "Part one Part two"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": [1, 2]}', '```json\n{"a": 1}\n```', "3"],
        ["{'a': 1}", '{"a": 1} ok'],
    ),
    ("detectable_format:title", {}, ["<<On Joy>>\nText"], ["<On Joy>", "<< >>", "<<On\nJoy>>"]),
    (
        "combination:two_responses",
        {},
        ["One.\n******\nTwo.", "One ****** Two ******"],
        ["Same\n******\nSame", "One", "1 ****** 2 ****** 3", "1 ****** ****** 2"],
    ),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Name a bird."},
        ["name a bird. A robin."],
        ["A robin. Name a bird."],
    ),
    ("startend:end_checker", {"end_phrase": "That is all."}, ['Done. that is all."'], ["That is all. Bye."]),
    ("startend:quotation", {}, [' "All of it." '], ['"', '"Some" of it', "None"]),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": AT_LEAST},
        ["NASA and ESA", "I like COVID-19 news", "DON'T go"],
        ["NASA and Esa", "Nothing"],
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 1, "capital_relation": LESS_THAN},
        ["No one"],
        ["A dog"],
    ),
    (
        "change_case:english_capital",
        {},
        [ENGLISH.upper(), "1. CODE CRAFT\n2. PIXELS"],
        [ENGLISH, ENGLISH.capitalize(), "ПИВО", "LIMA 2023", "DAS IST NICHT MEIN HUND"],
    ),
    (
        "change_case:english_lowercase",
        {},
        [ENGLISH],
        [ENGLISH.upper(), ENGLISH.capitalize(), "das ist nicht mein hund"],
    ),
    ("punctuation:no_comma", {}, ["One; two."], ["One, two."]),
    ("text:pattern", {"pattern": r"\d{4}"}, ["1984", " 2001\n"], ["In 1984", "84"]),
    (
        "text:begins",
        {"options": ["The Beatles", "A", "🐎"]},
        ["Beatles.", "the beatles, of course", "A", " 🐎!"],
        ["I like the Beatles", "Beat", "!", "horse 🐎"],
    ),
    ("text:words", {"least": 2, "most": 3}, ["It's me.", "- one two three"], ["One", "One two three four"]),
    ("text:words", {"most": 1}, ["Paris."], ["In Paris"]),
    ("text:lines", {"least": 2, "most": 2}, ["a\n\nb\n"], ["a", "a\nb\nc"]),
]


@pytest.mark.parametrize(("kind", "arguments", "right", "wrong"), CASES, ids=[case[0] for case in CASES])
def test_a_kind_passes_texts_with_the_property_and_fails_the_others(kind, arguments, right, wrong):
    check = Check(kind, json.dumps(arguments) if arguments else "")

    assert {text: follows(check, text) for text in (*right, *wrong)} == {
        **dict.fromkeys(right, True),
        **dict.fromkeys(wrong, False),
    }


def test_every_kind_is_among_the_cases_and_25_are_those_of_ifeval():
    assert {case[0] for case in CASES} == set(KINDS)
    assert sum(not kind.startswith("text:") for kind in KINDS) == 25


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
@pytest.mark.parametrize("empty", ["", " \n\t "])
def test_an_empty_answer_follows_nothing(case, empty):
    check = Check(case[0], json.dumps(case[1]))

    assert not follows(check, empty)
    assert not follows(check, empty, loose=True)


@pytest.mark.parametrize(
    ("kind", "arguments", "answer"),
    [
        ("punctuation:no_comma", "", "Sure, here it is:\nNo comma here"),
        ("startend:end_checker", '{"end_phrase": "Bye."}', "Hello. Bye.\nLet me know if I can help."),
        ("detectable_format:json_format", "", "Here you go:\n[1, 2]\nEnjoy!"),
        ("text:pattern", '{"pattern": "Paris"}', "**Paris**"),
    ],
)
def test_loose_leaves_out_the_first_line_the_last_line_and_asterisks(kind, arguments, answer):
    assert not follows(Check(kind, arguments), answer)
    assert follows(Check(kind, arguments), answer, loose=True)


def test_what_follows_strictly_follows_loosely():
    for kind, arguments, right, _ in CASES:
        assert all(follows(Check(kind, json.dumps(arguments)), text, loose=True) for text in right), kind


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (Check("punctuation:no_commas"), "did you mean 'punctuation:no_comma'?"),
        (Check("zzz"), "known are keywords:existence"),
        (Check("punctuation:no_comma", '{"n": 1}'), "has no argument 'n'; it takes none"),
        (Check("length_constraints:number_words", '{"num_words": 3}'), "needs the argument 'relation'"),
        (Check("length_constraints:number_words", '{"num_words": 3, "relation": "more"}'), "'at least' or 'less than'"),
        (Check("length_constraints:number_words", '{"num_words": -1, "relation": "at least"}'), "whole number"),
        (Check("length_constraints:number_words", '{"num_words": true, "relation": "at least"}'), "whole number"),
        (Check("keywords:existence", '{"keywords": "moon"}'), "a list of texts"),
        (Check("keywords:existence", '{"keywords": [" "]}'), "a text that is not empty"),
        (
            Check("keywords:letter_frequency", '{"letter": "ab", "let_frequency": 1, "let_relation": "at least"}'),
            "one char",
        ),
        (Check("language:response_language", '{"language": "xx"}'), "must be one of"),
        (Check("text:pattern", '{"pattern": "("}'), "is not a regular expression"),
        (Check("text:words"), "needs one of its arguments; it takes least, most"),
    ],
)
def test_a_wrong_check_is_refused_with_what_to_do(check, said):
    with pytest.raises(BadInput) as error:
        refuse_wrong(check)
    assert said in str(error.value)
    with pytest.raises(BadInput):
        follows(check, "Some answer.")


def test_an_argument_that_a_table_left_empty_or_wrote_as_a_decimal_is_read():
    check = Check("length_constraints:number_words", '{"num_words": 2.0, "relation": "at least", "keywords": null}')

    assert follows(check, "two words")


def test_a_pattern_that_tries_every_way_to_split_a_text_is_refused():
    with pytest.raises(BadInput, match="did not end within"):
        follows(Check("text:pattern", '{"pattern": "(a|aa)+b"}'), "a" * 4000)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("No mark at all", 1),
        ("Mr. Fox met Dr. J. Hill at 3.30 p.m. on Monday. They talked!", 2),
        ("1. Wash it.\n2. Dry it.", 2),
        ('He said "Stop!" Then he left...', 2),
        ("A title\n\nA text without a mark", 2),
        ("Visit example.com, e.g. today.", 1),
        ("真的吗？是的。", 2),
        ("... !", 0),
        ("We met at 5 p.m.", 1),
    ],
)
def test_sentences_are_counted(text, sentences):
    assert count_sentences(text) == sentences


TEXTS = {
    "en": "There is a small house near the river, and nobody has lived in it for years.",
    "de": "Am Fluss steht ein kleines Haus, in dem seit Jahren niemand mehr wohnt.",
    "fr": "Il y a une petite maison près de la rivière, et personne n'y habite depuis des années.",
    "es": "Hay una casa pequeña cerca del río, y nadie vive en ella desde hace años.",
    "it": "C'è una piccola casa vicino al fiume e nessuno ci abita da anni.",
    "pt": "Há uma pequena casa perto do rio, e ninguém mora nela há anos.",
    "nl": "Er staat een klein huis bij de rivier en er woont al jaren niemand meer in.",
    "sv": "Det finns ett litet hus vid floden och ingen har bott i det på flera år.",
    "fi": "Joen lähellä on pieni talo, eikä siinä ole asunut ketään vuosiin.",
    "pl": "Nad rzeką stoi mały dom i od lat nikt w nim nie mieszka.",
    "vi": "Có một ngôi nhà nhỏ gần sông và không ai sống trong đó nhiều năm nay.",
    "sw": "Kuna nyumba ndogo karibu na mto na hakuna mtu aliyeishi ndani yake kwa miaka mingi.",
    "tr": "Nehrin yanında küçük bir ev var ve yıllardır içinde kimse oturmuyor.",
    "ru": "У реки стоит маленький дом, и в нём уже много лет никто не живёт.",
    "bg": "Край реката има малка къща и от години никой не живее в нея.",
    "uk": "Біля річки стоїть маленький будинок, і вже багато років у ньому ніхто не живе.",
    "ar": "هناك منزل صغير بالقرب من النهر ولم يسكن فيه أحد منذ سنوات.",
    "fa": "یک خانه کوچک در کنار رودخانه است و سال‌هاست که کسی در آن زندگی نمی‌کند.",
    "ur": "دریا کے قریب ایک چھوٹا گھر ہے اور اس میں برسوں سے کوئی نہیں رہتا۔",
    "hi": "नदी के पास एक छोटा घर है और उसमें वर्षों से कोई नहीं रहता।",
    "mr": "नदीजवळ एक छोटे घर आहे आणि त्यात अनेक वर्षांपासून कोणीही राहत नाही.",
    "ne": "नदी नजिकै एउटा सानो घर छ र त्यसमा वर्षौंदेखि कोही बस्दैन।",
    "bn": "নদীর কাছে একটি ছোট বাড়ি আছে।",
    "ta": "ஆற்றின் அருகே ஒரு சிறிய வீடு உள்ளது.",
    "th": "มีบ้านหลังเล็กอยู่ใกล้แม่น้ำ",
    "ko": "강 근처에 작은 집이 있습니다.",
    "ja": "川の近くに小さな家があります。",
    "zh": "河边有一座小房子。",
    "el": "Υπάρχει ένα μικρό σπίτι κοντά στο ποτάμι.",
    "he": "יש בית קטן ליד הנהר.",
}  # fmt: skip


@pytest.mark.parametrize("language", TEXTS)
def test_a_language_is_recognised_whatever_the_case(language):
    assert language_of(TEXTS[language]) == language
    assert language_of(TEXTS[language].upper()) == language


@pytest.mark.parametrize("text", ["", "12 + 3", "xyzzy plugh", "ⵣⵓⵔ"])
def test_a_text_without_known_words_has_no_language(text):
    assert language_of(text) is None
