"""The restore drill, at its smallest, and that it would see what it is there to see. The campaign is a command."""

import shutil
from pathlib import Path

import pytest

from scripts.postgres import find_binaries
from scripts.restore_drill import Drill, Point, check_answers, parse_arguments, run
from scripts.traffic import Answer

POINT = Point(1000.0, "recovery_target_time", "")


def test_a_lost_server_comes_back_as_it_was_at_a_point(tmp_path: Path) -> None:
    if shutil.which("pg_basebackup", path=find_binaries()) is None:
        pytest.skip("needs pg_basebackup beside the server")
    given = ["--unsafe", "--points", "1", "--seconds", "1", "--rate", "25", "--seed", "1"]
    assert [] == run(parse_arguments(given), tmp_path)


def answer(key: str, sequence: int, sent: float, seconds: float = 1.0) -> Answer:
    return Answer(key, "books-0", 201, "", sequence, sent, seconds)


@pytest.mark.parametrize(
    ("recorded", "said"),
    [
        ({"before": 4, "across": 5}, None),
        ({"before": 4}, None),  # what was under way at the point may be there or not
        ({"across": 5}, "before was answered 9.000 s before, and is lost"),
        ({"before": 5}, "before is at 5, and was answered 4"),
        ({"before": 4, "after": 6}, "after was sent 10.000 s after, and is there"),
    ],
)
def test_sees_what_was_lost_moved_or_has_come_too_early(recorded: dict[str, int], said: str | None) -> None:
    answers = [answer("before", 4, 990.0), answer("across", 5, 999.5), answer("after", 6, 1010.0)]
    rows = {("books-0", key): sequence for key, sequence in recorded.items()}
    faults = check_answers(rows, len(rows), Drill(answers, epoch=0.0), POINT)
    assert ([] if said is None else [said]) == faults


def test_sees_what_is_there_twice() -> None:
    rows = {("books-0", "before"): 4}
    assert ["1 references are there twice"] == check_answers(rows, 2, Drill([], epoch=0.0), POINT)
