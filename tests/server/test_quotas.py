"""What counts against a limit: what is stored, and what is on its way in as long as it is."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import grpc
import pytest

from cache.server.journal import Journal
from cache.server.metrics import Metrics
from cache.server.quotas import NamespaceLimit, Quotas
from cache.server.refusal import Refused
from cache.server.server_gc import Policy, ServerGc

if TYPE_CHECKING:
    from pathlib import Path

    from shelved import Shelved

MB = 1_000_000


def test_what_is_on_its_way_counts_over_a_recount_and_until_it_ends(shelved: Shelved) -> None:
    quotas = Quotas(shelved.store)
    hold = quotas.take("me", "main", 3 * MB, 5 * MB)
    quotas.recount()
    with pytest.raises(Refused) as refused:
        quotas.take("me", "main", 3 * MB, 5 * MB)
    assert refused.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED, "it may have gone in a moment"
    assert "0 B of 4.8 MiB, and 2.9 MiB are on their way; 2.9 MiB more do not fit" in refused.value.text
    assert quotas.usage() == {}
    hold.release()
    with pytest.raises(OSError, match="broke"), quotas.take("me", "main", 4 * MB, 5 * MB):
        raise OSError("broke")
    with quotas.take("me", "main", 4 * MB, 5 * MB):
        pass
    assert quotas.usage()["main"].bytes == 4 * MB
    with pytest.raises(Refused) as refused:
        quotas.take("me", "main", 3 * MB, 5 * MB)
    assert refused.value.code is grpc.StatusCode.FAILED_PRECONDITION
    with quotas.take("somebody else", "main", 3 * MB, 5 * MB):
        pass


def test_what_is_only_claimed_removes_nothing(shelved: Shelved, tmp_path: Path) -> None:
    blobs = [shelved.large(days=30) for _ in range(5)]
    quotas = Quotas(shelved.store, [NamespaceLimit("main", 6 * MB)], 8 * MB)
    gc = ServerGc(shelved.shelf, quotas, Policy(), Journal(str(tmp_path / "log")), Metrics())
    with quotas.take("liar", "main", 6 * MB, None) as hold:
        gc._look()
        assert all(map(shelved.is_there, blobs))
        assert gc.collect().blobs == 0
        hold.release()
    gc._look()
    assert all(map(shelved.is_there, blobs))
    for _ in range(3):
        shelved.large(days=1)
    gc._look()
    assert not all(map(shelved.is_there, blobs)), "what was stored does"


def test_many_who_take_and_give_back_leave_nothing_behind(shelved: Shelved) -> None:
    """While all is counted again, too."""
    kept = 8 * 50 * 1000
    quotas = Quotas(shelved.store, [NamespaceLimit("**", MB)], 1 << 40)

    def work(number: int) -> None:
        for turn in range(100):
            with quotas.take(f"n{number % 2}", "main", 1000, MB) as hold:
                if turn % 2:
                    hold.release()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert quotas.usage()["main"].bytes == kept
    with quotas.take("n0", "main", MB - kept // 2, MB):  # to the last byte of what n0 may have
        quotas.recount()
    with pytest.raises(Refused):
        quotas.take("n0", "main", kept // 2 + 1, MB)
    quotas.recount()
    assert quotas.usage() == {}
    with quotas.take("n0", "main", MB, MB):
        pass
