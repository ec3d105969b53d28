"""Language models through a whole training: next tokens, and targets of an encoder-decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from datasets import Dataset
from huggingface_hub import ModelCard
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainingArguments,
)

from hf_distill import DistillationTrainer
from hf_distill.objectives import CrossEntropy, HiddenMSE, KLDivergence, MiniLMv2
from hf_distill.training.heads import NAME, DistillationHeads
from tests import tiny
from tests.equivalence.cases import Case, first_step
from tests.training.runs import (
    CAUSAL,
    IGNORED,
    SEQ2SEQ,
    SEQUENCE,
    TOKEN,
    calls,
    checkpointing,
    collate,
    examples,
    logged,
    lora,
    relative_error,
    student,
    teacher,
    terms,
    trainer,
)

PAIRS = [
    *((family, CAUSAL) for family in ("GPT2", "Llama", "Qwen2", "Qwen3")),
    *((family, SEQ2SEQ) for family in ("T5", "Bart")),
]
AUTO = {CAUSAL: "AutoModelForCausalLM", SEQ2SEQ: "AutoModelForSeq2SeqLM"}
PIPELINE = {CAUSAL: "text-generation", SEQ2SEQ: "text2text-generation"}
TERMS = {
    "kl": (0.5, KLDivergence(3.0)),
    "task": (2.0, CrossEntropy()),
    "hidden": (1.0, HiddenMSE()),
}
TEXTS = ["w1 w2 w3 w4 w5", "w6 w7 w8", "w9 w10 w11 w12", "w13 w14", "w15 w16 w17", "w18 w19 w20"]


def models(head: str, family: str | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "model": student(head, family, **changes),
        "teacher": teacher(head, family, **changes),
    }


@pytest.mark.parametrize(("family", "head"), PAIRS)
def test_a_student_is_trained_evaluated_saved_and_loaded(
    family: str, head: str, tmp_path: Path
) -> None:
    """What comes out must be an ordinary model: it loads without us, and it still generates."""
    pair = models(head, family)
    before = {name: weight.clone() for name, weight in pair["model"].state_dict().items()}
    run = trainer(tmp_path, head, **pair, eval_dataset=examples(5, head), max_steps=3)
    run.train()
    assert terms(run) == {"hidden", "kl", "task"}
    # Untied or not, every weight is reached: the decoder's by the logits, if by nothing else.
    same = [
        name for name, weight in before.items() if torch.equal(weight, run.model.state_dict()[name])
    ]
    assert same in ([], ["final_logits_bias"])
    assert 0 < run.evaluate()["eval_loss"] < 100
    run.save_model()
    run.create_model_card()
    loaded, report = getattr(transformers, AUTO[head]).from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(report.values()), report
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, run.model.state_dict()[name]), name
    written = loaded.generate(torch.tensor([[4, 5, 6]]), max_new_tokens=3, min_new_tokens=3)
    assert written.shape[1] >= 4
    card = ModelCard((tmp_path / "README.md").read_text(encoding="utf-8"))
    assert card.data.pipeline_tag == PIPELINE[head]
    assert f"{AUTO[head]}.from_pretrained" in card.text
    layers = "2 encoder layers, 2 decoder layers" if head == SEQ2SEQ else "2 layers"
    assert layers in card.text


def by_hand(head: str) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Gradients and losses of `TERMS` on 16 examples, in plain torch."""
    model, taught, batch = student(head), teacher(head), collate(examples(16, head))
    labels = batch.pop("labels")
    if head == SEQ2SEQ:
        batch["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(labels)
    with torch.no_grad():
        theirs = taught(**batch, output_hidden_states=True)
    ours = model(**batch, output_hidden_states=True)
    if head == CAUSAL:
        pairs = [(out.logits[:, :-1], out.hidden_states) for out in (ours, theirs)]
        labels = labels[:, 1:]
    else:
        pairs = [(out.logits, out.encoder_hidden_states) for out in (ours, theirs)]
    (logits, states), (target, shown) = pairs
    rows, real = labels != IGNORED, batch["attention_mask"].bool()
    soft, hard = ((each[rows] / 3.0).log_softmax(-1) for each in (logits, target))
    kl = F.kl_div(soft, hard, log_target=True, reduction="batchmean") * 9.0
    task = F.cross_entropy(logits[rows], labels[rows])
    hidden = torch.zeros(())
    projections = DistillationHeads(frozenset({0, 1, 2}), 32, 48, seed=42).projections
    for mine, other in ((0, 0), (1, 2), (2, 4)):
        projected = projections[str(mine)](states[mine])
        hidden = hidden + F.mse_loss(projected[real], shown[other][real]) / 3
    (0.5 * kl + 2.0 * task + hidden).backward()
    model.add_module(NAME, nn.ModuleDict({"projections": projections}))
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return gradients, {"kl": kl.item(), "task": task.item(), "hidden": hidden.item()}


@pytest.mark.parametrize("head", [CAUSAL, SEQ2SEQ])
def test_gradients_are_those_written_by_hand(head: str, tmp_path: Path) -> None:
    """Logits that are one place off on both sides agree with each other, and with nothing else."""
    gradients, losses = by_hand(head)
    step = first_step(Case(head, TERMS), tmp_path, 16, 1)
    assert step.gradients.keys() == gradients.keys()
    assert relative_error(step.gradients, gradients) <= 1e-5
    found = {name: step.losses[f"loss_{name}"] for name in losses}
    assert found == pytest.approx(losses, rel=1e-5)


@pytest.mark.parametrize("head", [CAUSAL, SEQ2SEQ])
@pytest.mark.parametrize(
    ("machinery", "tolerance"),
    [(checkpointing(), 1e-5), ({"bf16": True}, 0.05)],
    ids=["checkpointing", "autocast"],
)
def test_machinery_changes_no_gradient(
    machinery: dict[str, Any], tolerance: float, head: str, tmp_path: Path
) -> None:
    """Decoders switch their cache off under checkpointing, and hooks see each layer twice."""
    plain = first_step(Case(head, TERMS), tmp_path, 16, 1)
    found = first_step(Case(head, TERMS, arguments=machinery), tmp_path, 16, 1)
    assert relative_error(found.gradients, plain.gradients) <= tolerance


@pytest.mark.parametrize("family", ["T5", "Bart"])
def test_both_decoders_are_given_the_same_and_no_labels(family: str, tmp_path: Path) -> None:
    """Each would make its own from labels, and compute a loss that nobody asked for."""
    pair = models(SEQ2SEQ, family)
    seen, taught = calls(pair["model"]), calls(pair["teacher"])
    run = trainer(tmp_path, SEQ2SEQ, **pair, eval_dataset=examples(4, SEQ2SEQ))
    run.train()
    assert len(seen) == len(taught) == 2
    for ours, theirs in zip(seen, taught, strict=True):
        assert set(ours) == set(theirs)
        assert "labels" not in ours
        for name in ("input_ids", "attention_mask", "decoder_input_ids"):
            assert torch.equal(ours[name], theirs[name])
    run.evaluate()
    assert "labels" not in seen[-1]
    assert "decoder_input_ids" in seen[-1]


@pytest.mark.parametrize(("family", "head"), PAIRS)
def test_nothing_is_cached_for_generation(family: str, head: str, tmp_path: Path) -> None:
    """Keys and values of all layers, kept in every step by models that generate nothing."""
    pair = models(head, family)
    kept: list[bool] = []
    for model in pair.values():
        model.register_forward_hook(lambda *shown: kept.append("past_key_values" in shown[-1]))
    run = trainer(tmp_path, head, **pair, eval_dataset=examples(4, head))
    run.train()
    run.evaluate()
    assert kept == [False] * 5


def test_classifiers_of_decoders_cache_nothing_either(tmp_path: Path) -> None:
    """The cache belongs to the family, not to the head."""
    pair = models(SEQUENCE, "GPT2")
    seen = calls(pair["model"])
    trainer(tmp_path, **pair).train()
    assert [given["use_cache"] for given in seen] == [False, False]


def tokenized(*, targets: bool) -> Dataset:
    read = tiny.tokenizer()
    columns = dict(read(TEXTS, return_token_type_ids=False))
    if targets:
        columns["labels"] = read(list(reversed(TEXTS)))["input_ids"]
    return Dataset.from_dict(columns)


def test_the_collator_for_next_tokens_makes_labels(tmp_path: Path) -> None:
    """It says mlm=False, and there is no label column: the task would be taken for unlabelled."""
    read = tiny.tokenizer()
    collator = DataCollatorForLanguageModeling(read, mlm=False)
    data, pair = tokenized(targets=False), models(CAUSAL, "Llama")
    given = {"train_dataset": data, "data_collator": collator, "processing_class": read}
    with torch.no_grad():
        own = pair["model"](**collator([data[at] for at in range(len(data))])).loss
    run = trainer(tmp_path, CAUSAL, **pair, **given, per_device_train_batch_size=6, max_steps=1)
    run.train()
    assert terms(run) == {"hidden", "kl", "task"}
    assert logged(run, "loss_task") == [pytest.approx(own.item(), rel=1e-5)]


@pytest.mark.parametrize("family", ["T5", "Bart"])
def test_the_collator_for_sequences_may_make_decoder_inputs_or_not(
    family: str, tmp_path: Path
) -> None:
    """Given the student it makes them, else it does not: twice shifted, or not at all."""
    read, data = tiny.tokenizer(), tokenized(targets=True)
    losses = []
    for makes in (False, True):
        pair = models(SEQ2SEQ, family)
        collator = DataCollatorForSeq2Seq(read, model=pair["model"] if makes else None)
        batch = collator([data[at] for at in range(len(data))])
        assert ("decoder_input_ids" in batch) == makes
        with torch.no_grad():
            own = pair["model"](**batch).loss.item()
        given = {"train_dataset": data, "data_collator": collator, "processing_class": read}
        run = trainer(
            tmp_path, SEQ2SEQ, **pair, **given, per_device_train_batch_size=6, max_steps=1
        )
        run.train()
        assert logged(run, "loss_task") == [pytest.approx(own, rel=1e-5)]
        losses.append(logged(run))
    assert losses[0] == pytest.approx(losses[1])


def test_what_a_teacher_generated_teaches_without_labels(tmp_path: Path) -> None:
    """decoder_input_ids alone: their rows count, and there is no task term."""
    run = trainer(tmp_path, SEQ2SEQ, labelled=False)
    run.train()
    assert terms(run) == {"hidden", "kl"}


def test_sources_without_targets_are_refused(tmp_path: Path) -> None:
    """BART makes targets of its source by itself, and learns to copy."""
    sources = examples(8)
    for one in sources:
        del one["labels"]
    run = trainer(tmp_path, SEQ2SEQ, **models(SEQ2SEQ, "Bart"), train_dataset=sources)
    for start in (run.train, lambda: run.predict(sources)):
        with pytest.raises(ValueError, match=r"must hold labels or decoder_input_ids, got .*'inp"):
            start()


@pytest.mark.parametrize(("head", "target"), [(CAUSAL, "q_proj"), (SEQ2SEQ, "q")])
def test_lora_teachers_of_language_models(head: str, target: str, tmp_path: Path) -> None:
    """PEFT's wrappers of generating models name other inputs than the models they hold."""
    family = {CAUSAL: "Llama", SEQ2SEQ: "T5"}[head]
    kind = {CAUSAL: "CAUSAL_LM", SEQ2SEQ: "SEQ_2_SEQ_LM"}[head]
    adapted = lora(teacher(head, family), target_modules=[target], task_type=kind)
    losses = []
    for taught in (adapted, adapted.merge_and_unload()):
        run = trainer(tmp_path, head, model=student(head, family), teacher=taught)
        run.train()
        losses.append(logged(run))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("head", [SEQUENCE, TOKEN])
def test_every_example_of_a_classifiers_batch_teaches(head: str, tmp_path: Path) -> None:
    """A loss that is shifted as for next tokens drops the last example, or token, of each batch."""
    run = trainer(tmp_path, head, objectives={"kl": (1.0, KLDivergence())})
    run.model.train()
    ids = torch.arange(3, 11).view(2, 4)
    labels = torch.ones(2).long() if head == SEQUENCE else torch.ones(2, 4).long()
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    logits: list[Tensor] = []
    run.model.classifier.register_forward_hook(lambda *shown: logits.append(shown[-1]))
    loss = run.compute_loss(run.model, batch)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient.abs().sum(-1) > 0).all()


