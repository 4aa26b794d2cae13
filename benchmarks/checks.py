"""How often perdure's checks of answers give the verdict of IFEval's published checkers, kind by kind.

    python benchmarks/checks.py answer ANSWERS.jsonl [--prompts 540]          # SmolLM2's greedy answers, 128 tokens
    python benchmarks/checks.py compare PUBLISHED ANSWERS.jsonl [--out FILE]  # needs nltk, langdetect, immutabledict, absl-py

PUBLISHED is the folder with instructions.py, instructions_registry.py and instructions_util.py of google-research's
instruction_following_eval (or a copy of it); nothing is fetched. `compare` needs of perdure's dependencies only regex: it
can run in an environment of its own, with src on PYTHONPATH. NLTK's trained sentence splitter is used if its data is there;
else an untrained one is, and the output says so.

Each answer is compared as it is and in edited forms that force both verdicts: in capitals, without commas, in quotes, with each
thing that an instruction may want added, and so on. PUBLISHED/data/test_output has the authors' own verdicts on GPT-4's answers,
made with the trained splitter: these are compared too, where they are there.
"""

import argparse
import gzip
import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path

from perdure.core.rows import Check
from perdure.evaluate.checks import KINDS, follows

PROMPTS = Path("../shared/data/ability/ifeval.jsonl.gz")
TOKENS = 128
GERMAN = "Das ist ein Text, der nicht in der Sprache geschrieben ist, in der die Frage war."
ENGLISH = "this is a sentence that was added to the answer, and it is in english like the question."


def answer(out: Path, prompts: int) -> None:
    """Write SmolLM2's greedy answers to the first `prompts` prompts."""
    from perdure.bridges.embedded import embedded_model
    from perdure.bridges.runtime import Runtime
    from perdure.core.rows import Message, Row
    from perdure.workflows.scoring import answers

    items = rows()[:prompts]
    asked = [Row(messages=(Message("user", item["prompt"]), Message("assistant", ""))) for item in items]
    texts = answers(Runtime(embedded_model(), "bfloat16", "cpu"), asked, TOKENS).texts
    lines = [json.dumps({**item, "answer": text}) for item, text in zip(items, texts, strict=True)]
    out.write_text("\n".join(lines) + "\n")


def compare(published: Path, answers: Path, out: Path | None) -> None:
    """Print agreement by kind, strict and loose, and write it to `out`."""
    checkers, trained = read_published(published)
    strict, loose, ours, misses = Counter(), Counter(), Counter(), {}
    outcomes: dict[str, Counter] = {kind: Counter() for kind in KINDS}
    items = [json.loads(line) for line in answers.read_text().splitlines()]
    for item in items:
        for kind, given in zip(item["instruction_ids"], item["kwargs"], strict=True):
            check = Check(kind, json.dumps(given))
            if not given.get("letter", "a").isalpha():
                continue  # the published checker draws another letter at random in place of "!" or "#"
            for text in edited(item["answer"], item["prompt"], given):
                theirs = verdict(checkers, kind, given, text)
                mine = follows(check, text)
                outcomes[kind][theirs] += 1
                strict[kind] += mine == theirs
                loose[kind] += follows(check, text, loose=True) == any(
                    verdict(checkers, kind, given, one) for one in variants(text)
                )
                ours[kind] += 1
                if mine != theirs:
                    misses.setdefault(kind, []).append({"answer": text, "arguments": given, "published": theirs})
    table = {
        kind: {
            "n": ours[kind],
            "followed": outcomes[kind][True],
            "strict": strict[kind] / ours[kind],
            "loose": loose[kind] / ours[kind],
        }
        for kind in sorted(ours)
    }
    apart = {"length_constraints:number_sentences", "language:response_language"}
    total = {
        name: {
            "n": sum(ours[kind] for kind in some),
            "strict": sum(strict[kind] for kind in some) / sum(ours[kind] for kind in some),
            "loose": sum(loose[kind] for kind in some) / sum(ours[kind] for kind in some),
        }
        for name, some in (("all", set(ours)), ("outside sentences and languages", set(ours) - apart))
    }
    record = {
        "answers": len(items),
        "trained_sentence_splitter": trained,
        "kinds": table,
        "total": total,
        "authors": authors(published),
    }
    for kind, line in table.items():
        print(
            f"{kind:45s} n {line['n']:5d}  followed {line['followed']:5d}  strict {line['strict']:.4f}  loose {line['loose']:.4f}"
        )
    for name, line in total.items():
        print(f"{name:45s} n {line['n']:5d}  strict {line['strict']:.4f}  loose {line['loose']:.4f}")
    print(json.dumps(record["authors"], indent=1))
    print("trained sentence splitter" if trained else "untrained sentence splitter: its data is not here")
    if out:
        out.write_text(json.dumps(record, indent=1) + "\n")
    for kind, some in misses.items():
        print(kind, len(some), *(json.dumps(miss)[:300] for miss in some[:4]), sep="\n   ", file=sys.stderr)


