"""What torchrun says of a process, and what a failing process says to the others and to the user."""

from unittest.mock import Mock

import pytest
import torch
import torch.distributed as dist

from common.errors import UserError
from compute.device import Place, place_of_this_process
from data.order import Part
from distributed import rank_times as stopwatch
from distributed.failure import print_failure
from distributed.processes import PEER_LOST, PeerLost, Processes, peer_lost
from distributed.rank_times import RankTimes, Stretch, moment
from tests.held_clock import HeldClock

BY_TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "TORCHELASTIC_RUN_ID": "job-17",
}


def test_without_torchrun_a_process_is_alone_whatever_else_is_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert place_of_this_process() == Place()


def test_the_place_is_what_torchrun_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in BY_TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert place_of_this_process() == Place(5, 8, 1, 4, is_by_torchrun=True)


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        (RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4711"), True),
        (dist.DistBackendError("NCCL error: remote process exited or there was a network error"), True),
        (dist.DistBackendError("ncclInvalidUsage: Duplicate GPU detected : rank 1 and rank 0"), False),
        (RuntimeError("[../gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1800000ms"), False),
        (PeerLost(PEER_LOST), True),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), False),
        (ValueError("gloo"), False),
        (UserError("no clips"), False),
    ],
)
def test_which_errors_mean_that_another_process_is_gone(error: Exception, is_lost: bool) -> None:
    assert peer_lost(error) == is_lost


class Told(Processes):
    """One of two, who knows what the others have said."""

    def __init__(self, *, said: set[str], failed: bool) -> None:
        super().__init__(Part(1, 2))
        self.said, self.failed = said, failed

    def report_failure(self, message: str) -> bool:
        is_first = message not in self.said
        self.said.add(message)
        return is_first

    def failure_is_known(self) -> bool:
        return self.failed


def test_each_reason_is_said_once_by_several(capsys: pytest.CaptureFixture[str]) -> None:
    place, processes = Place(1, 2, 1, 2, is_by_torchrun=True), Told(said={"too many clips"}, failed=False)
    print_failure(UserError("too many clips"), "too many clips", place, processes)
    assert capsys.readouterr().err == ""
    print_failure(UserError("a clip has gone"), "a clip has gone", place, processes)
    said = capsys.readouterr().err
    assert said.startswith("error: rank 1 on ")
    assert said.endswith(": a clip has gone\n")


def test_who_lost_another_is_silent_where_that_one_has_spoken(capsys: pytest.CaptureFixture[str]) -> None:
    place = Place(1, 2, 1, 2, is_by_torchrun=True)
    lost = PeerLost(f"{PEER_LOST} (reset). The last checkpoint is of step 3.")
    print_failure(lost, str(lost), place, Told(said=set(), failed=True))
    assert capsys.readouterr().err == ""
    print_failure(lost, str(lost), place, Told(said=set(), failed=False))
    assert (
        "so this one cannot go on (reset). The last checkpoint is of step 3. torchrun tells which process"
        in capsys.readouterr().err
    )


def test_before_they_are_connected_the_first_of_each_machine_speaks(capsys: pytest.CaptureFixture[str]) -> None:
    for local_rank in (0, 1):
        place = Place(4 + local_rank, 8, local_rank, 4, is_by_torchrun=True)
        print_failure(UserError("wrong"), "wrong", place, Processes())
    assert capsys.readouterr().err == "error: wrong\n"


class Two(Processes):
    """One of two, the other of which took twice as long."""

    def __init__(self) -> None:
        super().__init__(Part(0, 2))

    def gather(self, value: float) -> list[float]:
        return [value, 2 * value]


def test_own_times_are_means_over_steps_and_begin_anew() -> None:
    times = RankTimes(Two())
    assert times.compare() == ()
    times.add(0.5, [Stretch(1.0, 1.25), Stretch(3.0, 3.25)])
    times.add(0.0, [Stretch(5.0, 6.0)])
    assert times.compare() == (1.0, 2.0)
    times.add(0.25, [])
    assert times.compare() == (0.25, 0.5)
    alone = RankTimes(Processes())
    alone.add(1.0, [Stretch(0.0, 1.0)])
    assert alone.compare() == ()


def test_a_stretch_of_the_host_is_measured_by_its_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HeldClock()
    monkeypatch.setattr(stopwatch, "time", clock)
    begun = moment(torch.device("cpu"))
    clock.now += 1.5
    assert Stretch(begun, moment(torch.device("cpu"))).seconds() == 1.5


def test_a_stretch_of_a_gpu_is_measured_by_its_events() -> None:
    begun, ended = Mock(torch.cuda.Event), Mock(torch.cuda.Event)  # a real one needs a GPU
    begun.elapsed_time = {ended: 1500.0}.__getitem__
    assert Stretch(begun, ended).seconds() == 1.5
