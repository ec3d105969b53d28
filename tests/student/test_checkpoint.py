"""Teachers in folders: read lazily, to the same student as from memory."""

from __future__ import annotations

import json
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hf_distill.student import extract, fresh
from hf_distill.student.checkpoint import Checkpoint, Original
from tests import tiny

HEADS = (
    "Model",
    "ForMaskedLM",
    "ForCausalLM",
    "ForConditionalGeneration",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
)


def saved(folder: Path, family: str = "Bert", head: str = "Model", **changes: Any) -> Any:
    """A tiny model with distinct weights throughout, in a folder; what a user would load."""
    model: Any = tiny.model(family, head, **changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    model.save_pretrained(folder)
    return type(model).from_pretrained(folder)


def same(first: nn.Module, second: nn.Module) -> bool:
    """Whether all weights are equal bit for bit, under the same names."""
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(each, theirs[name]) and each.dtype == theirs[name].dtype
        for name, each in ours.items()
    )


@pytest.mark.parametrize(
    ("family", "head"),
    [
        (family, head)
        for family in tiny.FAMILIES
        for head in tiny.heads(family, HEADS)
        if (family, head) != ("Bart", "ForCausalLM")  # A decoder without its encoder.
    ],
)
@pytest.mark.parametrize("how", ["magnitude", "random"])
def test_a_folder_gives_the_student_of_the_model(
    family: str, head: str, how: str, tmp_path: Path
) -> None:
    """Names without a prefix, and tied tensors that no file holds, are taken from elsewhere."""
    model = saved(tmp_path, family, head)
    size = "L1-H16-A2-F20" + {"Qwen3": "-K8", "Electra": "-E8"}.get(family, "")
    from_memory = extract(model, size, how=how)
    from_folder = extract(tmp_path, size, how=how)
    assert type(from_folder.model) is type(from_memory.model)
    assert from_folder.model.config.to_dict() == from_memory.model.config.to_dict()
    assert from_folder.indices == from_memory.indices
    assert same(from_folder.model, from_memory.model)
    assert from_folder.report.left_out == from_memory.report.left_out == ()
    assert not from_folder.model.training
    assert same(fresh(tmp_path, size), fresh(model, size))


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    """The first shard alone lacks most layers."""
    model = saved(tmp_path / "whole", "Bert", "ForMaskedLM")
    model.save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 2
    whole, parts = (extract(tmp_path / name, "L1-H16-A2-F20") for name in ("whole", "parts"))
    assert same(whole.model, parts.model)


def test_old_names_and_missing_prefixes_are_understood(tmp_path: Path) -> None:
    """Google's own BERT calls its norms gamma and beta, and would not be readable."""
    model = saved(tmp_path, "Bert", "ForMaskedLM")
    path = tmp_path / "model.safetensors"
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): each
        for name, each in load_file(path).items()
    }
    save_file(renamed, path)
    assert same(extract(tmp_path, "L1").model, extract(model, "L1").model)
    bare = {name.removeprefix("bert."): each for name, each in renamed.items()}
    save_file(bare, path)
    assert same(extract(tmp_path, "L1").model, extract(model, "L1").model)


def test_weights_that_are_no_safetensors_are_loaded(tmp_path: Path) -> None:
    """Many older checkpoints have nothing else."""
    model = saved(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    assert same(extract(str(tmp_path), "L1-H16").model, extract(model, "L1-H16").model)


@pytest.mark.parametrize("named", [True, False])
def test_the_dtype_is_that_of_from_pretrained(named: bool, tmp_path: Path) -> None:
    """A student in the file's precision instead of the config's is not the model's student."""
    saved(tmp_path)
    tiny.model("Bert").to(torch.bfloat16).save_pretrained(tmp_path)  # type: ignore[operator]
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    dtype = config.pop("dtype")
    assert dtype == "bfloat16"
    path.write_text(json.dumps({**config, "dtype": "float32"} if named else config))
    student = extract(tmp_path, "L1-H16").model
    assert student.dtype == (torch.float32 if named else torch.bfloat16)
    model = transformers.BertModel.from_pretrained(tmp_path)
    assert same(student, extract(model, "L1-H16").model)


def test_what_the_class_does_not_have_is_told(tmp_path: Path) -> None:
    """A task head that stays behind without a word is missed only after training."""
    model = saved(tmp_path, "Bert", "ForSequenceClassification")
    transformers.BertModel.from_pretrained(tmp_path).config.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["BertModel"]}))
    report = extract(tmp_path, "L1", layers="last").report
    assert report.left_out == ("classifier.bias", "classifier.weight")
    assert report.layers_left_out == (1,)
    assert "left out of the teacher: classifier.bias, classifier.weight" in report.summary()
    assert model.config.num_labels == 2


