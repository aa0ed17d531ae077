"""SFT and preference sets for TRL: SFTTrainer, RewardTrainer and DPOTrainer take them as they are.

    OUT/sft/train.jsonl            prompt, completion: the loss is on the answer alone
    OUT/preferences/train.jsonl    prompt, chosen, rejected; our soft label in p_chosen
    OUT/preferences/test.jsonl     pairs that the run's reward model held out, if it is trained
    OUT/README.md                  the files and the commands

TRL's losses take hard labels. The column p_chosen is for filters and for losses of your own.
"""

from pathlib import Path

from huggingface_hub import DatasetCardData

from constitutional_ai.exports import cards, paragraphs
from constitutional_ai.exports.finished import Finished
from constitutional_ai.exports.rows import preference, prompt_completion
from constitutional_ai.store.whole import new_folder, rows_to


def export(run: Finished, out: Path) -> dict[str, int]:
    """Write the folder; returns the rows of each file. Raises ExportError, writing nothing."""
    preferences = run.preferences()
    files = {
        "sft/train.jsonl": [prompt_completion(row) for row in run.demonstrations()[0]],
        "preferences/train.jsonl": [preference(row) for row in preferences.train],
    }
    if preferences.test:
        files["preferences/test.jsonl"] = [preference(row) for row in preferences.test]
    with new_folder(out) as folder:
        written = {name: rows_to(folder / name, rows) for name, rows in files.items()}
        (folder / "README.md").write_text(_readme(run, out, written), encoding="utf-8")
    return written


def _readme(run: Finished, out: Path, written: dict[str, int]) -> str:
    configs: dict[str, list[dict[str, str]]] = {}
    for file in written:
        split = {"split": Path(file).stem, "path": file}
        configs.setdefault(Path(file).parent.name, []).append(split)
    front = DatasetCardData(
        configs=[{"config_name": name, "data_files": files} for name, files in configs.items()]
    )
    sl_cai, base = run.model("finetune"), paragraphs.start_model(run)
    return cards.page(
        front,
        f"""\
# {run.name}, for TRL

{paragraphs.origin(run)}

{paragraphs.table_of_files(written)}

{paragraphs.left_out(run)}

```sh
trl sft    --model_name_or_path {base} --dataset_name {out} --dataset_config sft --output_dir sft
trl reward --model_name_or_path {sl_cai} --dataset_name {out} --dataset_config preferences --output_dir reward
trl dpo    --model_name_or_path {sl_cai} --dataset_name {out} --dataset_config preferences --output_dir dpo
```

`p_chosen` is the judge's probability, at least 0.5, that `chosen` is better. TRL's losses take every
row as certain. To leave out what the judge was unsure of: `dataset.filter(lambda row: row["p_chosen"] > 0.6)`.
""",  # noqa: E501
    )
