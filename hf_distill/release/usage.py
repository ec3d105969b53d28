"""How a model is used, by head: code that runs as it stands."""

from __future__ import annotations

import json

from hf_distill.release.facts import Head

_LOAD = """\
import torch
from transformers import {auto}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({name})
model = {auto}.from_pretrained({name})
"""

_USES: dict[Head, tuple[str, str]] = {
    "sequence-classification": (
        "AutoModelForSequenceClassification",
        """\
inputs = tokenizer("A sentence.", truncation=True, return_tensors="pt")
with torch.no_grad():
    print(model(**inputs).logits)
""",
    ),
    "token-classification": (
        "AutoModelForTokenClassification",
        """\
inputs = tokenizer("A sentence.", truncation=True, return_tensors="pt")
with torch.no_grad():
    classes = model(**inputs).logits.argmax(-1)[0].tolist()
print([model.config.id2label[each] for each in classes])
""",
    ),
    "question-answering": (
        "AutoModelForQuestionAnswering",
        """\
question, context = "Who wrote it?", "Ada wrote it."
inputs = tokenizer(question, context, truncation="only_second", return_tensors="pt")
with torch.no_grad():
    output = model(**inputs)
start, end = output.start_logits.argmax(), output.end_logits.argmax()
print(tokenizer.decode(inputs["input_ids"][0, start : end + 1]))
""",
    ),
    "masked-lm": (
        "AutoModelForMaskedLM",
        """\
inputs = tokenizer(f"A {tokenizer.mask_token} sentence.", return_tensors="pt")
with torch.no_grad():
    logits = model(**inputs).logits[inputs["input_ids"] == tokenizer.mask_token_id]
print(tokenizer.decode(logits.argmax(-1)))
""",
    ),
    "causal-lm": (
        "AutoModelForCausalLM",
        """\
inputs = tokenizer("A sentence", return_tensors="pt", return_token_type_ids=False)
written = model.generate(**inputs, max_new_tokens=20)
print(tokenizer.decode(written[0], skip_special_tokens=True))
""",
    ),
    "seq2seq-lm": (
        "AutoModelForSeq2SeqLM",
        """\
inputs = tokenizer("A sentence.", truncation=True, return_tensors="pt", return_token_type_ids=False)
written = model.generate(**inputs, max_new_tokens=20)
print(tokenizer.decode(written[0], skip_special_tokens=True))
""",
    ),
    "encoder": (
        "AutoModel",
        """\
inputs = tokenizer("A sentence.", truncation=True, return_tensors="pt")
with torch.no_grad():
    print(model(**inputs).last_hidden_state.shape)
""",
    ),
}


def snippet(head: Head, name: str) -> str:
    """Python that loads the model of that name and runs it once."""
    auto, use = _USES[head]
    return _LOAD.format(auto=auto, name=json.dumps(name)) + use
