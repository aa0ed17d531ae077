"""Who imports whom, read from the sources alone: imports, and what is loaded by name."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACKAGE = "constitutional_ai"
ROOT = Path(__file__).parents[1]
TRUTH = frozenset(f"lab.{name}" for name in ("world.oracle", "world.gold", "training.skills"))
# The modules that may load others by name, and what that can reach.
DYNAMIC = {
    "": ("principles", "lesson"),  # the public names of the package
    "world": (),  # its callers are read one by one, see `parts`
    "stages.pipeline": ("stages.*",),
    "data.arrow": (),  # datasets and pyarrow
}


@dataclass(frozen=True)
class Import:
    """``by_name``: through `world.part`, or another load by name."""

    source: str
    target: str
    line: int
    by_name: bool = False


def sources() -> dict[str, str]:
    """{module within the package: its text}; the package itself is ``""``."""
    found = {}
    for path in (ROOT / PACKAGE).rglob("*.py"):
        name = ".".join(path.relative_to(ROOT / PACKAGE).with_suffix("").parts)
        found[name.removesuffix("__init__").rstrip(".")] = path.read_text(encoding="utf-8")
    return found


def imports(modules: Mapping[str, str]) -> list[Import]:
    """Every import of one module of the package by another. Raises ValueError for a hidden one."""
    names = frozenset(modules)
    return [each for name, text in modules.items() for each in _of_text(name, text, names)]


@cache
def _of_text(name: str, text: str, modules: frozenset[str]) -> tuple[Import, ...]:
    return tuple(_imports_of(name, ast.parse(text), modules))


def _imports_of(name: str, tree: ast.Module, modules: frozenset[str]) -> Iterator[Import]:
    is_package = any(other.startswith(f"{name}.") for other in modules) or not name
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == PACKAGE:
                    target = alias.name.partition(".")[2]
                    yield Import(name, _module(target, modules), node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, name, is_package)
            if base is None:
                continue
            for alias in node.names:
                target = f"{base}.{alias.name}".strip(".")
                yield Import(name, _module(target, modules), node.lineno)
        elif isinstance(node, ast.Call):
            yield from _by_name(name, node, modules)


def _base(node: ast.ImportFrom, name: str, is_package: bool) -> str | None:
    """The module that a ``from`` names, within the package; None for another package's."""
    if node.level:
        parts = name.split(".") if name else []
        parts = parts[: len(parts) - node.level + is_package]
        return ".".join([*parts, node.module] if node.module else parts)
    if (node.module or "").split(".")[0] != PACKAGE:
        return None
    return (node.module or "").partition(".")[2]


def _module(target: str, modules: frozenset[str]) -> str:
    """A dotted name, cut back to the module that holds it."""
    while target and target not in modules:
        target = target.rpartition(".")[0]
    return target


def _by_name(name: str, node: ast.Call, modules: frozenset[str]) -> Iterator[Import]:
    is_method = isinstance(node.func, ast.Attribute)
    called = node.func.attr if isinstance(node.func, ast.Attribute) else _name(node.func)
    if called in ("exec", "eval") and is_method:
        return  # a model's
    if called == "part":
        argument = node.args[0] if node.args else None
        if not (isinstance(argument, ast.Constant) and isinstance(argument.value, str)):
            raise ValueError(f"{name}:{node.lineno}: part() takes a literal name, to be readable")
        yield Import(name, f"lab.{argument.value}", node.lineno, by_name=True)
    elif called in ("import_module", "__import__", "find_spec", "exec", "eval"):
        if name not in DYNAMIC and not name.startswith("lab"):
            raise ValueError(f"{name}:{node.lineno}: {called}() hides what is imported")
        for pattern in DYNAMIC.get(name, ()):
            stem = pattern.removesuffix("*")
            for target in modules:
                if target == pattern or (stem != pattern and target.startswith(stem)):
                    yield Import(name, target, node.lineno, by_name=True)


def _name(function: ast.expr) -> str:
    return function.id if isinstance(function, ast.Name) else ""


def package(module: str) -> str:
    """The first part of a module's name: what the layers are made of."""
    return module.split(".")[0] or "__init__"


def layers() -> dict[str, int]:
    """{package: its layer}, 0 the lowest, as AGENTS.md prints them, the highest first."""
    text = (ROOT / "AGENTS.md").read_text(encoding="utf-8")
    block = text.split("<!-- layers -->")[1].split("```")[1]
    lines = [line.split("#")[0].split() for line in block.strip().splitlines()]
    return {name: height for height, names in enumerate(reversed(lines)) for name in names}


def out_of_order(modules: Mapping[str, str]) -> list[str]:
    """Imports that go up, sideways within a layer, or into the laboratory past `world.part`."""
    order = layers()
    found = []
    for each in imports(modules):
        source, target = package(each.source), package(each.target)
        if source == target or source in ("__init__", "__main__", "lab"):
            continue
        if target == "lab" and not each.by_name:
            found.append(f"{each.source}:{each.line} imports {each.target}")
        elif target != "lab" and order[target] >= order[source]:
            found.append(f"{each.source}:{each.line} imports {each.target}, which is not below it")
    return found


def reach(modules: Mapping[str, str], starts: set[str]) -> dict[str, str]:
    """Every module that is reached from ``starts``, with the module that imports it.

    Importing ``a.b`` runs ``a`` as well, so packages are reached with their modules.
    """
    edges: dict[str, set[str]] = {name: set() for name in modules}
    for each in imports(modules):
        edges[each.source] |= {each.target, *_parents(each.target)} - {""}
    reached = dict.fromkeys(starts, "")
    todo = list(starts)
    while todo:
        for target in edges.get(source := todo.pop(), ()):
            if target not in reached:
                reached[target] = source
                todo.append(target)
    return reached


def _parents(module: str) -> Iterator[str]:
    while module := module.rpartition(".")[0]:
        yield module
