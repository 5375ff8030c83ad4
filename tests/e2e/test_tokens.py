"""geom-mpi tokens held against the tokenizers library, id by id: the golden tokenizers and ones trained here with what
Qwen, Llama-3, GPT-2, cl100k and DeepSeek have in their files, on generated texts in every script. Thousands of small
texts go through one call, with a special token between: each is normalised and split by itself.

GEOM_ALL_TEXTS=1 takes megabytes for each tokenizer, and every code point there is (minutes).
"""

import functools
import json
import os
import random
import unicodedata

import pytest
from conftest import GOLDEN, golden, run

tokenizers = pytest.importorskip("tokenizers")

ALL = bool(os.environ.get("GEOM_ALL_TEXTS"))
TEXTS = 40_000 if ALL else 2_500
BETWEEN = "<|endoftext|>"
INPUT = 3

QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
# PCRE2 10.42 knows Unicode 14, the library 16, this Python 14 or later: what is younger than 14 is left out, and
# what is younger than 3.2 where this Python cannot tell.
KNOWN = unicodedata if unicodedata.unidata_version == "14.0.0" else unicodedata.ucd_3_2_0


def comparable(c):
    """The library's tables for NFC are older: it does not put younger marks in order beside others."""
    young_mark = unicodedata.combining(c) and not unicodedata.ucd_3_2_0.combining(c)
    return not young_mark and KNOWN.category(c) not in ("Cn", "Cs")


