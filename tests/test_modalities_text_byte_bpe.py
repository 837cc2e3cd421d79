"""Byte-level BPE against the reference: the `tokenizers` package."""

from __future__ import annotations

import json
import sys
import unicodedata

import numpy as np
import pytest
from test_modalities_text_wordpiece import odd_strings

from tl_keras.errors import ModelError
from tl_keras.modalities.text.byte_bpe import ByteBPE

tokenizers = pytest.importorskip("tokenizers")

CONTRACTIONS = ["I'm it's we'll they've you're he'd 'tis don't'll", "'S 'LL o'clock ''s  's",
                "a  b   c \n\n d\t\te  ", " lead", "1st 2nd 3.14 x²½ Ⅷ", "\x1c\x1d\x85\u3000x",
                "<|endoftext|>", "a<|endoftext|> b <|end"]  # fmt: skip


def texts() -> list[str]:
    """The odd strings, without characters that this Python's Unicode does not know yet."""
    odd = ["".join(x for x in text if unicodedata.category(x) != "Cn") for text in odd_strings()]
    return [*CONTRACTIONS, *odd]


@pytest.fixture(scope="module")
def reference():
    made = tokenizers.ByteLevelBPETokenizer()
    made.train_from_iterator([text[:2000] for text in texts()], vocab_size=3000, min_frequency=1,
                             special_tokens=["<|endoftext|>"], show_progress=False)  # fmt: skip
    return made


@pytest.fixture
def folder(reference, tmp_path):
    reference.save_model(str(tmp_path))
    return tmp_path


def expected(reference, text) -> list[int]:
    return [number + 1 for number in reference.encode(text).ids]


def test_odd_strings_have_the_ids_of_the_reference_and_come_back(folder, reference):
    own = ByteBPE.from_folder(folder)
    used = set()
    for text in texts():
        right = expected(reference, text)
        assert own.encode(text, 10**7) == (right or own.encode("<|endoftext|>", 1)), text[:80]
        assert own.decode(right) == text
        used |= set(right)
    assert len(used) > 2000
    assert own.count("") == 1 and own.count(texts()[0]) == len(expected(reference, texts()[0]))
    assert len(own) == reference.get_vocab_size() + 1


def test_every_character_is_cut_as_the_reference_cuts_it(folder, reference):
    own = ByteBPE.from_folder(folder)
    letters = {ord(x) for x in own._letters}
    known = [code for code in (*range(0x3400), *range(0x3400, sys.maxunicode, 101))
             if unicodedata.category(chr(code)) not in ("Cs", "Cn")]
    assert len(letters) == 256
    for start in range(0, len(known), 500):
        text = "".join(f"x{chr(code)}y {chr(code)}{chr(code)}1" for code in known[start:][:500])
        assert own.encode(text, 10**6) == expected(reference, text)


def test_a_tokenizer_json_and_the_record_give_the_same_ids(folder, reference, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    made = tokenizers.ByteLevelBPETokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), add_prefix_space=True)
    made.add_special_tokens(["<|endoftext|>", "<new>"])
    made.save(str(other / "tokenizer.json"))
    own = ByteBPE.from_folder(other)
    again = ByteBPE.from_settings(json.loads(json.dumps(own.settings)), *own.files.values())
    for text in [*(x[:300] for x in texts()[:200]), "a<new> b"]:
        right = expected(made, text)
        assert own.encode(text, 10**7) == again.encode(text, 10**7) == (right or own.encode("", 1))


def test_a_batch_is_cut_and_padded_with_zeros(folder, reference):
    own = ByteBPE.from_folder(folder)
    batch = own.encode_batch(["word straße and more words than that", "a", ""], 5)
    assert batch.dtype == np.int32 and batch.shape == (3, 5)
    assert batch[0].tolist() == expected(reference, "word straße and more words than that")[:5]
    assert (batch[1, 1:] == 0).all() and (batch[2, 1:] == 0).all() and (batch[:, 0] > 0).all()
    assert own.decode(batch[1]) == "a"


@pytest.mark.parametrize(("files", "message"), [
    ({}, "cannot be read"),
    ({"vocab.json": "[]", "merges.txt": ""}, "an id of its own"),
    ({"vocab.json": '{"a": 0, "b": 0}', "merges.txt": ""}, "an id of its own"),
    ({"vocab.json": '{"a": 0}', "merges.txt": ""}, "each byte"),
    ({"vocab.json": '{"a": 0}', "merges.txt": "a b\n"}, "two tokens"),
    ({"tokenizer.json": '{"model": {"type": "WordPiece"}}'}, "WordPiece"),
    ({"tokenizer.json": "{}"}, "cannot be read"),
    ({"tokenizer.json": "{"}, "Expecting property name"),
])  # fmt: skip
def test_what_is_no_byte_level_tokenizer_is_refused_in_one_line(tmp_path, files, message):
    for name, contents in files.items():
        (tmp_path / name).write_text(contents)
    with pytest.raises(ModelError, match=message) as error:
        ByteBPE.from_folder(tmp_path)
    assert "\n" not in str(error.value)
