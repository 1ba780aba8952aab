"""plan_mix: which documents of the pool make a mix of a given third-grade ratio. Pure: no files, no clock, no state.

Each part is put in one order: by hash(seed, doc_id), with documents of capped groups held back until they fit and
documents of floored groups brought forward when they fall short. Every prefix of that order keeps caps and floors, and
it does not depend on ratio or budget (a floor may lag by one document); a mix is a prefix of each part. So at one
budget mix50, mix70 and mix90 are nested, and selection cannot depend on the order or the sharding of the input.
"""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from math import ceil, floor, inf

import numpy as np
import pyarrow as pa

from curation.settings import MixSettings
from shared.console import UserError, human, table
from shared.schema import PARTS

TOLERANCE = 1e-4  # of the ratio
# The least share of the budget a mix may fill to meet its ratio. Ratios r < s nest at one budget while r / s is below
# it, as 0.5, 0.7 and 0.9 do; a pool of millions of words fills any budget to a fraction of a per cent.
NEAR_BUDGET = 0.8
COLUMNS = ("source", "genre", "subject")


@dataclass(frozen=True)
class PartPlan:
    """One part of a mix. Indexes are rows of the pool; a document taken twice stands in `chosen` twice."""

    n_docs_available: int
    n_words_available: int
    left_out: dict[int, str]  # rows that may not be used -> because of which cap or floor
    n_words_left_out: dict[str, int]  # cap or floor -> their words
    n_words_usable: int  # what caps and floors leave, times max_repeats
    n_words_wanted: int | None
    chosen: np.ndarray
    n_words: int

    @property
    def n_words_short(self) -> int:
        return max(0, (self.n_words_wanted or 0) - self.n_words_usable)


@dataclass(frozen=True)
class MixPlan:
    """What goes into a mix."""

    ratio: float  # of the train words, as it comes out
    parts: dict[str, PartPlan]
    order: np.ndarray  # rows of the pool, shuffled as the shards hold them

    @property
    def n_words(self) -> int:
        return sum(part.n_words for part in self.parts.values())


class Shortage(UserError):
    """The pool cannot give what was asked for; `parts` is what it could give of each part."""

    def __init__(self, message: str, hint: str, parts: dict[str, PartPlan]) -> None:
        super().__init__(message, hint)
        self.parts = parts


def plan_mix(pool: pa.Table, settings: MixSettings) -> MixPlan:
    """Returns the plan of a mix over a pool's train documents (doc_id, part, n_words, source, genre, subject).

    Raises Shortage, with the largest mix there is, when the pool cannot meet the word budget.
    """
    doc_ids, words = pool["doc_id"].to_pylist(), np.asarray(pool["n_words"], dtype=np.int64)
    sequences: dict[str, np.ndarray] = {}
    supply: dict[str, PartPlan] = {}
    lacking: list[str] = []
    for part, share in zip(PARTS, (settings.grade_ratio, 1 - settings.grade_ratio), strict=True):
        rows = _by_key(np.flatnonzero(np.array(pool["part"].to_pylist(), dtype=object) == part), doc_ids, settings.seed)
        sequence, left_out = _compose(rows, words, pool, settings)
        lacking += [
            f"{part} has nothing of {column} {value}, which has a floor"
            for column, floors in settings.floors.items()
            for value, least in floors.items()
            if least and value not in pool[column].take(rows).to_pylist()
        ]
        sequences[part] = np.tile(np.array(sequence, dtype=np.int64), settings.max_repeats)
        supply[part] = PartPlan(
            n_docs_available=len(rows),
            n_words_available=int(words[rows].sum()),
            left_out=left_out,
            n_words_left_out=_n_words_by_reason(left_out, words),
            n_words_usable=int(words[sequences[part]].sum()),
            n_words_wanted=None if settings.words is None else round(settings.words * share),
            chosen=np.zeros(0, dtype=np.int64),
            n_words=0,
        )
    if lacking:
        raise Shortage("; ".join(lacking), "lower the floor to 0, or add such documents", supply)
    grade3, all_ages = (np.concatenate([[0], np.cumsum(words[sequences[part]])]) for part in PARTS)
    budget = _budget(supply, settings)
    cuts = _best_prefixes(grade3, all_ages, settings.grade_ratio, budget)
    if cuts is None:
        raise Shortage(f"no two documents fit into {budget:,} words", "ask for more --words", supply)
    plans: dict[str, PartPlan] = {}
    for part, cut in zip(PARTS, cuts, strict=True):
        chosen = sequences[part][:cut]
        plans[part] = replace(supply[part], chosen=chosen, n_words=int(words[chosen].sum()))
    ratio = plans["grade3"].n_words / sum(plan.n_words for plan in plans.values())
    return MixPlan(ratio, plans, _shuffled(plans, doc_ids, settings.seed))


