"""Language models: each row of logits is a distribution over the vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn.functional import pad

from hf_distill.architectures import ARCHITECTURES, architecture
from hf_distill.signals.rows import IGNORED, Head, Targets


class LanguageModel(Head):
    """One row per predicted token; the others are dropped: a row is as wide as the vocabulary."""

    def logits(self, outputs: Mapping[str, Any], targets: Targets) -> Tensor | None:
        """[N, V] of the N rows that count."""
        chosen: Tensor = outputs["logits"][targets.kept]
        return chosen


def _predictions(mask: Tensor, kept: Tensor, labels: Tensor | None) -> Targets:
    """Rows of the kept tokens; `labels` [B, T] are of the token that each of them predicts."""
    rows = mask.new_ones(int(kept.sum()))
    if labels is None:
        return Targets(mask, rows, kept=kept)
    return Targets(mask, rows, labels[kept], rows, kept)


class MaskedLM(LanguageModel):
    """A token predicts itself."""

    suffix = "ForMaskedLM"

    def _targets(self, mask: Tensor, inputs: Mapping[str, Tensor]) -> Targets:
        labels = inputs.get("labels")
        return _predictions(mask, mask if labels is None else labels != IGNORED, labels)


class CausalLM(LanguageModel):
    """A token predicts the next one. Labels are not shifted: each is of its own token.

    Without labels every token that follows another is predicted. Padding neither predicts nor is
    predicted.
    """

    suffix = "ForCausalLM"
    irregular = ("GPT2LMHeadModel",)

    def __init__(self, config: Any) -> None:
        """Raises ValueError where the family's tokens see those after them."""
        if not architecture(config).causal:
            known = ", ".join(name for name, family in ARCHITECTURES.items() if family.causal)
            raise ValueError(
                f"model with a head {self.suffix} must be of a family of decoders ({known}), got "
                f"model_type {config.model_type!r}. Take a head ForMaskedLM for an encoder."
            )

    def _targets(self, mask: Tensor, inputs: Mapping[str, Tensor]) -> Targets:
        kept = mask & _next(mask, fill=False)
        labels = inputs.get("labels")
        if labels is not None:
            labels = _next(labels, fill=IGNORED)
            kept &= labels != IGNORED
        return _predictions(mask, kept, labels)


class Seq2SeqLM(LanguageModel):
    """A decoder's token predicts the label at its place: the decoder is given the labels before it.

    Mask and layers are the encoder's. Without labels there must be `decoder_input_ids`, which are
    then predicted, from the second one on.
    """

    suffix = "ForConditionalGeneration"

    def __init__(self, config: Any) -> None:
        """Keeps the config: the Trainer sets its special tokens to the tokenizer's later on."""
        self._config = config

    def complete(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs with `decoder_input_ids`: as they are, or the labels one place later.

        Raises:
            ValueError: There are no labels to make them from.
        """
        _check_decodable(inputs)
        if "decoder_input_ids" in inputs:
            return inputs
        shifted = inputs["labels"].roll(1, dims=1)
        shifted[:, 0] = self._config.decoder_start_token_id
        shifted = shifted.masked_fill(shifted == IGNORED, self._config.pad_token_id)
        return {**inputs, "decoder_input_ids": shifted}

    def _targets(self, mask: Tensor, inputs: Mapping[str, Tensor]) -> Targets:
        _check_decodable(inputs)
        labels = inputs.get("labels")
        if labels is not None:
            return _predictions(mask, labels != IGNORED, labels)
        given = inputs["decoder_input_ids"]
        real = inputs.get("decoder_attention_mask", given != self._config.pad_token_id)
        return _predictions(mask, _next(real.bool(), fill=False), None)


def _check_decodable(inputs: Mapping[str, Tensor]) -> None:
    labels, given = inputs.get("labels"), inputs.get("decoder_input_ids")
    if labels is None and given is None:
        raise ValueError(
            "inputs of an encoder-decoder must hold labels or decoder_input_ids, got "
            f"{sorted(inputs)}. Tokenize the target texts, or let the teacher generate "
            "decoder_input_ids."
        )
    if labels is not None and given is not None and labels.shape != given.shape:
        raise ValueError(
            f"decoder_input_ids must be as many as labels {tuple(labels.shape)}, got "
            f"{tuple(given.shape)}. Leave them out: they are made from the labels."
        )


def _next(values: Tensor, fill: int) -> Tensor:
    """[B, T]: at each place the value of the next one."""
    return pad(values[:, 1:], (0, 1), value=fill)
