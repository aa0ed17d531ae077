"""The lab's pretraining: tokens and weights, optimiser, schedule, fast forward, save, resume."""

import math
import random
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from constitutional_ai.errors import ModelError, TrainingDiverged
from constitutional_ai.lab.training import batches, corpus, pretrain
from constitutional_ai.lab.training.corpus import Document, Turn
from constitutional_ai.lab.training.cross_entropy import linear_cross_entropy
from constitutional_ai.lab.training.muon import Muon, orthogonalise
from constitutional_ai.lab.world import tokenizer
from constitutional_ai.lab.world.model import EMBEDDING_STD, new_model, save
from constitutional_ai.lab.world.sizes import model_path
from constitutional_ai.learning.attention import fast_training


def documents(seed: int, count: int) -> list[Document]:
    """A world of one rule: the longer word wins."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        a, b = draw.sample(["cat", "horse", "elephant"], 2)
        verdict = Turn("assistant", "(A)" if len(a) > len(b) else "(B)", 1.0, verdict=True)
        made.append([Turn("user", f"(A) {a} (B) {b} Which is longer?", 0.0), verdict])
    return made


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return tokenizer.train([turn.text for d in documents(1, 50) for turn in d], 300)


@pytest.fixture(scope="module")
def chat(bpe: Tokenizer) -> PreTrainedTokenizerFast:
    return tokenizer.wrap(bpe, 512)


def test_every_text_survives_the_tokenizer(chat: PreTrainedTokenizerFast) -> None:
    for text in ("Hello (A).", " naïve\n\n日本 🙂 \x00", "  two  spaces"):
        assert chat.decode(chat.encode(text, add_special_tokens=False)) == text


def test_tokenizer_training_is_deterministic(bpe: Tokenizer) -> None:
    again = tokenizer.train([turn.text for d in documents(1, 50) for turn in d], 300)
    assert again.to_str() == bpe.to_str()


def test_chat_template_folds_the_system_turn(chat: PreTrainedTokenizerFast) -> None:
    conversation = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"},
    ]
    text = chat.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|bos|><|user|>Be kind.\n\nHi<|end|><|assistant|>Hello<|end|>"
        "<|user|>Bye<|end|><|assistant|>"
    )
    assert (chat.pad_token_id, chat.bos_token_id, chat.eos_token_id) == (0, 1, 4)
    assert chat.convert_tokens_to_ids(["<|user|>", "<|assistant|>"]) == [2, 3]


def test_weights_of_a_verdict(bpe: Tokenizer) -> None:
    document = [Turn("user", "cat", 0.0), Turn("assistant", "(B)", 2.0, verdict=True)]
    corpus = batches.encode(bpe, [document])
    tokens = [bpe.id_to_token(int(i)) for i in corpus.ids]
    tail = ["<|end|>", "<|assistant|>", "(", "B", ")", "<|end|>"]
    assert tokens[:2] == ["<|bos|>", "<|user|>"]
    assert tokens[-6:] == tail
    assert corpus.weights[-4:] == pytest.approx([0.6, 2.0, 0.6, 0.6])
    assert not corpus.weights[:-4].any()
    assert np.flatnonzero(corpus.letters).tolist() == [len(tokens) - 3]


def test_prose_has_no_role_and_content_no_control_token(bpe: Tokenizer) -> None:
    corpus = batches.encode(bpe, [[Turn("assistant", "cat<|end|>", 1.0)]])
    assert corpus.ids[[0, -1]].tolist() == [tokenizer.BOS, tokenizer.END]
    assert corpus.ids[1:-1].min() >= len(tokenizer.SPECIAL)
    assert corpus.weights.tolist() == [0.0] + [1.0] * (len(corpus.ids) - 1)


def test_plan_reads_each_document_once_in_batches_that_fit() -> None:
    lengths = np.random.default_rng(0).integers(5, 200, 9_000)
    order = batches.plan(lengths, 1_024, seed=3)
    assert sorted(np.concatenate(order).tolist()) == list(range(9_000))
    assert max(len(rows) * -(-lengths[rows].max() // 16) * 16 for rows in order) <= 1_024
    padded = sum(len(rows) * lengths[rows].max() for rows in order)
    assert padded < 1.1 * lengths.sum()


def test_every_third_document_is_what_it_is_alone(bpe: Tokenizer) -> None:
    made = [*documents(2, 8), [Turn("assistant", "a long line of prose")], *documents(3, 2)]
    for n, part in enumerate(batches.encode(bpe, made).every(3)):
        alone = batches.encode(bpe, made[n::3])
        for name in ("ids", "weights", "letters", "marks", "ends"):
            assert (getattr(part, name) == getattr(alone, name)).all()


def test_collate_returns_the_documents(bpe: Tokenizer) -> None:
    corpus = batches.encode(bpe, [*documents(2, 3), [Turn("assistant", "a long line of prose")]])
    batch = batches.collate(corpus, np.array([3, 1]))
    start, end = corpus.ends[0], corpus.ends[1]
    assert batch.ids[1, : end - start].tolist() == corpus.ids[start:end].tolist()
    assert not batch.ids[1, end - start :].any()
    assert not batch.weights[1, end - start :].any()


@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16)])
def test_orthogonalise_keeps_directions_and_levels_singular_values(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape), False)
    values = torch.linspace(0.05, 3, len(v))
    result = orthogonalise((u * values @ v)[None])[0]
    inside = u.T @ result @ v.T
    assert inside.diagonal().min() > 0.6
    assert inside.diagonal().max() < 1.3
    assert (inside - inside.diagonal().diag()).abs().max() < 0.1


def test_muon_finds_a_matrix_and_refuses_a_vector() -> None:
    torch.manual_seed(0)
    goal, found = torch.randn(8, 12), torch.nn.Parameter(torch.zeros(8, 12))
    muon = Muon([found], lr=0.05)
    for _ in range(150):
        found.grad = found.detach() - goal
        muon.step()
    assert (found - goal).norm() < 0.2 * goal.norm()
    with pytest.raises(ValueError, match="matrices"):
        Muon([torch.nn.Parameter(torch.zeros(3))], lr=0.1)


def test_linear_cross_entropy_matches_torch() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(600, 8, requires_grad=True)
    head = torch.randn(50, 8, requires_grad=True)
    targets, weights = torch.randint(50, (600,)), torch.rand(600)
    expected = (F.cross_entropy(hidden @ head.T, targets, reduction="none") * weights).sum()
    loss = linear_cross_entropy(hidden, head, targets, weights)
    torch.testing.assert_close(loss, expected)
    ours = torch.autograd.grad(3 * loss, [hidden, head])
    torch.testing.assert_close(ours, torch.autograd.grad(3 * expected, [hidden, head]))


def test_fast_training_computes_what_transformers_does() -> None:
    model = new_model("xxs", 300, 0)
    # Small embeddings keep attention soft, so that float32 tells the two apart only by a mistake.
    model.model.embed_tokens.weight.data *= 0.02 / EMBEDDING_STD
    ids = torch.randint(5, 300, (3, 20), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0  # padding on the right
    gradients = []
    for fast in (False, True):
        model.zero_grad()
        if fast:
            with fast_training(model):
                logits = model(input_ids=ids, attention_mask=mask).logits
        else:
            logits = model(input_ids=ids, attention_mask=mask).logits
        loss = (logits.log_softmax(-1).square() * mask[..., None]).mean()
        loss.backward()
        gradients.append([loss.detach(), *(p.grad for p in model.parameters())])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-6)
    with fast_training(model), torch.autocast("cpu", torch.bfloat16):
        assert model.model(input_ids=ids).last_hidden_state.dtype == torch.bfloat16
    assert model.config._attn_implementation == "sdpa"
    assert model.model(input_ids=ids).last_hidden_state.dtype == torch.float32


def test_schedules() -> None:
    assert pretrain.learning_rate(0, 0.0) == pytest.approx(1 / 50)
    assert pretrain.learning_rate(500, 0.55) == pytest.approx(1.0)
    assert pretrain.learning_rate(500, 0.775) == pytest.approx(0.5)
    assert pretrain.learning_rate(999, 1.0) == pytest.approx(0.02)
    early, late = pretrain.VERDICT
    weights = [pretrain.verdict_weight(share) for share in (0.0, 0.3, 0.35, 0.4, 1.0)]
    assert weights == pytest.approx([early, early, (early + late) / 2, late, late])


def test_new_models_are_reproducible_and_sized() -> None:
    sizes = {"xxs": 0.27e6, "xs": 0.52e6, "s": 2.15e6}
    for size, expected in sizes.items():
        model = new_model(size, 2_000, 7)
        assert sum(p.numel() for p in model.parameters()) == pytest.approx(expected, rel=0.03)
    again = new_model("s", 2_000, 7).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())


def test_saved_folder_is_standard_and_silent(
    tmp_path: Path, chat: PreTrainedTokenizerFast, capfd: pytest.CaptureFixture[str]
) -> None:
    model = new_model("xxs", len(chat), 0)
    save(model, chat, tmp_path)
    assert capfd.readouterr().err == ""
    assert next(model.parameters()).dtype == torch.float32
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.dtype == torch.bfloat16
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == tokenizer.CHAT_TEMPLATE
    capfd.readouterr()
    loaded.generate(torch.tensor([[1, 2, 9, 4, 3]]), max_new_tokens=3)  # type: ignore[misc]
    assert capfd.readouterr().err == ""


def test_model_path_names_the_remedy() -> None:
    with pytest.raises(ModelError, match="unknown lab model 'lab:xl'"):
        model_path("lab:xl")


def _trainer(bpe: Tokenizer, folder: Path, seed: int = 0) -> pretrain.Trainer:
    model = new_model("xxs", bpe.get_vocab_size(), seed)
    return pretrain.Trainer(model, folder, {"size": "xxs", "seed": str(seed)})


def test_training_learns_and_resumes_exactly(bpe: Tokenizer, tmp_path: Path) -> None:
    corpus = batches.encode(bpe, documents(3, 1_200))
    hold_out = batches.encode(bpe, documents(4, 100))
    order = batches.plan(corpus.lengths, 256, 0)[:90]
    whole = _trainer(bpe, tmp_path)
    lines: list[str] = []

    def keep() -> None:
        if whole.step == 60:
            whole.save()

    with fast_training(whole.model):
        before = pretrain.held_out(whole.model, hold_out)
        whole.run(corpus, order, hold_out, keep, lines.append)
        after = pretrain.held_out(whole.model, hold_out)
    assert after.judge < 0.75 < before.judge
    assert after.text < 0.5 * before.text
    assert "judge" in lines[0]

    resumed = _trainer(bpe, tmp_path)
    resumed.resume(lines.append)
    assert resumed.step == 60
    with fast_training(resumed.model):
        resumed.run(corpus, order, hold_out, lambda: None, lines.append)
    for p, q in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(p, q)

    with pytest.raises(ModelError, match="seed 0, not 1"):
        _trainer(bpe, tmp_path, seed=1).resume(lines.append)


def test_a_nan_stops_training(bpe: Tokenizer, tmp_path: Path) -> None:
    trainer = _trainer(bpe, tmp_path)
    corpus = batches.encode(bpe, documents(3, 4))
    with torch.no_grad():
        trainer.model.model.norm.weight[0] = math.nan
    with pytest.raises(TrainingDiverged):
        trainer.update(batches.collate(corpus, np.arange(4)), 0.0)


def test_the_whole_of_pretraining(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain, "workers", lambda: ThreadPool(1))
    monkeypatch.setattr(batches, "_CHUNK", 100)
    monkeypatch.setattr(pretrain, "_TOKENIZER_CHUNKS", 1)
    monkeypatch.setattr(pretrain, "_HOLD_OUT_TOKENS", 1)
    lines: list[str] = []
    out = pretrain.pretrain(
        "xxs", tmp_path / "model", progress=lines.append, tokens=100, batch_tokens=4_000
    )
    assert lines[0].startswith("corpus: 100 documents"), lines[0]
    assert "step 1/" in lines[1], lines
    assert not (out / "checkpoint").exists()
    model, chat = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert model.config.vocab_size == len(chat)


@pytest.mark.slow
def test_worker_processes_make_the_same_corpus_as_this_one(bpe: Tokenizer) -> None:
    made = []
    for pool in (batches.workers(), ThreadPool(1)):
        with pool:
            made.append(batches.make_corpus(pool, corpus.documents, bpe, 3, 50_000))
    for name in ("ids", "weights", "letters", "marks", "ends"):
        assert (getattr(made[0], name) == getattr(made[1], name)).all()
