"""Small texts that have other ids where one step is left out or done otherwise."""

from __future__ import annotations

__all__ = ["make_probes"]

_PROBES = {
    "accents": ("accents and capitals", "Café nai\u0308ve Ångström ﬁn İstanbul straße ΟΔΟΣ"),
    "scripts": ("letters of other scripts", "東京2024年 한국어 नमस्ते привет مرحبا"),
    "punctuation": ("punctuation", "Don't stop—it's 3.14%, e.g. (well...)! <a@b.c> «x»"),
    "spaces": ("spaces and control characters",
               "zero\u200bwidth\u00a0no\u00adbreak\ttab\r\nline\u2028x\u3000wide\x07 \ufffd"),
    "emoji": ("emoji", "👩\u200d👩\u200d👧 👍🏽 yes ❤\ufe0f"),
    "special": ("special tokens", "[MASK] [SEP]x[CLS] [mask] <|endoftext|>"),
    "mark": ("byte order mark", "\ufeffHello, world"),
    "long": ("the cut to the length", "transformation of extraordinary words " * 100),
}  # fmt: skip


def make_probes() -> dict[str, tuple[str, bytes]]:
    """Return by file name which step a text proves, and the text in UTF-8.

    Nothing of it is from any data.
    """
    return {f"{name}.txt": (proves, text.encode()) for name, (proves, text) in _PROBES.items()}
