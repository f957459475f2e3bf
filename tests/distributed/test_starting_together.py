"""Processes of one start find each other in a store where those of earlier starts have left their keys."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import TCPStore

from distributed.processes import agree_on_start

SOON = timedelta(seconds=100)


@pytest.fixture
def store() -> TCPStore:
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def client(store: TCPStore) -> TCPStore:
    return TCPStore("127.0.0.1", store.port, is_master=False)


def start(store: TCPStore, ranks: range, world_size: int) -> list[str]:
    with ThreadPoolExecutor(world_size) as pool:
        names = [pool.submit(agree_on_start, client(store), rank, world_size, SOON) for rank in ranks]
        return [name.result() for name in names]


def test_all_of_a_start_get_one_name_and_every_start_another(store: TCPStore) -> None:
    names = [start(store, range(4), 4) for _ in range(3)]
    assert all(len(set(of_start)) == 1 for of_start in names)
    assert len({of_start[0] for of_start in names}) == 3


def test_a_process_that_died_while_it_waited_is_not_taken_for_its_successor(store: TCPStore) -> None:
    with pytest.raises(RuntimeError):  # its rank 0 never came
        agree_on_start(client(store), 1, 2, timedelta(seconds=0.2))
    nonce = store.get("text2sign/here/1").decode()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(agree_on_start, client(store), 0, 2, SOON)
        store.wait([f"text2sign/welcome/{nonce}"], SOON)  # the dead one has been answered
        late = agree_on_start(client(store), 1, 2, SOON)
        assert first.result() == late


def test_who_does_not_come_is_named(store: TCPStore) -> None:
    with pytest.raises(RuntimeError, match=r"ranks 1, 2 did not come in 0:00:00\.2"):
        agree_on_start(client(store), 0, 3, timedelta(seconds=0.2))


def test_one_process_waits_for_nobody(store: TCPStore) -> None:
    assert len(start(store, range(1), 1)) == 1
