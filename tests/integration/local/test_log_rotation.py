"""The logs of a mesh stay within bounds, while their writers hold them open."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from local import log_rotation
from local.processes.exit_with_parent import ChildProcess
from local.processes.servers import private_log
from tests.processes import becomes_true

pytestmark = pytest.mark.process

_WRITER = """
import sys
for number in range(int(sys.argv[1])):
    print(f"line {number:06}", flush=True)
"""


def logs_of(path: Path) -> dict[str, int]:
    """A log and its kept ends, with their sizes."""
    return {one.name: one.stat().st_size for one in path.parent.iterdir()}


def test_writer_continues_in_the_truncated_log(tmp_path: Path) -> None:
    """Bounded in size and number, private, and its newest lines are there in order."""
    path = tmp_path / "service.log"
    with private_log(path) as log:
        process = ChildProcess([sys.executable, "-c", _WRITER, "40000"], log=log)

        def is_done() -> bool:
            log_rotation.rotate(path, most_bytes=20_000, keep=2)
            return process.exit_code() is not None

        assert becomes_true(is_done, 120)
        log_rotation.rotate(path, most_bytes=20_000, keep=2)
        log.write(b"of the same writer\n")
    sizes = logs_of(path)
    assert {"service.log", "service.log.1"} <= set(sizes)
    assert set(sizes) <= {"service.log", "service.log.1", "service.log.2"}
    assert max(sizes.values()) <= 20_000
    assert path.read_text().endswith("of the same writer\n")
    assert "\0" not in path.read_text()
    for name in sizes:
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    kept = [line for name in sorted(sizes, reverse=True) for line in _lines(tmp_path / name)]
    assert len(kept) > 1000
    assert kept == sorted(kept)


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines()[1:] if line.startswith("line ")]


def test_small_log_is_not_rotated(tmp_path: Path) -> None:
    """Nothing is copied, and nothing is made where there is no log."""
    path = tmp_path / "a.log"
    path.write_text("x" * 1000)
    assert not log_rotation.rotate(path, most_bytes=1000, keep=2)
    assert not log_rotation.rotate(tmp_path / "none.log", most_bytes=1, keep=2)
    assert logs_of(path) == {"a.log": 1000}


def test_only_the_end_of_a_huge_log_is_kept(tmp_path: Path) -> None:
    """Also of one that grew between two rotations."""
    path = tmp_path / "a.log"
    path.write_text("x" * 1_000_000 + "the end")
    log_rotation.rotate_all(tmp_path, most_bytes=2000, keep=1)
    assert logs_of(path) == {"a.log": 0, "a.log.1": 2000}
    assert (tmp_path / "a.log.1").read_text().endswith("the end")


def test_lines_written_during_the_copy_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest lines stay, and older ones make room for them."""
    path = tmp_path / "a.log"
    path.write_text("x" * 5000)
    copy = shutil.copyfileobj

    def copy_slowly(source: IO[bytes], target: IO[bytes]) -> None:
        if source.name == str(path):
            with path.open("a") as log:
                log.write("written meanwhile")
        copy(source, target)

    monkeypatch.setattr("local.log_rotation.shutil.copyfileobj", copy_slowly)
    log_rotation.rotate(path, most_bytes=1000, keep=1)
    assert logs_of(path) == {"a.log": 0, "a.log.1": 1000}
    assert (tmp_path / "a.log.1").read_text().endswith("xwritten meanwhile")
    assert stat.S_IMODE((tmp_path / "a.log.1").stat().st_mode) == 0o600


def test_log_is_truncated_even_if_it_cannot_be_copied(tmp_path: Path) -> None:
    """A full disk must not keep a log from being bounded."""
    path = tmp_path / "a.log"
    path.write_text("x" * 5000)
    (tmp_path / "a.log.1").mkdir()
    (tmp_path / "a.log.2").mkdir()
    (tmp_path / "a.log.2" / "in the way").touch()
    command = "import sys, pathlib; from local import log_rotation as r"
    command += "; r.shutil.copyfileobj = lambda *_: (_ for _ in ()).throw(OSError(28, 'full'))"
    command += "; r.rotate(pathlib.Path(sys.argv[1]), most_bytes=100, keep=3)"
    subprocess.run(
        [sys.executable, "-c", command, str(path)], check=True, cwd=Path(__file__).parents[3]
    )
    assert os.path.getsize(path) == 0
