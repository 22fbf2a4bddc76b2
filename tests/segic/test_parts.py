"""Working on tokens part by part, and memory that frames of another size can use again."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from segic import parts
from segic.parts import AT_ONCE, by_parts, joined, split, with_room


@given(st.integers(0, 5 * AT_ONCE))
def test_parts_are_alike_but_for_the_last_and_none_is_small(count: int) -> None:
    with torch.no_grad():
        sizes = [len(part) for part in split(torch.empty(count), dim=0)]
    assert sum(sizes) == count
    assert set(sizes[:-1]) <= {AT_ONCE}
    assert sizes[-1] <= 1.5 * AT_ONCE
    assert len(sizes) == 1 or sizes[-1] >= AT_ONCE / 2


def test_nothing_is_split_where_there_may_be_gradients() -> None:
    tokens = torch.empty(1, 3 * AT_ONCE, 2)
    with torch.enable_grad():
        assert len(split(tokens)) == 1
    with torch.no_grad():
        assert len(split(tokens)) == 3


@pytest.mark.parametrize("chosen", [None, torch.tensor([8, 3, 3, 0, 5, 6, 7])])
def test_a_function_of_each_token_is_the_same_by_parts(
    chosen: torch.Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, weight = torch.randn(2, 9, 4), torch.randn(5, 4)
    seen: list[int] = []

    def function(some: torch.Tensor) -> torch.Tensor:
        seen.append(some.shape[1])
        return F.linear(some, weight)

    monkeypatch.setattr(parts, "AT_ONCE", 2)
    with torch.no_grad():
        found = by_parts(function, tokens, chosen)
    expected = F.linear(tokens if chosen is None else tokens[:, chosen], weight)
    assert len(seen) > 2
    torch.testing.assert_close(found, expected)


def test_parts_are_joined_along_any_dimension_and_one_is_not_copied() -> None:
    whole = torch.arange(24.0).view(2, 4, 3)
    again = joined([whole[:, :3], whole[:, 3:]], most=10)
    assert torch.equal(again, whole)
    assert again.untyped_storage().nbytes() == 2 * 10 * 3 * 4
    assert torch.equal(joined([whole[..., :1], whole[..., 1:]], most=3, dim=2), whole)
    assert joined([whole], most=10) is whole


@given(st.integers(1, 20), st.integers(0, 30))
def test_all_that_there_may_be_take_the_same_memory(count: int, most: int) -> None:
    """And what is more than that has room as well."""
    made = with_room(torch.empty(0, dtype=torch.bfloat16), (3, count, 5), most, dim=1)
    assert made.shape == (3, count, 5)
    assert made.is_contiguous()
    assert made.dtype == torch.bfloat16
    assert made.untyped_storage().nbytes() == 2 * 3 * max(count, most) * 5
