"""The readers: each yields the documents of one file of a source. A new source is a function and a line here."""

from curation.sources.babylm import read_babylm
from curation.sources.gutenberg import read_gutenberg
from curation.sources.local_files import read_local_file
from curation.sources.openstax import read_openstax
from curation.sources.picture_books import read_picture_books
from curation.sources.quizzes import read_quizzes
from curation.sources.rows import read_rows
from curation.sources.starter import read_starter
from curation.sources.web import read_web
from curation.sources.wikipedia import read_wikipedia

READERS = {
    "babylm": read_babylm,
    "gutenberg": read_gutenberg,
    "local_files": read_local_file,
    "openstax": read_openstax,
    "picture_books": read_picture_books,
    "quizzes": read_quizzes,
    "rows": read_rows,
    "starter": read_starter,
    "web": read_web,
    "wikipedia": read_wikipedia,
}
