"""``cai export``: a finished run, in the form that another tool takes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from constitutional_ai.cli.options import group

app = group("Hand a run on to other tools. Nothing is uploaded.")

RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run folder: `cai run --out`.")]
Target = Annotated[Path, typer.Option("--out", metavar="DIR", help="A folder to make.")]
Round = Annotated[
    int | None, typer.Option("--round", min=1, help="Of several rounds; default the last.")
]
Gpus = Annotated[int, typer.Option(min=1, help="GPUs of the one machine to train on.")]


@app.command()
def trl(run_dir: RunDir, out: Target, round: Round = None) -> None:
    """SFT and preference sets for TRL's SFTTrainer, RewardTrainer and DPOTrainer."""
    from constitutional_ai.exports import trl
    from constitutional_ai.exports.finished import Finished

    _show(out, trl.export(Finished(run_dir, round), out))


@app.command()
def verl(run_dir: RunDir, out: Target, round: Round = None, gpus: Gpus = 1) -> None:
    """Prompts, models and overrides for PPO with veRL."""
    from constitutional_ai.exports import cluster
    from constitutional_ai.exports.finished import Finished

    _show(out, cluster.export(cluster.VERL, Finished(run_dir, round), out, gpus))


@app.command()
def openrlhf(run_dir: RunDir, out: Target, round: Round = None, gpus: Gpus = 1) -> None:
    """Data, models and arguments for OpenRLHF's SFT, reward, DPO and PPO trainers."""
    from constitutional_ai.exports import cluster
    from constitutional_ai.exports.finished import Finished

    _show(out, cluster.export(cluster.OPENRLHF, Finished(run_dir, round), out, gpus))


@app.command("hub-folder")
def hub_folder(
    run_dir: RunDir,
    out: Target,
    round: Round = None,
    licence: Annotated[str, typer.Option(help="A licence id of the hub, such as mit.")] = "",
    base_model: Annotated[str, typer.Option(help="The start model's hub id.")] = "",
    constitution: Annotated[
        str, typer.Option(metavar="FILE", help="The run's constitution, for the cards.")
    ] = "",
) -> None:
    """Models and data sets with their cards: one folder, ready for the Hugging Face hub."""
    from constitutional_ai.exports import hub
    from constitutional_ai.exports.finished import Finished

    _show(out, hub.export(Finished(run_dir, round), out, licence, base_model, constitution))


@app.command()
def inspect(
    source: Annotated[
        Path, typer.Argument(metavar="RUN_DIR|EVAL_DIR", help="A run, or a `cai evaluate --out`.")
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE.eval", help="Or a folder: a log for each model.")
    ],
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the evaluation's models, this one.")
    ] = None,
) -> None:
    """The evaluation as logs of Inspect: `inspect view --log-dir DIR`."""
    from constitutional_ai.exports import inspect_log

    for path, samples in inspect_log.export(source, out, model).items():
        print(f"{samples:>8,}  {path}")


def _show(out: Path, rows: Mapping[str, int]) -> None:
    for file, count in rows.items():
        print(f"{count:>8,}  {out / file}")
    first = "README.md" if (out / "README.md").exists() else "UPLOAD.md"
    print(f"written: {out}; begin with {out / first}")
