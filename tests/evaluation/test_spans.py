"""Features and answers of hand-made contexts, where every token is one word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import DataCollatorWithPadding, PreTrainedTokenizerFast

from hf_distill.evaluation.spans import best_answers, prepare_span_features
from tests import tiny

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "who", "sat", *(f"w{at}" for at in range(20))]
CONTEXT = "w1 w2 w3 w4 w5 w6 w7"
"""With "who sat", 8 tokens and stride 1 its windows are w1-w3, w3-w5, w5-w7, from token 4 on."""


def _tokenizer(padding_side: str = "right", model: Any = None) -> PreTrainedTokenizerFast:
    words = {word: at for at, word in enumerate(WORDS)}
    fast = Tokenizer(model or models.WordLevel(words, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=fast,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        padding_side=padding_side,
    )


def _examples(*answers: str, context: str = CONTEXT, **columns: Any) -> dict[str, list[Any]]:
    """One example per answer; an empty one has no answer."""
    golds = [
        {"text": [text], "answer_start": [context.index(text)]}
        if text
        else {"text": [], "answer_start": []}
        for text in answers
    ]
    return {
        "id": [f"q{at}" for at in range(len(answers))],
        "question": ["who sat"] * len(answers),
        "context": [context] * len(answers),
        "answers": golds,
        **columns,
    }


def _positions(features: dict[str, list[Any]]) -> list[tuple[int, int]]:
    return list(zip(features["start_positions"], features["end_positions"], strict=True))


def _answer(
    starts: Sequence[float], ends: Sequence[float], context: str = "w1 w2 w3", **options: int
) -> str:
    """The answer of one window, its first token outside the context."""
    places = [(3 * at, 3 * at + 2) for at in range(len(starts) - 1)]
    features = {"example_id": ["q"], "offset_mapping": [[None, *places]]}
    examples = {"id": ["q"], "context": [context]}
    logits = np.array([starts]), np.array([ends])
    return best_answers(*logits, features, examples, **options)["q"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("w1 w2", [(4, 5), (0, 0), (0, 0)]),
        ("w4", [(0, 0), (5, 5), (0, 0)]),
        ("w3", [(6, 6), (4, 4), (0, 0)]),
        ("w2 w3 w4", [(0, 0), (0, 0), (0, 0)]),
        ("w6 w7", [(0, 0), (0, 0), (5, 6)]),
        (" w6 ", [(0, 0), (0, 0), (5, 5)]),
        ("", [(0, 0), (0, 0), (0, 0)]),
    ],
)
def test_answers_are_labelled_in_every_window_that_holds_them(
    answer: str, expected: list[tuple[int, int]]
) -> None:
    """A window without the answer, labelled elsewhere, teaches a wrong place."""
    features = prepare_span_features(_examples(answer), _tokenizer(), 8, 1, training=True)
    assert _positions(features) == expected
    assert "example_id" not in features
    assert "offset_mapping" not in features


def test_the_question_is_never_an_answer() -> None:
    """Offsets of question and context overlap: the words of the question would match."""
    examples = _examples("who", context="who sat w1")
    features = prepare_span_features(examples, _tokenizer(), 12, 0, training=False)
    assert _positions(features) == [(4, 4)]
    assert features["offset_mapping"] == [[None] * 4 + [(0, 3), (4, 7), (8, 10)] + [None]]


def test_an_answer_inside_a_word_labels_the_word() -> None:
    """Answers that begin inside a token ("$5") would be lost, or end before they start."""
    examples = _examples("1 w2", context="w1 w2 w3")
    features = prepare_span_features(examples, _tokenizer(), 12, 0, training=True)
    assert _positions(features) == [(4, 5)]


def test_word_pieces_are_joined() -> None:
    """An answer must be cut from the context, not glued from pieces."""
    pieces = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, "who": 4, "sat": 5, "un": 6}
    model = models.WordPiece({**pieces, "##do": 7, "it": 8}, unk_token="[UNK]")
    examples = _examples("undo it", context="it undo it")
    features = prepare_span_features(examples, _tokenizer(model=model), 12, 0, training=False)
    (start, end), width = _positions(features)[0], len(features["input_ids"][0])
    assert (start, end) == (5, 7)
    logits = np.eye(width)[[start]], np.eye(width)[[end]]
    assert best_answers(*logits, features, examples) == {"q0": "undo it"}


@pytest.mark.parametrize("context", ["", "   "])
def test_an_empty_context_has_no_answer(context: str) -> None:
    """One empty row in a million must not stop the run, nor be given a place."""
    examples = {**_examples(""), "context": [context]}
    features = prepare_span_features(examples, _tokenizer(), 12, 0, training=False)
    assert _positions(features) == [(0, 0)]
    width = len(features["input_ids"][0])
    assert best_answers([[1.0] * width], [[1.0] * width], features, examples) == {"q0": ""}


def test_prediction_needs_no_answers() -> None:
    """A test set has no answers; labels made up for it would be scored."""
    examples = _examples("w1")
    del examples["answers"]
    features = prepare_span_features(examples, _tokenizer(), 8, 1, training=False)
    assert "start_positions" not in features
    assert features["example_id"] == ["q0"] * 3


@pytest.mark.parametrize("side", ["right", "left"])
def test_labels_hold_after_padding(side: str) -> None:
    """Padding on the left moves every token, and labels made before point at other words."""
    tokenizer = _tokenizer(side)
    examples = {**_examples("w2", "w6 w7"), "context": ["w1 w2", CONTEXT]}
    features = prepare_span_features(examples, tokenizer, 10, 1, training=True)
    batch = DataCollatorWithPadding(tokenizer)(features)
    words = [
        tokenizer.convert_ids_to_tokens(row[start : end + 1])
        for row, start, end in zip(
            batch["input_ids"], batch["start_positions"], batch["end_positions"], strict=True
        )
    ]
    assert words == [["w2"], ["[CLS]"], ["w6", "w7"]]


@pytest.mark.parametrize("side", ["right", "left"])
def test_answers_survive_the_way_through_a_model(side: str) -> None:
    """Offsets, padding and Arrow's lists must still fit the logits, row by row."""
    tokenizer = _tokenizer(side)
    examples = Dataset.from_dict({**_examples("w2", "w6 w7"), "context": ["w1 w2", CONTEXT]})
    features = examples.map(
        lambda batch: prepare_span_features(batch, tokenizer, 10, 1, training=False),
        batched=True,
        remove_columns=examples.column_names,
    )
    kept = ["input_ids", "attention_mask", "start_positions", "end_positions"]
    batch = DataCollatorWithPadding(tokenizer)(features.select_columns(kept).to_list())
    with torch.no_grad():
        output = tiny.model("Bert", "ForQuestionAnswering")(**batch)
    width = output.start_logits.shape[1]
    gold = np.eye(width)[batch["start_positions"]], np.eye(width)[batch["end_positions"]]
    assert best_answers(*gold, features, examples) == {"q0": "w2", "q1": "w6 w7"}
    given = best_answers(output.start_logits, output.end_logits, features, examples)
    assert given["q0"] in ("w1", "w2", "w1 w2")


