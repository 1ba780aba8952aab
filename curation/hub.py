"""The first documents of a large parquet file on a hub, without downloading it: ranges of it, as parts of our own.

In: an address whose server sends parts of files, through fetch.Fetcher. Out: parquet files of so many rows with the
columns of the original, whole or not there at all. pull.py says which rows, and holds the parts to their hashes.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curation.fetch import COPY, Fetcher
from shared.console import Failure
from shared.files import written_whole
from shared.schema import PARQUET_OPTIONS

BATCH_ROWS = 1000
MAX_READ_BYTES = 1 << 30  # of a row group, which is fetched whole, as it is stated; and of any one read, as it is


class RemoteParquet:
    """A parquet file at an address, opened when its first rows are asked for."""

    def __init__(self, fetcher: Fetcher, url: str) -> None:
        self._fetcher, self._url = fetcher, url
        self._file: pq.ParquetFile | None = None

    def write_rows(self, path: Path, start: int, end: int) -> bool:
        """Writes rows start to end, or to the last one, to a parquet file. Returns whether the server has the file.

        Raises Failure when they do not come in time, or are no parquet.
        """
        try:
            if self._file is None:
                size = self._fetcher.measure(self._url)
                if size is None:
                    return False
                self._file = pq.ParquetFile(_RemoteFile(self._fetcher, self._url, *size), pre_buffer=True)
            with (
                written_whole(path) as temporary,
                pq.ParquetWriter(temporary, self._file.schema_arrow, **PARQUET_OPTIONS) as writer,
            ):
                for batch in self._batches(self._file, start, end):
                    writer.write_batch(batch)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # names of columns may be no UTF-8
            if isinstance(error, OSError) and error.errno is not None:  # the disk's, where Arrow's own have no number
                raise
            why = " ".join(str(error).split())[:200]
            raise Failure(f"could not read {self._url} as parquet: {why}", COPY) from error
        return True

    def _batches(self, file: pq.ParquetFile, start: int, end: int) -> Iterator[pa.RecordBatch]:
        """Yields rows start to end; a row group that holds none of them is not fetched."""
        first = 0
        for i in range(file.num_row_groups):
            group = file.metadata.row_group(i)
            if first < end and first + group.num_rows > start:
                if group.total_byte_size > MAX_READ_BYTES:
                    raise pa.ArrowInvalid(f"row group {i} has {group.total_byte_size:,} bytes, which is too large")
                row = first
                for batch in file.iter_batches(BATCH_ROWS, row_groups=[i]):  # of one alone: memory is bounded by it
                    from_, to = max(0, start - row), min(batch.num_rows, end - row)
                    if from_ < to:
                        yield batch.slice(from_, to - from_)
                    row += batch.num_rows
            first += group.num_rows


class _RemoteFile(io.RawIOBase):
    """A file at an address as a Python file: each read is a request for that range."""

    def __init__(self, fetcher: Fetcher, url: str, n_bytes: int, etag: str) -> None:
        self._fetcher, self._url, self._n_bytes, self._etag = fetcher, url, n_bytes, etag
        self._at = self._n_read = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._n_bytes}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._n_bytes - self._at)
        wanted = left if size < 0 else min(size, left)
        if wanted > MAX_READ_BYTES:
            raise pa.ArrowInvalid(f"a piece of it has {wanted:,} bytes, which is too large")
        self._n_read += wanted
        if self._n_read > self._fetcher.limits.max_bytes:
            raise self._fetcher.too_large(self._url, f"{self._n_read:,} bytes of it were read")
        came = self._fetcher.read(self._url, self._at, wanted, self._etag) if wanted else b""
        self._at += len(came)
        return came
