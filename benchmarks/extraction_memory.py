"""How much memory it takes to cut a student out of a large teacher, above the student's own.

    python benchmarks/extraction_memory.py

Writes a checkpoint of BERT-large's shape with random weights into a temporary folder, and cuts
students out of it, each in a fresh process that measures itself after its imports.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from threading import Event, Thread

SIZE = "13M"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--student", default=SIZE, help=f"a size ({SIZE})")
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "HOW"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        measure(*options.measure, options.student)
        return
    print("| how | teacher, MB | student, MB | peak above it, MB | of which no file's, MB |")
    print("| --- | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        write_teacher(folder)
        for how in ("magnitude", "stride", "random"):
            command = [sys.executable, __file__, "--student", options.student]
            subprocess.run([*command, "--measure", folder, how], check=True)


def write_teacher(folder: str) -> None:
    """A checkpoint of BERT-large's shape."""
    import transformers

    config = transformers.BertConfig(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
    )
    transformers.BertModel(config).save_pretrained(folder)


def measure(folder: str, how: str, size: str) -> None:
    """Cut one student, and print its row."""
    from hf_distill.student import extract

    peaks: list[tuple[int, int]] = []
    done, before = Event(), _memory()

    def watch() -> None:
        while not done.wait(0.002):
            peaks.append(_memory())

    watcher = Thread(target=watch)
    watcher.start()
    student = extract(folder, size, how=how).model
    done.set()
    watcher.join()
    held = sum(each.nbytes for each in student.parameters())
    teacher = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
    above = [
        max(each) - start - held
        for each, start in zip(zip(*peaks, strict=True), before, strict=True)
    ]
    shown = " | ".join(f"{each / 2**20:.0f}" for each in (teacher, held, *above))
    print(f"| {how} | {shown} |", flush=True)


def _memory() -> tuple[int, int]:
    """Bytes of this process in memory, and those of them that are no file's."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    found = dict(line.split(":", 1) for line in lines)
    resident, anonymous = (int(found[key].split()[0]) for key in ("VmRSS", "RssAnon"))
    return resident * 1024, anonymous * 1024


if __name__ == "__main__":
    main()
