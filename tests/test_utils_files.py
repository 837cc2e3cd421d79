from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tl_keras.errors import RunError, StorageError
from tl_keras.utils.files import atomic_path, remove_leavings, scratch_folder, write_atomically
from tl_keras.utils.locks import lock_folder

HOLD = """
import sys, time
from pathlib import Path
from tl_keras.utils.files import atomic_path
from tl_keras.utils.locks import lock_folder
with atomic_path(Path(sys.argv[1]) / "new", replace_folder=True) as made:
    made.mkdir()
    (made / "half").write_text("half")
    if "aside" in sys.argv:
        (made.parent / "replaced").mkdir()
        (Path(sys.argv[1]) / "new").rename(made.parent / "replaced/new")
    with lock_folder(Path(sys.argv[1])):
        print("there", flush=True)
        time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Starts a process that writes to a folder until it is killed."""
    started = []

    def start(*words: str) -> subprocess.Popen:
        command = [sys.executable, "-c", HOLD, str(tmp_path), *words]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "there\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_or_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    write_atomically(tmp_path / "deep/file", b"old")
    with pytest.raises(KeyError), atomic_path(tmp_path / "deep/file") as made:
        made.write_text("half")
        raise KeyError
    with atomic_path(tmp_path / "folder") as made:
        made.mkdir()
        (made / "a").write_text("a")
        assert not (tmp_path / "folder").exists()
    assert (tmp_path / "deep/file").read_bytes() == b"old"
    assert names(tmp_path) == ["deep", "folder"] and names(tmp_path / "deep") == ["file"]
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "folder/a").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_folder_with_something_in_it_is_replaced_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("mine")
    with pytest.raises(StorageError, match="not empty"), atomic_path(tmp_path / "out") as made:
        made.mkdir()
    assert names(tmp_path / "out") == ["mine"]
    with atomic_path(tmp_path / "out", replace_folder=True) as made:
        made.mkdir()
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == []


def test_leavings_of_a_killed_writer_go_and_those_of_a_living_one_stay(tmp_path, holder) -> None:
    process = holder()
    remove_leavings(tmp_path)
    assert len(list(tmp_path.glob(".tl_keras-*/new/half"))) == 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    remove_leavings(tmp_path)
    assert names(tmp_path) == ["lock"]


def test_what_was_being_replaced_when_its_writer_was_killed_is_put_back(tmp_path, holder) -> None:
    write_atomically(tmp_path / "new/old", b"old")
    process = holder("aside")
    assert not (tmp_path / "new").exists()
    process.kill()
    process.wait()
    remove_leavings(tmp_path)
    assert names(tmp_path / "new") == ["old"]


def test_what_only_looks_like_a_leaving_is_left_alone(tmp_path: Path) -> None:
    write_atomically(tmp_path / ".tl_keras-notes/mine", b"mine")
    remove_leavings(tmp_path)
    with scratch_folder(tmp_path):
        pass
    assert names(tmp_path) == [".tl_keras-notes"]


def test_one_writer_at_a_time_and_a_dead_ones_lock_is_taken_over(tmp_path, holder) -> None:
    process = holder()
    with pytest.raises(RunError, match=f"number {process.pid} on"), lock_folder(tmp_path):
        pass
    process.kill()
    process.wait()
    with lock_folder(tmp_path), pytest.raises(RunError), lock_folder(tmp_path):
        pass
    with lock_folder(tmp_path):
        assert names(tmp_path) and (tmp_path / "lock").exists()
    assert not (tmp_path / "lock").exists()
