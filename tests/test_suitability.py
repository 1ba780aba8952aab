"""What keeps a text from children, and what must not: tales with wolves, wars and wounds are theirs."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.clean import words_of
from curation.grading import Fit, Measured, Scorer
from curation.settings import GradingSettings
from curation.sources.picture_books import read_picture_books
from curation.suitability import CATEGORIES, LIMIT, read_terms, unsuitable_terms, why_unsuitable

INNOCENT = [
    "The hunter shot the wolf and cut him open, and out came the grandmother, alive and well. They filled him with stones.",
    "The giant's blood ran down the hill like a river. Jack had killed him with one blow of the axe, and the king was glad.",
    "The wicked queen wanted to kill Snow White, but the hunter brought her the heart of a young boar.",
    "The witch was burned in her own oven. Hansel and Gretel ran home to their father.",
    "Off with her head! cried the Queen. Nobody was beheaded that day.",
    "Bluebeard gave her the key. In the little room lay his dead wives. She dropped the key, and there was blood on it.",
    "Two thousand men were killed and wounded at Gettysburg. Lincoln came to speak for the dead.",
    "The king was slain in battle, and many a brave man fell by his side with a dagger or an arrow in his breast.",
    "The cock crew on the dunghill, the ass brayed, and the pussy cat sat on the wall.",
    "They were all so gay at the party! It was a queer sort of dance, with a queer old fiddler.",
    '"Good gracious!" ejaculated Aunt Jane. The two families had had no intercourse for a year.',
    "Young Mr. Hill made love to Miss Prim in the garden with a bunch of roses, and they were married in May.",
    "Dick put a faggot on the fire, and the flames leapt up. Then he smoked his pipe.",
    "The bitch had five puppies in the barn. Tom wanted the black one.",
    "Old Mr. Coon came down to the brook. Bobby Coon washed his supper and laughed.",
    "Peter Rabbit laughed fit to kill himself. He laughed until his sides ached.",
    "The robin has a red breast, and the titmouse is called a tit. Tits eat fat in winter.",
    "The miller drank a mug of ale at the tavern and ate bread and cheese. Father had a glass of wine.",
    "Alcohol is a poison. A boy who smokes tobacco will not grow as strong as he should. Wine and beer have alcohol in them.",
    "The doctor gave him a drug for his cough. Never take a drug that is not yours.",
    "Frogs lay eggs, and the male fertilizes them. The eggs turn into tadpoles. A pregnant cow needs good hay.",
    "The pupil of the eye is a small round hole. In the dark the pupil grows large.",
    "The teacher smiled. All the pupils ran out to play. She said that Ben should read first.",
    "The teacher will be here soon. Let us draw her a picture on the blackboard before the bell rings!",
    "The dam is made of sticks. A dyke keeps the sea out of Holland. The beaver gnaws with his front teeth.",
    "He shot the ball into the net and killed the lights. What a killer game! We murdered them, ten to one.",
    "Dad has a bet with Mom: the loser does the dishes. They played cards for beans.",
    "My dog was hit by a car and died. I cried for a week. We buried him under the tree.",
    "The pirates drank rum and sang. The captain had a pistol and a wooden leg, and he was hanged at last.",
    "Essex and Sussex are counties. The bus goes to Scunthorpe. Mr. Dickens lived in Penistone.",
    "The negro boy Juba rowed the boat, and George Washington Carver, born a slave, became a great man of science.",
    "She cut her finger and it bled. Mother put a bandage on the wound. The blood stopped.",
]  # fmt: skip

UNSUITABLE = [
    ("slur", "The niggers sang in the field all day, and we ran to see them dance."),
    ("slur", "Heap big Injun has a squaw. The squaw makes soup. The redskins ride home."),
    ("slur", "The Chinaman had a long pig tail. The boys ran after the Chinaman and made fun of him."),
    ("slur", "Little Black Sambo went out to play. The darkies were in the kitchen."),
    ("slur", "The inferior races can not learn as much as we can. They are like big children."),
    ("slur", "A dago sold us ice cream. We called the kike next door a dirty name."),
    ("profanity", "What the fuck is that? he said. It is a cat, said Sam."),
    ("profanity", "You piece of shit, he said to his dog. The dog ran off."),
    ("profanity", "He is a bastard and a bitch, and you are a crappy friend. Damn you!"),
    ("sexual", "They went up to her room and had sex. Then he went home."),
    ("sexual", "The man at the bus stop had been watching porn on his phone again."),
    ("sexual", "She was raped by a man in the park. She ran and ran."),
    ("sexual", "The girls worked in a brothel. Men came and paid to see them."),
    ("sexual", "He took off her bra. Her naked body was hot. He kissed her thighs. She was his lover, and they made love."),
    ("violence", "He slit her throat with a big knife. The cat saw it all."),
    ("violence", "They tied him to a tree and beat him. He was tortured to death. The sun was hot."),
    ("violence", "He blew his brains out on the wall. It was red all over."),
    ("violence", "The mob lynched two men. The lynching was on a big tree by the town."),
    ("violence", "The corpse had no eyes. Its entrails lay in a pool of blood. Rats ate the corpse."),
    ("self_harm", "Jen was so sad that she cut her wrists in the bath. It did not hurt, she said."),
    ("self_harm", "I want to die. I will kill myself. No one can stop me. I want to die."),
    ("self_harm", "His dad committed suicide last year. He hung on a rope in the barn."),
    ("drugs", "We smoked weed all day and had a lot of fun. You should try it. It is so good."),
    ("drugs", "He sold cocaine to the kids at the park. It was a good way to get cash."),
    ("drugs", "Dad was very drunk. He sat in the saloon with his whisky. He was a drunkard. Mom hid the liquor."),
    ("adult_ads", "Win big at our online casino! Get free spins now. It is fun and easy."),
    ("adult_ads", "Buy Viagra now. It is cheap. You do not have to see a doctor."),
    ("adult_ads", "Payday loans for you! Get cash today. No one will ask you why."),
    ("teacher_matter", "The teacher should read the story two times. Let the pupils tell it. Then the pupils should draw it."),
    ("teacher_matter", "Note to teachers: go slow with this. Have the children say each word."),
    ("teacher_matter", "In this series of readers the vowel sounds come first. The authors and publishers of this book say so in the preface."),
]  # fmt: skip


@pytest.mark.parametrize("text", INNOCENT)
def test_alarming_words_may_be_innocent(text: str) -> None:
    assert why_unsuitable(text) == "", unsuitable_terms(text)


@pytest.mark.parametrize(("category", "text"), UNSUITABLE)
def test_easy_words_may_be_unsuitable(category: str, text: str) -> None:
    assert why_unsuitable(text) == category, unsuitable_terms(text)


def test_the_list_can_be_read_and_every_term_can_be_found() -> None:
    terms = read_terms()
    assert {term.category for term in terms} == set(CATEGORIES)
    for term in terms:
        assert 0 < term.weight <= LIMIT and term.note, term
        assert " ".join(words_of(term.term)) == term.term, f"no text has the words of {term.term}"
        assert term in [found.term for found in unsuitable_terms(f"So {term.term.upper()}, they say.")]
        assert bool(why_unsuitable(f"It is {term.term}.")) == (term.weight == LIMIT) or len(term.term.split()) > 1


@given(
    st.permutations(["It was a long and sunny day.", "He slit his throat.", "The cat sat on the mat."]),
    st.integers(0, 300),
)
def test_a_strong_term_flags_wherever_it_stands_and_however_long_the_text(sentences: list[str], n: int) -> None:
    text = " ".join([*sentences, "The rain fell on the hills."] + ["We walked on."] * n)
    assert why_unsuitable(text) == "violence"


@given(
    st.lists(st.sampled_from([term.term for term in read_terms() if term.weight < 5]), max_size=4), st.integers(1, 40)
)
def test_a_weak_term_said_often_is_no_more_than_said_twice(terms: list[str], n: int) -> None:
    filler = "so we went down to the river and saw a duck upon it"
    twice = ". ".join([filler] * 12 + terms * 2)
    often = ". ".join([filler] * 12 + terms * (n + 1))
    assert not why_unsuitable(often) or why_unsuitable(twice)


def test_a_flagged_text_keeps_its_grades_and_is_for_all_ages() -> None:
    scorer = Scorer.__new__(Scorer)
    scorer.fit, scorer.settings = Fit(0, 1, 0, 1, (0.0, 8.0), (0.9, 0.1)), GradingSettings()
    easy, hard = Measured(1.0, 1.0, (1.0,)), Measured(7.0, 7.0, (7.0,))
    good, bad = scorer._grading(INNOCENT[0], easy), scorer._grading(UNSUITABLE[0][1], easy)
    assert (good.part, bad.part, bad.unsuitable) == ("grade3", "all_ages", "slur")
    assert (good.grade, good.p_grade3, good.unsuitable) == (bad.grade, bad.p_grade3, "")
    assert scorer._grading(UNSUITABLE[0][1], hard).part == "all_ages"


@pytest.mark.parametrize("piece", ["the ", "a's ", "the teacher ", "cut his ", "blood ", "x"])
def test_a_megabyte_of_anything_is_judged_at_once(piece: str) -> None:
    why_unsuitable("The list is read once.")
    began = time.process_time()
    why_unsuitable(piece * (1_000_000 // len(piece)))
    assert time.process_time() - began < 2


def test_of_picture_books_hardly_any_is_flagged(mirror: Path) -> None:
    """Somebody wrote and checked them for children: a flag is a mistake of the list, nearly always."""
    from curation.settings import profile_settings, read_curation_file
    from shared.settings import PIPELINES_FILE

    settings = profile_settings(read_curation_file(PIPELINES_FILE), "full")
    flagged = n_documents = 0
    for source in ("textbooks/african_storybook", "textbooks/pratham"):
        for path in sorted(mirror.glob(settings.sources[source].mirror)):
            for document in read_picture_books(path, source, settings.sources[source], settings.cleaning):
                n_documents += 1
                flagged += why_unsuitable(document.text) != ""
    assert n_documents > 600 and flagged <= 0.01 * n_documents
