"""Every key in Redis is in the table of docs/reference/state.md, with its type."""

import re
from functools import cache
from pathlib import Path

import redis

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "state.md"
# What the table says first of a type, and what Redis calls it.
TYPES = {"integer": "string", "binary": "string", "text": "string", "hash": "hash", "set": "set", "sorted": "zset"}
_FOUND_IN = re.compile(r"`([^`]+)`")


@cache
def documented() -> dict[str, str]:
    """Patterns of keys as regular expressions, and the type Redis gives them."""
    found: dict[str, str] = {}
    for line in PAGE.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) < 5 or not cells[0].startswith("`"):
            continue
        names = _FOUND_IN.findall(cells[0])
        kinds = [kind.split()[0] for kind in cells[1].split(", ")]
        for number, name in enumerate(names):
            pattern = re.sub(r"<[^>]+>", "[^:]+", re.escape(name).replace(r"\<", "<").replace(r"\>", ">"))
            # The last part of a row's key is the user's own id: anything.
            pattern = re.sub(r"\[\^:\]\+$", ".+", pattern)
            found[pattern] = TYPES[kinds[min(number, len(kinds) - 1)]]
    return found


def matches(key: str, kind: str) -> bool:
    """Whether the table has the key (without its prefix) with this type; `none` stands for any, as of a key that is gone."""
    return any(kind in {told, "none"} and re.fullmatch(pattern, key) for pattern, told in documented().items())


def undocumented(client: "redis.Redis", prefix: str) -> list[str]:
    """Keys of a system that the table does not have, or has with another type."""
    findings = []
    for key in client.scan_iter(f"{prefix}:*", count=1_000):
        name = key.decode()
        short = name.removeprefix(f"{prefix}:{{0}}:")
        kind = client.type(key).decode()  # none if a worker has emptied it since it was listed
        if not matches(short, kind):
            findings.append(f"{name} ({kind})")
    return sorted(findings)
