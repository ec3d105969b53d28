"""Cards, read back as the Hub reads them."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from huggingface_hub import ModelCard
from pydantic import ValidationError
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from hf_distill.release.card import (
    CardFacts,
    DataFacts,
    Measured,
    ModelFacts,
    TermFacts,
    TrainingFacts,
    render,
)
from hf_distill.release.facts import Head
from hf_distill.release.metadata import PIPELINES
from hf_distill.release.usage import snippet
from tests import tiny

LEAST = CardFacts(
    name="ada/small",
    head="encoder",
    student=ModelFacts(parameters=12_750_080),
    teacher_name="org/large",
)
MNLI = DataFacts(name="MNLI", dataset="nyu-mll/glue", config="mnli", split="validation_matched")
FULL = CardFacts(
    name="ada/small-mnli",
    head="sequence-classification",
    student=ModelFacts(parameters=12_750_080, megabytes=51.0, layers=6, width=256, heads=8),
    teacher_name="org/large-mnli",
    teacher=ModelFacts(parameters=109_484_547, megabytes=437.9, layers=12, width=768, heads=12),
    baselines={"without a teacher": ModelFacts(parameters=12_750_080, megabytes=51.0)},
    initialisation="extracted from the teacher (magnitude, layers 2, 4, 6)",
    base_model="org/large-mnli",
    terms=[
        TermFacts(
            name="kl",
            objective="KLDivergence",
            weight=1.0,
            settings={"temperature": 2.0},
            citation="Hinton et al., 2015, arXiv:1503.02531",
        ),
        TermFacts(
            name="hidden",
            objective="HiddenMSE",
            weight="0.5, falling to 0",
            pairs=[(1, 2), (2, 4)],
            citation="Jiao et al., 2020, arXiv:1909.10351",
        ),
    ],
    data=[DataFacts(name="MNLI", dataset="nyu-mll/glue", config="mnli", examples=392_702)],
    training=TrainingFacts(
        epochs=3, steps=36_816, batch_size=32, learning_rate=5e-5, seed=1, seconds=7200.4
    ),
    evaluated_on=MNLI,
    scores={
        "student": {"accuracy": Measured(value=0.81234, low=0.8101, high=0.8142, runs=3)},
        "teacher": {"accuracy": 0.8456},
        "without a teacher": {"accuracy": 0.7712, "f1_macro": 0.77},
    },
    speeds={
        "student": {"1": Measured(value=131.2, low=120.4, high=133.0, runs=7), "32": 1234.6},
        "teacher": {"1": 20.04},
    },
    machine="Some CPU; 2 of 4 cores usable, 2 threads; Debian GNU/Linux 12; torch 2.13.0",
    versions={"transformers": "5.23.0", "torch": "2.13.0"},
    command="hf-distill train recipes/mnli.yaml --seed 1",
    license="apache-2.0",
    language="en",
)


def _read(facts: CardFacts) -> tuple[dict[str, Any], str]:
    """Metadata and body, as huggingface_hub reads them."""
    card = ModelCard(render(facts))
    return card.data.to_dict(), card.text


def _rows(text: str) -> list[list[str]]:
    """Cells of all tables."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_metadata_of_a_full_card() -> None:
    """The Hub drops what it cannot read, without a word: filters and links would be missing."""
    data, _ = _read(FULL)
    index = data.pop("model-index")
    assert data == {
        "language": "en",
        "license": "apache-2.0",
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["knowledge-distillation", "hf_distill"],
        "base_model": "org/large-mnli",
        "base_model_relation": "finetune",
        "teacher_model": "org/large-mnli",
        "datasets": ["nyu-mll/glue"],
        "metrics": ["accuracy"],
    }
    assert [each["name"] for each in index] == ["ada/small-mnli"]


def test_the_index_holds_the_students_scores_only() -> None:
    """The teacher's or a rounded score in the index would be claimed for the student."""
    results = ModelCard(render(FULL)).data.eval_results
    assert len(results) == 1
    result = results[0]
    assert (result.metric_type, result.metric_name) == ("accuracy", "accuracy")
    assert result.metric_value == 0.81234
    assert (result.task_type, result.dataset_type) == ("text-classification", "nyu-mll/glue")
    assert (result.dataset_name, result.dataset_config) == ("MNLI", "mnli")
    assert result.dataset_split == "validation_matched"


def test_metadata_of_the_least_card() -> None:
    """What nobody said must not be in the card: no license, no language, no base model."""
    data, _ = _read(LEAST)
    assert data == {
        "library_name": "transformers",
        "pipeline_tag": "feature-extraction",
        "tags": ["knowledge-distillation", "hf_distill"],
        "teacher_model": "org/large",
    }


@pytest.mark.parametrize("head", get_args(Head))
def test_every_head_has_a_task(head: Head) -> None:
    """Without a task the Hub's widget and filters do not find the model."""
    facts = LEAST.model_copy(update={"head": head})
    assert _read(facts)[0]["pipeline_tag"] == PIPELINES[head]


