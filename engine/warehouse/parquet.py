"""Reading Parquet files through any store, with every mistake as one sentence."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from engine.errors import FormatError
from engine.nouns.records import SourceFile
from engine.storage import Reader, open_reader
from engine.warehouse.rows import one_line

_BATCH_ROWS = 1 << 17
_BUFFER = 1 << 20


class _Seekable(io.RawIOBase):
    """What pyarrow takes for a file."""

    def __init__(self, reader: Reader, size: int) -> None:
        self._reader, self._size, self._at = reader, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._at))
        if count:
            self._reader.read_into(view[:count], self._at)
        self._at += count
        return count


@contextmanager
def open_parquet(source: SourceFile) -> Iterator[parquet.ParquetFile]:
    """Open a Parquet file of a depot; pages are compared with their checksums.

    Raises:
        FormatError: it is none, is damaged, or changes meanwhile.
    """
    with open_reader(source.uri) as reader:
        reader.require(source)
        try:
            file = parquet.ParquetFile(
                _Seekable(reader, source.size),
                buffer_size=_BUFFER,
                pre_buffer=False,
                page_checksum_verification=True,
            )
            with file:
                yield file
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            raise FormatError(
                f"is no Parquet file, or damaged: {one_line(error)}", file=source.uri
            ) from error


def batches(file: parquet.ParquetFile, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of a file, some at a time; text that is not Unicode is an ArrowException."""
    for batch in file.iter_batches(_BATCH_ROWS, columns=list(columns), use_threads=False):
        batch.validate(full=True)
        yield batch