def test_the_best_window_answers() -> None:
    """The last window of a context would answer for all of them."""
    features = {"example_id": ["q", "q"], "offset_mapping": [[(0, 2)], [(3, 5)]]}
    examples = {"id": ["q"], "context": ["w1 w2"]}
    assert best_answers([[2.0], [1.0]], [[2.0], [1.0]], features, examples) == {"q": "w1"}
    assert best_answers([[1.0], [2.0]], [[1.0], [2.0]], features, examples) == {"q": "w2"}
    assert best_answers([[1.0], [1.0]], [[1.0], [1.0]], features, examples) == {"q": "w1"}


def test_an_end_before_the_start_is_no_answer() -> None:
    """The highest start and the highest end, taken by themselves, need not make a span."""
    assert _answer([0, 1, 0, 9], [0, 9, 2, 0]) == "w1"
    assert _answer([0, 0, 0, 9], [0, 9, 0, 0], n_best=1) == ""


def test_ties_go_to_the_earliest() -> None:
    """Equal scores that sort by chance give other answers on another machine."""
    assert _answer([0, 1, 1, 1], [0, 1, 1, 1]) == "w1"


def test_answers_have_a_longest_length() -> None:
    """Without a limit one high end logit gives half of the context."""
    assert _answer([0, 5, 0, 0], [0, 0, 1, 5]) == "w1 w2 w3"
    assert _answer([0, 5, 0, 0], [0, 0, 1, 5], max_answer_tokens=2) == "w1 w2"


