"""Results that are kept, also for those who go on reading them."""

from __future__ import annotations

import gc
import threading
import weakref

import torch

from segic.remembered import kept_results, remembered

made: list[int] = []


@remembered(2)
def table(size: int) -> torch.Tensor:
    made.append(size)
    return torch.zeros(size)


def test_a_result_is_made_once_until_others_take_its_place():
    made.clear()
    assert table(3) is table(3)
    table(4), table(5), table(3)
    assert made == [3, 4, 5, 3]


def test_what_was_handed_out_meanwhile_outlives_the_cache():
    first = table(11)
    with kept_results() as kept:
        assert table(11) is first
        table(12)
    table(13)
    assert [t.shape[0] for t in kept] == [11, 12]
    alive = weakref.ref(first)
    del first
    table(14), table(15)
    gc.collect()
    assert alive() is not None
    kept.clear()
    gc.collect()
    assert alive() is None


def test_each_thread_keeps_its_own():
    with kept_results() as kept:
        other = threading.Thread(target=table, args=(21,))
        other.start()
        other.join()
        table(22)
    assert [t.shape[0] for t in kept] == [22]
