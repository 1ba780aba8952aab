"""What plan_mix promises: the ratio or the shortage, caps and floors at any size, nested mixes, no dependence on order."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from curation.mix import NEAR_BUDGET, TOLERANCE, MixPlan, Shortage, plan_mix
from curation.settings import MixSettings

GENRES = ["story", "verse", "transcript", "science"]


def pool_of(words: list[int], seed: int = 0) -> pa.Table:
    random = np.random.default_rng(seed)
    n = len(words)
    return pa.table(
        {
            "doc_id": [f"s/{i}" for i in range(n)],
            "part": ["grade3" if i % 2 else "all_ages" for i in range(n)],
            "n_words": words,
            "source": [f"source{i}" for i in random.integers(0, 3, n)],
            "genre": [GENRES[i] for i in random.integers(0, len(GENRES), n)],
            "subject": [None if i % 3 else "maths" for i in range(n)],
        }
    )


def chosen(plan: MixPlan, pool: pa.Table, part: str) -> list[str]:
    return [pool["doc_id"][int(i)].as_py() for i in plan.parts[part].chosen]


pools = st.lists(st.integers(20, 800), min_size=4, max_size=120).map(pool_of)
ratios = st.floats(0.5, 0.9)


@given(pools, ratios, st.integers(0, 3))
def test_the_plan_is_what_it_says(pool: pa.Table, ratio: float, seed: int) -> None:
    plan = plan_mix(pool, MixSettings(grade_ratio=ratio, seed=seed))
    words = np.asarray(pool["n_words"])
    parts = pool["part"].to_pylist()
    total = words[plan.order].sum()
    grade3 = sum(words[i] for i in plan.order if parts[i] == "grade3")
    assert plan.n_words == total
    assert plan.ratio == pytest.approx(grade3 / total, abs=1e-12)
    assert len(set(plan.order.tolist())) == len(plan.order)  # no document twice
    assert sorted(plan.order) == sorted(np.concatenate([p.chosen for p in plan.parts.values()]))


@given(pools, ratios)
def test_no_pair_of_prefixes_is_better(pool: pa.Table, ratio: float) -> None:
    """The slow way: every pair of prefixes, in the order the plan itself takes documents."""
    plan = plan_mix(pool, MixSettings(grade_ratio=ratio))
    whole = {part: _order(pool, part) for part in plan.parts}
    prefixes = {part: np.concatenate([[0], np.cumsum(lengths)]) for part, lengths in whole.items()}
    a, b = np.meshgrid(prefixes["grade3"][1:], prefixes["all_ages"][1:], indexing="ij")
    total, miss = a + b, np.abs(a / (a + b) - ratio)
    near = total >= NEAR_BUDGET * min(prefixes["grade3"][-1] / ratio, prefixes["all_ages"][-1] / (1 - ratio))
    assume(near.any())
    if (miss[near] <= TOLERANCE).any():
        assert abs(plan.ratio - ratio) <= TOLERANCE
        assert plan.n_words == total[near & (miss <= TOLERANCE)].max()
    else:
        assert abs(plan.ratio - ratio) == pytest.approx(miss[near].min(), abs=1e-12)


def _order(pool: pa.Table, part: str) -> list[int]:
    """Words of a part's documents in the order in which mixes take them: read off ever larger mixes of that part."""
    own = pool.filter(pa.compute.equal(pool["part"], part))
    other = own.set_column(1, "part", pa.array(["all_ages" if part == "grade3" else "grade3"] * own.num_rows))
    filler = other.set_column(0, "doc_id", pa.array([f"f/{i}" for i in range(own.num_rows)]))
    filler = filler.set_column(2, "n_words", pa.array([10_000_000] * own.num_rows))
    both = pa.concat_tables([own, filler])
    ratio = 0.5
    plan = plan_mix(both, MixSettings(grade_ratio=ratio))
    lengths = np.asarray(both["n_words"])
    rows = plan.parts[part].chosen
    return [int(lengths[i]) for i in rows]


@given(pools, st.integers(0, 1000))
def test_input_order_does_not_matter(pool: pa.Table, seed: int) -> None:
    shuffled = pool.take(np.random.default_rng(seed).permutation(pool.num_rows))
    first, second = (plan_mix(p, MixSettings(grade_ratio=0.7)) for p in (pool, shuffled))
    assert [pool["doc_id"][int(i)] for i in first.order] == [shuffled["doc_id"][int(i)] for i in second.order]


