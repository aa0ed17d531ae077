"""The sets for TRL, and TRL's own trainers on them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.exports import trl
from constitutional_ai.exports.finished import Finished
from constitutional_ai.store.whole import ExportError

from .conftest import lines


@pytest.fixture
def exported(make_run: Callable[..., Path], tmp_path: Path) -> Path:
    trl.export(Finished(make_run()), tmp_path / "out")
    return tmp_path / "out"


def test_what_sl_cai_learned_is_there_and_nothing_else(exported: Path) -> None:
    rows = lines(exported / "sft" / "train.jsonl")
    assert [row["completion"][0]["content"] for row in rows] == [
        "Sorry, no.",
        "A safe way.",
        "Gladly.",
    ]
    assert [row["source"] for row in rows] == ["revised", "revised", "helpful"]
    readme = (exported / "README.md").read_text()
    assert "1 SFT rows left out: helpful answer cut off at the token limit" in readme
    assert "1 SFT rows left out: empty answer" in readme


def test_the_sft_rows_are_those_that_stage_2_trained_on(make_run: Callable[..., Path]) -> None:
    from constitutional_ai.records import HelpfulAnswer, RevisedAnswer
    from constitutional_ai.stages.finetune import examples

    run = Finished(make_run())
    trained = examples(
        run.stage("revise").rows("revisions.jsonl", RevisedAnswer),
        run.stage("finetune").rows("helpful.jsonl", HelpfulAnswer),
        1,
    )
    assert [(row.prompt, row.answer) for row in run.demonstrations()[0]] == trained


def test_unlabelled_pairs_are_left_out_and_counted(exported: Path) -> None:
    train = lines(exported / "preferences" / "train.jsonl")
    test = lines(exported / "preferences" / "test.jsonl")
    assert [row["id"] for row in train] == ["p0", "p1", "p2", "p5", "p6", "p7", "p8", "p9"]
    assert [row["id"] for row in test] == ["p4"]
    readme = (exported / "README.md").read_text()
    assert "1 pairs left out: unlabelled (no option token in the reply)" in readme


def test_every_row_has_the_same_columns_of_the_same_types(exported: Path) -> None:
    rows = lines(exported / "preferences" / "train.jsonl")
    shapes = {tuple((name, type(value).__name__) for name, value in row.items()) for row in rows}
    assert len(shapes) == 1
    assert rows[1]["principles"] == ["kind"]
    assert rows[2]["p_by_principle"] == [0.6, 0.6]


def test_no_path_and_no_password_goes_along(exported: Path) -> None:
    for file in exported.rglob("*.jsonl"):
        text = file.read_text()
        assert "secret" not in text
        assert "/home/me" not in text
    assert "secret" not in (exported / "README.md").read_text()


def test_before_the_reward_model_all_pairs_are_for_training(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    written = trl.export(Finished(make_run("label")), tmp_path / "out")
    assert written == {"sft/train.jsonl": 3, "preferences/train.jsonl": 9}


def test_an_unfinished_run_is_refused_and_nothing_written(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=r"4-label: not finished; `cai label` makes it"):
        trl.export(Finished(make_run("sample")), tmp_path / "out")
    with pytest.raises(ExportError, match="no run folder"):
        Finished(tmp_path / "nothing")
    assert not (tmp_path / "out").exists()


def test_what_exists_is_never_overwritten(exported: Path) -> None:
    before = (exported / "README.md").read_bytes()
    with pytest.raises(ExportError, match="exists"):
        trl.export(Finished(exported.parent / "run"), exported)
    assert (exported / "README.md").read_bytes() == before


def arguments(kind: Any, folder: Path, **more: Any) -> Any:
    return kind(
        output_dir=str(folder),
        max_steps=2,
        per_device_train_batch_size=2,
        report_to="none",
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        disable_tqdm=True,
        **more,
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # theirs
def test_trls_trainers_take_them_without_a_change(
    exported: Path, tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = pytest.importorskip("trl", minversion="1.16", reason="pip install -e '.[interop]'")
    datasets = pytest.importorskip("datasets")
    from transformers import AutoModelForCausalLM

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))

    def load(name: str, split: str) -> Any:
        return datasets.load_dataset(str(exported), name, split=split)

    def changed(trainer: Any) -> bool:
        before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
        trainer.train()
        assert trainer.state.global_step == 2
        return any(not p.equal(before[n]) for n, p in trainer.model.named_parameters())

    sft = library.SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_llama),
        args=arguments(library.SFTConfig, tmp_path / "sft", learning_rate=0.01),
        train_dataset=load("sft", "train"),
        processing_class=tokenizer(tiny_llama),
    )
    assert changed(sft)
    row = sft.train_dataset[0]
    learned = [label for label in row["labels"] if label != -100]
    assert "Sorry, no." in sft.processing_class.decode(learned)
    assert "Do harm" not in sft.processing_class.decode(learned)

    for trainer, config in (
        (library.RewardTrainer, library.RewardConfig),
        (library.DPOTrainer, library.DPOConfig),
    ):
        args = arguments(config, tmp_path / trainer.__name__, learning_rate=0.01)
        made = trainer(
            model=str(tiny_llama),
            args=args,
            train_dataset=load("preferences", "train"),
            eval_dataset=load("preferences", "test"),
            processing_class=tokenizer(tiny_llama),
        )
        assert changed(made)
        assert made.evaluate()["eval_loss"] > 0


def tokenizer(model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)