def test_metrics_have_the_hub_s_ids() -> None:
    """`f1_macro` is no metric of the Hub; its name must still tell the average."""
    scores = {"student": {"f1_macro": 0.5, "f1_micro": 0.6}}
    facts = LEAST.model_copy(update={"scores": scores, "evaluated_on": MNLI})
    card = ModelCard(render(facts))
    assert card.data.metrics == ["f1"]
    named = [(each.metric_type, each.metric_name) for each in card.data.eval_results]
    assert named == [("f1", "f1_macro"), ("f1", "f1_micro")]


def test_local_data_are_no_data_of_the_hub() -> None:
    """A folder's name as a data set's id links to a stranger's data."""
    local = DataFacts(name="/home/ada/reviews", dataset="/home/ada/reviews")
    update = {"data": [local], "evaluated_on": local, "scores": {"student": {"accuracy": 0.5}}}
    data, text = _read(LEAST.model_copy(update=update))
    assert "datasets" not in data
    assert "model-index" not in data
    assert data["metrics"] == ["accuracy"]
    assert "- Data: reviews\n" in text
    assert "Scores are on reviews." in text


def test_a_local_start_is_no_base_model() -> None:
    """The last part of a path looks like an id, and would claim another's weights."""
    facts = CardFacts(**{**LEAST.model_dump(), "base_model": "/home/ada/runs/stage-one"})
    data, _ = _read(facts)
    assert "base_model" not in data
    assert "base_model_relation" not in data


def test_the_table_of_models() -> None:
    """A score in another model's row is a false claim."""
    header, _, *rows = _rows(_read(FULL)[1].partition("## How it was made")[0])
    assert header == [
        "Model",
        "Parameters",
        "MB",
        "accuracy",
        "f1_macro",
        "Sentences/s, batch 1",
        "Sentences/s, batch 32",
    ]
    assert rows == [
        [
            "**ada/small-mnli** (student)",
            "12,750,080",
            "51",
            "0.8123 (0.8101 to 0.8142, 3 runs)",
            "",
            "131 (120 to 133, 7 runs)",
            "1,235",
        ],
        ["org/large-mnli (teacher)", "109,484,547", "438", "0.8456", "", "20", ""],
        ["without a teacher", "12,750,080", "51", "0.7712", "0.77", "", ""],
    ]


def test_the_order_of_scores_is_kept() -> None:
    """Sorted rows would put a baseline where the reader expects the student."""
    scores = {label: {"accuracy": 0.5} for label in ("b", "student", "a")}
    _, _, *rows = _rows(_read(LEAST.model_copy(update={"scores": scores}))[1])
    assert [row[0] for row in rows] == ["b", "**ada/small** (student)", "a"]


def test_the_objectives_are_listed() -> None:
    """A weight without its objective, or layers without their direction, cannot be made again."""
    text = _read(FULL)[1].partition("## How it was made")[2]
    header, _, *rows = _rows(text)
    assert header == ["Term", "Objective", "Weight", "Settings", "Layers (student → teacher)"]
    assert rows == [
        ["kl", "KLDivergence", "1", "temperature=2.0", ""],
        ["hidden", "HiddenMSE", "0.5, falling to 0", "", "1 → 2, 2 → 4"],
    ]
    assert "- Hinton et al., 2015, arXiv:1503.02531\n- Jiao et al." in text


@pytest.mark.parametrize(
    "line",
    [
        "A model for sequence classification, distilled from org/large-mnli with hf_distill.",
        "- Student: 12,750,080 parameters, 51 MB, 6 layers, 256 hidden units, 8 attention heads",
        "- The student has 11.6% of the teacher's parameters.",
        "Scores are on MNLI (nyu-mll/glue, mnli, validation_matched).",
        f"Speeds were measured on: {FULL.machine}.",
        "- Student at the start: extracted from the teacher (magnitude, layers 2, 4, 6)",
        "- Data: MNLI (nyu-mll/glue, mnli, 392,702 examples)",
        "- Training: 3 epochs, 36,816 steps, batch size 32, learning rate 5e-05, seed 1, 7,200 s",
        "- transformers 5.23.0",
        "hf-distill train recipes/mnli.yaml --seed 1",
    ],
)
def test_a_full_card_says(line: str) -> None:
    """A fact that is handed over and not shown is lost."""
    assert line in _read(FULL)[1].splitlines()


def test_the_least_card_claims_nothing() -> None:
    """Empty sections and made-up numbers read like measurements."""
    text = _read(LEAST)[1]
    titles = [line for line in text.splitlines() if line.startswith("#")]
    assert titles == [
        "# ada/small",
        "## Scores and size",
        "## How it was made",
        "## How to use it",
        "## Limits",
    ]
    assert _rows(text) == [
        ["Model", "Parameters"],
        ["---", "---"],
        ["**ada/small** (student)", "12,750,080"],
    ]
    for word in ("None", "nan", "accuracy", "Sentences/s", "seed", "MB"):
        assert word not in text


