"""Which subject a text is about, which concepts it treats, and how `composition --coverage` tells it."""

import json
import re
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.clean import words_of
from curation.settings import profile_settings, read_curation_file
from curation.sources import READERS
from curation.sources.starter import FOLDER, read_starter
from curation.subjects import COMMON_MENTIONS, COVERED_DOCS, SUBJECTS, concepts_in, coverage, read_concepts, subject_of
from shared.settings import PIPELINES_FILE
from tests.conftest import Mix, run_module

LESSONS = [
    ("science", "A magnet pulls on things made of iron. Every magnet has two ends. Opposite poles pull together. The needle of a compass is magnetic too, so a compass needle points north. What happens when two magnets meet?"),
    ("science", "A caterpillar hatches from an egg. It eats leaves and grows. Then it makes a chrysalis, and inside the pupa a butterfly forms. Moths spin a cocoon. This change is called metamorphosis."),
    ("maths", "How many pencils are there in total? Multiply 4 by 6, then subtract 5. There are 24 minus 5 pencils, so 19 are left. The equation is 4 x 6 - 5 = 19. Each box costs 2 dollars."),
    ("social studies", "Citizens vote in an election. In our country they choose the members of Congress, a governor for each state and a mayor for each town. The constitution says how the government works and who may vote."),
    ("health", "Brush your teeth twice a day. A dentist looks for cavities in each tooth. Germs can make you ill, so use soap when you wash your hands. Sleep and exercise keep your heart and your muscles strong."),
    ("arts", "An orchestra has violins, flutes, trumpets and drums. The composer writes the melody, and the musicians play it. Mozart wrote his first symphony when he was eight."),
    ("language", "A noun names a person, place or thing. A verb tells what it does. An adjective says what it is like. Every sentence needs a noun or a pronoun and a verb."),
]  # fmt: skip

NO_LESSONS = [
    "Old Mr. Fox crept out of his den at dusk. He could hear the frogs in the pond. 'A fat duck for my supper,' said he, and he licked his lips. But the duck had seen him. 'Good evening, Mr. Fox,' she said from the middle of the pond, 'the water is lovely.'",
    "Twinkle, said the star to me,\nI am as far as far can be.\nThe moon came up, the owl flew by,\nAnd I went home beneath the sky.\nThe sun came up, the moon went down,\nAnd I walked back into the town.",
    "Mother gave me a dime for the store. I bought two apples and ran home. 'You have done well,' she said, and she kissed me. Then I went to bed, and my dog slept at my feet.",
    "What did you have for lunch? I had a sandwich and some milk. Oh, me too. Do you want to play ball after school? I can't, I have to go to the doctor with my brother. He is sick again.",
    "The king had three sons. The youngest was called Hans, and his brothers laughed at him. One day the king said, 'He who brings me the golden bird shall have my castle.' So Hans took his horse and rode into the forest.",
    "",
    "12 34 56",
]  # fmt: skip


@pytest.mark.parametrize(("subject", "text"), LESSONS)
def test_a_lesson_has_its_subject(subject: str, text: str) -> None:
    assert subject_of(text) == subject


@pytest.mark.parametrize("text", NO_LESSONS)
def test_a_story_verse_or_talk_has_none(text: str) -> None:
    assert subject_of(text) is None


def test_a_story_needs_more_terms_than_a_lesson() -> None:
    lesson = "The lava of a volcano is melted rock. An eruption may bury a town. The crater is at the top. " * 2
    told = "'I saw it,' he said to me. 'I took her hand,' said he, 'and she cried, and I ran with her to my boat.' " * 4
    assert subject_of(lesson) == "science" and subject_of(lesson + told) is None


def _forms(term: str) -> set[str]:
    ends_hissing = term.endswith(("s", "x", "z", "ch", "sh"))
    plural = term[:-1] + "ies" if re.search("[^aeiou]y$", term) else term + ("es" if ends_hissing else "s")
    return {term, plural, f"{term}'s"}


