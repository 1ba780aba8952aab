"""What is repaired, and what is dropped for which reason."""

import json
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation import clean, repetition
from curation.clean import language_of, repair, why_rejected, words_of
from curation.settings import CleaningSettings
from curation.sources.starter import FOLDER

SETTINGS = CleaningSettings()
STORY = "The dog ran down to the river, and there he saw a duck. It was sitting on an old hat, and it would not move for him."


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        ("It\u2019s \u201chere\u201d", 'It\'s "here"'),
        ("It\u00e2\u20ac\u2122s here", "It's here"),
        ("a\x00b\x07c", "abc"),
        ("end.\x0cNext page", "end.\nNext page"),
        ("a  b\t c \n\n\n\n d ", "a b c\n\nd"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("fish &amp; chips", "fish & chips"),
        ("\ufb01sh", "fish"),
        ("cafe\u0301", "caf\u00e9"),
        ("\u200b\ufeff", ""),
    ],
)
def test_repairs(broken: str, mended: str) -> None:
    assert repair(broken) == mended


@given(st.text())
def test_repairing_twice_changes_nothing_more(text: str) -> None:
    once = repair(text)
    assert repair(once) == once or "&" in text  # an entity may hide another one


def test_quotes_behind_entities_are_straight_too() -> None:
    assert repair("It&rsquo;s a dog&#8217;s life") == "It's a dog's life"


@pytest.mark.parametrize(
    "line",
    [
        "Please enable JavaScript to see this page.",
        "JavaScript is disabled in your browser. You need JavaScript to be enabled.",
        "This site uses cookies to give you the best experience.",
        "We use our own and third-party cookies to make the website better.",
        "Accept all cookies",
        "Privacy Policy | Terms of Use | Contact",
        "By going on you agree to our cookie policy",
    ],
)
def test_notices_of_web_sites_go_and_their_neighbours_stay(line: str) -> None:
    assert repair(f"{STORY}\n{line}\nThe duck slept.") == f"{STORY}\nThe duck slept."
    assert repair(line) == ""


@pytest.mark.parametrize(
    "line",
    [
        "Grandma uses cookies to teach us fractions. We use cookies for counting.",
        "Mom's policy is that all who use cookies as toys must eat them.",
        "Our class wrote a game in JavaScript, and everybody could play it.",
        "Honesty is the best policy. They came to terms of peace.",
    ],
)
def test_no_notice_is_seen_in_a_story(line: str) -> None:
    assert repair(line) == line


@pytest.mark.parametrize("text", ["no " * 40, "The cat sat on the mat. " * 10])
def test_a_few_words_over_and_over_are_repetitive(text: str) -> None:
    assert why_rejected(text.strip(), SETTINGS) == "repetitive"


def test_a_primer_may_say_the_same_words_often() -> None:
    primer = "See the cat. The cat can run. Can the cat run to me? Run, cat, run! The cat ran to the hen. "
    assert (
        why_rejected(
            (primer + "See the hen. Can the hen run? The hen can run to the cat. I see the cat and the hen.").strip(),
            SETTINGS,
        )
        == ""
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (STORY, ""),
        ("", "too_short"),
        ("   \n ", "too_short"),
        ("Only four words here.", "too_short"),
        ("x" * 100_000, "too_short"),
        ("Der Hund lief zum Fluss hinunter, und dort sah er eine Ente, die auf einem alten Hut sass und nicht weichen wollte.", "not_english"),
        ("1, 2, 3, 4, 5\n" * 30, "not_prose"),
        ("? ! . , ; " * 30, "not_prose"),
        ("apple bread candle donkey engine flower garden hammer island jacket kettle ladder mirror needle orange pencil rabbit saddle table violin", "not_prose"),
        ("\n".join(["The cat sat on the mat and it was happy there."] * 12), "repetitive"),
        ("Ana has 3 figs. She picks 4 more. How many figs has she now?\nAnswer: 3 + 4 = 7, so she has 7 figs. Then 7 - 2 = 5.", ""),
    ],
)  # fmt: skip
def test_reasons(text: str, reason: str) -> None:
    assert why_rejected(repair(text), SETTINGS) == reason


