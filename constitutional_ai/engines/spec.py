"""Which model a string names, and where that model runs.

    lab:s                                a model of the laboratory
    http://127.0.0.1:8000/v1#org/model   a server's; without #MODEL, the only one that it serves
    vllm:org/model                       run by vLLM in this process: lab:, a folder or a hub id
    out/6-ppo/model                      a folder
    ~/models/small-q4_k_m.gguf           a GGUF file; its weights are unpacked once (unpack.py)
    org/model@revision                   a hub id; without a revision it may change

Rows and fingerprints hold the string as it was written.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from constitutional_ai.engines import gguf_file
from constitutional_ai.errors import ModelError, SettingsError
from constitutional_ai.store.run_folder import folder_hash
from constitutional_ai.world import LAB, world

Kind = Literal["lab", "server", "vllm", "folder", "gguf", "hub"]


@dataclass(frozen=True)
class ModelSpec:
    """``name`` is the server's address, the folder or file, the hub id, or what vLLM runs.

    ``detail`` is the model on a server, or the revision of a hub id; "" where none is named.
    """

    text: str
    kind: Kind
    name: str
    detail: str = ""

    @classmethod
    def parse(cls, spec: str | Path) -> "ModelSpec":
        """Looks at the disk to tell a folder from a hub id, at nothing else.

        Raises SettingsError for an address that may hold a key, or where no model is named, and
        ModelError for a folder or a file with a revision.

        >>> spec = ModelSpec.parse("org/model@v2")
        >>> spec.kind, spec.name, spec.detail
        ('hub', 'org/model', 'v2')
        """
        text = str(spec)
        if text.lower().startswith(("http://", "https://")):
            return cls(text, "server", *_address(text))
        if text.startswith("vllm:"):
            inner = cls.parse(text.removeprefix("vllm:"))
            if inner.kind in ("server", "vllm"):
                raise SettingsError(f"{text}: vLLM runs a folder, a file, a hub id or lab:s")
            return cls(text, "vllm", inner.text)
        if text.startswith(f"{LAB}:"):
            return cls(text, "lab", text)
        if not text.strip():
            raise SettingsError("a model without a name; give a folder, a hub id or lab:s")
        folder = Path(text).expanduser()
        hub_id, at, revision = text.partition("@")
        if at and not folder.exists() and Path(hub_id).expanduser().is_dir():
            raise ModelError(f"{text}: a folder has no revisions; name it without '@{revision}'")
        if text.lower().endswith(gguf_file.SUFFIX) and not folder.is_dir():
            return cls(text, "gguf", str(folder))
        if at and hub_id.lower().endswith(gguf_file.SUFFIX):
            raise ModelError(f"{text}: a file has no revisions; name it without '@{revision}'")
        is_path = isinstance(spec, Path) or text.startswith(("/", ".", "~"))
        if folder.exists() or is_path or hub_id.count("/") > 1:
            return cls(text, "folder", str(folder))
        return cls(text, "hub", hub_id, revision)

    @property
    def is_pinned(self) -> bool:
        """Whether the model stays the same for as long as nobody here changes it."""
        return self.kind != "hub" or bool(self.detail)

    def identity(self) -> str:
        """What fingerprints hold of a model: its files' hash, or the text of a model elsewhere.

        ``vllm:`` before a model makes it no other model. Raises ModelError for an unknown ``lab:``.
        """
        match self.kind:
            case "vllm":
                return ModelSpec.parse(self.name).identity()
            case "lab":
                return folder_hash(world().model_path(self.name)) or self.text
            case "folder":
                return folder_hash(Path(self.name)) or self.text
            case "gguf":
                return gguf_file.content_hash(Path(self.name)) or self.text
            case _:
                return self.text

    def checkpoint(self) -> tuple[str, str | None]:
        """What ``from_pretrained`` takes: a folder or a hub id, and its revision.

        A GGUF file is unpacked now if it was not before; that may take minutes. Raises ModelError
        for a model that runs elsewhere, a folder without one, and a file that cannot be unpacked.
        """
        if self.kind in ("server", "vllm"):
            raise ModelError(f"{self.text}: its weights are not here; name a folder or a hub id")
        if self.kind == "lab":
            return str(world().model_path(self.name)), None
        if self.kind == "gguf":
            from constitutional_ai.engines.unpack import unpacked  # it brings in torch

            return str(unpacked(Path(self.name))), None
        if self.kind == "folder" and not Path(self.name).exists():
            raise ModelError(f"{self.text}: no such model folder; give a folder, a hub id or lab:s")
        if self.kind == "folder" and not (Path(self.name) / "config.json").is_file():
            raise ModelError(f"{self.text}: no config.json in it; name a model folder")
        return self.name, self.detail or None


def named_specs(texts: Iterable[str]) -> dict[str, str]:
    """Models by name, from ``SPEC`` or ``NAME=SPEC``; without a name the spec is its own.

    A ``=`` behind a slash, a colon or a ``#`` belongs to the spec. Raises SettingsError for a name
    that comes twice, and for what ``ModelSpec.parse`` refuses.

    >>> named_specs(["rl=out/6-ppo/model", "lab:s"])
    {'rl': 'out/6-ppo/model', 'lab:s': 'lab:s'}
    """
    specs: dict[str, str] = {}
    for text in texts:
        name, equals, spec = text.partition("=")
        if not equals or any(mark in name for mark in "/:#"):
            name = spec = text
        if not name or not spec:
            raise SettingsError(f"--model {text}: expected SPEC or NAME=SPEC")
        ModelSpec.parse(spec)
        if name in specs:
            raise SettingsError(f"--model {text}: {name!r} is named twice; call one of them NAME=…")
        specs[name] = spec
    return specs


def _address(text: str) -> tuple[str, str]:
    """Base address of a server, and its model."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:  # a bracket that is not closed, a port above 65535
        parts = urlsplit("")
    if parts.username or parts.password or parts.query:  # not repeated: it may hold the key
        raise SettingsError(
            "a server's address with a name, password or query in it; put a key into an"
            " environment variable and name it: http.keys = ['HOST=VARIABLE']"
        )
    if not parts.hostname:
        raise SettingsError(f"{text}: not a server's address; write http://HOST:PORT/v1#MODEL")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}", parts.fragment
