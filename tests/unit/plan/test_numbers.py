"""Numbers stay with their keys."""

from __future__ import annotations

import pytest

from testbed.errors import InputError
from testbed.plan import numbers
from testbed.plan.numbers import Numbers, balance_mark, table_mark


def test_known_keys_keep_their_numbers() -> None:
    """A key that was numbered once gets the same number in every later plan."""
    first = Numbers()
    assert [first.of("member", key) for key in ("a", "b", "a")] == [1, 2, 1]
    later = Numbers(dict(first.known))
    assert later.of("member", "c") == 3
    assert later.of("member", "b") == 2


def test_kinds_count_apart() -> None:
    """Each kind starts at 1."""
    assert (Numbers().of("rule", "x"), Numbers().of("table", "x")) == (1, 1)


def test_marks_never_meet() -> None:
    """A table's mark, a balance mark and a member's id use different bits or different values of them."""
    highest = 0x7FFE
    assert table_mark(highest) < balance_mark(1)
    assert balance_mark(highest) <= 0xFFFFFFFF
    assert not table_mark(1) & numbers.MEMBER_MASK


def test_too_many_objects_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind that is used up is an input error, not an overflow into other bits."""
    monkeypatch.setattr(numbers, "_LIMIT", 2)
    full = Numbers()
    assert [full.of("rule", key) for key in "ab"] == [1, 2]
    with pytest.raises(InputError, match="too many"):
        full.of("rule", "c")
