"""Reads and writes the few parts of DER that time stamps are made of.

Knows no schema; bytes in, nodes out. Source of truth: ITU-T X.690 section 10. Lengths are definite and minimal, as DER has
them; the order within a SET is not asked for, since authorities put certificates there as they have them.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

INTEGER: Final = 0x02
OCTET_STRING: Final = 0x04
OBJECT_ID: Final = 0x06
GENERALIZED_TIME: Final = 0x18
SEQUENCE: Final = 0x30
SET: Final = 0x31
# Context-specific and constructed, number 0 and 1.
CONTEXT_0: Final = 0xA0
CONTEXT_1: Final = 0xA1

# An answer with a chain of ten certificates has a few hundred nodes in a SEQUENCE at most.
CHILDREN_MAX: Final = 1_000


class DerError(ValueError):
    """Bytes are not DER, or not what was expected; the text says which."""


@dataclass(frozen=True, slots=True)
class Node:
    """A value with its tag. raw: all of it; content: what is behind the length."""

    tag: int
    raw: bytes
    content: bytes

    def children(self) -> list["Node"]:
        """The values in it. Raises DerError."""
        found: list[Node] = []
        rest = self.content
        while rest:
            if len(found) >= CHILDREN_MAX:
                raise DerError(f"a value has more than {CHILDREN_MAX} parts")
            node, rest = _first(rest)
            found.append(node)
        return found

    def integer(self) -> int:
        """The value of an INTEGER. Raises DerError."""
        return int.from_bytes(_expected(self, INTEGER, "an integer").content, "big", signed=True)

    def object_id(self) -> str:
        """The value of an OBJECT IDENTIFIER, with dots. Raises DerError."""
        content = _expected(self, OBJECT_ID, "an object identifier").content
        numbers = []
        value = 0
        for byte in content:
            value = value << 7 | byte & 0x7F
            if not byte & 0x80:
                numbers.append(value)
                value = 0
        if not numbers or content[-1] & 0x80:
            raise DerError("an object identifier has no end")
        first = min(numbers[0] // 40, 2)
        return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))

    def time(self) -> datetime:
        """The value of a GeneralizedTime, with parts of seconds or without. Raises DerError."""
        content = _expected(self, GENERALIZED_TIME, "a time").content
        try:
            text = content.decode("ascii")
            whole, _, part = text.removesuffix("Z").partition(".")
            if not text.endswith("Z") or not whole.isdigit() or (part and not part.isdigit()):
                raise ValueError(text)
            parsed = datetime.strptime(whole, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
            return parsed.replace(microsecond=int((part + "000000")[:6]))
        except ValueError as error:
            raise DerError(f"{content[:40]!r} is no time in UTC") from error


def parse(data: bytes) -> Node:
    """The one value that the bytes are. Raises DerError."""
    node, rest = _first(data)
    if rest:
        raise DerError(f"{len(rest)} bytes follow the value")
    return node


def sequence(node: Node, tag: int = SEQUENCE) -> list[Node]:
    """The parts of a SEQUENCE, or of what has another tag. Raises DerError."""
    return _expected(node, tag, f"a value with the tag {tag:#x}").children()


def encode(tag: int, content: bytes) -> bytes:
    """A value."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def encode_integer(value: int) -> bytes:
    """An INTEGER that is not negative."""
    return encode(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _first(data: bytes) -> tuple[Node, bytes]:
    """The first value, and what follows it."""
    if len(data) < 2:
        raise DerError("a value ends before its length")
    tag, size, begin = data[0], data[1], 2
    if tag & 0x1F == 0x1F:
        raise DerError("a value has a tag of several bytes, which no time stamp has")
    if size & 0x80:
        count = size & 0x7F
        begin += count
        size = int.from_bytes(data[2:begin], "big")
        if not 1 <= count <= 4 or len(data) < begin or size < max(0x80, 1 << 8 * (count - 1)):
            raise DerError("a value's length is not in its one form")
    if len(data) < begin + size:
        raise DerError("a value is longer than what holds it")
    return Node(tag, data[: begin + size], data[begin : begin + size]), data[begin + size :]


def _expected(node: Node, tag: int, what: str) -> Node:
    if node.tag != tag:
        raise DerError(f"there is a value with the tag {node.tag:#x} where {what} belongs")
    return node