PYTHON = """
def total(prices, rate):
    \"\"\"Return what a basket costs.\"\"\"
    cost = sum(prices)
    return cost * (1 + rate)

for basket in baskets:
    print(total(basket.prices, basket.rate))
"""
JAVASCRIPT = """
import { load } from "./load.js";

const baskets = load("baskets.json");
let heaviest = null;
baskets.forEach((basket) => {
  if (basket.size > 3) {
    heaviest = pick(heaviest, basket);
    console.log(basket.name, "is a large one");
  }
});
"""
JSON_LINES = "\n".join(json.dumps({"id": i, "text": STORY}) for i in range(4))
HTML = f'<html><body><div class="main"><p>{STORY}</p><a href="/next">next</a></div></body></html>'
TRACE = """
Traceback (most recent call last):
  File "/srv/bakery/run.py", line 31, in <module>
    main(settings)
  File "/srv/bakery/oven.py", line 12, in main
    raise ValueError("the oven is cold")
ValueError: the oven is cold and the bread is not in it
"""
SHELL = """
$ cd /srv/bakery
$ ls -la
total 16
-rw-r--r-- 1 baker baker 220 May 1 10:00 README.md
$ git commit -m "bake it again for the third time" && ./run --all
"""
CSV = "name,town,price\n" + "\n".join(
    f"{name},{town},{i}" for i, (name, town) in enumerate([("Ann Low", "Bath"), ("Bo Dee", "Cork")] * 8)
)
CSV_OF_PROSE = "id,review,stars\n" + "\n".join(
    f'{i},"I liked it, and so did my dog. It was good.",{i}' for i in range(9)
)
PIPES = "\n".join(f"| Day {i} | dry in the morning | wet at night |" for i in range(8))
ALIGNED = "Day      High   Low   Rain\n" + "\n".join(f"Day {i}    {60 + i}   {40 + i}    0.{i}" for i in range(9))
CONTENTS = "\n".join(
    f"Chapter {i}. The Coming of the Ship to {town} {11 * i}"
    for i, town in enumerate(["Bath", "Cork", "York", "Kiel", "Rome", "Oslo"], 1)
)
INDEX = "\n".join(
    f"{name}, culture of the, {i}, {i + 10}; varieties of, {i + 30}"
    for i, name in enumerate(["apples", "beans", "corn", "dates", "figs", "grapes", "hay", "jute", "kale"])
)
GLOSSARY = "\n\n".join(
    [
        "abate, to become less strong",
        "brig, a ship with two masts",
        "cove, a small bay in the shore",
        "dale, a valley",
        "eddy, a small whirl of water",
        "fen, low wet land",
        "gale, a very strong wind",
    ]
)
ADVERTISEMENT = "THE HARBOR GIRLS SERIES\n\nBy M. L. DRAPER\n\n12mo. Cloth. Illustrated. Price 60 cents, postpaid.\n\nTHE HARBOR GIRLS\nTHE HARBOR GIRLS AFLOAT\nTHE HARBOR GIRLS IN THE SNOW\nTHE HARBOR GIRLS AND THE LIGHTHOUSE\n\nHARTLEY & POOLE, Publishers, New York"
OCR = "Tlie qnick brovvn f0x jurnps ovcr tbe 1azy d0g. " * 3
NOISY_OCR = (
    "Tlie olcl rnan vvas sitling 0n tbe hcnch ancl hc coulcl nof scc tbe hirds tliat wcre in thc trccs ahove thc houle."
)
MASH = "asdf jkl qwer uiop zxcv asdf ghjk qwerty lkjh fdsa poiu rewq asdf jkl hgfd sdfg wert xcvb nmkj dfgh tyui"
GIBBERISH = "Blorf the snerp and grunkle in zib flarn of mogwit ot dree. The spanf of wuggle is nerb and fleem to gazork. Plim the vorgle in tazzik."
NO_SENTENCES = "so we went down to the river and then he saw the duck on the hat and it would not move for us " * 12


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PYTHON, "code"),
        (Path(clean.__file__).read_text(encoding="utf-8"), "code"),
        (JAVASCRIPT, "code"),
        (JSON_LINES, "code"),
        (HTML, "code"),
        (TRACE, "code"),
        (SHELL, "code"),
        (CSV, "table"),
        (CSV_OF_PROSE, "table"),
        (PIPES, "table"),
        (ALIGNED, "not_prose"),
        (CONTENTS, "list"),
        (INDEX, "table"),
        (GLOSSARY, "list"),
        (ADVERTISEMENT, "list"),
        (OCR, "unknown_words"),
        (NOISY_OCR, "unknown_words"),
        (MASH, "unknown_words"),
        (GIBBERISH, "unknown_words"),
        (NO_SENTENCES, "no_sentences"),
        ("and the dog went on to the river with the old hat " * 1000, "no_sentences"),
        ("\U0001f600 \U0001f389 " * 40, "not_prose"),
        ("\x00" * 500, "too_short"),
        ("\u72d7 \u8dd1 \u5230 \u6cb3\u8fb9 " * 20, "not_prose"),
        (("x" * 5000 + " ") * 30, "not_prose"),
    ],
)  # fmt: skip
def test_what_is_no_prose_is_named(text: str, reason: str) -> None:
    assert why_rejected(repair(text), SETTINGS) == reason