def _by_key(rows: np.ndarray, doc_ids: list[str], seed: int) -> list[int]:
    """Returns rows in the order in which mixes of a seed take them."""
    return sorted(rows.tolist(), key=lambda row: (document_key(f"{seed}/{doc_ids[row]}"), doc_ids[row]))


def document_key(text: str) -> int:
    """Returns 64 bits that put documents in an order nobody chose."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _compose(
    rows: list[int], words: np.ndarray, pool: pa.Table, settings: MixSettings
) -> tuple[list[int], dict[int, str]]:
    """Returns the rows in an order whose every prefix keeps caps and floors, and for those left out the reason."""
    caps = {(column, value): cap for column, values in settings.caps.items() for value, cap in values.items()}
    floors = {(column, value): low for column, values in settings.floors.items() for value, low in values.items()}
    if not caps and not floors:
        return rows, {}
    labels = {column: pool[column].to_pylist() for column in COLUMNS}
    groups = {row: [g for c in COLUMNS if (g := (c, labels[c][row])) in caps or g in floors] for row in rows}
    n_group = dict.fromkeys([*caps, *floors], 0)
    queues = {group: deque(row for row in rows if group in groups[row]) for group in floors}
    waiting: dict[tuple[object, ...], deque[int]] = {}
    taken: set[int] = set()
    order: list[int] = []
    total = 0

    def fits(row: int) -> bool:
        n = int(words[row])
        return all(n_group[g] + n <= caps.get(g, inf) * (total + n) for g in groups[row])

    def admissible() -> Iterator[int]:
        """Yields what to take next: what a floor lacks, what a cap held back and now fits, the next in hash order."""
        in_order = iter(rows)
        while True:
            lacking = next((g for g in floors if n_group[g] < floors[g] * total), None)
            if lacking is not None:
                row = next((r for r in queues[lacking] if r not in taken and fits(r)), None)
                if row is None:
                    return  # a longer prefix would break the floor
                while queues[lacking] and queues[lacking][0] in taken:
                    queues[lacking].popleft()
                yield row
                continue
            freed = next((q for q in waiting.values() if q and fits(q[0])), None)
            row = freed.popleft() if freed else next(in_order, None)
            if row is None:
                return
            if row in taken:
                continue
            if freed or fits(row):
                yield row
            else:
                waiting.setdefault(tuple(groups[row]), deque()).append(row)

    for row in admissible():
        taken.add(row)
        order.append(row)
        total += int(words[row])
        for group in groups[row]:
            n_group[group] += int(words[row])
    held_back = {row for queue in waiting.values() for row in queue} - taken
    left_out: dict[int, str] = {}
    for row in rows:
        if row not in taken:
            capped = [f"cap on {c} {v}" for c, v in groups[row] if (c, v) in caps] if row in held_back else []
            left_out[row] = capped[0] if capped else "floor not met"
    return order, left_out


def _n_words_by_reason(left_out: dict[int, str], words: np.ndarray) -> dict[str, int]:
    n_words: dict[str, int] = {}
    for row, reason in left_out.items():
        n_words[reason] = n_words.get(reason, 0) + int(words[row])
    return n_words


def _budget(supply: dict[str, PartPlan], settings: MixSettings) -> int:
    """Returns the word budget: what was asked for, or all there is. Raises Shortage when a part has too little."""
    ratio = settings.grade_ratio
    n_grade3, n_all_ages = (supply[part].n_words_usable for part in PARTS)
    largest = min(n_grade3 / ratio, n_all_ages / (1 - ratio))
    has = f"grade3 has {human(n_grade3)} words, all_ages {human(n_all_ages)}"
    if largest < 1:
        hint = "add sources, or a folder of text with --local-files DIR"
        raise Shortage(f"a mix needs both parts; {has}", hint, supply)
    if settings.words is None:
        return n_grade3 + n_all_ages
    if settings.words > largest:
        repeats = ceil(settings.max_repeats * settings.words / largest)
        more = f", or --max-repeats {repeats}" if repeats <= 16 else ""
        asked = f"asked {ratio:.2f} of {human(settings.words)} words"
        hint = f"--words {floor(largest)}{more}"
        raise Shortage(f"{asked}; {has}: at most {human(floor(largest))} words", hint, supply)
    return settings.words


def _best_prefixes(grade3: np.ndarray, all_ages: np.ndarray, ratio: float, budget: int) -> tuple[int, int] | None:
    """Returns how many documents of each part to take: the largest pair of prefixes near the budget whose ratio is
    within TOLERANCE; where there is none, the closest.

    grade3, all_ages: (n + 1,) words of each prefix, from 0. None where no two documents fit.
    """
    largest = min(budget, grade3[-1] / ratio, all_ages[-1] / (1 - ratio))
    for least in (NEAR_BUDGET * largest, 0):
        first, second = _pairs(grade3, all_ages, ratio, least, budget)
        if len(first):
            break
    else:
        return None
    total = grade3[first] + all_ages[second]
    miss = np.abs(grade3[first] / total - ratio)
    exact = np.flatnonzero(miss <= TOLERANCE)
    best = exact[np.lexsort((miss[exact], -total[exact]))[0]] if len(exact) else np.lexsort((-total, miss))[0]
    return int(first[best]), int(second[best])


def _pairs(
    grade3: np.ndarray, all_ages: np.ndarray, ratio: float, least: float, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns pairs of prefix lengths with `least` to `most` words: for each prefix of grade3 those of all_ages next to
    the ratio on either side, and the longest within TOLERANCE of it; none of the others can be the best pair."""
    first = np.arange(1, len(grade3))
    words = grade3[first]
    shortest = np.maximum(1, np.searchsorted(all_ages, least - words))
    longest = np.searchsorted(all_ages, most - words, side="right") - 1
    above = np.searchsorted(all_ages, words / ratio - words)
    within = np.searchsorted(all_ages, words / (ratio - TOLERANCE) - words, side="right") - 1
    possible = shortest <= longest
    seconds = [np.clip(second, shortest, longest)[possible] for second in (above - 1, above, within)]
    return np.tile(first[possible], len(seconds)), np.concatenate(seconds)


