"""The check that finds keys which no page names."""

import pytest
from tests.support.documented_keys import documented, matches


def test_the_table_is_read_whole() -> None:
    """Patterns of every kind are there, each with Redis' own word for its type."""
    found = documented()
    assert len(found) >= 15
    assert set(found.values()) == {"string", "hash", "set", "zset"}


@pytest.mark.parametrize(
    ("key", "kind", "is_documented"),
    [
        ("partition:3:fence", "string", True),
        ("decisions:3320:17", "hash", True),
        ("decisions:3320:17", "string", False),
        ("row:terminal:5f5f:shop:7", "string", True),
        ("labels:parked", "hash", True),
        ("labels:parked:other", "zset", False),
        ("decisions:3320:17", "none", True),
        ("labels:parked:other", "none", False),
        ("somebody", "hash", False),
    ],
)
def test_a_key_is_documented_with_its_type(key: str, kind: str, is_documented: bool) -> None:
    """A name that fits no row of the table, or a type that is not the row's, is found."""
    assert matches(key, kind) is is_documented