@functools.cache
def letters():
    """Assigned characters by their block of 128: scripts, signs, emoji."""
    blocks = {}
    for code in range(0x21, 0x32000):
        if KNOWN.category(chr(code))[0] in "LMNPS" and comparable(chr(code)):
            blocks.setdefault(code // 128, []).append(chr(code))
    return list(blocks.values())


def word(rng):
    kind = rng.random()
    if kind < 0.25:
        return "".join(rng.choices("etaoinshrdlucmfw", k=rng.randint(1, 12)))
    if kind < 0.5:
        return "".join(rng.choices(rng.choice(letters()), k=rng.randint(1, 9)))
    if kind < 0.6:
        return "".join(rng.choices("0123456789\u0663\u096b\u00bd\u2167", k=rng.choice([1, 2, 3, 4, 7, 300])))
    if kind < 0.7:
        return rng.choice(["I'll", "it'S", "'ſ", "we\u2019re", "'T", "D'D", "''ve", "x'", "'M", "\u212a'k", "'RE'll"])
    if kind < 0.8:
        return "".join(
            rng.choices("aeo\u0301\u0308\u0327\u1100\u1161\u11a8\u00e9\u1e9b\u0323\u2126\ufb01", k=rng.randint(2, 8))
        )
    if kind < 0.9:
        return rng.choice(
            ["def f(x):", "a->b", "!=", "//", "#!", '{"k": [1]}', "<|im_start|>", "<|im_", "__x__", "\\n"]
        )
    return rng.choice(
        ["\x00", "\x7f", "\u200d", "\ufeff", "\u180e", "\U0001f469\u200d\U0001f4bb", "\U0010ffff", "\ue000"]
    )


def space(rng):
    kind = rng.random()
    if kind < 0.6:
        return " "
    if kind < 0.7:
        return ""
    if kind < 0.75:
        return rng.choice(" \n\t") * rng.choice([2, 3, 17, 400])
    return "".join(rng.choices("  \n\r\t\v\f\u0085\u00a0\u1680\u2003\u2028\u202f\u3000", k=rng.randint(1, 4)))


def text(rng):
    return "".join(word(rng) + space(rng) for _ in range(rng.choice([1, 1, 2, 5, 12, 25])))


@functools.cache
def texts(seed):
    rng = random.Random(seed)
    return [text(rng) for _ in range(TEXTS)]


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def parts(*splits):
    return {"type": "Sequence", "pretokenizers": [*splits, BYTES]}


@functools.cache
def trained():
    """A tokenizer.json of 3,000 tokens, from texts of this file."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=3000, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    rng = random.Random(1)
    tokenizer.train_from_iterator([text(rng) for _ in range(4000)], trainer)
    return tokenizer.to_str()


def variant(pre_tokenizer, normalizer=None, added=(), **model):
    file = json.loads(trained())
    file.update(pre_tokenizer=pre_tokenizer, normalizer=normalizer and {"type": normalizer}, added_tokens=[])
    behind = len(file["model"]["vocab"])
    for token, properties in [(BETWEEN, {"special": True, "normalized": False}), *added]:
        flags = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized", "special"], False)
        known = file["model"]["vocab"].get(token)
        file["added_tokens"].append({"id": behind if known is None else known, "content": token, **flags, **properties})
        behind += known is None
    if model.pop("strings", False):
        file["model"]["merges"] = [" ".join(merge) for merge in file["model"]["merges"]]
    file["model"].update(model)
    return file


def qwen():
    return variant(parts(split(QWEN)), "NFC", [("<|im_start|>", {"special": True})])


def llama():
    file = variant(parts(split(LLAMA)), ignore_merges=True, strings=True)
    vocabulary = file["model"]["vocab"]
    for planted in ["\u0120tinnitus", "etaoin", "\u0120\u0120\u0120", "123", "\u0120she", "'ve", "th"]:
        vocabulary.setdefault(planted, len(vocabulary))  # no merge leads to these
    file["added_tokens"][0]["id"] = len(vocabulary)
    begin = {"id": BETWEEN, "type_id": 0}
    file["post_processor"] = {
        "type": "Sequence",
        "processors": [
            {**BYTES, "use_regex": True},
            {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": begin}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {BETWEEN: {"id": BETWEEN, "ids": [len(vocabulary)], "tokens": [BETWEEN]}},
            },
        ],
    }
    return file


def added():
    tokens = [
        ("<|im_start|>", {"lstrip": True}),
        ("<|im_", {"rstrip": True, "normalized": True}),
        ("e\u0301", {"normalized": True}),
        ("o\u0308", {}),
        ("\u00e9a", {"normalized": True, "lstrip": True, "rstrip": True}),
        ("the", {"single_word": True}),
        ("th", {"single_word": True, "normalized": True, "lstrip": True}),
        ("  ", {}),
        (" " * 17, {}),
        ("\n\n", {"normalized": True, "rstrip": True}),
        ("12", {"single_word": True, "rstrip": True}),
        ("\u1100\u1161", {"normalized": True}),
        ("//", {"normalized": True, "lstrip": True}),
        ("\u00a0", {"rstrip": True}),
    ]
    return variant(parts(split(QWEN)), "NFC", tokens)


VARIANTS = {
    "qwen": qwen,
    "llama": llama,
    "added": added,
    "gpt2": lambda: variant({**BYTES, "use_regex": True}),
    "cl100k": lambda: variant(parts(split(LLAMA, "Removed", True)), strings=True),
    "o200k": lambda: variant(parts(split(O200K)), "NFC"),
    "deepseek": lambda: variant(parts(split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK))),
    "digits": lambda: variant(
        {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTES]}
    ),
}


def tokens(folder, content):
    (folder / "text.txt").write_bytes(content.encode())
    finished = run("tokens", "--model", folder, folder / "text.txt", folder=folder)
    assert finished.returncode == 0, finished.stderr
    return [int(line) for line in finished.stdout.split()]


def divided(ids, between):
    runs = [[]]
    for one in ids:
        if one == between:
            runs.append([])
        else:
            runs[-1].append(one)
    return runs


def compare(folder, file, contents):
    (folder / "tokenizer.json").write_text(json.dumps(file))
    (folder / "config.json").write_text("{}")
    oracle = tokenizers.Tokenizer.from_str(json.dumps(file))
    content = BETWEEN.join(contents)
    found, wanted = tokens(folder, content), oracle.encode(content).ids
    if found == wanted:
        return
    between = oracle.token_to_id(BETWEEN)
    mine, theirs = (divided(ids, between)[-len(contents) :] for ids in (found, wanted))
    for content, one, other in zip(contents, mine, theirs, strict=True):
        assert one == other, ascii(content)
    assert found == wanted


@pytest.mark.parametrize("name", VARIANTS)
def test_ids_are_those_of_the_tokenizers_library(name, tmp_path):
    compare(tmp_path, VARIANTS[name](), texts(name))


@pytest.mark.parametrize("name", ["qwen3-trained", "llama-tiny"])
def test_ids_of_golden_tokenizers_are_too(name, tmp_path):
    file = json.loads((golden(name) / "tokenizer.json").read_text())
    contents = [one.replace(BETWEEN, "") for one in texts(name)]
    if name == "llama-tiny":
        file = json.loads(json.dumps(file).replace("<|end_of_text|>", BETWEEN))
    compare(tmp_path, file, contents)


@pytest.mark.parametrize("name", ["qwen", "llama", "o200k", "deepseek", "added"])
def test_every_character_is_of_the_class_that_the_library_has_it_in(name, tmp_path):
    characters = filter(comparable, map(chr, range(0, 0x110000 if ALL else 0x32000, 1 if ALL else 29)))
    contents = [f"a{c}b {c}1{c}  {c}\n'{c}x th{c} e{c}\u0301{c}" for c in characters]
    for begin in range(0, len(contents), 50_000):
        compare(tmp_path, VARIANTS[name](), contents[begin : begin + 50_000])


def test_a_text_may_come_from_stdin_and_none_is_none(tmp_path):
    folder = golden(GOLDEN[0])
    finished = run("tokens", "--model", folder, folder=tmp_path, input="Hello")
    assert finished.returncode == 0 and finished.stdout
    (tmp_path / "text.txt").write_text("Hello")
    assert run("tokens", "--model", folder, "text.txt", ranks=2, folder=tmp_path).stdout == finished.stdout
    assert run("tokens", "--model", folder, folder=tmp_path, input="").stdout == ""


def test_what_cannot_be_encoded_ends_with_code_3_and_the_place(tmp_path):
    (tmp_path / "text.txt").write_bytes(b"caf\xe9 is latin-1")
    finished = run("tokens", "--model", golden(GOLDEN[0]), "text.txt", folder=tmp_path)
    assert finished.returncode == INPUT
    assert "text.txt: byte 3" in finished.stderr
    (tmp_path / "config.json").write_text("{}")
    finished = run("tokens", "--model", tmp_path, "text.txt", folder=tmp_path)
    assert finished.returncode == INPUT
    assert "tokenizer.json" in finished.stderr and "--token-ids FILE" in finished.stderr
    file = variant(parts(split(QWEN)), byte_fallback=True)
    (tmp_path / "tokenizer.json").write_text(json.dumps(file))
    finished = run("tokens", "--model", tmp_path, "text.txt", folder=tmp_path)
    assert finished.returncode == INPUT
    assert "byte_fallback" in finished.stderr and "--token-ids FILE" in finished.stderr