def test_padded_vocabularies_of_one_family_are_refused_with_a_way_out(tmp_path: Path) -> None:
    """151936 against 152064: torch says that it cannot broadcast, deep inside the first step."""
    pair = {"model": student(CAUSAL, "Qwen2"), "teacher": teacher(CAUSAL, "Qwen2", vocab_size=64)}
    remedy = r"size 60, got 64\..*teacher\.resize_token_embeddings\(60\)"
    with pytest.raises(ValueError, match=remedy):
        trainer(tmp_path, CAUSAL, **pair)
    pair["teacher"].resize_token_embeddings(60)
    trainer(tmp_path, CAUSAL, **pair).train()
    wide = {"model": student(SEQ2SEQ, vocab_size=64), "teacher": teacher(SEQ2SEQ)}
    with pytest.raises(ValueError, match=r"size 64, got 60\..*student\.resize_token_emb.*\(60\)"):
        trainer(tmp_path, SEQ2SEQ, **wide)
    wide["model"].resize_token_embeddings(60)
    trainer(tmp_path, SEQ2SEQ, **wide).train()


@pytest.mark.parametrize(
    ("head", "changes", "taught", "message"),
    [
        (
            SEQ2SEQ,
            {},
            {"decoder_start_token_id": 1},
            r"decoder_start_token_id must be set, and the same for student and.*got 0 and 1",
        ),
        (SEQ2SEQ, {}, {"pad_token_id": 1}, r"pad_token_id must be set, and the same.*got 0 and 1"),
        (
            SEQ2SEQ,
            {"decoder_start_token_id": None},
            {"decoder_start_token_id": None},
            r"decoder_start_token_id must be set.*got None and None",
        ),
    ],
)
def test_decoders_that_begin_otherwise_are_refused(
    head: str, changes: Any, taught: Any, message: str, tmp_path: Path
) -> None:
    """The teacher is given the student's first token, which it has never seen there."""
    pair = {"model": student(head, **changes), "teacher": teacher(head, **taught)}
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, head, **pair)


