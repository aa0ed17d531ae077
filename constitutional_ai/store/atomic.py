"""Files and folders that are whole or not there, and that outlast a kill or a loss of power.

Everything is written under another name, seen onto the disk, and renamed. A folder's older content
stays until the new one is complete.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace a file by this content. Its folder is made if it is missing.

    Raises OSError that names ``path``; the older file is untouched then.
    """
    draft = _draft(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with draft.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:  # of a full disk, say, which does not name the file
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        draft.unlink(missing_ok=True)
    sync_to_disk(path.parent)


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Replace a folder by one that ``write`` fills; it is given an empty folder to write into.

    Raises OSError that names ``folder``, also where safetensors finds the disk full; the older
    folder is untouched then.
    """
    draft = _draft(folder)
    shutil.rmtree(draft, ignore_errors=True)  # of an earlier start that was killed
    draft.mkdir(parents=True)
    try:
        write(draft)
        for path in (*draft.iterdir(), draft):
            sync_to_disk(path)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(draft, folder)
        sync_to_disk(folder.parent)
    except SafetensorError as error:
        raise OSError(f"{folder}: {error}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def sync_to_disk(path: Path) -> None:
    """Wait until a file's bytes, or a folder's list of names, are on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.draft")
