# SPDX-License-Identifier: Apache-2.0
"""What the compiler made of the kernels, without a GPU: registers, memory and classes of instructions.

python cuda/gates.py LIBRARY [--write]: compares libfastconv_cuda.so with gates.txt. Every kernel must have no stack and
no local memory (so nothing is spilled), and at least the instructions that its source file is made for. --write renews
the table after a change that was looked at. Needs cuobjdump and nvdisasm, of the packages nvidia-cuda-cuobjdump and
nvidia-cuda-nvdisasm.
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

TABLE = Path(__file__).with_name("gates.txt")
HEAD = """# Registers and static shared memory of every kernel, and which of these instructions it has: H tensor cores
# (HMMA), M matrix loads (LDSM), A asynchronous copies (LDGSTS), V 16-byte loads (LDG.E.128). None has a stack
# or spills. Written by gates.py --write; nvcc 13.0.88.
"""
CLASSES = {"H": "HMMA", "M": "LDSM", "A": "LDGSTS", "V": "LDG.E.128"}
# Kernels, by a part of their name -> what each of them must have, on architectures from sm_80 on.
REQUIRED = {
    "implicit_images": "HMA",
    "implicit_filter<": "HA",
    "grouped_product": "HA",
    "grouped_filter_product": "HA",
    "stem_images": "HA",
    "stem_filter<": "HA",
}


def tool(name: str) -> str:
    beside = Path(sys.executable).parents[1].glob(f"lib/python*/site-packages/nvidia/cu*/bin/{name}")
    found = next((str(path) for path in beside), None) or shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} was not found; use pip install nvidia-cuda-{name}")
    return found


def dump(library: str, *what: str) -> str:
    env = {"PATH": f"{Path(tool('nvdisasm')).parent}:/usr/bin:/bin"}
    done = subprocess.run([tool("cuobjdump"), *what, library], capture_output=True, text=True, check=True, env=env)
    return done.stdout


def demangled(names: list[str]) -> list[str]:
    done = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def short(name: str) -> str:
    """A kernel's name with its template arguments, without namespaces and parameters."""
    name = re.sub(r"\(anonymous namespace\)::|fastconv::(cuda::)?|^void ", "", name)
    depth, end = 0, len(name)
    for i, letter in enumerate(name):
        depth += {"<": 1, ">": -1}.get(letter, 0)
        if letter == "(" and depth == 0:
            end = i
            break
    return name[:end].replace(" ", "")


def resources(library: str) -> dict[tuple[str, str], dict[str, int]]:
    """(architecture, mangled kernel) -> REG, STACK, SHARED, LOCAL."""
    found, arch, kernel = {}, "", ""
    for line in dump(library, "--dump-resource-usage").splitlines():
        if match := re.search(r"arch = (sm_\w+)", line):
            arch = match[1]
        elif match := re.search(r"Function ([\w$.]+):", line):
            kernel = match[1]
        elif "REG:" in line:
            found[arch, kernel] = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", line)}
    return found


def instructions(library: str) -> dict[tuple[str, str], set[str]]:
    """(architecture, mangled kernel) -> the classes that it has; L is local memory."""
    found = {}
    for code in dump(library, "--dump-sass").split("arch = ")[1:]:
        arch = code.split(maxsplit=1)[0]
        for function in code.split("Function : ")[1:]:
            kernel = function.split(maxsplit=1)[0]
            classes = {letter for letter, word in CLASSES.items() if word in function}
            if re.search(r"\b(LDL|STL)\b", function):
                classes.add("L")
            found[arch, kernel] = classes
    return found


def examine(library: str) -> tuple[str, list[str]]:
    """The table of a library, and what is wrong with it whatever the table says."""
    used, has = resources(library), instructions(library)
    rows, wrong = [], []
    names = map(short, demangled([kernel for _, kernel in used]))
    for ((arch, kernel), numbers), name in zip(used.items(), names, strict=True):
        classes = has[arch, kernel]
        if numbers["STACK"] or numbers["LOCAL"] or "L" in classes:
            wrong.append(f"{arch} {name}: {numbers['STACK']} bytes of stack, {numbers['LOCAL']} of local memory")
        for part, required in REQUIRED.items():
            missing = set(required) - classes
            if part in name and int(re.sub(r"\D", "", arch)) >= 80 and missing:
                wrong.append(f"{arch} {name}: no {', '.join(CLASSES[m] for m in sorted(missing))}")
        letters = "".join(letter for letter in CLASSES if letter in classes) or "-"
        rows.append(f"{arch} {numbers['REG']:3d} {numbers['SHARED']:5d} {letters:4s} {name}")
    return HEAD + "\n".join(sorted(rows, key=lambda row: (row.split()[4], row))) + "\n", wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("compiled", metavar="LIBRARY")
    parser.add_argument("--write", action="store_true", help="renew gates.txt")
    options = parser.parse_args()
    table, wrong = examine(options.compiled)
    kernels = table.count("\nsm_")
    if options.write:
        TABLE.write_text(table)
    else:
        committed = set(TABLE.read_text().splitlines())
        now = set(table.splitlines())
        wrong += [f"new or changed: {row}" for row in sorted(now - committed)]
        wrong += [f"no longer there: {row}" for row in sorted(committed - now)]
    print("\n".join([*wrong, f"{kernels} kernels, {len(wrong)} complaints"]))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
