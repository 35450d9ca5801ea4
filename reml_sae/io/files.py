"""Files that are whole or not there, and what killed runs leave beside them."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reml_sae.errors import InputError

SUFFIX = ".part"


def check_writable(path: str | os.PathLike[str], argument: str = "path") -> None:
    """Refuse a path to which no file can be written, before there is anything to lose.

    Raises
    ------
    InputError
        Where it is a folder, or its folder is missing or cannot be written.
    """
    target, name = Path(path), os.fspath(path)
    if target.is_dir():
        raise InputError(f"{argument}={name!r} is a folder; name a file in it")
    if not target.parent.is_dir():
        raise InputError(f"{argument}={name!r}: the folder does not exist; create it first")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise InputError(f"{argument}={name!r}: its folder cannot be written; choose another")


def check_folder(path: str | os.PathLike[str], argument: str = "path") -> None:
    """Refuse a path that is no folder in which files can be written, and could not become one.

    Raises
    ------
    InputError
        Where it, or what it would be made in, is a file or cannot be written.
    """
    folder, name = Path(path).absolute(), os.fspath(path)
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir():
        raise InputError(f"{argument}={name!r} cannot be a folder: {os.fspath(there)!r} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{argument}={name!r}: {os.fspath(there)!r} cannot be written; choose "
                         "another folder")


def write_bytes_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write, fsync and rename, so that the file is whole or not there.

    What runs that were killed while they wrote this file left beside it is removed.

    Raises
    ------
    InputError
        Where it cannot be written: no such folder, no right, a disk that is full.
    """
    target = Path(path)
    check_writable(target)
    _remove_remains(target)
    part = _part(target)
    try:
        # with the rights that the user's umask gives, which those of tempfile ignore
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(part, target)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InputError(f"path={os.fspath(path)!r} cannot be written ({error.strerror}); what "
                             "was there before is as it was") from error
        raise


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder to fill, which takes its place when it is full, or is gone where that fails.

    Raises
    ------
    InputError
        Where there is something at the path, or no folder can be made there.
    """
    target = Path(path)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise InputError(f"path={os.fspath(path)!r} is there already; give a new folder")
    if not target.is_dir():
        check_writable(target)
    _remove_remains(target)
    part = _part(target)
    part.mkdir()
    try:
        yield part
        os.replace(part, target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _part(target: Path) -> Path:
    """Where what becomes ``target`` is written first."""
    return target.with_name(f".{target.name}.{_owner(os.getpid())}.{secrets.token_hex(4)}{SUFFIX}")


def _owner(process: int) -> str:
    """Who writes a file that is not whole yet: this machine's name and a process."""
    return f"{socket.gethostname().replace('.', '-')}-{process}"


def _remove_remains(target: Path) -> None:
    """Remove the parts of ``target`` that processes of this machine wrote which are no more."""
    begun = f".{target.name}."
    for name in os.listdir(target.parent):
        if not (name.startswith(begun) and name.endswith(SUFFIX)):
            continue
        process = name[len(begun):].split(".")[0].rpartition("-")[2]
        ours = name.startswith(begun + _owner(0)[:-1]) and process.isdecimal()
        if ours and not _is_alive(int(process)):
            remains = target.with_name(name)
            if remains.is_dir():
                shutil.rmtree(remains, ignore_errors=True)
            else:
                remains.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