def edited(text: str, prompt: str, given: dict) -> list[str]:
    """Return the answer and its edited forms, each once."""
    plain = " ".join(text.replace(",", "").split())
    sentences = [part.strip() for part in text.replace("\n", " ").split(".") if part.strip()] or ["Yes"]
    words = [*given.get("keywords", ()), *given.get("forbidden_words", ()), given.get("keyword", ""), "one", "two"]
    first, repeated = given.get("first_word", "Then"), given.get("prompt_to_repeat", prompt)
    section, end = given.get("section_spliter", "Section"), given.get("end_phrase", "That is all.")
    count = given.get("num_paragraphs", 2)
    paragraphs = [f"{first} {n} {part}." for n, part in enumerate((sentences * count)[:count])]
    for word in given.get("forbidden_words", ()):
        plain = plain.replace(word, "it").replace(word.capitalize(), "It")
    forms = [
        text,
        text.upper(),
        text.lower(),
        f"{ENGLISH} {text.lower()}",
        f"{ENGLISH} {text}".upper(),
        plain,
        f'"{text.strip()}"',
        f"{text}\n{end}",
        f"{repeated}\n{text}",
        f"{text} {' '.join(words * 3)}",
        f"<<A title>>\n{text}",
        f"{text}\n\n{given.get('postscript_marker', 'P.S.')} One more thing.",
        "\n".join(f"* {part}" for part in sentences[: given.get("num_bullets", 3)]),
        "\n".join(f"{section} {n}\n{part}." for n, part in enumerate(sentences * 6, 1)),
        "\n***\n".join(paragraphs),
        "\n\n".join(paragraphs),
        f"{text}\n******\nAnother answer.",
        json.dumps({"answer": text}),
        f"```json\n{json.dumps([text])}\n```",
        f"My answer is yes. {text}",
        f"{text} *one* **two** *three* [name] [place] [date] ASAP, NASA and DON'T",
        " ".join(sentences[:1]) + ".",
        f"{text} " * 8,
        GERMAN,
        "",
    ]
    return list(dict.fromkeys(forms))


def variants(text: str) -> list[str]:
    """Return the forms of an answer of which one must follow, as the published loose verdict has them."""
    lines = text.split("\n")
    cut = [text, *("\n".join(some).strip() for some in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*cut, *(part.replace("*", "") for part in cut)]


def verdict(checkers: dict, kind: str, given: dict, text: str) -> bool:
    """Return the published strict verdict."""
    checker = checkers[kind](kind)
    checker.build_description(**given)
    return bool(text.strip()) and bool(checker.check_following(text))


def read_published(folder: Path) -> tuple[dict, bool]:
    """Return the published checkers by kind, and whether NLTK's trained sentence splitter is there."""
    import langdetect
    import nltk

    langdetect.DetectorFactory.seed = 0  # its verdicts are random without
    name = "instruction_following_eval"
    place = folder / "__init__.py"
    spec = importlib.util.spec_from_file_location(name, place, submodule_search_locations=[str(folder)])
    sys.modules[name] = importlib.util.module_from_spec(spec)
    registry = importlib.import_module(f"{name}.instructions_registry")
    util = importlib.import_module(f"{name}.instructions_util")
    try:
        util.count_sentences("One. Two.")
        trained = True
    except Exception:  # how NLTK says that data are missing differs between its versions
        trained, splitter = False, nltk.tokenize.punkt.PunktSentenceTokenizer()
        util.count_sentences = lambda text: len(splitter.tokenize(text))
        words = nltk.tokenize.NLTKWordTokenizer()
        nltk.word_tokenize = lambda text: [w for part in splitter.tokenize(text) for w in words.tokenize(part)]
    return registry.INSTRUCTION_DICT, trained


def authors(folder: Path) -> dict:
    """Return agreement with the authors' stored verdicts on GPT-4's answers, by kind; empty where they are not there."""
    given = {item["prompt"]: item for item in rows()}
    found: dict[str, dict] = {}
    for name in ("strict", "loose"):
        file = folder / "data" / "test_output" / f"eval_results_{name}.jsonl"
        if not file.is_file():
            continue
        same, count = Counter(), Counter()
        for line in file.read_text().splitlines():
            stored = json.loads(line)
            kwargs = given.get(stored["prompt"], {}).get("kwargs", [])
            for kind, arguments, theirs in zip(
                stored["instruction_id_list"], kwargs, stored["follow_instruction_list"], strict=False
            ):
                mine = follows(Check(kind, json.dumps(arguments)), stored["response"], loose=name == "loose")
                same[kind] += mine == theirs
                count[kind] += 1
        found[name] = {
            "n": count.total(),
            "same": same.total(),
            "kinds": {kind: [same[kind], count[kind]] for kind in sorted(count)},
        }
    return found


def rows() -> list[dict]:
    """Return the prompts of IFEval."""
    with gzip.open(PROMPTS, "rt") as file:
        return [json.loads(line) for line in file]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("answer")
    verb.add_argument("answers", type=Path)
    verb.add_argument("--prompts", type=int, default=540)
    verb = verbs.add_parser("compare")
    verb.add_argument("published", type=Path)
    verb.add_argument("answers", type=Path)
    verb.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.verb == "answer":
        answer(args.answers, args.prompts)
    else:
        compare(args.published, args.answers, args.out)
