"""SFT and preference sets for TRL: SFTTrainer, RewardTrainer and DPOTrainer take them as they are.

    OUT/sft/train.jsonl            prompt, completion: the loss is on the answer alone
    OUT/preferences/train.jsonl    prompt, chosen, rejected; our soft label in p_chosen
    OUT/preferences/test.jsonl     pairs that the run's reward model held out, if it is trained
    OUT/README.md                  what is what, and the commands

TRL's losses take hard labels: p_chosen stays a column, for filters and for your own loss.
"""

from pathlib import Path

from constitutional_ai.exports import cards
from constitutional_ai.exports.finished import Finished
from constitutional_ai.exports.rows import preference, prompt_completion
from constitutional_ai.store.whole import new_folder, rows_to


def export(run: Finished, out: Path) -> dict[str, int]:
    """Write the folder; how many rows each file has. Raises ExportError, and writes nothing."""
    demonstrations, _ = run.demonstrations()
    preferences = run.preferences()
    with new_folder(out) as folder:
        written = {
            "sft/train.jsonl": rows_to(
                folder / "sft" / "train.jsonl", map(prompt_completion, demonstrations)
            ),
            "preferences/train.jsonl": rows_to(
                folder / "preferences" / "train.jsonl", map(preference, preferences.train)
            ),
        }
        if preferences.test:
            written["preferences/test.jsonl"] = rows_to(
                folder / "preferences" / "test.jsonl", map(preference, preferences.test)
            )
        (folder / "README.md").write_text(_readme(run, out, written), encoding="utf-8")
    return written


def _readme(run: Finished, out: Path, written: dict[str, int]) -> str:
    sl_cai, base = run.model("finetune"), cards.model_source(run.settings.model.path)
    return cards.page(
        {"configs": cards.configs(written)},
        f"""\
# {run.name}, for TRL

{cards.origin(run)}

{cards.table_of_files(written)}

{cards.left_out(run)}

```sh
trl sft    --model_name_or_path {base} --dataset_name {out} --dataset_config sft --output_dir sft
trl reward --model_name_or_path {sl_cai} --dataset_name {out} --dataset_config preferences --output_dir reward
trl dpo    --model_name_or_path {sl_cai} --dataset_name {out} --dataset_config preferences --output_dir dpo
```

`p_chosen` is the judge's probability, at least 0.5, that `chosen` is better. TRL's losses take every
row as certain; to leave out what the judge hardly saw: `dataset.filter(lambda row: row["p_chosen"] > 0.6)`.
""",  # noqa: E501
    )
