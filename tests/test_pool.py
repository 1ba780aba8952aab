"""The held-out works: whole works, about two per cent of each part, the same whatever else there is."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.pool import VAL_MAX_SHARE, VAL_MIN_WORDS, VAL_SHARE, choose_val
from shared.schema import PARTS

documents = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from(PARTS), st.integers(20, 800)), min_size=1, max_size=300
).map(
    lambda rows: pa.table(
        {"work": [f"w{w}" for w, _, _ in rows], "part": [p for _, p, _ in rows], "n_words": [n for *_, n in rows]}
    )
)


def words(pool: pa.Table, split: list[str], part: str, side: str) -> int:
    rows = zip(pool["part"].to_pylist(), pool["n_words"].to_pylist(), split, strict=True)
    return sum(n for p, n, s in rows if p == part and s == side)


@given(documents)
def test_works_stay_whole_and_little_is_held_out(pool: pa.Table) -> None:
    split = choose_val(pool)
    by_work: dict[str, set[str]] = {}
    for work, side in zip(pool["work"].to_pylist(), split, strict=True):
        by_work.setdefault(work, set()).add(side)
    assert all(len(sides) == 1 for sides in by_work.values())
    for part in PARTS:
        held = words(pool, split, part, "val")
        assert held <= VAL_MAX_SHARE * (held + words(pool, split, part, "train"))


@pytest.mark.parametrize("n_works", [40, 4000])
def test_a_large_pool_holds_out_two_per_cent(n_works: int) -> None:
    n = 40_000
    pool = pa.table(
        {
            "work": [f"w{i % n_works}" for i in range(n)],
            "part": [PARTS[i % 3 == 0] for i in range(n)],
            "n_words": [100] * n,
        }
    )
    split = choose_val(pool)
    for part in PARTS:
        held = words(pool, split, part, "val")
        share = held / (held + words(pool, split, part, "train"))
        assert VAL_SHARE <= share <= 2 * VAL_SHARE


def test_a_small_pool_holds_out_at_least_a_minimum() -> None:
    n = 600
    pool = pa.table(
        {"work": [f"w{i}" for i in range(n)], "part": [PARTS[i % 2] for i in range(n)], "n_words": [100] * n}
    )
    split = choose_val(pool)
    for part in PARTS:
        assert VAL_MIN_WORDS <= words(pool, split, part, "val") <= VAL_MAX_SHARE * 30_000
