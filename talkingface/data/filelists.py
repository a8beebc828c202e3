"""Clip lists: text files with one clip id per line."""

from __future__ import annotations

import codecs
import hashlib
import logging
import os
import re
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from talkingface.errors import DataError
from talkingface.utils.limits import require_resources
from talkingface.utils.paths import read_json, shown, write_json, write_text

log = logging.getLogger(__name__)

# Beside the lists: texts that are being written, and hashes of those that were written.
RECORD = ".filelists.json"


def read_filelist(path: Path) -> list[str]:
    """Clip ids of a list: one per line; text after the first blank and ``#`` lines are ignored.

    A clip id that contains blanks is written in quotes.

    Raises:
        DataError: the list does not exist or is not text.
    """
    finish_writing(path.parent)
    names = []
    for line in read_text(path).splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        quoted = re.match(r'"((?:[^"]|"")+)"', line)
        name = quoted[1].replace('""', '"') if quoted else line.split()[0]
        names.append(name.replace("\\", "/"))
    return list(dict.fromkeys(names))


def read_text(path: Path) -> str:
    """A list in UTF-8, or in UTF-16 with a byte order mark, as PowerShell writes it.

    Raises:
        DataError: the list does not exist or has another encoding.
    """
    try:
        data = path.read_bytes()
        marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return data.decode("utf-16" if marked else "utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"The list {path} does not exist.") from error
    except OSError as error:
        require_resources(error)
        raise DataError(f"The list {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"The list {path} is not UTF-8 text ({error}). Save it as UTF-8."
        ) from error


def write_filelist(path: Path, names: Iterable[str]) -> None:
    """Write a list atomically; names with blanks, quotes or a leading ``#`` are quoted."""
    write_text(path, _text(names))


def write_filelists(lists: Mapping[Path, Iterable[str]]) -> None:
    """Write several lists as one transaction: a reader completes what a killed process began.

    A list that somebody else has written or changed is kept as ``<name>.old``.

    Args:
        lists: path -> clip ids.
    """
    texts = {path: _text(names) for path, names in lists.items()}
    folder = next(iter(texts)).parent
    written = _record(folder).get("written", {})
    for path, text in texts.items():
        if path.is_file() and (former := path.read_bytes()) != text.encode():
            if hashlib.sha256(former).hexdigest() != written.get(_key(path, folder)):
                kept = _free_name(path)
                kept.write_bytes(former)
                log.warning("%s is replaced; the former list is %s", shown(path), kept.name)
    named = {_key(path, folder): text for path, text in texts.items()}
    write_json(folder / RECORD, {"pending": named, "written": written})
    finish_writing(folder)


def finish_writing(folder: Path) -> None:
    """Write the lists that a killed process has left out, if there are any."""
    record = _record(folder)
    pending = record.get("pending")
    if not pending:
        return
    written = dict(record.get("written", {}))
    for key, text in pending.items():
        write_text(folder / key, text)
        written[key] = hashlib.sha256(text.encode()).hexdigest()
    write_json(folder / RECORD, {"pending": {}, "written": written})


def _text(names: Iterable[str]) -> str:
    def quoted(name: str) -> str:
        return f'"{name.replace(chr(34), 2 * chr(34))}"'

    plain = re.compile(r'[^\s"#][^\s"]*')
    return "".join(f"{name if plain.fullmatch(name) else quoted(name)}\n" for name in names)


def _key(path: Path, folder: Path) -> str:
    """The path relative to the folder, so that a moved dataset keeps its record."""
    return Path(os.path.relpath(path, folder)).as_posix()


def _free_name(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.old{number or ''}") for number in count())
    return next(name for name in names if not name.exists())


def _record(folder: Path) -> dict[str, Any]:
    return read_json(folder / RECORD)