def test_tokens_outside_the_context_take_no_place_among_the_best() -> None:
    """High logits of question and padding would fill `n_best`, and leave no answer."""
    assert _answer([9, 0, 2, 1], [9, 0, 2, 1], n_best=1) == "w2"


def test_answers_reach_both_edges_of_a_context() -> None:
    """A bound that is off by one cuts the first or the last character."""
    assert _answer([0, 9, 0, 0], [0, 0, 0, 9]) == "w1 w2 w3"


def test_logits_that_are_not_numbers_give_no_answer() -> None:
    """The highest of NaNs is the first: a diverged model would answer all the same."""
    assert _answer([0, np.nan, np.nan, np.nan], [0, 1, 1, 1]) == ""
    assert _answer([0, np.nan, 1, 0], [0, 9, 1, 0]) == "w2"


def test_half_precision_is_added_up_in_full() -> None:
    """In half precision 2048 + 1 is 2048, and ties decide."""
    features = {"example_id": ["q"], "offset_mapping": [[(0, 2), (3, 5)]]}
    examples = {"id": ["q"], "context": ["w1 w2"]}
    starts, ends = np.array([[2048, -9]], np.float16), np.array([[0, 1]], np.float16)
    assert best_answers(starts, ends, features, examples) == {"q": "w1 w2"}


@pytest.mark.parametrize(
    ("max_length", "stride", "message"),
    [
        (8, 3, r"max_length must be at least 9 for question 0 and stride 3, got 8\. Raise"),
        (5, 0, r"max_length must be at least 6 .* got 5"),
        (8, -1, r"stride must be 0 or more, got -1"),
    ],
)
def test_windows_have_room(max_length: int, stride: int, message: str) -> None:
    """The tokenizer aborts, naming neither argument nor example."""
    with pytest.raises(ValueError, match=message):
        prepare_span_features(_examples("w1"), _tokenizer(), max_length, stride, training=True)


def test_the_smallest_room_is_enough() -> None:
    """A check that is off by one refuses what works, or lets the tokenizer abort."""
    features = prepare_span_features(_examples("w7"), _tokenizer(), 8, 2, training=True)
    assert _positions(features)[-1] == (6, 6)


def test_slow_tokenizers_are_refused() -> None:
    """A slow tokenizer has no offsets; the error comes from deep inside."""

    class Slow:
        is_fast = False

    with pytest.raises(ValueError, match=r"tokenizer must be a fast one, got 'Slow'"):
        prepare_span_features(_examples("w1"), Slow(), 8, 1, training=True)  # type: ignore[arg-type]


def test_features_and_examples_belong_together() -> None:
    """Answers of other examples, or of none, would be scored all the same."""
    features = {"example_id": ["a", "b"], "offset_mapping": [[(0, 2)], [(0, 2)]]}
    logits = [[1.0], [1.0]]
    with pytest.raises(ValueError, match=r"features must be those of the examples, got .*'b'"):
        best_answers(logits, logits, features, {"id": ["a"], "context": ["w1"]})
    with pytest.raises(ValueError, match="examples must have an id each, got 1"):
        best_answers(logits, logits, features, {"id": ["a", "a"], "context": ["w1", "w1"]})
    with pytest.raises(ValueError, match=r"must have a row for each of the 2 features, got 1 and"):
        best_answers(logits[:1], logits, features, {"id": ["a", "b"], "context": ["w1", "w1"]})