VERSE = "Splash on the tin and the tile and the stone,\nSplash on the gate and the old dog's bone,\nDown through the gutter and over the wall,\nInto the barrel, the rain and all,\nRound in the ditch by the foot of the hill,\nPast the dark wheel of the silent mill."
NONSENSE = "'Twas grimmel, and the frabbish dole\nDid wander through the mossy glade:\nAll thrummy was the ancient mole,\nAnd every toad was in the shade."
CHAT = "ok who has the keys\nnot me\ni gave them to sam\nno you did not\nyes i did\nlook in your coat\nwhich coat\nthe one you have on\noh\nthey are in my coat"
RECIPE = "You will need:\n2 eggs\n1 cup of flour\n1 cup of milk\na pinch of salt\n\n1. Beat the eggs in a bowl.\n2. Stir in the flour and the milk.\n3. Cook the batter in a hot pan until it is golden.\n4. Eat it with jam."
QUIZ = "Which of these is a mammal?\n(A) a frog\n(B) a whale\n(C) a trout\n(D) a hawk\nAnswer: a whale\n\nWhich force pulls things to the ground?\n(A) friction\n(B) gravity\n(C) magnetism\nAnswer: gravity"
ALGEBRA = "Let x be the number of figs. Then 2x + 3 = 11, so 2x = 8 and x = 4. Check: 2(4) + 3 = 11. If y = 3x, then y = 12. So she had 12 figs."
PICTURE_BOOK = 'The cow says, "Moo."\n\nThe hen says, "Cluck."\n\nThe goat says, "Meh."\n\nThe pig says, "Oink."\n\nThe duck says, "Quack."\n\nThe dog says, "Woof."\n\nThe mouse says nothing.\n\nThe mouse eats the cheese.'
NAMES = "Nkirote's goat ate Mukwaya's hat. Nkirote was sorry, so she gave Mukwaya's sister Achieng' a basket. \"Don't cry,\" said Nkirote. \"We'll find another hat.\" They didn't."
OLD_PROSE = (
    "When the carrier, "
    + "who had walked since morning beside the river and over the long hill in the rain, " * 8
    + "came home, he sat down and said nothing."
)
TIMES = "\n".join(
    f"[9:{i:02}] {line}"
    for i, line in enumerate(
        [
            "is anyone else locked out",
            "yes",
            "yes. my badge too",
            "my mail is gone",
            "they did it to the first floor",
            "who do we call",
            "the desk is dark",
        ]
    )
)


