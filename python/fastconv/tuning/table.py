# SPDX-License-Identifier: Apache-2.0
"""Tuning files: which algorithms were fastest for which classes of shapes, on which machine, as text.

    # fastconv tuning 1
    [machine="Intel(R) Xeon(R) Processor @ 2.80GHz" isa=avx512 version=0.1.0 threads=2]
    planned | fwd n1 c64 h64 w64 k64 r3 s3 ... | 7 | fwd n1 c64 h56 w56 k64 ... | winograd_f4x4_3x3 9.81e-04, ...

A section is one machine; a line is a class of shapes (`_core.shape_class`: its largest member), how often each
algorithm was timed, the problem that was timed, and the medians in seconds. Lines are sorted, so that files merge
as text too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import _core, device
from .._core import ConvProblem, DeviceError, ProblemError
from ..trace import align

FORMAT = "# fastconv tuning 1"
KINDS = ("call", "planned")  # weights as they are, or packed once
_SECTION = re.compile(r'\[machine="([^"\n]*)" isa=(\S+) version=(\S+) threads=(\d+)\]')
# Of algorithms this close to the fastest, the one that the estimates prefer goes first: noise changes no choice.
TIE = 1.03


@dataclasses.dataclass(frozen=True, order=True)
class Section:
    """The machine that entries hold for.

    Attributes:
        machine: the name of the processor or GPU.
        isa: the instruction set of the kernels, or sm_90 and so on.
        version: of fastconv.
        threads: that the measured calls could use.
    """

    machine: str
    isa: str
    version: str
    threads: int

    def __str__(self) -> str:
        return f'[machine="{self.machine}" isa={self.isa} version={self.version} threads={self.threads}]'


@dataclasses.dataclass(frozen=True)
class Entry:
    """What was measured for one class of shapes.

    Attributes:
        kind: "call" (weights as they are) or "planned" (packed once).
        shape_class: text of the class.
        samples: timed calls of each algorithm.
        problem: text of the problem that was timed.
        seconds: algorithm -> median seconds, in the order of choice.
    """

    kind: str
    shape_class: str
    samples: int
    problem: str
    seconds: Mapping[str, float]

    def __str__(self) -> str:
        times = ", ".join(f"{name} {seconds:.3e}" for name, seconds in self.seconds.items())
        return f"{self.kind} | {self.shape_class} | {self.samples} | {self.problem} | {times}"

    @property
    def algorithm(self) -> str:
        """The first in the order of choice."""
        return next(iter(self.seconds))


def ranked(seconds: Mapping[str, float], preferred: list[str]) -> dict[str, float]:
    """The order of choice: by time, but those within 3 % of the fastest as `preferred` has them."""
    fastest = min(seconds.values())
    near = [name for name in preferred if name in seconds and seconds[name] <= TIE * fastest]
    rest = sorted((name for name in seconds if name not in near), key=lambda name: seconds[name])
    return {name: seconds[name] for name in [*near, *rest]}


class Tuning:
    """The entries of a tuning file; immutable. In effect only where it is handed over: `fc.options(tuning=...)`,
    `fc.set_options(tuning=...)` or the variable FASTCONV_TUNING.

    Attributes:
        sections: Section -> {(kind, class): Entry}.
        path: the file it was loaded from or is kept in, or None.
        skipped: what `fc.tune` did not time -> why.
        hash: of the content, 12 hexadecimal digits, as `fc.info()` and traces show it.
    """

    def __init__(
        self,
        sections: Mapping[Section, Mapping[tuple[str, str], Entry]],
        path: str | None = None,
        skipped: Mapping[str, str] | None = None,
    ) -> None:
        self.sections = {
            section: {key: sections[section][key] for key in sorted(sections[section])} for section in sorted(sections)
        }
        self.path = path
        self.skipped = dict(skipped or {})
        self.hash = hashlib.sha256(self.text().encode()).hexdigest()[:12]
        self._native: _core.Tuning | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tuning) and self.text() == other.text()

    def __hash__(self) -> int:
        return hash(self.hash)

    def __len__(self) -> int:
        return sum(map(len, self.sections.values()))

    def __iter__(self) -> Iterator[tuple[Section, Entry]]:
        for section, entries in self.sections.items():
            for entry in entries.values():
                yield section, entry

    def text(self) -> str:
        """The file's content."""
        lines = [FORMAT]
        for section, entries in self.sections.items():
            lines += [str(section), *map(str, entries.values())]
        return "\n".join(lines) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, whole or not at all."""
        target = Path(path)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=target.name, text=True)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(self.text())
            os.replace(name, target)
        except BaseException:
            os.unlink(name)
            raise

    def for_this_machine(self) -> dict[str, Mapping[tuple[str, str], Entry]]:
        """Instruction set (or sm_90) -> the entries that hold here. Of several numbers of threads the one nearest to
        the process's: a choice does not depend on the threads of a call."""
        names = _machines() if any(section.isa.startswith("sm_") for section in self.sections) else {}
        threads = _core.get_threads()
        best: dict[str, Section] = {}
        for section in self.sections:
            if section.version != _core.info()["version"] or section.machine not in names.get(section.isa, [_cpu()]):
                continue
            before = best.get(section.isa)
            if before is None or abs(section.threads - threads) < abs(before.threads - threads):
                best[section.isa] = section
        return {isa: self.sections[section] for isa, section in best.items()}

    def native(self) -> _core.Tuning:
        """What the choice reads; made once."""
        if self._native is None:
            entries = [
                (isa, ConvProblem.parse(entry.shape_class), entry.kind == "planned", list(entry.seconds))
                for isa, held in self.for_this_machine().items()
                for entry in held.values()
            ]
            self._native = _core.Tuning(self.hash, entries)
        return self._native

    def __str__(self) -> str:
        lines = [f"tuning {self.hash}: {len(self)} entries" + (f", from {self.path}" if self.path else "")]
        for section, entries in self.sections.items():
            lines += ["", str(section)]
            rows = [["", "class of shapes", "algorithm", "ms", "over the next"]]
            for entry in entries.values():
                times = list(entry.seconds.values())
                margin = f"{times[1] / times[0]:.2f}x" if len(times) > 1 else "-"
                rows.append([entry.kind, entry.shape_class, entry.algorithm, f"{1e3 * times[0]:.3f}", margin])
            lines.append(align(rows, right=(3, 4)))
        return "\n".join(lines)

    __repr__ = __str__