def test_another_start_does_not_matter_to_a_teacher_without_decoder(tmp_path: Path) -> None:
    """An encoder's hidden states are compared with an encoder's, whatever else the student has."""
    taught = teacher("Model", "T5", decoder_start_token_id=None)
    trainer(tmp_path, SEQ2SEQ, teacher=taught).train()


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "relations of a decoder": (
        CAUSAL,
        {"objectives": {"relations": (1.0, MiniLMv2())}},
        r"model must show .*'gpt2', which shows hidden\.",
    ),
    "a layer of the decoder beside the encoder": (
        SEQ2SEQ,
        {"objectives": {"hidden": (1.0, HiddenMSE())}, "layer_mapping": [(3, 3)]},
        r"within the student's layers 0 to 2, got \(3, 3\)",
    ),
    "layers that are dropped at random": (
        SEQ2SEQ,
        models(SEQ2SEQ, "Bart", encoder_layerdrop=0.1),
        r"encoder_layerdrop of the student must be 0 to compare its layers, got 0\.1",
    ),
    "sequences classified by a last token that nobody knows": (
        SEQUENCE,
        models(SEQUENCE, "Llama", pad_token_id=None),
        r"pad_token_id of the student's config must be set",
    ),
    "a causal teacher of an encoder-decoder": (
        SEQ2SEQ,
        {"teacher": teacher(CAUSAL), "objectives": {"kl": (1.0, KLDivergence())}},
        r"teacher must have the student's kind of head \(T5For.*got GPT2LMHeadModel",
    ),
}


