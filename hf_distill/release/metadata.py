"""The metadata of a card, as the Hub reads it."""

from __future__ import annotations

from huggingface_hub import EvalResult, ModelCardData

from hf_distill.release.facts import STUDENT, CardFacts, Head, Measured, Number

PIPELINES: dict[Head, str] = {
    "sequence-classification": "text-classification",
    "token-classification": "token-classification",
    "question-answering": "question-answering",
    "masked-lm": "fill-mask",
    "causal-lm": "text-generation",
    "seq2seq-lm": "text2text-generation",
    "encoder": "feature-extraction",
}
"""The Hub's name of the task that a head is for."""

_METRIC_IDS = {"f1_macro": "f1", "f1_micro": "f1"}
"""The Hub's ids of metrics that have another name here."""


def metadata(facts: CardFacts) -> ModelCardData:
    """The card's header. What the facts leave out, and what is not on the Hub, is not in it.

    The Hub knows no relation for a distilled model: `base_model` is what the student's weights
    began with, and the teacher has a key of its own.
    """
    results = _results(facts)
    identified = dict.fromkeys(each.dataset for each in facts.data if each.dataset)
    metrics = dict.fromkeys(_METRIC_IDS.get(each, each) for each in facts.scores.get(STUDENT, {}))
    return ModelCardData(
        language=facts.language,
        license=facts.license,
        library_name="transformers",
        pipeline_tag=PIPELINES[facts.head],
        tags=list(dict.fromkeys(["knowledge-distillation", "hf_distill", *facts.tags])),
        base_model=facts.base_model,
        base_model_relation="finetune" if facts.base_model else None,
        teacher_model=facts.teachers or facts.teacher_name,
        datasets=list(identified) or None,
        metrics=list(metrics) or None,
        model_name=facts.name if results else None,
        eval_results=results or None,
    )


def value_of(number: Number) -> float:
    """The number itself, without its spread."""
    return number.value if isinstance(number, Measured) else number


def _results(facts: CardFacts) -> list[EvalResult]:
    """The student's scores, where they are on data that the Hub knows."""
    data = facts.evaluated_on
    if data is None or data.dataset is None:
        return []
    return [
        EvalResult(
            task_type=PIPELINES[facts.head],
            dataset_type=data.dataset,
            dataset_name=data.name,
            dataset_config=data.config,
            dataset_split=data.split,
            metric_type=_METRIC_IDS.get(name, name),
            metric_name=name,
            metric_value=value_of(score),
        )
        for name, score in facts.scores.get(STUDENT, {}).items()
    ]