def name_in_files(machine: str) -> str:
    """The name of a processor or GPU as a section quotes it."""
    return machine.replace('"', "'")


def _cpu() -> str:
    return name_in_files(_core.info()["cpu"])


def _machines() -> dict[str, list[str]]:
    """The GPUs by architecture: sm_90 -> their names."""
    found: dict[str, list[str]] = {}
    with contextlib.suppress(DeviceError):
        for one in device.infos():
            found.setdefault(f"sm_{one['architecture']}", []).append(name_in_files(one["name"]))
    return found


def here(isa: str | None = None, threads: int = 0) -> Section:
    """The section of this machine, for an instruction set (None: the one in use) and threads (0: the process's)."""
    facts = _core.info()
    return Section(_cpu(), isa or facts["isa"], facts["version"], threads or _core.get_threads())


def load(path: str | os.PathLike[str]) -> Tuning:
    """Read a tuning file; it takes effect where it is handed over.

    Raises:
        OSError: it cannot be read.
        ProblemError: it is not a tuning file; names the line.
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    if not lines or lines[0].strip() != FORMAT:
        raise ProblemError(
            f"{path}: begins with {lines[0][:60]!r} ; expected {FORMAT!r}" if lines else f"{path}: empty"
        )
    sections: dict[Section, dict[tuple[str, str], Entry]] = {}
    section = None
    for number, line in enumerate(lines[1:], 2):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            match = _SECTION.fullmatch(line.strip())
            if match:
                section = Section(match[1], match[2], match[3], int(match[4]))
                sections.setdefault(section, {})
            elif section is None:
                raise ValueError("an entry before the first [machine=...]")
            else:
                entry = _entry(line)
                held = sections[section].get((entry.kind, entry.shape_class))
                sections[section][entry.kind, entry.shape_class] = better(held, entry) if held else entry
        except ValueError as error:  # ProblemError is one
            raise ProblemError(f"{path}, line {number}: {error}") from error
    return Tuning(sections, str(path))


def _entry(line: str) -> Entry:
    cells = [cell.strip() for cell in line.split("|")]
    if len(cells) != 5 or cells[0] not in KINDS:
        raise ValueError(
            f"{line[:80]!r}; expected call or planned | class | samples | problem | algorithm seconds, ..."
        )
    seconds: dict[str, float] = {}
    for pair in cells[4].split(","):
        name, _, value = pair.strip().partition(" ")
        seconds[name] = float(value)
        if not 0 < seconds[name] < float("inf"):
            raise ValueError(f"{name} takes {value} s; expected more than 0")
    ConvProblem.parse(cells[3])
    return Entry(cells[0], str(ConvProblem.parse(cells[1])), int(cells[2]), cells[3], seconds)


def better(a: Entry, b: Entry) -> Entry:
    """Of two entries of a class, the one that was timed more often; of equals the faster, then the first by text."""
    return min(a, b, key=lambda entry: (-entry.samples, entry.seconds[entry.algorithm], str(entry)))


def merge(*tunings: Tuning | str | os.PathLike[str]) -> Tuning:
    """All entries of several tunings or files. Of one class the entry that was timed more often stays, whatever the
    order of the arguments."""
    sections: dict[Section, dict[tuple[str, str], Entry]] = {}
    for tuning in map(as_tuning, tunings):
        for section, entry in tuning:
            held = sections.setdefault(section, {})
            key = entry.kind, entry.shape_class
            held[key] = better(held[key], entry) if key in held else entry
    return Tuning(sections)


def as_tuning(value: Any) -> Tuning:
    """A Tuning as it is, or loaded from a path.

    Raises:
        TypeError: neither.
    """
    if isinstance(value, Tuning):
        return value
    if isinstance(value, str | os.PathLike):
        return load(value)
    raise TypeError(f"tuning is {type(value).__name__}; expected a Tuning or a path")