@pytest.mark.parametrize(
    ("update", "said", "unsaid"),
    [
        ({"scores": {}}, ["The quality of this model was not measured."], ["baseline", "seed"]),
        (
            {"scores": {"student": {"accuracy": 0.5}}},
            ["The teacher was not measured", "No baseline was measured", "of one run"],
            ["quality of this model"],
        ),
        ({}, ["Robustness"], ["not measured beside", "No baseline", "one run", "Its speed"]),
        ({"speeds": {}}, ["Its speed was not measured."], []),
    ],
)
def test_limits_say_what_was_not_measured(
    update: dict[str, Any], said: list[str], unsaid: list[str]
) -> None:
    """A limit that is not named is taken for a strength; one that is false, for carelessness."""
    limits = _read(FULL.model_copy(update=update))[1].partition("## Limits")[2]
    assert not [each for each in said if each not in limits]
    assert not [each for each in unsaid if each in limits]


def test_nothing_private_is_in_the_card() -> None:
    """A card is public the moment it is pushed: folders and tokens with it."""
    token, home = "hf_" + "aB3" * 11, "/home/ada"
    term = TermFacts(
        name="kl", objective=f"{home}/own.KL", weight=1.0, settings={"stops": f"{home}/s.txt"}
    )
    facts = CardFacts(
        name=f"{home}/out/small",
        head="encoder",
        student=ModelFacts(parameters=1),
        teacher_name=f"{home}/teacher",
        initialisation=f"weights of {home}/start",
        base_model=f"{home}/start",
        terms=[term],
        data=[DataFacts(name=f"{home}/text.csv", dataset=f"{home}/text.csv")],
        scores={"student": {f"{home}/own_metric": 0.5}, f"{home}/other": {"accuracy": 0.4}},
        speeds={"student": {"1": 3.0}},
        machine=f"a CPU, {home}",
        versions={"own": f"1.0 @ file://{home}/own"},
        command=f"HF_TOKEN={token} hf-distill train {home}/r.yaml --hub_token {token}",
        tags=[f"{home}/tag"],
    )
    text = render(facts)
    assert "/home" not in text
    assert token not in text
    for name in ("small", "teacher", "start", "text.csv", "own_metric", "other", "r.yaml"):
        assert name in text


def test_cells_cannot_break_their_table() -> None:
    """A bar or a line break in a setting moves every cell after it."""
    term = TermFacts(name="kl", objective="KL", weight=1, settings={"a": "x|y\nz"})
    rows = _rows(_read(LEAST.model_copy(update={"terms": [term]}))[1])
    assert rows[-1] == ["kl", "KL", "1", "a=x\\|y z"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"speeds": {"student": {"1": 3.0}}}, "machine must be named where speeds are given"),
        ({"scores": {"ada/small": {"a": 1.0}}}, "scores must have the label 'student', got"),
        ({"scores": {"student": {"accuracy": float("nan")}}}, "finite number"),
        ({"acuracy": 0.5}, "Extra inputs are not permitted"),
        ({"head": "sequence_classification"}, "Input should be 'sequence-classification'"),
    ],
)
def test_facts_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    """A typing error would leave a fact out, and NaN makes metadata that the Hub refuses."""
    with pytest.raises(ValidationError, match=message):
        CardFacts(**{**LEAST.model_dump(), **change})


def test_facts_survive_json() -> None:
    """Facts that are kept beside a checkpoint must give the same card later."""
    assert render(CardFacts.model_validate_json(FULL.model_dump_json())) == render(FULL)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that has the words of the snippets, or not."""
    words = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, "[MASK]": 4, "A": 5, "Ada": 6}
    fast = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    names = {f"{each}_token": f"[{each.upper()}]" for each in ("pad", "cls", "sep", "unk", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=fast, model_max_length=32, **names)


@pytest.mark.parametrize(
    ("head", "family", "suffix"),
    [
        ("sequence-classification", "Bert", "ForSequenceClassification"),
        ("token-classification", "Bert", "ForTokenClassification"),
        ("question-answering", "Bert", "ForQuestionAnswering"),
        ("masked-lm", "Bert", "ForMaskedLM"),
        ("causal-lm", "GPT2", "ForCausalLM"),
        ("seq2seq-lm", "T5", "ForConditionalGeneration"),
        ("encoder", "Bert", "Model"),
    ],
)
def test_snippets_run(
    head: Head,
    family: str,
    suffix: str,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first thing that a user of the model does is to paste this."""
    monkeypatch.chdir(tmp_path)
    tiny.model(family, suffix).save_pretrained("small")
    tokenizer.save_pretrained("small")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(snippet(head, "small"), {})
    assert printed.getvalue().endswith("\n")  # random weights may answer with nothing
    assert snippet(head, "ada/small") in render(LEAST.model_copy(update={"head": head}))


def test_a_decoder_beside_the_encoder_is_counted() -> None:
    """An encoder-decoder whose card counts half of its layers looks twice as fast as it is."""
    size = ModelFacts(parameters=9, layers=6, decoder_layers=2)
    text = render(LEAST.model_copy(update={"head": "seq2seq-lm", "student": size}))
    assert "6 encoder layers, 2 decoder layers" in text
    assert "An encoder-decoder language model, distilled from" in text
