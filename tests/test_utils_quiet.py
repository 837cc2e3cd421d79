from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from tl_keras.utils.quiet import silenced


def test_nothing_reaches_the_terminal_while_hushed_whoever_writes(capfd):
    with silenced() as said:
        print("from print")
        print("from stderr", file=sys.stderr)
        os.write(2, b"from C\n")
        subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
    assert capfd.readouterr() == ("", "")
    for who in ("print", "stderr", "C", "a child"):
        assert f"from {who}\n" in said.text


def test_afterwards_both_streams_speak_again(capfd):
    with silenced():
        pass
    print("out")
    os.write(2, b"err\n")
    assert capfd.readouterr() == ("out\n", "err\n")


def test_a_logger_that_first_speaks_while_hushed_can_speak_afterwards(capfd):
    logger = logging.getLogger("test of silenced")
    with silenced() as said:
        logger.addHandler(logging.StreamHandler())
        logger.warning("within")
    logger.warning("after")
    assert "within" in said.text
    assert capfd.readouterr() == ("", "after\n")


def test_an_exception_passes_and_what_was_said_before_it_is_kept(capfd):
    with pytest.raises(KeyError), silenced() as said:
        os.write(2, b"first\n\nlast words\n")
        raise KeyError("x")
    assert said.last_lines(1) == "last words"
    assert said.last_lines() == "first\nlast words"
    print("out")
    assert capfd.readouterr().out == "out\n"


def test_no_descriptor_is_lost():
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(5):
        with silenced():
            pass
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after == before


@pytest.mark.slow
def test_tensorflow_starts_without_a_word():
    program = "from tl_keras.utils.quiet import start_tensorflow as s; s(); import keras"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
