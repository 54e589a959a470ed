"""Any bytes to a JSON object that can be trusted, or the reason why not. Slow and plain; the hot path is in `decode`.

Stricter than the standard library's parser, which takes NaN, keys that occur twice and lone surrogates, and recurses.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final

from fraudstream.codec.limits import Limits
from fraudstream.events import Reason, Rejected


class NotANumber:
    """Stands for the literals NaN, Infinity and -Infinity, which some producers write and JSON does not have."""


NOT_A_NUMBER: Final = NotANumber()

# A double has at most 309 digits before its point. Longer integers are read as a double, which makes them infinite:
# exact integers of any length would cost time in the square of their length.
_INTEGER_TEXT_MAX: Final = 310

# One JSON string, or the rest of the text when it does not end. Possessive, so linear in the length of any input.
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


class _Repeated(list[tuple[str, Any]]):
    """An object in which a key occurs twice, with all its pairs."""


def read_object(value: bytes, limits: Limits) -> dict[str, Any] | Rejected:
    """The JSON object that `value` is.

    Keys are unique at every depth; text is valid Unicode; depth and length are within the limits. Numbers may still be
    infinite (1e999), and the field `amount` alone may be `NOT_A_NUMBER`: the caller names those faults.

    Never raises, whatever the bytes.
    """
    if len(value) > limits.payload_bytes_max:
        return Rejected(Reason.PAYLOAD_TOO_LARGE, f"{len(value)} bytes; {limits.payload_bytes_max} are allowed")
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        return Rejected(Reason.INVALID_UTF8, f"not UTF-8 from byte {error.start}")
    too_deep = Rejected(Reason.NESTED_TOO_DEEP, f"nested deeper than {limits.nesting_depth_max}")
    if nested_deeper(value, limits.nesting_depth_max):
        return too_deep
    try:
        document = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        return Rejected(Reason.INVALID_JSON, f"{_first_words(error.msg)} at character {error.pos}")
    except RecursionError:  # the caller's own stack is almost used up
        return too_deep
    nodes = list(_nodes(document))
    fault = _text_fault(document, nodes, may_escape=b"\\u" in value)
    if fault is not None:
        return fault
    if any(type(node) is _Repeated for node in nodes):
        return Rejected(Reason.DUPLICATE_KEY, "a key occurs twice in one object")
    if type(document) is not dict:
        return Rejected(Reason.NOT_AN_OBJECT, f"{type_name(document)}, not an object")
    return document


def nested_deeper(value: bytes, depth_max: int) -> bool:
    """Whether more than `depth_max` objects and arrays are open at once, strings aside. Linear in the length."""
    if value.count(b"{") + value.count(b"[") <= depth_max:
        return False
    depth = 0
    for byte in _STRING.sub(b"", value):
        if byte in b"{[":
            depth += 1
            if depth > depth_max:
                return True
        elif byte in b"}]":
            depth -= 1
    return False


def all_finite(value: Any) -> bool:
    """Whether every number in a JSON value, at any depth, is within the range of a double."""
    return all(math.isfinite(to_double(node)) for node in _nodes(value) if type(node) in (int, float))


def to_double(number: float) -> float:
    """A JSON number as a double; infinite when it has more than 308 digits before its point."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def type_name(value: Any) -> str:
    """What a JSON value is, in words."""
    return _TYPE_NAMES.get(type(value), "a number")


_TYPE_NAMES: Final = {
    type(None): "null",
    bool: "true or false",
    str: "text",
    list: "an array",
    dict: "an object",
    _Repeated: "an object",
}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Repeated:
    unique = dict(pairs)
    return unique if len(unique) == len(pairs) else _Repeated(pairs)


def _integer(text: str) -> float:
    return int(text) if len(text) <= _INTEGER_TEXT_MAX else float(text)


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_constant=lambda _literal: NOT_A_NUMBER
)


def _nodes(document: Any) -> Iterator[Any]:
    """Every value in a document, at any depth, containers included, and every key."""
    open_nodes = [document]
    while open_nodes:
        node = open_nodes.pop()
        yield node
        if isinstance(node, dict):
            yield from node
            open_nodes.extend(node.values())
        elif isinstance(node, _Repeated):
            for key, value in node:
                yield key
                open_nodes.append(value)
        elif isinstance(node, list):
            open_nodes.extend(node)


def _text_fault(document: Any, nodes: list[Any], *, may_escape: bool) -> Rejected | None:
    """What the standard parser takes although it is not JSON."""
    literals = sum(node is NOT_A_NUMBER for node in nodes)
    if literals and not (literals == 1 and isinstance(document, dict) and document.get("amount") is NOT_A_NUMBER):
        return Rejected(Reason.INVALID_JSON, "NaN or Infinity, which JSON does not have")
    if may_escape and not all(_is_unicode(node) for node in nodes if type(node) is str):
        return Rejected(Reason.INVALID_JSON, "half of a surrogate pair, which is not a character")
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _first_words(message: str) -> str:
    """The parser's message without what it may quote: a dead letter's headers never repeat the payload."""
    return message.partition(":")[0].removesuffix(" at")
