# SPDX-License-Identifier: Apache-2.0
"""What is known of an algorithm and a problem without running it: phases, conversions, roofline, which bits repeat."""

from typing import Any

from .._core import ConvProblem

PHASES = ("start", "conversions", "weights", "input", "products", "output", "sums", "memory")
# The kinds of work that the estimates count (csrc/estimate.h), by phase. `products` are all others.
_KINDS = {
    "start": ("start", "filter start", "phases start"),
    "conversions": ("conversions",),
    "weights": ("weights", "weights packed", "weights turned", "packing", "filters", "filters made", "phases packed",
                "col2im packing"),
    "input": (
        "input tiles", "input cells", "input pixels", "input rows", "input rows of pixels", "columns",
        "columns turned", "halo", "halo lines", "halo rows", "halo turned", "rows of panels", "gathered",
        "filter gathered", "lists", "places", "lanes", "lanes apart", "lanes moved", "lanes turned", "plane rows",
        "planes turned", "planes apart", "gradients", "gradients turned", "gradients to pixels", "gradient rows",
        "filter columns", "filter halo", "filter halo lines", "filter halo turned", "filter plane rows",
        "filter planes turned", "filter planes apart", "phases halo", "phases halo lines", "phases halo turned",
        "patches", "col2im columns", "col2im turned", "input", "input by halo", "filter x", "filter x by halo",
        "filter y", "filter y turned",
    ),
    "output": (
        "output tiles", "output cells", "output pixels", "output rows", "output rows of pixels", "moved",
        "moved apart", "moved to pixels", "stored", "stored in place", "spread", "scattered", "turned",
        "pixels of phases", "rows of phases", "rows of units", "filters turned", "weights straight",
        "col2im rows", "col2im sums", "col2im joined", "col2im stored", "col2im to pixels",
        "col2im folded",
    ),
    "sums": ("sums", "filter totals", "filter sums", "pieces"),
    "memory": ("memory", "bytes", "filter bytes", "tensors", "slabs"),
}  # fmt: skip
_PHASE_OF = {kind: phase for phase, kinds in _KINDS.items() for kind in kinds}
# These copy or turn what they read or write; the words end the sentence that names them.
_TURNED = ("turned", "to pixels", "of pixels", "lanes moved", "pixels of phases")


def phase_of(algorithm: str, kind: str) -> str:
    """The phase of a kind of work that an estimate counts."""
    if kind == "turned" and algorithm == "direct":
        return "input"
    if kind in ("planes", "filter planes"):  # depthwise counts its calls by planes, grouped its copies
        return "input" if algorithm == "grouped" else "products"
    return _PHASE_OF.get(kind, "products")


def predicted_phases(row: dict[str, Any]) -> dict[str, float]:
    """Seconds by phase, in the order of PHASES; their sum is the estimate."""
    sums: dict[str, float] = {}
    for kind, seconds in row["estimated_work"].items():
        phase = phase_of(row["name"], kind)
        sums[phase] = sums.get(phase, 0.0) + seconds
    return {phase: sums[phase] for phase in PHASES if phase in sums}