def test_a_missing_head_is_refused_by_name(tmp_path: Path) -> None:
    """`from_pretrained` makes a random one, which would be cut as if it had been trained."""
    saved(tmp_path, "Bert", "Model")
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "architectures": ["BertForTokenClassification"]}))
    with pytest.raises(ValueError, match=r"nothing for \['classifier.weight', 'classifier.bias'\]"):
        extract(tmp_path, "L1")


def test_a_folder_without_pooler_gives_a_student_without(tmp_path: Path) -> None:
    """A random pooler in the student's file would be loaded as if it had been trained."""
    transformers.BertModel(tiny.config(), add_pooling_layer=False).save_pretrained(tmp_path)
    assert extract(tmp_path, "L1").model.pooler is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": None}, r"class of transformers in its config .*, got \[\]\. Load it"),
        ({"architectures": ["Mine"]}, r"got \['Mine'\]\. Load it"),
        ({"model_type": "fnet"}, "got model_type 'fnet'"),
    ],
)
def test_a_folder_that_cannot_be_read_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Another class than the one that was saved has other tensors."""
    saved(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        extract(tmp_path, "L1")


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The libraries' own error is a page about the Hub."""
    with pytest.raises(ValueError, match="teacher must be a model's folder or its name on the Hub"):
        extract(tmp_path / "nowhere", "L1")


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    """Integers cast to the config's dtype are weights of a wrong scale."""
    saved(tmp_path)
    path = tmp_path / "model.safetensors"
    held = load_file(path)
    name = "encoder.layer.0.output.dense.weight"
    save_file({**held, name: held[name].to(torch.int8)}, path)
    with pytest.raises(ValueError, match=r"floating point, got torch\.int8 in"):
        extract(tmp_path, "L2", how="stride")


def test_no_two_tensors_are_held_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held in a dictionary, a teacher read lazily is in memory as a whole all the same."""
    saved(tmp_path, "Bert", "ForMaskedLM")
    read, alive, most = Checkpoint.__getitem__, weakref.WeakSet[Any](), [0, 0]

    def counted(self: Checkpoint, name: str) -> Tensor:
        found = read(self, name)
        alive.add(found)
        most[:] = max(most[0], len(alive)), most[1] + 1
        return found

    monkeypatch.setattr(Checkpoint, "__getitem__", counted)
    for how in ("magnitude", "random"):
        extract(tmp_path, "L1-H16-A2-F20", how=how)
    assert most[1] > 40
    assert most[0] <= 2  # One that is in hand while the next is read.


_MEASURED = """
import gc, sys, torch
from hf_distill.student import extract
from hf_distill.student.checkpoint import Original

def anonymous():
    line = next(each for each in open("/proc/self/status") if each.startswith("RssAnon"))
    return int(line.split()[1]) // 1024

from threading import Event, Thread
peak, done = [0], Event()
def watch():
    while not done.wait(0.002):
        peak[0] = max(peak[0], anonymous())
before = anonymous()
watcher = Thread(target=watch); watcher.start()
extract(sys.argv[1], "L1-H64-A1-F256", how=sys.argv[2])
done.set(); watcher.join()
print(peak[0] - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("how", ["magnitude", "random"])
def test_a_teacher_is_never_in_memory_as_a_whole(how: str, tmp_path: Path) -> None:
    """A laptop that could cut the student cannot, since the teacher is loaded to do so."""
    config = transformers.BertConfig(
        vocab_size=2000, hidden_size=1024, num_hidden_layers=4, intermediate_size=4096,
        num_attention_heads=16, max_position_embeddings=64,
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers.BertModel(config)
    weights = {name: torch.ones(each.shape) for name, each in model.state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config.architectures = ["BertModel"]
    config.save_pretrained(tmp_path)
    size = (tmp_path / "model.safetensors").stat().st_size / 2**20
    assert size > 200
    command = [sys.executable, "-c", _MEASURED, str(tmp_path), how]
    peak = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    # The largest matrix is of 16 MB, and twice that in float64.
    assert peak < 120, f"{peak} MB of {size:.0f}"


def test_an_original_of_a_folder_says_what_the_model_says(tmp_path: Path) -> None:
    """Tensors that a file holds and a model does not, or the other way round, go unnoticed."""
    model = saved(tmp_path, "Roberta", "ForSequenceClassification")
    lazily, whole = Original.of(tmp_path), Original.of(model)
    assert set(lazily.weights) == set(whole.weights)
    assert len(lazily.weights) == len(whole.weights)
    assert "classifier.dense.weight" in lazily.weights
    assert "classifier.weight" not in lazily.weights
    assert (lazily.kind, lazily.dtype, lazily.device) == (whole.kind, whole.dtype, whole.device)