def _shuffled(plans: dict[str, PartPlan], doc_ids: list[str], seed: int) -> np.ndarray:
    """Returns the chosen rows of all parts in one order: by another hash than the one they were chosen by."""
    seen: dict[int, int] = {}
    keyed = []
    for row in np.concatenate([plan.chosen for plan in plans.values()]).tolist():
        seen[row] = seen.get(row, 0) + 1
        keyed.append((document_key(f"shuffle/{seed}/{seen[row]}/{doc_ids[row]}"), doc_ids[row], row))
    return np.array([row for _, _, row in sorted(keyed)], dtype=np.int64)


def plan_notes(plan: MixPlan, pool: pa.Table, settings: MixSettings) -> list[str]:
    """Returns what a person should know of a plan: a ratio or budget that was not met, a rule likely misspelt."""
    usable = {part: plan.parts[part].n_words_usable for part in PARTS}
    largest = min(usable["grade3"] / settings.grade_ratio, usable["all_ages"] / (1 - settings.grade_ratio))
    budget = min(settings.words or largest, largest)
    notes = []
    if abs(plan.ratio - settings.grade_ratio) > TOLERANCE:
        notes.append(f"so small a pool cannot come closer than {plan.ratio:.4f} to {settings.grade_ratio:g}")
    if plan.n_words < 0.98 * budget:
        notes.append(f"{human(plan.n_words)} of {human(budget)} words: a larger mix of this pool would miss the ratio")
    for kind, rules in (("cap", settings.caps), ("floor", settings.floors)):
        for column, values in rules.items():
            there = [str(value) for value in pool[column].unique().to_pylist()]
            for value in (value for value in values if value not in there):
                if close := get_close_matches(value, there, n=1):
                    notes.append(f"no document has the {column} {value} of a {kind}: did you mean {close[0]}?")
    return notes


def plan_table(parts: dict[str, PartPlan]) -> str:
    """Returns a plan as a table for people: what is available, usable, wanted, short and taken of each part."""
    rows: list[Sequence[object]] = []
    for name, part in parts.items():
        wanted = "all it can" if part.n_words_wanted is None else f"{part.n_words_wanted:,}"
        supply = [part.n_docs_available, part.n_words_available, part.n_words_usable]
        rows.append([name, *supply, wanted, part.n_words_short, len(part.chosen), part.n_words])
        rows += [
            [f"  {reason}", None, -words, None, "", None, None, None] for reason, words in part.n_words_left_out.items()
        ]
    header = ["part", "documents", "words", "usable", "wanted", "short", "documents taken", "words taken"]
    return table(rows, header)