def conversions(p: ConvProblem, row: dict[str, Any], on_device: bool) -> list[dict[str, Any]]:
    """What the algorithm brings into another form inside a call: a sentence and the seconds that the estimate has.

    A transform (Winograd's) is one of them: input and output are not computed with as they lie.
    """
    found: list[dict[str, Any]] = []
    phases = predicted_phases(row)

    def add(what: str, phase: str) -> None:
        found.append({"what": what, "phase": phase, "estimate_s": phases.get(phase, 0.0)})

    if row["name"].startswith("implicit_gemm_amx") and (p.dtype != "bf16" or row["name"] == _CUT):
        count = "two" if p.dtype == "f16" or row["name"] == _CUT else "three"
        add(f"every number is split into {count} bfloat16, whose products are made one by one", "input")
    if p.dtype in ("f16", "bf16") and not on_device and row["name"] != "implicit_gemm_amx":
        packed = bool(row["packed_bytes"])  # then w is widened as it is packed
        copied = {"none": "x and y" if packed else "x, w and y", "images": "" if packed else "w", "weights": "x and y"}
        widened = copied.get(row["takes_halves"], "")
        add(
            f"{widened} become float32 copies" if widened else "halves are widened as they are read, and rounded once",
            "conversions",
        )
    kinds = row["estimated_work"]
    transformed = row["name"].startswith("winograd")
    if row["packed_bytes"]:
        how = "transformed and packed" if transformed else "packed"
        add(f"w is {how} ({row['packed_bytes']:,} bytes) in every call; a plan keeps it", "weights")
    for phase, transform, copy in (
        ("input", "what is read is transformed tile by tile", "what is read is copied for the kernels"),
        ("output", "the results are transformed back", "the results are moved to their places"),
    ):
        mine = [kind for kind in kinds if phase_of(row["name"], kind) == phase]
        always = transformed and on_device  # whose estimates have the traffic of transforms alone
        if not always and all(kind.startswith("stored") for kind in mine):
            continue
        turned = any(word in kind for kind in mine for word in _TURNED)
        layout = ", between pixels of channels and rows of pixels" if turned else ""
        add((transform if transformed else copy) + layout, phase)
    return found


def same_bits(p: ConvProblem, row: dict[str, Any], device: str) -> dict[str, Any]:
    """Over what the bits of a result are the same: threads, the batch around an image, instruction sets.

    Whoever runs an item of work, sums are cut by the problem alone (docs/numerics.md). A filter gradient sums over the
    batch, so it has no bits of one image.
    """
    if device != "cpu":
        return {"runs": True, "batch": p.pass_ != "bwd_filter", "isas": "one architecture"}
    words = {"one": "one instruction set", "avx": "avx2 and avx512", "all": "every instruction set"}
    isas = words[row["same_bits"]] if p.dtype == "f32" or row["same_bits"] != "avx" else words["one"]
    return {"runs": True, "threads": True, "batch": p.pass_ != "bwd_filter", "isas": isas}


# What multiplies bfloat16 alone, so many of them for each product. _CUT leaves out what a float32 has beyond two.
_CUT = "implicit_gemm_amx_bf16x2"
_PRODUCTS_OF_PARTS = {"bf16": 1, "f16": 4, "f32": 6}
# On a device these multiply on its tensor cores: float32 in numbers of 11 bits, each product by three of them or, those
# that say so, by one. All others compute in float32, halves too, or in float64.
_ON_TENSOR_CORES = ("grouped_tensor", "grouped_tf32", "implicit_gemm", "implicit_gemm_tf32")


def peak_flops(p: ConvProblem, name: str, speeds: dict[str, float], on_device: bool) -> float:
    """FLOP/s of the arithmetic that an algorithm computes with; a multiply-add is two."""
    if on_device and name in _ON_TENSOR_CORES:
        return speeds["flops_f16" if p.dtype in ("f16", "bf16") else "flops_tf32"]
    if name.startswith("implicit_gemm_amx"):
        return speeds["flops_f16"] / (3 if name == _CUT else _PRODUCTS_OF_PARTS[p.dtype])
    return speeds["flops_f64" if p.dtype == "f64" else "flops_f32"]


def roofline(p: ConvProblem, row: dict[str, Any], speeds: dict[str, float], on_device: bool) -> dict[str, float]:
    """The least time that the machine needs for the multiplications and bytes of an algorithm, and what bounds it.

    (Williams, Waterman and Patterson, "Roofline: an insightful visual performance model", CACM 2009.) Peak and
    bandwidth are those of the committed table for one core, times the threads that the call takes.
    """
    threads = row["threads"]
    compute = 2 * row["multiplications"] / (peak_flops(p, row["name"], speeds, on_device) * threads or 1.0)
    memory = row["bytes_moved"] / (speeds["bytes_per_second"] * threads)
    return {"roofline_s": max(compute, memory), "flops_per_byte": 2 * row["multiplications"] / row["bytes_moved"]}
