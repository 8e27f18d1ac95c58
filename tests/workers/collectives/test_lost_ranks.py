"""Ranks that are really killed or stopped: all others fail with a clear error within the limit, and nothing is left."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from shardline_workers.collectives.errors import CommunicatorError, RankLateError, RankLostError
from shardline_workers.collectives.shared_segment import SHARED_MEMORY, sweep_segments
from shardline_workers.communicator import Communicator
from tests.workers.collectives.rank_processes import KINDS, Group, RankProcess, join, join_all, new_groups

pytestmark = pytest.mark.process

SHORT_S, LONG_S = 0.5, 30.0
SLACK_S = 10.0  # of a busy machine; far below the long limit


def summed_for_ever(ranks: Communicator) -> None:
    values = torch.ones(576)
    while True:
        ranks.all_reduce_sum(values)


def summed_once(ranks: Communicator) -> None:
    ranks.all_reduce_sum(torch.ones(576))


def closed(ranks: Communicator) -> None:
    ranks.close()


def received(ranks: Communicator, source: int) -> None:
    ranks.recv(torch.ones(576), source)


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_rank_fails_all_others_at_once(mortals: list[RankProcess], kind: str, tmp_path: Path) -> None:
    join_all(mortals, new_groups(kind, 3, tmp_path, wait_s=LONG_S))
    for process in mortals:
        process.begin(summed_for_ever)
    began = time.monotonic()

    mortals[1].signal(signal.SIGKILL)
    answers = [mortals[rank].answer() for rank in (0, 2)]

    assert time.monotonic() - began < SLACK_S
    assert [type(answer) for answer in answers] == [RankLostError] * 2
    if kind == "shared_memory":
        assert str(answers[0]).startswith(f"rank 1 (process {mortals[1].pid}) died or left the group, as rank ")


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_rank_fails_all_others_when_the_limit_is_over(
    mortals: list[RankProcess], kind: str, tmp_path: Path
) -> None:
    join_all(mortals, new_groups(kind, 3, tmp_path, wait_s=SHORT_S))
    began = time.monotonic()

    mortals[1].signal(signal.SIGSTOP)
    for rank in (0, 2):
        mortals[rank].begin(summed_once)
    answers = [mortals[rank].answer() for rank in (0, 2)]

    assert SHORT_S <= time.monotonic() - began < SHORT_S + SLACK_S
    assert all(isinstance(answer, CommunicatorError) for answer in answers)
    assert any(isinstance(answer, RankLateError) for answer in answers)
    if kind == "shared_memory":
        wanted = f"rank 1 (process {mortals[1].pid}) did not come within the limit, as rank "
        assert all(str(answer).startswith(wanted) for answer in answers)


def test_a_stopped_rank_that_goes_on_finds_its_group_broken(mortals: list[RankProcess], tmp_path: Path) -> None:
    join_all(mortals, new_groups("shared_memory", 2, tmp_path, wait_s=SHORT_S))
    mortals[1].signal(signal.SIGSTOP)
    mortals[0].begin(summed_once)
    assert isinstance(mortals[0].answer(), RankLateError)

    mortals[1].begin(summed_once)
    mortals[1].signal(signal.SIGCONT)

    assert isinstance(mortals[1].answer(), RankLateError)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sender_that_is_killed_fails_its_receiver(mortals: list[RankProcess], kind: str, tmp_path: Path) -> None:
    join_all(mortals, new_groups(kind, 2, tmp_path, wait_s=LONG_S))
    mortals[0].begin(received, 1)
    began = time.monotonic()

    mortals[1].signal(signal.SIGKILL)
    answer = mortals[0].answer()

    assert time.monotonic() - began < SLACK_S
    assert isinstance(answer, RankLostError)


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_that_is_never_complete_fails_in_time(mortals: list[RankProcess], kind: str, tmp_path: Path) -> None:
    groups = new_groups(kind, 2, tmp_path, join_s=SHORT_S, wait_s=SHORT_S)
    began = time.monotonic()

    mortals[0].begin(join, groups[0])
    answer = mortals[0].answer()

    assert time.monotonic() - began < SHORT_S + SLACK_S
    assert isinstance(answer, CommunicatorError)
    if kind == "shared_memory":
        assert str(answer) == "rank 1 has not joined within rank 0's limit; the group is broken"
        assert not shared_file(groups[0]).exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_may_take_longer_to_come_than_a_call_to_wait(
    mortals: list[RankProcess], kind: str, tmp_path: Path
) -> None:
    groups = new_groups(kind, 2, tmp_path, join_s=LONG_S, wait_s=SHORT_S)

    mortals[0].begin(join, groups[0])
    assert not mortals[0].answers_within(2 * SHORT_S)
    mortals[1].begin(join, groups[1])

    assert [process.answer() for process in mortals[:2]] == [None, None]


@pytest.mark.parametrize("kind", KINDS)
def test_a_rank_that_closes_fails_those_that_wait_for_it(mortals: list[RankProcess], kind: str, tmp_path: Path) -> None:
    join_all(mortals, new_groups(kind, 3, tmp_path, wait_s=LONG_S))
    began = time.monotonic()

    mortals[1].begin(closed)
    for rank in (0, 2):
        mortals[rank].begin(summed_for_ever)
    answers = [mortals[rank].answer() for rank in (1, 0, 2)]

    assert time.monotonic() - began < SLACK_S
    assert answers[0] is None
    assert [type(answer) for answer in answers[1:]] == [RankLostError] * 2


class TestWhatIsLeft:
    @pytest.fixture
    def waiting(self, mortals: list[RankProcess], tmp_path: Path) -> Iterator[tuple[RankProcess, Path]]:
        """A rank that waits for others, and its file."""
        groups = new_groups("shared_memory", 2, tmp_path)
        mortals[0].begin(join, groups[0])
        file = shared_file(groups[0])
        wait_until_it_has_memory(file)
        yield mortals[0], file
        file.unlink(missing_ok=True)

    def test_a_complete_group_has_no_file_any_more(self, mortals: list[RankProcess], tmp_path: Path) -> None:
        groups = new_groups("shared_memory", 2, tmp_path)

        join_all(mortals, groups)

        assert not shared_file(groups[0]).exists()

    def test_the_file_of_a_living_rank_is_not_swept(self, waiting: tuple[RankProcess, Path]) -> None:
        _, file = waiting

        swept = sweep_segments()

        assert file not in swept
        assert file.exists()

    def test_the_file_of_a_rank_that_is_killed_while_it_joins_is_swept_when_the_next_group_starts(
        self, waiting: tuple[RankProcess, Path], mortals: list[RankProcess], tmp_path: Path
    ) -> None:
        process, file = waiting
        process.end()

        join_all(mortals[1:], new_groups("shared_memory", 2, tmp_path))

        assert not file.exists()


def shared_file(group: Group) -> Path:
    return SHARED_MEMORY / f"shardline-ranks-{group.name}"


def wait_until_it_has_memory(file: Path) -> None:
    end = time.monotonic() + SLACK_S
    while not (file.exists() and file.stat().st_size):
        assert time.monotonic() < end, "the rank made no file"
        os.sched_yield()
