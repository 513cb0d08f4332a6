"""On demand: work that needs other work of its kind, thousands deep, without recursion."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

T = TypeVar("T")


class NotDone(Exception):
    """Raised inside `until_done` by whoever asks for a piece that is still to be done."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def until_done(work: Callable[[], T]) -> Generator[int, None, T]:
    """Do something that may ask for other pieces: again from its start, once the piece that it asked for is done.

    So what it does before it asks must not matter if it is done twice.
    """
    while True:
        try:
            return work()
        except NotDone as missing:
            number = missing.number
        yield number


def do_with_needs(first: int, piece: Callable[[int], Generator[int, None, T]], done: dict[int, T]) -> None:
    """Do a piece and all that it needs. piece: work that yields the number of each piece that it waits for."""
    pending = [(first, piece(first))]
    while pending:
        number, work = pending[-1]
        try:
            wanted = next(work)
        except StopIteration as end:
            done[number] = end.value
            pending.pop()
        else:
            pending.append((wanted, piece(wanted)))