SWAHILI = (
    "Mbuzi anakula nyasi karibu na mto. Sungura anamwona mamba mkubwa majini. Watoto wanacheza chini ya mti mrefu sana."
)
TWO_LANGUAGES = f"The goat eats grass near the river. The hare sees a big crocodile in the water.\n\n{SWAHILI}"
GERMAN = (
    "Der alte Mann ging jeden Morgen mit seinem Hund zum See, weil er dort die Enten mit etwas Brot fuettern konnte."
)
GERMAN_TOO = "Eines Tages aber kam kein einziger Vogel mehr, und das Wasser lag ganz still und grau unter dem Himmel."
FRENCH = "Le vieil homme allait chaque matin au lac avec son chien, parce qu'il voulait donner un peu de pain aux petits canards."
SPANISH = "El viejo iba cada manana al lago con su perro, porque queria dar de comer pan a los patos que nadaban cerca."
DUTCH = "De oude man liep elke ochtend met zijn hond naar het meer, omdat hij daar de eenden wat brood wilde geven."
QUOTING = (
    "My grandmother came from a village near Lyon. When the soup was ready she would call up the stairs and we would all "
    f'come running down. "{FRENCH}" she read to us after that, and though I did not know a word of it, I could have '
    "listened for hours. My brother only wanted to know when there would be cake, and he said so every time she stopped to "
    "turn the page. Then she would laugh, and shut the book, and tell us the rest of the story in English until we slept."
)
MENU = "\n".join(
    ["Home", "About Us and Our Dog", "All Our Stories for You", "Ask Us How We Can Help", "What Is New", "Where We Are"]
)
BULLETS = "\n".join(
    f"- We have {what} for you and for your dog, and it is very good."
    for what in ["bread", "corn", "rice", "meat", "fish", "milk"]
)
TEASERS = "\n".join(
    f"The dog that {did} came home and this is what he said to us..."
    for did in ["ran", "sat", "ate", "hid", "fell", "sang"]
)
HASHES = "This is the best day of my life and I am so glad that you are here with me #sun #sea #dog #fun #joy #day"
LOREM = "This is a page that we will write later. Lorem ipsum dolor sit amet. Here you will find the story of a dog and his hat."
FRUITS = ["apple", "pear", "plum", "fig", "date", "lime", "peach", "grape", "melon", "berry", "quince", "cherry", "nut"]
SPAM = " ".join(f"Buy the best hats. No {fruit} is a hat." for fruit in FRUITS)
FEW_LINES = [
    f"{a} saw {b} by the {c} on a {d} day."
    for a, b, c, d in zip(
        ["Ann", "Bo", "Cy", "Di"],
        ["Ed", "Flo", "Gil", "Hal"],
        ["lake", "barn", "road", "hill"],
        ["hot", "cold", "wet", "dull"],
        strict=True,
    )
]
SONG = "\n".join(
    f"This is the way we {do},\n{do.capitalize()}, {do};\nThis is the way we {do}\nOn a cold and frosty morning."
    for do in ["wash our clothes", "iron our clothes", "scrub the floor", "sweep the house", "bake our bread"]
)
CUMULATIVE = "\n\n".join(
    "This is " + " ".join(reversed(parts[: i + 1])) + "."
    for parts in [
        [
            "the house that Jack built",
            "the malt that lay in",
            "the rat that ate",
            "the cat that chased",
            "the dog that worried",
            "the cow that tossed",
        ]
    ]
    for i in range(6)
)
PRIMER = "\n".join(
    f"I see a {what}. I can see a {what} run. Run, {what}, run!"
    for what in ["dog", "cat", "hen", "pig", "cow", "goat", "lamb", "duck"]
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (TWO_LANGUAGES, "not_english"),
        (f"{STORY}\n\n{GERMAN} {GERMAN_TOO}", "not_english"),
        (GERMAN, "not_english"),
        (FRENCH, "not_english"),
        (SPANISH, "not_english"),
        (DUTCH, "not_english"),
        (QUOTING, ""),
        ("\n".join([MENU] * 9), "repetitive"),
        (f"{MENU}\nSee What They Have to Say\nHow to Find Us When You Are Here", "list"),
        (BULLETS, "list"),
        (TEASERS, "list"),
        (HASHES, "not_prose"),
        (LOREM, "not_prose"),
        (SPAM, "repetitive"),
        (" ".join(FEW_LINES * 9), "repetitive"),
        (SONG, ""),
        (CUMULATIVE, ""),
        (PRIMER, ""),
    ],
)
def test_rules_of_web_pages_spare_what_children_read(text: str, reason: str) -> None:
    assert why_rejected(repair(text), SETTINGS) == reason


