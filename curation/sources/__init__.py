"""The readers: each yields the documents of one file of a source. A new source is a function and a line here."""

from curation.sources.gutenberg import read_gutenberg
from curation.sources.local_files import read_local_file
from curation.sources.picture_books import read_picture_books
from curation.sources.starter import read_starter

READERS = {
    "starter": read_starter,
    "local_files": read_local_file,
    "gutenberg": read_gutenberg,
    "picture_books": read_picture_books,
}