def test_the_list_can_be_read_and_every_term_can_be_found() -> None:
    concepts = read_concepts()
    assert 200 <= len(concepts) <= 270 and {concept.subject for concept in concepts} == set(SUBJECTS)
    listed = {term for concept in concepts for term in concept.terms + concept.common}
    for concept in concepts:
        terms = {*concept.terms, *concept.common}
        assert len(terms) >= 4, concept
        for term in terms:
            assert 1 <= len(term.split()) <= 2 and words_of(term) == term.split(), f"no text has the words of {term}"
            assert not (_forms(term) - {term}) & listed, f"{concept.name}: {term} stands for its plural too"
            n = COMMON_MENTIONS if term in concept.common else 2
            said = [f"Oh, {form.upper()}!" for form in sorted(_forms(term))]
            for sentence in said:
                assert concept.name in concepts_in(f"{sentence} " * n), (concept.name, sentence)
            assert concept.name not in concepts_in(said[0]), (concept.name, said[0])


TREATED = [
    ("magnets", "A magnet is on the door. The magnets hold a note."),
    ("magnets", "The magnet is magnetic."),
    ("storms", "The hurricane came, and a snowstorm after it."),
    ("storms", "A storm. A storm! The storm is bad, and no storm was worse."),
    ("continents and oceans", "Whales swim from the Pacific Ocean to the Arctic Ocean."),
]
UNTREATED = [
    ("magnets", "A magnet is on the door."),
    ("storms", "There was a storm. After the storm they went home."),
    ("continents and oceans", "He lives by the Pacific Ocean."),  # a pair is one mention, not three
    ("christmas", "There is a Christmas tree in it."),
    ("the sun", "The sunny boy said so."),
]


@pytest.mark.parametrize(("concept", "text"), TREATED)
def test_a_text_treats_a_concept_of_which_it_says_two_things(concept: str, text: str) -> None:
    assert concept in concepts_in(text)


@pytest.mark.parametrize(("concept", "text"), UNTREATED)
def test_a_passing_word_is_not_a_concept_treated(concept: str, text: str) -> None:
    assert concept not in concepts_in(text)


def _slowly(words: list[str]) -> set[str]:
    """Concepts by looking every form of every term up at every word, as the module's docstring has it."""
    concepts = read_concepts()
    terms = {term for concept in concepts for term in concept.terms + concept.common}
    meant: dict[str, str] = {form: term for term in sorted(terms) for form in _forms(term)} | {t: t for t in terms}
    counts = Counter(meant[word] for word in words if word in meant)
    for first, second in pairwise(words):
        if f"{first} {second}" in meant:
            counts[meant[f"{first} {second}"]] += 1
            counts.subtract(meant[word] for word in (first, second) if word in meant)
    treated = set()
    for concept in concepts:
        points = sum(max(0, counts[term]) for term in concept.terms)
        for term in concept.common:
            points += counts[term] if counts[term] >= COMMON_MENTIONS else min(1, max(0, counts[term]))
        treated |= {concept.name} if points >= 2 else set()
    return treated


SAID = sorted({form for c in read_concepts() for term in (c.terms + c.common)[::9] for form in _forms(term)})
TEXTS = st.lists(
    st.sampled_from(SAID) | st.sampled_from(["pacific ocean", "pacific", "ocean", "the", "so"]), max_size=14
)


@given(TEXTS)
def test_concepts_are_those_of_the_slow_way(said: list[str]) -> None:
    assert concepts_in(" ".join(said)) == _slowly(" ".join(said).split())


@given(TEXTS, TEXTS)
def test_a_longer_text_treats_no_less(said: list[str], more: list[str]) -> None:
    first, second = " ".join(said), " ".join(more)
    assert concepts_in(first) | concepts_in(second) <= concepts_in(f"{first}. Xyzzy! {second}")


