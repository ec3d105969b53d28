"""A trainer that can tell what it did, and write its student's card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import Trainer

from hf_distill.objectives.mixture import Mixture
from hf_distill.release.card import CardFacts, render
from hf_distill.signals.head import Head
from hf_distill.training import card


class Described(Trainer):
    """A mixin that replaces the Trainer's card."""

    head: Head
    mixture: Mixture
    measured: dict[str, Any]
    """Fields of `CardFacts` that others measured."""
    teacher_facts: dict[str, Any]
    """The fields of `CardFacts` on who teaches, from before anything was done to the models."""

    def describe(self, **measured: Any) -> CardFacts:
        """What happened, for a card.

        Args:
            **measured: Fields of `CardFacts` that others measured; they take precedence, as do
                those in the attribute `measured`.
        """
        known = {
            "name": self.args.hub_model_id or self.args.output_dir,
            "head": card.card_head(self.head),
            "student": card.model_facts(self.accelerator.unwrap_model(self.model)),
            **self.teacher_facts,
            "terms": card.term_facts(self.mixture),
            "training": card.training_facts(self),
            "scores": card.last_scores(self.state.log_history),
            "versions": card.versions(),
        }
        return CardFacts(**{**known, **self.measured, **measured})

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        **unsupported: Any,
    ) -> None:
        """Write the student's card, README.md: what happened, and what is in `measured`.

        Args:
            language: The language of the texts.
            license: The student's licence.
            tags: More tags.
            model_name: The student's name.
            finetuned_from: The Hub id of the model whose weights the student began with.
            **unsupported: The Trainer's other arguments. Refused: what they would say of the data
                goes into `measured["data"]`.
        """
        card.refuse_given(unsupported)
        if self.is_world_process_zero():
            said = {
                "language": language,
                "license": license,
                "tags": [tags] if isinstance(tags, str) else tags,
                "name": model_name,
                "base_model": finetuned_from,
            }
            facts = {name: value for name, value in said.items() if value is not None}
            text = render(self.describe(**facts))
            Path(self.args.output_dir, "README.md").write_text(text, encoding="utf-8")
