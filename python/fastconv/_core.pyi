"""The native module. Arrays are NumPy arrays of float32 or float64, for convolution and plans also of float16 or
bfloat16 (`ml_dtypes`); every function releases the GIL.

Geometry arguments (`stride`, `pad_begin`, `pad_end`, `dilation`, `window`, `size`) are tuples with one entry per
spatial axis, outermost first; the number of entries says how many spatial axes there are (1 to 3).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]
Ints = Sequence[int]

class ProblemError(ValueError): ...
class UnsupportedError(NotImplementedError): ...
class WorkspaceError(MemoryError): ...
class DeviceError(RuntimeError): ...

class ConvProblem:
    """One convolution: the forward geometry, and the pass that is computed."""

    def __init__(
        self,
        pass_: str,
        n: int,
        c: int,
        k: int,
        size: Ints,
        filter: Ints,
        stride: Ints,
        pad_begin: Ints,
        pad_end: Ints,
        dilation: Ints,
        groups: int,
        layout: str,
        dtype: str,
        padding_mode: str,
        activation: str,
        has_bias: bool,
        has_residual: bool,
    ) -> None: ...
    @staticmethod
    def parse(text: str) -> ConvProblem: ...
    def with_pass(self, pass_: str) -> ConvProblem: ...
    def with_n(self, n: int) -> ConvProblem: ...
    def with_layouts(self, x: str, y: str) -> ConvProblem: ...
    @property
    def pass_(self) -> str: ...
    @property
    def n(self) -> int: ...
    @property
    def c(self) -> int: ...
    @property
    def k(self) -> int: ...
    @property
    def groups(self) -> int: ...
    @property
    def spatial_rank(self) -> int: ...
    @property
    def size(self) -> tuple[int, ...]: ...
    @property
    def filter(self) -> tuple[int, ...]: ...
    @property
    def stride(self) -> tuple[int, ...]: ...
    @property
    def dilation(self) -> tuple[int, ...]: ...
    @property
    def pad_begin(self) -> tuple[int, ...]: ...
    @property
    def pad_end(self) -> tuple[int, ...]: ...
    @property
    def output_size(self) -> tuple[int, ...]: ...
    @property
    def layout(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def padding_mode(self) -> str: ...
    @property
    def activation(self) -> str: ...
    @property
    def has_bias(self) -> bool: ...
    @property
    def has_residual(self) -> bool: ...
    @property
    def x_shape(self) -> tuple[int, ...]: ...
    @property
    def w_shape(self) -> tuple[int, ...]: ...
    @property
    def y_shape(self) -> tuple[int, ...]: ...
    @property
    def macs(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object) -> bool: ...

class Options:
    """What a caller may ask of the choice; immutable."""

    def __init__(
        self,
        algorithm: str | None = None,
        precision: float = 8.0,
        max_workspace: int = -1,
        threads: int = 0,
        batch_invariant: bool = False,
        isa: str | None = None,
        tuning: Tuning | None = None,
    ) -> None: ...
    @property
    def algorithm(self) -> str | None: ...
    @property
    def precision(self) -> float: ...
    @property
    def max_workspace(self) -> int: ...
    @property
    def threads(self) -> int: ...
    @property
    def batch_invariant(self) -> bool: ...
    @property
    def isa(self) -> str | None: ...
    @property
    def tuning(self) -> Tuning | None: ...

class Tuning:
    """What a tuning file says, for the machines of this process.

    entries: (instruction set or sm_90, class of shapes, whether weights come packed, algorithms, the fastest first).
    """

    def __init__(self, hash: str, entries: list[tuple[str, ConvProblem, bool, list[str]]]) -> None: ...
    @property
    def hash(self) -> str: ...

    # The algorithms for a problem's class, the fastest first; none where nothing is said of it.
    def ranking(self, problem: ConvProblem, label: str, packed: bool) -> list[str]: ...
    def __len__(self) -> int: ...

# The largest member of the class of shapes that a tuning holds for.
def shape_class(problem: ConvProblem) -> ConvProblem: ...

class Plan:
    """A forward convolution with its weights copied and packed; `plan(x)` takes any batch."""

    def __init__(
        self, problem: ConvProblem, w: Array, bias: Array | None, alpha: float, pad_value: float, options: Options
    ) -> None: ...
    def __call__(self, x: Array, residual: Array | None = None, out: Array | None = None) -> Array: ...
    def at(self, address: int, n: int) -> Array | None:
        """Of n dense images at the address, which must stay valid during the call; None where they are not aligned."""

    def update(self, w: Array, bias: Array | None = None) -> None: ...
    @property
    def problem(self) -> ConvProblem: ...
    @property
    def algorithm(self) -> str: ...
    @property
    def workspace_bytes(self) -> int: ...
    @property
    def packed_bytes(self) -> int: ...

class ConvAt:
    """A convolution of dense arrays, in C order, at addresses that its calls name.

    The shapes of images are as `layout` has them. dtype: f32, f64 or f16.
    """

    def __init__(
        self,
        pass_: str,
        x_shape: Ints,
        w_shape: Ints,
        dy_shape: Ints | None,
        bias_shape: Ints | None,
        stride: Ints,
        pad_begin: Ints,
        pad_end: Ints,
        dilation: Ints,
        groups: int,
        padding_mode: str,
        pad_value: float,
        layout: str,
        dtype: str,
        options: Options,
    ) -> None: ...
    def __call__(self, first: int, second: int, bias: int = 0) -> Array | None:
        """y of (x, w, bias), dx of (dy, w, bias) or dw of (dy, x), whose memory must stay valid during the call. None
        where an address is 0 or not aligned."""

# Inference sessions. A part of an image is (buffer, offset, batch pitch, channel or pixel pitch), rows are (buffer,
# offset, rows, length, pitch); in elements. Buffers: 0 the arena, then inputs, outputs, constants.
class PackedWeights:
    """The weights and the bias of a convolution as its algorithm wants them."""

    def __init__(self, problem: ConvProblem, w: Array, bias: Array | None, options: Options) -> None: ...
    @property
    def problem(self) -> ConvProblem: ...
    @property
    def algorithm(self) -> str: ...
    @property
    def bytes(self) -> int: ...

class Arena:
    """The memory of one run of a program."""

    def __init__(self, dtype: str, bytes: int) -> None: ...
    def view(self, offset: int, shape: Ints) -> Array: ...

Part = tuple[int, int, int, int]
Rows = tuple[int, int, int, int, int]

class Program:
    """Steps on planned memory; buffers are the arena, inputs, outputs and constants."""

    def __init__(self, dtype: str, arena_bytes: int, inputs: Ints, outputs: Ints, options: Options) -> None: ...
    def constant(self, array: Array) -> int: ...
    def conv(
        self,
        weights: PackedWeights,
        problem: ConvProblem,
        source: Part,
        target: Part,
        residual: Part | None,
        alpha: float,
        pad_value: float,
    ) -> None: ...
    def pool(self, problem: PoolProblem, norm: float, x: Part, y: Part) -> None: ...
    def activation(self, kind: str, alpha: float, x: Rows, y: Rows) -> None: ...
    def scale_shift(
        self, channels: int, inner: int, scale: int, shift: int, kind: str, alpha: float, x: Rows, y: Rows
    ) -> None: ...
    def binary(self, op: str, kind: str, alpha: float, a: Rows, b: Rows, y: Rows) -> None: ...
    def gate(self, channels: int, inner: int, repeat: int, x: Rows, gates: Rows, y: Rows) -> None: ...
    def prelu(self, n: int, channels: int, inner: int, slopes: int, x: Rows, y: Rows) -> None: ...
    def copy(
        self,
        shape: Ints,
        source: int,
        source_offset: int,
        source_strides: Ints,
        target: int,
        target_offset: int,
        target_strides: Ints,
        frame: Rows | None = None,
        value: float = 0.0,
    ) -> None: ...
    def softmax(self, log: bool, x: Rows, y: Rows) -> None: ...
    def response_norm(
        self,
        shape: Ints,
        before: int,
        after: int,
        alpha: float,
        beta: float,
        k: float,
        spatial: bool,
        last: bool,
        x: Rows,
        y: Rows,
    ) -> None: ...
    def group_norm(
        self,
        n: int,
        channels: int,
        pixels: int,
        groups: int,
        last: bool,
        gamma: int,
        beta: int,
        eps: float,
        x: Rows,
        y: Rows,
    ) -> None: ...
    def resample(
        self, inputs: int, outer: int, inner: int, first: Array, start: Array, weights: Array, x: Rows, y: Rows
    ) -> None: ...
    def run(
        self,
        inputs: list[Array],
        outputs: list[Array],
        threads: int,
        arena: Arena,
        first: int,
        last: int,
        timed: bool = False,
    ) -> list[float] | None: ...
    def run_pieces(self, inputs: list[Array], outputs: list[Array], arenas: Sequence[Arena], pieces: int) -> None: ...
    def __len__(self) -> int: ...

def output_array(dtype: str, shape: Ints) -> Array: ...
def planned(problem: ConvProblem, options: Options) -> tuple[str, float]: ...
def output_size(
    size: int, filter: int, stride: int, dilation: int, pad_begin: int, pad_end: int, ceil_mode: bool = False
) -> int: ...

# Convolution. `layout` is "channels_first" or "channels_last" and speaks of x, y and residual (a ConvProblem says nchw
# or nhwc); w is (K, C/groups, *filter).
def conv_forward(
    x: Array,
    w: Array,
    bias: Array | None,
    residual: Array | None,
    stride: Ints,
    pad_begin: Ints,
    pad_end: Ints,
    dilation: Ints,
    groups: int,
    padding_mode: str,
    pad_value: float,
    activation: str,
    alpha: float,
    layout: str,
    options: Options,
    out: Array | None,
) -> Array: ...
def conv_backward_data(
    dy: Array,
    w: Array,
    x_shape: Ints,
    stride: Ints,
    pad_begin: Ints,
    pad_end: Ints,
    dilation: Ints,
    groups: int,
    padding_mode: str,
    layout: str,
    options: Options,
    out: Array | None,
    bias: Array | None = None,
    activation: str = "none",
    alpha: float = 0.0,
) -> Array: ...
def conv_backward_filter(
    dy: Array,
    x: Array,
    w_shape: Ints,
    stride: Ints,
    pad_begin: Ints,
    pad_end: Ints,
    dilation: Ints,
    groups: int,
    padding_mode: str,
    pad_value: float,
    layout: str,
    options: Options,
    out: Array | None,
) -> Array: ...
def algorithms(problem: ConvProblem, options: Options) -> list[dict[str, Any]]: ...
def choose(problem: ConvProblem, options: Options) -> str: ...
def machine_speeds(options: Options) -> dict[str, float]: ...  # FLOP/s and bytes/s of one core, of the committed table

# float16 or bfloat16 to float32, and float32 rounded to either (to nearest, ties to even; too large: infinity).
def widen(half: Array, options: Options) -> Array: ...
def narrow(single: Array, dtype: Any, options: Options) -> Array: ...

# Pooling. A problem is everything but dtype, pass and norm; kind: max, min, average, lp or signed_lp. With `output`
# pooling is adaptive, and the tuples before it are empty. Indices are int64 positions in the (unpadded) input plane.
class PoolProblem:
    def __init__(
        self,
        kind: str,
        x_shape: Ints,
        window: Ints,
        stride: Ints,
        pad_begin: Ints,
        pad_end: Ints,
        dilation: Ints,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor: int = 0,
        output: Ints = (),
        layout: str = "channels_first",
    ) -> None: ...
    @property
    def kind(self) -> str: ...
    @property
    def x_shape(self) -> tuple[int, ...]: ...
    @property
    def y_shape(self) -> tuple[int, ...]: ...
    @property
    def has_offsets(self) -> bool: ...
    @property
    def c(self) -> int: ...
    @property
    def size(self) -> tuple[int, ...]: ...
    @property
    def window(self) -> tuple[int, ...]: ...
    @property
    def stride(self) -> tuple[int, ...]: ...
    @property
    def dilation(self) -> tuple[int, ...]: ...
    @property
    def pad_begin(self) -> tuple[int, ...]: ...
    @property
    def output_size(self) -> tuple[int, ...]: ...
    @property
    def layout(self) -> str: ...
    @property
    def words(self) -> dict[str, Any]: ...

def pool_forward(
    problem: PoolProblem, x: Array, norm: float, return_indices: bool, options: Options
) -> tuple[Array, Array | None]: ...

# Averages (x and y None) and norms.
def pool_backward(
    problem: PoolProblem, dy: Array, x: Array | None, y: Array | None, norm: float, options: Options
) -> Array: ...

# Max and min pooling with has_offsets: winners as uint8 numbers of taps, the gradient by them, and their positions.
def pool_forward_offsets(problem: PoolProblem, x: Array, options: Options) -> tuple[Array, Array]: ...
def pool_backward_offsets(problem: PoolProblem, dy: Array, offsets: Array, options: Options) -> Array: ...
def offset_positions(problem: PoolProblem, offsets: Array, options: Options) -> Array: ...

# Values added to a plane of zeros at positions, or read from it. least: 0, or -1 where -1 is nowhere.
def scatter_positions(
    values: Array, indices: Array, x_shape: Ints, layout: str, least: int, options: Options
) -> Array: ...
def gather_positions(x: Array, indices: Array, layout: str, least: int, options: Options) -> Array: ...

# The indices, but -1 for those that a later one repeats.
def last_positions(indices: Array, x_shape: Ints, layout: str, options: Options) -> Array: ...

# Pointwise, any shape. kind: "relu", "leaky_relu", "relu6", "elu", "sigmoid", "tanh", "silu", "gelu", "hard_swish",
# "gelu_tanh", "selu", "celu", "hard_sigmoid", "softplus", "softsign", "mish", "log_sigmoid". alpha: slope of
# leaky_relu, scale of elu and celu, beta of softplus. `saved` is y for relu, relu6, sigmoid, tanh, selu, celu, and for
# leaky_relu and elu where alpha >= 0; x for the others.
def activation_forward(kind: str, x: Array, alpha: float = 0.0) -> Array: ...
def activation_backward(kind: str, dy: Array, saved: Array, alpha: float = 0.0) -> Array: ...
def prelu_forward(x: Array, w: Array) -> Array: ...  # w (1,), or (C,) for x (N, C, *)
def prelu_backward(dy: Array, x: Array, w: Array) -> tuple[Array, Array]: ...  # dx, dw
def add(a: Array, b: Array) -> Array: ...  # same shape and dtype
def scale_mask(x: Array, mask: Array, scale: float) -> Array: ...  # x * scale where mask (bool, same shape), else 0
def channel_sum(x: Array) -> Array: ...  # (N, C, *) -> (C,): the bias gradient

# Batch normalisation over (N, C, *); statistics per channel, variance biased. threads 0: the default number.
def batch_norm_forward(
    x: Array, gamma: Array, beta: Array, eps: float, threads: int = 0
) -> tuple[Array, Array, Array]: ...  # y, mean, variance
def batch_norm_inference(x: Array, gamma: Array, beta: Array, mean: Array, variance: Array, eps: float) -> Array: ...
def batch_norm_backward(
    dy: Array, x: Array, gamma: Array, mean: Array, variance: Array, eps: float, threads: int = 0
) -> tuple[Array, Array, Array]: ...  # dx, dgamma, dbeta

# Group normalisation over (N, C, *) or (N, *, C), gamma and beta (C,); mean and inverse = 1 / sqrt(variance + eps) are
# float64 (N, groups).
def group_norm_forward(
    x: Array, gamma: Array, beta: Array, groups: int, eps: float, layout: str
) -> tuple[Array, Array, Array]: ...  # y, mean, inverse
def group_norm_backward(
    dy: Array, x: Array, gamma: Array, mean: Array, inverse: Array, groups: int, layout: str
) -> tuple[Array, Array, Array]: ...  # dx, dgamma, dbeta

# Local response normalisation; alpha is what one square counts; spatial: windows along all spatial axes, not channels.
def response_norm_forward(
    x: Array, before: int, after: int, alpha: float, beta: float, k: float, spatial: bool, layout: str
) -> Array: ...
def response_norm_backward(
    dy: Array, x: Array, before: int, after: int, alpha: float, beta: float, k: float, spatial: bool, layout: str
) -> Array: ...

# A sparse matrix times one axis: output j is the sum over start[j] <= i < start[j + 1] of weights[i] (float64) times
# input first[j] + i - start[j].
def resample(x: Array, axis: int, first: Array, start: Array, weights: Array) -> Array: ...

# Dense: x (N, I), w (O, I), bias (O,), y (N, O).
def dense_forward(x: Array, w: Array, bias: Array | None) -> Array: ...
def dense_backward_data(dy: Array, w: Array) -> Array: ...
def dense_backward_filter(dy: Array, x: Array) -> Array: ...

# Softmax and cross-entropy over the last axis of (N, K); labels are int64 (N,), from 0 to K - 1 or ignore_index; weight
# (K,). The loss is per row: the sum over k of weight[k] (own [k is the label] + even) (-log softmax(x)[k]), with
# own = 1 - label_smoothing and even = label_smoothing / K.
def softmax_forward(x: Array, log: bool = False) -> Array: ...
def softmax_backward(dy: Array, y: Array, log: bool = False) -> Array: ...
def cross_entropy_forward(
    logits: Array,
    labels: Array,
    weight: Array | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
) -> tuple[Array, Array]: ...  # loss (N,), probabilities (N, K)
def cross_entropy_backward(
    dloss: Array,
    probabilities: Array,
    labels: Array,
    weight: Array | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
) -> Array: ...

# Losses of one x and one target at a time, any shape. kind: "mse", "l1", "huber" (alpha: delta), "smooth_l1" (alpha:
# beta), "bce", "bce_with_logits", "kl", "kl_log". dloss is of the shape of x, or one number.
def pair_loss_forward(kind: str, x: Array, target: Array, alpha: float = 0.0) -> Array: ...
def pair_loss_sum(kind: str, x: Array, target: Array, alpha: float = 0.0) -> float: ...
def pair_loss_backward(kind: str, dloss: Array, x: Array, target: Array, alpha: float = 0.0) -> Array: ...

# Optimiser steps, in place on w and the state arrays (contiguous, same shape and dtype).
def sgd_step(
    w: Array,
    g: Array,
    velocity: Array | None,
    lr: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool,
    dampening: float = 0.0,
) -> None: ...
def adam_step(
    w: Array,
    g: Array,
    m: Array,
    v: Array,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    step: int,
    highest: Array | None = None,
) -> None: ...
def rmsprop_step(
    w: Array,
    g: Array,
    square: Array,
    mean: Array | None,
    velocity: Array | None,
    lr: float,
    alpha: float,
    eps: float,
    weight_decay: float,
    momentum: float,
) -> None: ...

# Information and control.
def info() -> dict[str, Any]: ...
def cache_info() -> dict[str, Any]: ...

# The most threads that any call of this process takes; 0: no limit.
def set_threads(threads: int) -> None: ...

# The threads that a call gets which asks for so many; 0: does not say.
def get_threads(wanted: int = 0) -> int: ...

# Addresses of two functions of an OpenMP library on whose team calls run from now on; 0, 0: on threads of our own.
def use_openmp(gomp_parallel: int, omp_get_thread_num: int) -> None: ...
def fma_peak(seconds: float, threads: int) -> float: ...  # GFLOP/s of float32 multiply-adds on registers
def clear_cache() -> None: ...
def trace_start(phases: bool = False) -> int: ...
def trace_stop(handle: int) -> list[dict[str, Any]]: ...

# A device, by addresses of its memory; device.py gives them. Layouts are "channels_first" and "channels_last"; an image
# tensor is its address, layout, batch pitch and channel pitch in elements.
ImageHandle = tuple[int, str, int, int]

def device_open_library(path: str) -> str: ...  # the backend's name; DeviceError says what is missing
def device_count() -> int: ...
def device_info(device: int) -> dict[str, Any]: ...
def device_pitches(shape: Ints, strides: Ints, itemsize: int, layout: str) -> tuple[str, int, int] | None: ...
def device_conv(
    pass_: str,
    x: ImageHandle,
    x_shape: Ints,
    w: int,
    w_shape: Ints,
    y: ImageHandle,
    bias: int,
    residual: int,
    stride: Ints,
    pad_begin: Ints,
    pad_end: Ints,
    dilation: Ints,
    groups: int,
    padding_mode: str,
    pad_value: float,
    activation: str,
    alpha: float,
    layout: str,
    dtype: str,
    options: Options,
    device: int,
    stream: int,
    allocate: Callable[[int], int],
    packed: int = 0,
) -> None: ...
def device_plan_choice(problem: ConvProblem, options: Options, device: int) -> tuple[str, int, int]: ...
def device_pack(problem: ConvProblem, algorithm: str, device: int, stream: int, w: int, packed: int) -> None: ...
def device_algorithms(problem: ConvProblem, options: Options, device: int) -> list[dict[str, Any]]: ...
def device_choose(problem: ConvProblem, options: Options, device: int) -> str: ...
def device_pool(
    problem: PoolProblem,
    pass_: str,
    dtype: str,
    layout: str,
    x_batch_pitch: int,
    x_channel_pitch: int,
    buffers: Ints,
    norm: float,
    device: int,
    stream: int,
) -> None: ...
def device_scatter_positions(
    values: int, indices: int, plane: int, dtype: str, layout: str, shape: Ints, device: int, stream: int
) -> None: ...
def device_pointwise(
    op: str, activation: str, alpha: float, dtype: str, shape: Ints, buffers: Ints, device: int, stream: int
) -> None: ...
def device_norm(
    op: str,
    dtype: str,
    layout: str,
    log: bool,
    eps: float,
    shape: Ints,
    buffers: Ints,
    device: int,
    stream: int,
    allocate: Callable[[int], int],
) -> None: ...
def device_wait(device: int, stream: int, other: int) -> None: ...
