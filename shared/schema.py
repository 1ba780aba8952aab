"""The columns of every scored pool and shard, the same for both packages."""

from typing import Literal

import pyarrow as pa

Part = Literal["grade3", "all_ages"]
PARTS: tuple[Part, Part] = ("grade3", "all_ages")

# One row is one document. `grade` columns are US school grades (3.5 = middle of third grade) and null where a text
# cannot be graded; `p_grade3` is the probability that the text suits grade 3.5 and below; `n_words` counts
# whitespace-separated tokens, `n_chars` code points.
SCHEMA = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("work", pa.string(), nullable=False),  # a book, a site, a series: what the held-out split goes by
        pa.field("text", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),  # room/part: textbooks/readers
        pa.field("title", pa.string()),
        pa.field("url", pa.string()),
        pa.field("license", pa.string(), nullable=False),  # an SPDX id where there is one, else "unknown"
        pa.field("genre", pa.string()),
        pa.field("subject", pa.string()),
        pa.field("n_words", pa.int32(), nullable=False),
        pa.field("n_chars", pa.int32(), nullable=False),
        pa.field("fk_grade", pa.float64()),
        pa.field("classifier_grade", pa.float64()),
        pa.field("grade", pa.float64()),
        pa.field("p_grade3", pa.float64()),
        pa.field("part", pa.string(), nullable=False),
    ]
)

# Parquet settings of everything we write: page checksums find a flipped bit, and no setting depends on the machine.
PARQUET_OPTIONS = {"compression": "zstd", "compression_level": 3, "write_page_checksum": True}