@given(st.lists(TEXTS, max_size=4))
def test_coverage_is_the_sum_of_what_documents_treat(texts: list[list[str]]) -> None:
    documents = [(" ".join(said), len(said)) for said in texts]
    for concept, n_docs, n_words in coverage(documents):
        treating = [n for text, n in documents if concept.name in concepts_in(text)]
        assert (n_docs, n_words) == (len(treating), sum(treating))


@given(TEXTS, st.randoms(use_true_random=False))
def test_a_subject_does_not_depend_on_the_order_of_sentences(said: list[str], random: Random) -> None:
    sentences = [f"So {term} it is." for term in said]
    subject = subject_of(" ".join(sentences))
    random.shuffle(sentences)
    assert subject == subject_of(" ".join(sentences)) and subject != "everyday life"


def test_of_the_starter_passages_labels_are_the_stated_ones() -> None:
    settings = profile_settings(read_curation_file(PIPELINES_FILE), "starter")
    source = settings.sources["starter/passages"]
    verdicts: Counter[str] = Counter()
    for path in sorted(FOLDER.glob("grade*.jsonl")):
        for document in read_starter(path, "starter/passages", source, settings.cleaning):
            stated, found = document.metadata["subject"], subject_of(document.text)
            verdicts["silent" if found is None else "right" if found == stated else "wrong"] += 1
    assert verdicts["right"] >= 60 and verdicts["wrong"] <= 0.1 * verdicts["right"], verdicts


@pytest.mark.mirror
@pytest.mark.parametrize(
    ("source", "stated", "least"),
    [("quizzes/ai2", "science", 0.6), ("quizzes/asdiv", "maths", 0.2), ("quizzes/mctest", None, 0.98)],
)
def test_of_quiz_sets_labels_are_the_stated_ones(mirror: Path, source: str, stated: str | None, least: float) -> None:
    settings = profile_settings(read_curation_file(PIPELINES_FILE), "full")
    of_source = settings.sources[source]
    found = Counter(
        subject_of(document.text)
        for path in sorted(mirror.glob(of_source.mirror))
        for document in READERS["quizzes"](path, source, of_source, settings.cleaning)
        if "dropped" not in document.metadata
    )
    n_labelled = found.total() - found[None]
    assert found[stated] >= least * found.total(), found
    assert stated is None or found[stated] >= 0.9 * n_labelled, found


def test_it_keeps_up_with_reading() -> None:
    """15 MB/s on an idle core; a third of it is asked for on a busy one."""
    text = " ".join(text for _, text in LESSONS) + " ".join(NO_LESSONS) * 4
    began = time.process_time()
    for _ in range(400):
        subject_of(text)
    assert 400 * len(text) / (time.process_time() - began) > 5e6


def test_composition_tells_what_a_mix_covers(starter_mix: Mix) -> None:
    done = run_module("curation.composition", starter_mix.manifest(), "--coverage", "--json")
    told = json.loads(done.stdout)
    assert [row["concept"] for row in told] == [concept.name for concept in read_concepts()], done.stderr
    query = "SELECT text, n_words FROM train WHERE part = 'grade3'"
    rows = json.loads(run_module("curation.composition", starter_mix.manifest(), "--sql", query, "--json").stdout)
    treated = coverage((row["text"], row["n_words"]) for row in rows)
    assert [(row["n_docs"], row["n_words"]) for row in told] == [(n, n_words) for _, n, n_words in treated]
    assert sum(n > 0 for _, n, _ in treated) > 50
    shown = run_module("curation.composition", starter_mix.manifest(), "--coverage").stdout
    for subject in SUBJECTS:
        counts = [n for concept, n, _ in treated if concept.subject == subject]
        numbers = [
            len(counts),
            sum(n >= COVERED_DOCS for n in counts),
            sum(0 < n < COVERED_DOCS for n in counts),
            counts.count(0),
        ]
        assert re.search(rf"^{subject} +{' +'.join(map(str, numbers))}$", shown, re.MULTILINE), shown
    for concept, n, _ in treated:
        assert (f"{concept.name} ({n})" in shown) == (0 < n < COVERED_DOCS)
