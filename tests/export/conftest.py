"""The store that the tests of exports take images from."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.export.workshop import Workshop, workshop


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    with workshop(tmp_path / "store") as made:
        yield made