@pytest.mark.parametrize("asked", REFUSED)
def test_refused(asked: str, tmp_path: Path) -> None:
    """Each of these would fail at a step, or teach what is not there."""
    head, given, message = REFUSED[asked]
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, head, **given)


def test_dropped_layers_do_not_matter_to_logits(tmp_path: Path) -> None:
    """LayerDrop is a good regulariser where no layer is compared."""
    pair = models(SEQ2SEQ, "Bart", encoder_layerdrop=0.5)
    trainer(tmp_path, SEQ2SEQ, **pair, objectives={"kl": (1.0, KLDivergence())}).train()


def test_a_cache_is_refused(tmp_path: Path) -> None:
    """The Trainer's argument would be overruled, since nothing generates in training."""
    with pytest.raises(ValueError, match=r"use_cache must be False, got True"):
        trainer(tmp_path, CAUSAL, use_cache=True)


def test_generation_in_evaluation_is_refused(tmp_path: Path) -> None:
    """Accepted and ignored, it would score teacher-forced answers as if they were generated."""
    asked = Seq2SeqTrainingArguments(str(tmp_path), use_cpu=True, predict_with_generate=True)
    with pytest.raises(ValueError, match=r"predict_with_generate must be left out, got True"):
        DistillationTrainer(student(SEQ2SEQ), asked, teacher=teacher(SEQ2SEQ))