words_in = st.lists(st.sampled_from(list("abcdefghij")), min_size=1, max_size=60)


@given(words_in, st.integers(2, 6))
def test_shares_are_those_of_a_slow_count(words: list[str], n: int) -> None:
    ngrams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    repeated = {j for i, ngram in enumerate(ngrams) if ngram in ngrams[:i] for j in range(i, i + n)}
    assert repetition.repeated_ngram_share(words, n) == len(repeated) / len(words)
    most = max(map(ngrams.count, ngrams), default=0)
    assert repetition.top_ngram_share(words, n) == (min(1, n * most / len(words)) if most > 1 else 0)


@given(words_in.map(lambda words: words * 4), st.floats(0, 1), st.floats(0, 1))
def test_the_quick_ways_out_change_no_verdict(words: list[str], limit: float, last: float) -> None:
    settings = CleaningSettings(
        min_root_ttr=0, min_words_of_top=1, min_words_of_repeated=1, max_top_2gram=limit, max_top_4gram=last,
        max_repeated_5grams=max(limit, last), max_repeated_10grams=min(limit, last),
    )  # fmt: skip
    found = repetition.is_repetitive(" ".join(words), words, Counter(words), settings)
    tops = (limit, (limit + last) / 2, last)
    slow = any(repetition.top_ngram_share(words, n) > m for n, m in zip((2, 3, 4), tops, strict=True))
    high, low = max(limit, last), min(limit, last)
    for i, n in enumerate(range(5, 11)):
        slow = slow or repetition.repeated_ngram_share(words, n) > high + (low - high) * i / 5
    assert found == slow


@pytest.mark.parametrize(
    "text", [VERSE, NONSENSE, CHAT, RECIPE, QUIZ, ALGEBRA, PICTURE_BOOK, NAMES, OLD_PROSE, TIMES, STORY.upper()]
)  # fmt: skip
def test_odd_layouts_are_kept(text: str) -> None:
    assert why_rejected(repair(text), SETTINGS) == ""


def test_every_starter_passage_is_kept() -> None:
    passages = [json.loads(line) for path in sorted(FOLDER.glob("*.jsonl")) for line in path.read_bytes().splitlines()]
    reasons = {passage["title"]: why_rejected(repair(passage["text"]), SETTINGS) for passage in passages}
    assert {title: reason for title, reason in reasons.items() if reason} == {}


@pytest.mark.parametrize(
    "piece",
    ["x", "a b c ", "<a ", '{ "a ', '[["', ',a', ',"', "| a ", "foo(foo(", "a' ", "' ", ". a", "A\n", "--a", " at a.a", "\u72d7 ", PYTHON, NO_SENTENCES],
)  # fmt: skip
def test_a_megabyte_of_anything_is_judged_at_once(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    why_rejected(STORY, SETTINGS)  # the word list is read once
    began = time.perf_counter()
    why_rejected(text, SETTINGS)
    assert time.perf_counter() - began < 1  # it takes a tenth of this


@given(st.text(st.sampled_from("aB'. \n1")) | st.text(st.characters(max_codepoint=127)))
def test_words_of_plain_text_are_those_of_the_pattern(text: str) -> None:
    assert words_of(text) == clean._WORD.findall(text.lower())


@given(st.text(st.sampled_from("ab I,.|<{[(=\"'\n\t12;"), max_size=400) | st.text())
def test_every_text_has_one_reason_or_none(text: str) -> None:
    assert why_rejected(text, SETTINGS) == why_rejected(text, SETTINGS)


def test_languages_are_told_apart() -> None:
    assert language_of(STORY) == "en"
    assert language_of("Le chien courut vers la riviere et il y vit un canard assis sur un vieux chapeau.") != "en"
