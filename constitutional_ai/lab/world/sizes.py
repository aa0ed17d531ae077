"""The lab's models by name: how large they are, and where their weights lie. Needs no torch."""

from pathlib import Path

from constitutional_ai.errors import ModelError

# (width, layers, heads, feed-forward width); parameters are counted with 2,000 tokens
SIZES = {
    "xxs": (64, 3, 2, 160),  # 0.27M
    "xs": (96, 3, 3, 256),  # 0.52M
    "s": (192, 4, 6, 512),  # 2.15M
}
JUDGE = "judge"  # an "s" that read more and withstands attacks (harden.py); only for judging
_WEIGHTS = Path(__file__).parents[1] / "weights"


def model_path(name: str) -> Path:
    """The folder of a shipped model, as in ``model_path("lab:s")``.

    Raises ModelError for an unknown name, or one that is not shipped.
    """
    name = name.removeprefix("lab:")
    folder = _WEIGHTS / (name if name == JUDGE else known(name))
    if not (folder / "model.safetensors").is_file():
        made = "harden MODEL" if name == JUDGE else f"pretrain --size {name}"
        raise ModelError(
            f"lab:{name} has no weights in {folder}; train them with"
            f" `cai lab {made} --out {folder}`"
        )
    return folder


def known(size: str) -> str:
    """The size itself. Raises ModelError where there is none of that name."""
    if size not in SIZES:
        known = ", ".join(f"lab:{name}" for name in (*SIZES, JUDGE))
        raise ModelError(f"unknown lab model 'lab:{size}'; there are {known}")
    return size
