"""The bytes of a data file as text: unpacked within limits, with a clear error where they are not UTF-8."""

import codecs
import gzip
import os
import zlib
from pathlib import Path

from perdure.core.errors import BadInput
from perdure.core.plain_text import quoted

PLENTY = 64 * 2**20  # any .gz may unpack to this many bytes
RATIO = 50  # a larger one may unpack to this multiple of its size; texts are packed to a third or a tenth
MOST, ORDINARY = 2**30, 20  # and to at most MOST bytes, unless ORDINARY times its size is more
SETTING = "PERDURE_GZ_MIB"  # environment variable: MiB that a .gz may unpack to, instead of these limits
_PIECE = 2**20


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a file, unpacked if its name ends in .gz.

    Raises:
        BadInput: The file is missing, empty, a folder, a broken .gz, or a .gz that unpacks to more than a text would.
    """
    try:
        data = _unpacked(path) if path.suffix.lower() == ".gz" and path.stat().st_size else path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist; check the path") from None
    except IsADirectoryError:
        raise BadInput(f"{path} is a folder; name a file in it") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadInput(
            f"{path} is not a whole gzip file ({error}); compress it again, or drop .gz from its name"
        ) from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error
    if not data.strip():
        raise BadInput(f"{path} is empty; it needs at least one row")
    return data


def _unpacked(path: Path) -> bytes:
    limit = most(path.stat().st_size)
    data = bytearray()
    with gzip.open(path) as file:
        while piece := file.read(_PIECE):
            data += piece
            if len(data) > limit:
                raise BadInput(
                    f"{path} holds more than {limit // 2**20:,} MiB, {len(data) // path.stat().st_size:,} times its size, which "
                    f"an ordinary text does not; if this is intended, set {SETTING} to the MiB that it may hold, or unpack it "
                    f"('gunzip -k {path.name}') and give the unpacked file"
                )
    return bytes(data)


def most(size: int) -> int:
    """Return the number of bytes that a packed file of `size` bytes may unpack to.

    Raises:
        BadInput: The environment sets another limit, and it is no whole number of MiB.
    """
    if own := os.environ.get(SETTING):
        if not own.isdecimal() or not int(own):
            raise BadInput(f"{SETTING} is {quoted(own)}; it is a whole number of MiB, from 1")
        return int(own) * 2**20
    return max(PLENTY, min(RATIO * size, max(MOST, ORDINARY * size)))


def decode(data: bytes, path: Path) -> str:
    """Return UTF-8 bytes as text, without a byte order mark.

    Raises:
        BadInput: The bytes are not UTF-8; the message names the encoding or the line.
    """
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise BadInput(f"{path} is UTF-32 text; save it as UTF-8")
    # without a mark, every other byte of a text in European letters is zero
    zeros = [data[start:2000:2].count(0) for start in (0, 1)]
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if marked or (max(zeros) > 0.4 * len(data[:2000]) and min(zeros) == 0):
        raise BadInput(f"{path} is UTF-16 text; save it as UTF-8")
    if b"\0" in data:
        raise BadInput(
            f"{path} is a binary file, not text (a zero byte in line {data.count(10, 0, data.index(0)) + 1}); "
            "name it by what it is (.parquet, .gz), or export it as UTF-8"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        guess = " as Latin-1 or Windows-1252 has it" if _letters(data) else ""
        raise BadInput(
            f"{path}:{line} is not UTF-8 text (byte 0x{data[error.start]:02x}{guess}); convert the file to UTF-8"
        ) from error


def _letters(data: bytes) -> bool:
    """Return whether all bytes are characters of Windows-1252."""
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:
        return False
    return True
