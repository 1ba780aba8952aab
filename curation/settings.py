"""Every setting of curation, once: bounds and help on the field, values in pipelines.yaml, flags on top."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from shared.console import UserError, nearest
from shared.settings import Settings, pipelines_flag, read_section, validated

LOCAL_FILES = "local/files"  # the source that --local-files adds
OWN_READERS = ("starter", "school_readers", "adult_books", "picture_books")  # of label sets that are sources
Share = Annotated[float, Field(ge=0, le=1)]
Shares = dict[Literal["source", "genre", "subject"], dict[str, Share]]  # by the values of a column


class SourceSettings(Settings):
    """Where one source comes from, and what all its documents have in common."""

    reader: Literal[
        "starter", "local_files", "gutenberg", "picture_books",
        "babylm", "openstax", "quizzes", "rows", "web", "wikipedia",
    ] = Field(description="the function of curation/sources that reads it")  # fmt: skip
    about: str
    license: str = Field(min_length=1, description="SPDX id, or 'unknown'; a document's own licence goes before it")
    revision: str = Field(description="pinned revision, or 'unverified' until somebody has seen one")
    mirror: str = Field("", description="glob of its files inside a --mirror; of Gutenberg books: their folder")
    addresses: list[str] = Field([], description="https addresses in production; {id} is a Gutenberg number")
    max_documents: int | None = Field(
        None, ge=1, description="stream the first so many rows of its parquet addresses; left out: download them whole"
    )
    genre: str | None = None
    subject: str | None = None
    text_column: str = Field("text", min_length=1, description="for rows: the column that holds the text")
    folder: Path | None = Field(None, description="for local_files: the folder to read")

    def recorded(self) -> dict[str, Any]:
        """Returns what of a source can change a document, as hashes and manifests hold it: no prose, no places."""
        return self.model_dump(mode="json", exclude={"about", "addresses", "mirror", "max_documents", "folder"})


class LabelSettings(Settings):
    """Texts whose reading level is known. A set named like a source takes its files from that source."""

    reader: Literal[
        "starter", "school_readers", "adult_books", "picture_books",
        "clear", "onestop", "cefr", "mctest", "scienceqa", "tabmwp", "asdiv", "switchboard", "childes",
    ] = Field(description="the function that reads it")  # fmt: skip
    about: str
    license: str = Field("", description="SPDX id, or 'unknown'; of a source: its own")
    revision: str = Field("", description="pinned revision, or 'unverified' until somebody has seen one")
    addresses: list[str] = Field([], description="https addresses in production")
    mirror: str = Field("", description="glob of its files inside a --mirror")
    mapping: str = Field(description="where its grades come from")
    grades: dict[str, float] = Field({}, description="US grade of each of its own levels, where they differ")
    measured_only: bool = Field(False, description="never trained on")
    max_texts: int | None = Field(None, ge=1, description="texts to train on at most, thinned evenly")
    repeat: int = Field(1, ge=1, description="times a text is trained on in each epoch")

    @model_validator(mode="after")
    def _can_be_found(self) -> "LabelSettings":
        if self.reader not in OWN_READERS and not (self.mirror and self.addresses):
            raise ValueError(f"reader {self.reader} needs a mirror and addresses")
        return self

    def recorded(self) -> dict[str, Any]:
        """Returns what of a label set can change a classifier, as hashes hold it: no prose, no places."""
        return self.model_dump(mode="json", exclude={"about", "mapping", "addresses", "mirror"})


class EvaluationSettings(Settings):
    """Texts that models or the grade classifier are measured with: they must not stand in the training corpus."""

    reader: Literal[
        "blimp", "arc", "openbookqa", "piqa", "boolq", "qasc", "sciq", "mctest", "fairytaleqa", "gsm8k", "scienceqa",
        "tabmwp", "clear", "onestop", "cefr",
    ] = Field(description="the function of curation/evaluations.py that reads it")  # fmt: skip
    about: str
    license: str = Field(min_length=1, description="SPDX id, or 'unknown'")
    revision: str = Field(description="pinned revision, or 'unverified' until somebody has seen one")
    mirror: str = Field("", description="glob of its files inside a --mirror")
    addresses: list[str] = Field([], description="https addresses in production")

    def recorded(self) -> dict[str, Any]:
        """Returns what of an evaluation can change its texts, as hashes hold it: no prose, no places."""
        return self.model_dump(mode="json", exclude={"about", "addresses", "mirror"})


class FetchSettings(Settings):
    """How files come from the network: from public https addresses, in bounds of bytes and seconds."""

    trusted_hosts: list[str] = Field(
        [], description="host:port as addresses name it, of servers of your own: may be private, and plain http"
    )
    max_bytes: int = Field(8_000_000_000, ge=1, description="largest file; of a streamed file: all that is read of it")
    max_redirects: int = Field(5, ge=0, description="hops after the first, each of them checked like the first")
    answer_seconds: float = Field(10.0, gt=0, description="a server has to accept, and to send the next bytes")
    patience_seconds: float = Field(30.0, gt=0, description="without a byte received, over all tries")
    deadline_seconds: float = Field(3600.0, gt=0, description="for all files of a source; what came is kept")
    first_pause_seconds: float = Field(1.0, gt=0, description="before the second try; each later pause is doubled")


class ExtractionSettings(Settings):
    """What a web page may cost and must be before its text is taken out of it; see curation/extraction.py."""

    max_page_bytes: int = Field(5_000_000, ge=10_000, description="of a page, its compression undone")
    max_tags: int = Field(50_000, ge=100, description="signs < of a page; parsers are quadratic in elements of a line")
    max_attributes: int = Field(5_000, ge=100, description="words in one tag outside of quotes")
    max_depth: int = Field(1_000, ge=100, description="tags open at a time, as far as their end tags are written")
    cpu_seconds: int = Field(
        20, ge=1, description="of a try; a page has two, and the limits above rarely let it need one"
    )
    memory_bytes: int = Field(1_500_000_000, ge=300_000_000, description="address space of the child; half may be used")
    min_crude_function_words: Share = Field(0.08, description="of a page's running words, below which it is no English")
    max_crude_grade: float = Field(20.0, gt=0, description="automated readability index, above which no child reads it")


class CleaningSettings(Settings):
    """What a document must be to be kept. Thresholds follow Gopher (Rae et al. 2021, table A1) where it has one."""

    min_words: int = Field(20, ge=1, description="shorter documents are dropped")
    target_words: int = Field(400, ge=50, description="long works are cut into documents of about this many words")
    max_words: int = Field(800, ge=100, le=10_000, description="no document is longer")
    min_mean_word_length: float = Field(2.0, ge=0, description="letters a word, below which it is no prose")
    max_mean_word_length: float = Field(10.0, gt=0, description="letters a word, above which it is no prose")
    min_alphabetic_words: Share = Field(0.5, description="words of letters for each token, at least")
    min_function_words: Share = Field(0.15, description="share of English function words that settles the language")
    max_code_signs: Share = Field(0.08, description="tags, calls, operators for each token, above which it is code")
    min_table_rows: Share = Field(0.6, description="share of lines that are rows, from which a text is a table")
    min_clause_words: Share = Field(0.1, description="share of pronouns and auxiliaries that settles it is no list")
    min_running_words: Share = Field(0.25, description="share of words in sentences or verse, below which it is a list")
    min_known_words: Share = Field(0.65, description="share of words that an English word list must know")
    max_sentence_words: int = Field(200, ge=50, description="words without the end of a sentence, clause or line")
    max_repeated_lines: Share = Field(0.5, description="share of characters in lines seen before in the document")
    min_root_ttr: float = Field(0.8, ge=0, description="different words over the root of all words, at least")
    max_foreign_words: Share = Field(0.2, description="share of words in sentences of another language")
    max_hash_signs: Share = Field(0.1, description="# for each token; Gopher's")
    max_bullet_lines: Share = Field(0.9, description="share of lines that begin with a bullet; Gopher's")
    max_ellipsis_lines: Share = Field(0.7, description="share of lines that end in dots; Gopher has 0.3")
    min_ended_lines: Share = Field(0.12, description="share of lines with a mark at the end; FineWeb's")
    min_words_of_top: int = Field(
        100, ge=1, description="shorter documents, like a page of a primer, may repeat a phrase"
    )
    max_top_2gram: Share = Field(0.32, description="share of words in the most frequent pair; Gopher has 0.20")
    max_top_4gram: Share = Field(0.38, description="share of words in the most frequent four; Gopher has 0.16")
    min_words_of_repeated: int = Field(200, ge=1, description="shorter documents, like a song, may repeat themselves")
    max_repeated_5grams: Share = Field(0.75, description="share of words in 5-grams seen before; Gopher has 0.15")
    max_repeated_10grams: Share = Field(0.6, description="share of words in 10-grams seen before; Gopher has 0.10")

    extraction: ExtractionSettings = Field(ExtractionSettings(), description="of web pages")

    @model_validator(mode="after")
    def _ordered(self) -> "CleaningSettings":
        if not self.min_words < self.target_words < self.max_words:
            raise ValueError("min_words < target_words < max_words does not hold")
        return self


class DedupSettings(Settings):
    """When a document, or a part of one, says what another has said already."""

    min_agreement: Share = Field(0.55, description="of two MinHash signatures, from which texts are near-duplicates")
    min_repeated_passages: Share = Field(0.7, description="of a document's fingerprints, from which it is dropped")
    min_repeated_paragraph: Share = Field(0.8, description="of a paragraph's fingerprints, from which it is cut out")
    navigation_pages: int = Field(5, ge=2, description="pages of a site with the same short paragraph: navigation")


class ClassifierSettings(Settings):
    """fastText over school grades; small, so that it trains in a minute and 12 GB stay free for the model."""

    n_folds: int = Field(4, ge=2, le=8, description="labelled texts are graded by a model that never saw their work")
    windows_of_a_work: int = Field(60, ge=1, description="at most, so that no long book sets the tone")
    max_shared_ngrams: int = Field(4, ge=0, description="10-grams a training text may share with the held-out texts")
    rare_zipf: float = Field(3.5, ge=1, le=8, description="rarer words (Zipf scale) are read as their frequency band")
    dim: int = Field(16, ge=1)
    epoch: int = Field(100, ge=1)
    lr: float = Field(0.05, gt=0)
    word_ngrams: int = Field(2, ge=1)
    bucket: int = Field(100_000, ge=1)
    min_count: int = Field(2, ge=1)


class GradingSettings(Settings):
    """What third grade means."""

    grade_limit: float = Field(3.5, description="a text suits third grade when its grade is at most this")
    min_probability: Share = Field(0.5, description="p_grade3 from which a document belongs to part grade3")
    min_fk_grade: float = Field(-2.0, description="Flesch-Kincaid is clipped here: a list of short words scores -3.4")
    max_fk_grade: float = Field(14.0, description="Flesch-Kincaid is clipped here: an unpunctuated text scores 50")
    window_words: int = Field(200, ge=50, description="the classifier reads windows of about this many words")
    max_windows: int = Field(8, ge=5, description="of a longer document: this many, evenly spread")


class MixSettings(Settings):
    """Which documents of the pool make a mix."""

    grade_ratio: float = Field(0.7, ge=0.5, le=0.9, description="third-grade share of the train words, 0.5 to 0.9")
    words: int | None = Field(None, gt=0, description="word budget; left out: the largest mix without repeats")
    seed: int = Field(0, ge=0, description="another seed takes other documents of each part")
    max_repeats: int = Field(1, ge=1, le=16, description="how often a document may stand in the mix; needs --words")
    licenses: Literal["any", "open"] = Field("any", description="open: no non-commercial and no unknown licences")
    caps: Shares = Field({}, description="largest share of a part's words: {genre: {verse: 0.03}}")
    floors: Shares = Field({}, description="smallest share of a part's words")
    shard_words: int = Field(4_000_000, ge=10_000, description="words in a shard")

    @model_validator(mode="after")
    def _consistent(self) -> "MixSettings":
        if self.max_repeats > 1 and self.words is None:
            raise ValueError("max_repeats without words has no effect: give a word budget")
        for column, floors in self.floors.items():
            if sum(floors.values()) > 1:
                raise ValueError(f"floors by {column} sum to more than 1")
            for value, floor in floors.items():
                if floor >= self.caps.get(column, {}).get(value, 2):
                    raise ValueError(f"floor of {column} {value} is not below its cap: no mix could be between them")
        return self


class ExecutorSettings(Settings):
    """Where the tasks of a run are done. Nothing of it may change a byte."""

    name: Literal["local", "ray", "slurm"] = Field("local", description="processes of this machine, Ray or Slurm")
    memory_gb: int = Field(4, ge=1, description="memory asked for a task of a cluster; locally --workers decides")
    ray_address: str = Field("local", min_length=1, description="a cluster's address; local starts one for the run")
    slurm_partition: str = Field("", description="left out: the cluster's default partition")
    slurm_time: str = Field("04:00:00", min_length=1, description="limit of a job, as sbatch --time takes it")
    slurm_tasks_per_job: int = Field(1, ge=1, description="tasks one after another in a job: many tasks, few jobs")
    slurm_flags: dict[str, str] = Field({}, description="more flags of sbatch, without dashes: {account: lab}")


class ProfileSettings(Settings):
    """A named corpus: its sources, in order of preference among duplicates, and its labels."""

    about: str
    sources: list[str] = Field(min_length=1)
    labels: list[str] = Field(min_length=1, description="label sets its classifier is trained on and measured with")
    evaluations: list[str] = Field([], description="test sets no passage of which may stand in the corpus")
    caps: Shares = Field({}, description="of its mixes, beside mix.caps")
    floors: Shares = Field({}, description="of its mixes, beside mix.floors")
    lr: float | None = Field(
        None, gt=0, description="of its classifier, in place of classifier.lr: few labels need more"
    )
    epoch: int | None = Field(None, ge=1, description="of its classifier, in place of classifier.epoch")


class PipelineSettings(Settings):
    """A documented command line and what it makes."""

    run: str
    makes: str


class CurationFile(Settings):
    """pipelines.yaml, as far as curation reads it."""

    default_profile: str
    profiles: dict[str, ProfileSettings]
    sources: dict[str, SourceSettings]
    label_sets: dict[str, LabelSettings]
    evaluations: dict[str, EvaluationSettings] = Field({})
    fetching: FetchSettings = FetchSettings()
    cleaning: CleaningSettings = CleaningSettings()
    dedup: DedupSettings = DedupSettings()
    classifier: ClassifierSettings = ClassifierSettings()
    grading: GradingSettings = GradingSettings()
    mix: MixSettings = MixSettings()
    executor: ExecutorSettings = ExecutorSettings()
    pipelines: dict[str, PipelineSettings] = Field({})


class CurationSettings(Settings):
    """The settings of one run: all that may change its bytes, and nothing else."""

    profile: str
    sources: dict[str, SourceSettings]
    labels: dict[str, LabelSettings]
    label_sources: dict[str, SourceSettings] = Field(description="of labels named like a source: how that is read")
    evaluations: dict[str, EvaluationSettings]
    cleaning: CleaningSettings
    dedup: DedupSettings
    classifier: ClassifierSettings
    grading: GradingSettings
    mix: MixSettings

    def recorded(self) -> dict[str, Any]:
        """Returns the settings as hashes and manifests hold them: all that decides the bytes of a mix."""
        located = {
            "sources": {name: source.recorded() for name, source in self.sources.items()},
            "labels": {name: labels.recorded() for name, labels in self.labels.items()},
            "label_sources": {name: source.recorded() for name, source in self.label_sources.items()},
            "evaluations": {name: evaluation.recorded() for name, evaluation in self.evaluations.items()},
        }
        return {**self.model_dump(mode="json", exclude=set(located)), **located}

    def only_labels(self) -> "CurationSettings":
        """Returns the settings without sources and evaluations: what the classifier needs."""
        return self.model_copy(update={"sources": {}, "evaluations": {}})


def _mirror_from_environment() -> Path | None:
    return Path(os.environ["GRADED_MIRROR"]) if os.environ.get("GRADED_MIRROR") else None


class PlaceFlags(Settings):
    """Flags of every command that works in a data folder: where things are, never what they are."""

    mirror: Path | None = Field(
        default_factory=_mirror_from_environment,
        description="read sources from this local copy, not the network (or GRADED_MIRROR)",
    )
    workers: int = Field(2, ge=1, description="tasks at a time")
    data_dir: Path = Field(Path("data"), description="downloads, models, scored pool and shards")
    pipelines: Path = pipelines_flag()


def read_curation_file(path: Path) -> CurationFile:
    """Returns pipelines.yaml, validated. Raises UserError naming the key that is wrong."""
    content = read_section(CurationFile, path)
    for name, profile in content.profiles.items():
        for kind, named, known in (
            ("source", profile.sources, content.sources),
            ("label set", profile.labels, content.label_sets),
            ("evaluation", profile.evaluations, content.evaluations),
        ):
            for key in named:
                if key not in known:
                    raise UserError(f"{path}: profiles.{name}: unknown {kind} {key}", nearest(key, sorted(known)))
    if content.default_profile not in content.profiles:
        raise UserError(
            f"{path}: default_profile {content.default_profile} is unknown",
            nearest(content.default_profile, sorted(content.profiles)),
        )
    return content


def profile_settings(content: CurationFile, profile: str, local_files: Path | None = None) -> CurationSettings:
    """Returns the settings of one profile, with a folder of the person's own text added to it if there is one."""
    if profile not in content.profiles:
        raise UserError(f"unknown profile {profile}", nearest(profile, sorted(content.profiles)))
    chosen = content.profiles[profile]
    sources = {name: content.sources[name] for name in chosen.sources}
    if local_files is not None:
        if LOCAL_FILES not in content.sources:
            raise UserError(
                f"--local-files needs a source {LOCAL_FILES} in the settings file", "copy it from pipelines.yaml"
            )
        sources[LOCAL_FILES] = content.sources[LOCAL_FILES].model_copy(update={"folder": local_files})
        profile += "+local_files"
    return CurationSettings(
        profile=profile,
        sources=sources,
        labels={name: content.label_sets[name] for name in chosen.labels},
        label_sources={name: content.sources[name] for name in chosen.labels if name in content.sources},
        evaluations={name: content.evaluations[name] for name in chosen.evaluations},
        cleaning=content.cleaning,
        dedup=content.dedup,
        classifier=content.classifier.model_copy(update=chosen.model_dump(include={"lr", "epoch"}, exclude_none=True)),
        grading=content.grading,
        mix=validated(MixSettings, _mix_of(chosen, content.mix), f"profile {profile}"),
    )


def _mix_of(profile: ProfileSettings, mix: MixSettings) -> dict[str, Any]:
    """Returns the settings of a profile's mixes: those of all, with caps and floors of its own."""
    values = mix.model_dump()
    for kind, own in (("caps", profile.caps), ("floors", profile.floors)):
        values[kind] = {**values[kind], **{c: values[kind].get(c, {}) | shares for c, shares in own.items()}}
    return values
