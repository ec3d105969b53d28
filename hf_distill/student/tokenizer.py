"""A tokenizer over fewer tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase


def backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """A copy of what a fast tokenizer stands on, which neither cuts off nor pads.

    Raises:
        ValueError: The tokenizer is not a fast one.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"tokenizer must be a fast one, got {type(tokenizer).__name__!r}. "
            "Load its fast version, or save one beside the model (tokenizer.json)."
        )
    found = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    found.no_truncation()
    found.no_padding()
    found.encode_special_tokens = tokenizer.backend_tokenizer.encode_special_tokens
    return found


def specials(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The ids that a tokenizer gives whatever the text: those it adds, pads with or falls back to.

    Every token that was added to the vocabulary is among them, special or not.

    Raises:
        ValueError: It has no token of such an id.
    """
    named: set[int] = set(tokenizer.all_special_ids)

    def note(old: int) -> int:
        named.add(old)
        return old

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    _change_ids(state, note)
    model = state["model"]
    if model["type"] == "Unigram":
        unknown = model["unk_id"]
    else:
        unknown = model["vocab"].get(model["unk_token"])
    named |= set() if unknown is None else {unknown}
    foreign = named.difference(tokenizer.get_vocab().values())
    if foreign:
        raise ValueError(
            f"tokenizer must name ids of its own tokens, got {sorted(foreign)!r}. "
            "Set its padding and its post_processor again."
        )
    return named


def trim_tokenizer(
    tokenizer: PreTrainedTokenizerBase, kept: Iterable[int]
) -> tuple[PreTrainedTokenizerBase, tuple[int, ...]]:
    """A tokenizer that has the kept tokens alone, as a fresh load of its files gives it.

    Args:
        tokenizer: A fast tokenizer. It is not changed.
        kept: Ids to keep, closed as `companions` and `specials` say.

    Returns:
        The tokenizer, and the old id of each new one. The order is the old one, except that tokens
        outside the model's own vocabulary follow those inside, as the tokenizers library has it.

    Raises:
        ValueError: Its class builds another tokenizer from the files than it was.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    inside = set(_inside(state["model"]).values())
    order = tuple(sorted(kept, key=lambda old: (old not in inside, old)))
    new = {old: at for at, old in enumerate(order)}
    state["model"] |= _trimmed_model(state["model"], new)
    _change_ids(state, new.__getitem__)
    return _loaded(tokenizer, state), order


def _inside(model: Mapping[str, Any]) -> dict[str, int]:
    """The vocabulary of a tokenizer's model, without what was added to it."""
    if model["type"] == "Unigram":
        return {piece: at for at, (piece, _) in enumerate(model["vocab"])}
    return dict(model["vocab"])


def _trimmed_model(model: Mapping[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    """What changes in a tokenizer's model."""
    if model["type"] == "Unigram":
        scores = [entry for old, entry in enumerate(model["vocab"]) if old in new]
        unknown = model["unk_id"]
        return {"vocab": scores, "unk_id": None if unknown is None else new[unknown]}
    vocabulary = {token: new[old] for token, old in model["vocab"].items() if old in new}
    if model["type"] != "BPE":
        return {"vocab": vocabulary}
    prefix = model["continuing_subword_prefix"] or ""
    merges = [
        [left, right]
        for left, right in model["merges"]
        if {left, right, left + right.removeprefix(prefix)} <= vocabulary.keys()
    ]
    return {"vocab": vocabulary, "merges": merges}


def _change_ids(state: Mapping[str, Any], change: Callable[[int], int]) -> None:
    """Change, in place, every id that a tokenizer holds outside its model."""
    for token in state["added_tokens"]:
        token["id"] = change(token["id"])
    if state["padding"] is not None:
        state["padding"]["pad_id"] = change(state["padding"]["pad_id"])
    if state["post_processor"] is not None:
        _change_processor(state["post_processor"], change)


def _change_processor(processor: dict[str, Any], change: Callable[[int], int]) -> None:
    kind = processor["type"]
    if kind == "Sequence":
        for part in processor["processors"]:
            _change_processor(part, change)
    elif kind == "TemplateProcessing":
        for token in processor["special_tokens"].values():
            token["ids"] = [change(old) for old in token["ids"]]
    elif kind in ("BertProcessing", "RobertaProcessing"):
        for name in ("sep", "cls"):
            token, old = processor[name]
            processor[name] = [token, change(old)]
    elif kind != "ByteLevel":
        raise ValueError(
            "post_processor of the tokenizer must be TemplateProcessing, BertProcessing, "
            f"RobertaProcessing, ByteLevel or a Sequence of them, got {kind!r}. "
            "Express it as a TemplateProcessing."
        )


def _loaded(tokenizer: PreTrainedTokenizerBase, state: dict[str, Any]) -> PreTrainedTokenizerBase:
    """The tokenizer of a state, with all else as it is."""
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        text = json.dumps(state, ensure_ascii=False)
        (Path(folder) / "tokenizer.json").write_text(text, encoding="utf-8")
        found = type(tokenizer).from_pretrained(folder)
    asked = Tokenizer.from_str(text)
    # Not every class reads them from the file.
    if asked.truncation is not None:
        found.backend_tokenizer.enable_truncation(**asked.truncation)
    if asked.padding is not None:
        found.backend_tokenizer.enable_padding(**asked.padding)
    _check_same(tokenizer, asked, found.backend_tokenizer)
    found.name_or_path = tokenizer.name_or_path
    for side in ("padding_side", "truncation_side"):
        setattr(found, side, getattr(tokenizer, side))
    return found


def _check_same(tokenizer: PreTrainedTokenizerBase, asked: Tokenizer, found: Tokenizer) -> None:
    """Several classes build their tokenizer anew and read little more than the vocabulary."""
    wanted, got = _rounded(asked), _rounded(found)
    changed = [part for part in wanted if wanted[part] != got[part]]
    if changed:
        raise ValueError(
            "tokenizer must be one that its class loads as it was saved, got a "
            f"{type(tokenizer).__name__!r} that comes back with another {', '.join(changed)}. "
            "Wrap it first: PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer) "
            "with its special tokens by name."
        )


def _rounded(tokenizer: Tokenizer) -> dict[str, Any]:
    """A tokenizer as data; the library does not read the last bit of a score as it wrote it."""
    found: dict[str, Any] = json.loads(
        tokenizer.to_str(), parse_float=lambda score: round(float(score), 9)
    )
    return found