@settings(max_examples=50)
@given(st.lists(st.integers(20, 400), min_size=150, max_size=300).map(pool_of), st.integers(4000, 6000))
def test_mixes_of_one_budget_are_nested(pool: pa.Table, words: int) -> None:
    mixing = {"caps": {"genre": {"verse": 0.1, "transcript": 0.2}}, "words": words}
    plans = {}
    for ratio in (0.5, 0.7, 0.9):
        try:
            plans[ratio] = plan_mix(pool, MixSettings(grade_ratio=ratio, **mixing))
        except Shortage:
            assume(False)
    for small, large in ((0.5, 0.7), (0.7, 0.9)):
        for part, less, more in (("grade3", small, large), ("all_ages", large, small)):
            shorter, longer = chosen(plans[less], pool, part), chosen(plans[more], pool, part)
            assert shorter == longer[: len(shorter)], (part, less, more)


@given(
    st.lists(st.integers(20, 400), min_size=40, max_size=200).map(pool_of),
    st.floats(0, 0.4),
    st.floats(0, 0.4),
    st.floats(0.0, 0.3),
)
def test_caps_and_floors_hold_at_any_size(pool: pa.Table, verse: float, source: float, science: float) -> None:
    mixing: dict[str, Any] = {
        "caps": {"genre": {"verse": verse}, "source": {"source0": source}},
        "floors": {"genre": {"science": science}},
    }
    try:
        plan = plan_mix(pool, MixSettings(**mixing))
    except Shortage:
        return
    largest = max(pool["n_words"].to_pylist())
    for part in plan.parts.values():
        for size in (len(part.chosen) // 3, len(part.chosen)):
            rows = part.chosen[:size].tolist()
            words: Counter[Any] = Counter()
            for row in rows:
                for column in ("genre", "source"):
                    words[pool[column][row].as_py()] += pool["n_words"][row].as_py()
            total = sum(pool["n_words"][row].as_py() for row in rows)
            assert words["verse"] <= verse * total + 1e-6
            assert words["source0"] <= source * total + 1e-6
            assert words["science"] >= science * total - largest  # a floor may lag by one document
        account = part.n_words_available - sum(part.n_words_left_out.values())
        assert 0 <= part.n_words <= account


def test_words_are_a_budget() -> None:
    pool = pool_of([100] * 1000)
    plan = plan_mix(pool, MixSettings(grade_ratio=0.7, words=20_000))
    assert plan.n_words == 20_000
    assert plan.ratio == pytest.approx(0.7, abs=TOLERANCE)


def test_a_shortage_names_what_there_is_and_what_to_do() -> None:
    pool = pool_of([100] * 1000)  # 50,000 words a part
    with pytest.raises(Shortage) as short:
        plan_mix(pool, MixSettings(grade_ratio=0.8, words=100_000))
    assert "asked 0.80 of 100.0k words; grade3 has 50.0k" in short.value.message
    assert "at most 62.5k words" in short.value.message
    assert short.value.hint == "--words 62500, or --max-repeats 2"
    assert plan_mix(pool, MixSettings(grade_ratio=0.8, words=62_500)).n_words == 62_500


def test_repeats_take_every_document_before_any_twice() -> None:
    pool = pool_of([100] * 1000)
    plan = plan_mix(pool, MixSettings(grade_ratio=0.8, words=100_000, max_repeats=2))
    assert plan.n_words == 100_000
    counts = Counter(plan.parts["grade3"].chosen.tolist())
    assert set(counts.values()) == {1, 2}
    assert len(counts) == 500
    assert set(Counter(plan.parts["all_ages"].chosen.tolist()).values()) == {1}


def test_a_pool_without_a_part_is_a_shortage() -> None:
    pool = pool_of([100] * 10)
    only = pool.filter(pa.compute.equal(pool["part"], "grade3"))
    with pytest.raises(Shortage, match="all_ages 0"):
        plan_mix(only, MixSettings())


def test_a_floor_on_what_is_not_there_is_a_shortage() -> None:
    with pytest.raises(Shortage, match="grade3 has nothing of genre opera, which has a floor"):
        plan_mix(pool_of([100] * 100), MixSettings(floors={"genre": {"opera": 0.1}}))


def test_another_seed_takes_other_documents() -> None:
    pool = pool_of([100] * 1000)
    plans = [plan_mix(pool, MixSettings(words=20_000, seed=seed)) for seed in (0, 1)]
    assert set(plans[0].order.tolist()) != set(plans[1].order.tolist())
