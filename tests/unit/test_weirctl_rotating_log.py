"""The log of a part."""

from pathlib import Path

from weirctl.rotating_log import RotatingLog


def test_a_full_file_is_rotated_and_the_oldest_dropped(tmp_path: Path) -> None:
    """Four files' worth with two kept: the current one and the two before it."""
    log = RotatingLog(tmp_path / "a.log", limit_bytes=10, kept=2)
    for number in range(4):
        log.write(f"{number} 4567890\n".encode())
    log.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["a.log", "a.log.1", "a.log.2"]
    assert (tmp_path / "a.log").read_text().startswith("3")
    assert (tmp_path / "a.log.2").read_text().startswith("1")


def test_the_last_lines_are_at_hand_even_without_a_final_newline(tmp_path: Path) -> None:
    """Pieces are joined into lines; the unfinished last one counts."""
    log = RotatingLog(tmp_path / "a.log", tail=2)
    log.write(b"one\ntwo\nthr")
    log.write(b"ee\nfour")
    assert log.last_lines() == ["three", "four"]
    log.forget()
    assert log.last_lines() == []
    log.close()


def test_what_a_killed_supervisor_wrote_stays(tmp_path: Path) -> None:
    """An existing log is continued."""
    (tmp_path / "a.log").write_text("before\n")
    log = RotatingLog(tmp_path / "a.log")
    log.write(b"after\n")
    log.close()
    assert (tmp_path / "a.log").read_text() == "before\nafter\n"
