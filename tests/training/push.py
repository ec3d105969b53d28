"""Train and push a student: `python -m tests.training.push <folder> <teacher's token>`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import BertForSequenceClassification

from hf_distill.objectives import HiddenMSE, KLDivergence
from tests.training.runs import trainer

REPOSITORY = "tester/student"


def main(folder: Path, token: str) -> None:
    """Push at every save and at the end, and read the student back."""
    torch.set_num_threads(1)
    run = trainer(
        folder,
        objectives={"kl": (1.0, KLDivergence()), "hidden": (1.0, HiddenMSE())},
        push_to_hub=True,
        hub_model_id=REPOSITORY,
        hub_token=token,
        hub_strategy="every_save",
        save_strategy="steps",
        save_steps=1,
    )
    run.train()
    run.push_to_hub()
    released = BertForSequenceClassification.from_pretrained(REPOSITORY)
    trained = run.model.state_dict()
    for name, weight in released.state_dict().items():
        torch.testing.assert_close(weight, trained[name], rtol=0, atol=0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
