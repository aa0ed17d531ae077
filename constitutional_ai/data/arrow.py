"""Parquet files, and data sets of the hub: ``hf:ID[@REVISION][:CONFIG][:SPLIT][:COLUMN]``.

``ID`` may name a folder inside the data set (``hf:Anthropic/hh-rlhf/harmless-base``) or a folder on
this machine. An empty part takes the default: ``hf:ID::test``. Code that comes with a data set is
never run. Both need the optional extra ``data``; without it a DataError says how to install it.
"""

import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from constitutional_ai.data.lines import unreadable
from constitutional_ai.data.rows import Columns, Table
from constitutional_ai.errors import DataError

HUB = "hf:"
DATA_SET = "data set"
_BATCH = 1024  # rows in memory as Python objects at a time


class HubName(NamedTuple):
    """The parts of ``hf:…``; empty where the default is meant."""

    id: str
    folder: str
    revision: str
    config: str
    split: str
    column: str


def hub_name(source: str) -> HubName:
    """Take ``hf:…`` apart. Raises DataError for one that names no data set.

    >>> hub_name("hf:Anthropic/hh-rlhf/harmless-base@main::test")
    HubName(id='Anthropic/hh-rlhf', folder='harmless-base', revision='main', config='', split='test', column='')
    """  # noqa: E501
    parts = source.removeprefix(HUB).split(":")
    if not parts[0] or len(parts) > 4:
        raise DataError(f"{source}: expected hf:ID, then :CONFIG, :SPLIT and :COLUMN as wanted")
    config, split, column = (*parts[1:], "", "", "")[:3]
    id, _, revision = parts[0].partition("@")
    folder = ""
    if not Path(id).exists() and id.count("/") > 1:
        owner, name, folder = id.split("/", 2)
        id = f"{owner}/{name}"
    return HubName(id, folder, revision, config, split, column)


def hub(source: str) -> Table:
    """A data set of the hub, or of this machine's cache where there is no network."""
    wanted = hub_name(source)
    return Table(source, DATA_SET, "row", _hub_rows(source, wanted))


def _hub_rows(source: str, wanted: HubName) -> Iterator[tuple[int, Columns]]:
    data = _load(source, wanted)
    if wanted.column and wanted.column not in data.column_names:
        raise DataError(
            f"{source}: has no column {wanted.column!r}; it has: {', '.join(data.column_names)}"
        )
    for number, row in enumerate(data, 1):
        yield number, {"prompt": row[wanted.column]} if wanted.column else row


def _load(source: str, wanted: HubName) -> Any:
    """The one split that was asked for. Raises DataError with the library's own first line."""
    datasets = _needs("datasets", source)
    try:
        loaded = datasets.load_dataset(
            wanted.id,
            name=wanted.config or None,
            data_dir=wanted.folder or None,
            revision=wanted.revision or None,
            split=wanted.split or None,
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split("\n")[0].split())
        hint = "; HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") == "1" else ""
        raise DataError(f"{source}: cannot be loaded ({reason}{hint})") from None
    if not isinstance(loaded, dict):
        return loaded
    splits = list(loaded)
    if len(splits) > 1 and "train" not in splits:
        parts = f"{HUB}{wanted.id}:{wanted.config}:"
        raise DataError(f"{source}: name a split: {', '.join(parts + name for name in splits)}")
    return loaded["train" if "train" in splits else splits[0]]


def parquet(path: Path) -> Table:
    return Table(str(path), "Parquet", "row", _parquet_rows(path))


def _parquet_rows(path: Path) -> Iterator[tuple[int, Columns]]:
    arrow, reader = _needs("pyarrow", str(path)), _needs("pyarrow.parquet", str(path))
    number = 0
    try:
        with reader.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except arrow.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: not a Parquet file, or a broken one ({reason})") from None
    except OSError as error:
        raise unreadable(path, error) from None


def _needs(module: str, source: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise DataError(
            f"{source}: needs {package}; pip install 'constitutional-ai[data]'"
        ) from None
