// SPDX-License-Identifier: Apache-2.0
// Programs of inference sessions: every part of a buffer that a step names is checked when the step is added, so that a
// run has nothing left to check but the arrays that come in.
#include <pybind11/stl.h>

#include <cstring>
#include <optional>

#include "../session_steps.h"
#include "conv_arguments.h"
#include "session_checks.h"

namespace fastconv {
namespace {

// The memory of one call in flight.
class Arena {
 public:
  Arena(DType dtype, int64_t bytes) : dtype_(dtype), bytes_(bytes), workspace_(bytes) {
    if (workspace_.failed()) throw WorkspaceError{format("no memory for an arena of %" PRId64 " bytes", bytes)};
  }
  char* data() const { return static_cast<char*>(workspace_.data()); }
  int64_t bytes() const { return bytes_; }
  py::array view(int64_t offset, const Shape& shape, const py::object& self) const {
    int64_t end = 1;
    for (const int64_t extent : shape)
      if (extent < 0 || __builtin_mul_overflow(end, extent, &end)) refuse(0, "the view");
    if (offset < 0 || __builtin_add_overflow(end, offset, &end) || end > bytes_ / element_size(dtype_))
      refuse(0, "the view");
    return py::array(numpy_dtype(dtype_), shape, data() + offset * element_size(dtype_), self);
  }

 private:
  DType dtype_;
  int64_t bytes_;
  Workspace workspace_;
};

// A program while it is made, and run.
class Builder : BufferChecks {
 public:
  Builder(const std::string& dtype, int64_t arena_bytes, const Shape& inputs, const Shape& outputs,
          const Options& options)
      : BufferChecks(float_named(dtype), arena_bytes, inputs, outputs, options),
        inputs_(inputs.size()),
        outputs_(outputs.size()) {}

  int32_t constant(const py::array& array) {
    if (!(array.flags() & py::array::c_style)) throw ProblemError{"constant: the array is not in C order"};
    return program_.add_constant(array.data(), array.nbytes());
  }

  void conv(const std::shared_ptr<PackedWeights>& weights, const ConvProblem& problem, const PartTuple& from,
            const PartTuple& to, const std::optional<PartTuple>& residual, double alpha, double pad_value) {
    require_valid(problem);
    ConvProblem alike = weights->problem();
    alike.n = problem.n, alike.epilogue = problem.epilogue, alike.activation = problem.activation;
    alike.x_layout = problem.x_layout, alike.y_layout = problem.y_layout;
    if (memcmp(&alike, &problem, sizeof problem) != 0 || problem.dtype != program_.dtype() ||
        problem.pass == Pass::kBackwardFilter)
      throw ProblemError{"conv: the weights were packed for another problem"};
    if (((problem.epilogue & kEpilogueBias) != 0) != (weights->bias() != nullptr) ||
        ((problem.epilogue & kEpilogueResidual) != 0) != residual.has_value())
      throw ProblemError{"conv: bias and residual are not those of the problem"};
    const bool forward = problem.pass == Pass::kForward;
    auto step = std::make_unique<ConvStep>();
    step->problem = problem;
    step->weights = weights;
    step->from = forward ? part(from, "x", problem.n, problem.c, x_plane(problem), problem.x_layout)
                         : part(from, "y", problem.n, problem.k, y_plane(problem), problem.y_layout);
    const auto written = [&](const PartTuple& tuple, const char* name) {
      return forward ? part(tuple, name, problem.n, problem.k, y_plane(problem), problem.y_layout)
                     : part(tuple, name, problem.n, problem.c, x_plane(problem), problem.x_layout);
    };
    step->to = written(to, "the result");
    if (residual) {
      const ImagePart addend = written(*residual, "the residual");
      if ((addend.batch_pitch != step->to.batch_pitch && problem.n > 1) ||
          addend.channel_pitch != step->to.channel_pitch)
        throw ProblemError{"conv: the residual has other pitches than the result"};
      step->residual = addend.buffer;
      step->residual_offset = addend.offset;
    }
    step->alpha = alpha, step->pad_value = pad_value;
    program_.add(std::move(step));
  }

  void activation(const std::string& kind, double alpha, const RowsTuple& x, const RowsTuple& y) {
    auto step = std::make_unique<ActivationStep>();
    step->dtype = program_.dtype();
    step->kind = activation_named(kind), step->alpha = alpha;
    step->x = rows(x, "x"), step->y = rows(y, "y", step->x);
    program_.add(std::move(step));
  }

  void scale_shift(int64_t channels, int64_t inner, int32_t scale, int32_t shift, const std::string& kind, double alpha,
                   const RowsTuple& x, const RowsTuple& y) {
    auto step = std::make_unique<ScaleShiftStep>();
    step->dtype = program_.dtype();
    step->kind = activation_named(kind), step->alpha = alpha;
    step->channels = channels, step->inner = inner;
    step->scale = values(scale, channels, "scale"), step->shift = values(shift, channels, "shift");
    step->x = rows(x, "x"), step->y = rows(y, "y", step->x);
    require_runs(step->x, channels, inner);
    program_.add(std::move(step));
  }

  void binary(const std::string& op, const std::string& kind, double alpha, const RowsTuple& a, const RowsTuple& b,
              const RowsTuple& y) {
    auto step = std::make_unique<BinaryStep>();
    step->dtype = program_.dtype();
    if (op != "add" && op != "sub" && op != "mul")
      throw ProblemError{format("op is '%.20s'; expected add, sub or mul", op.c_str())};
    step->op = op == "add" ? BinaryKind::kAdd : op == "sub" ? BinaryKind::kSubtract : BinaryKind::kMultiply;
    step->kind = activation_named(kind), step->alpha = alpha;
    step->a = rows(a, "a"), step->b = rows(b, "b", step->a), step->y = rows(y, "y", step->a);
    program_.add(std::move(step));
  }

  void gate(int64_t channels, int64_t inner, int64_t repeat, const RowsTuple& x, const RowsTuple& gates,
            const RowsTuple& y) {
    auto step = std::make_unique<GateStep>();
    step->dtype = program_.dtype();
    step->channels = channels, step->inner = inner, step->repeat = repeat;
    step->x = rows(x, "x"), step->y = rows(y, "y", step->x), step->gate = rows(gates, "gate");
    require_runs(step->x, channels, inner);
    if (repeat < 1 || step->gate.length != channels || step->gate.rows * repeat != step->x.rows)
      throw ProblemError{"gate: expected a row of gates for every `repeat` rows of x"};
    program_.add(std::move(step));
  }

  void prelu(int64_t n, int64_t channels, int64_t inner, int32_t slopes, const RowsTuple& x, const RowsTuple& y) {
    auto step = std::make_unique<PReluStep>();
    step->dtype = program_.dtype();
    step->n = n, step->channels = channels, step->inner = inner;
    step->slopes = values(slopes, channels, "slopes");
    step->x = dense(x, "x", n, channels, inner), step->y = dense(y, "y", n, channels, inner);
    program_.add(std::move(step));
  }

  // offset and strides of both sides in elements; `frame` is filled with `value` first.
  void copy(const Shape& shape, int32_t from, int64_t from_offset, const Shape& from_strides, int32_t to,
            int64_t to_offset, const Shape& to_strides, const std::optional<RowsTuple>& frame, double value) {
    auto step = std::make_unique<CopyStep>();
    step->dtype = program_.dtype();
    if (shape.empty() || shape.size() > kMaxCopyAxes || from_strides.size() != shape.size() ||
        to_strides.size() != shape.size())
      throw ProblemError{format("copy: shape is %s; expected 1 to %d axes", text_of(shape).c_str(), kMaxCopyAxes)};
    step->axes = static_cast<int>(shape.size());
    std::copy(shape.begin(), shape.end(), step->shape.begin());
    std::copy(from_strides.begin(), from_strides.end(), step->from_strides.begin());
    std::copy(to_strides.begin(), to_strides.end(), step->to_strides.begin());
    require_strided(from, from_offset, shape, from_strides, "x");
    require_strided(to, to_offset, shape, to_strides, "y");
    step->from_buffer = from, step->from_offset = from_offset;
    step->to_buffer = to, step->to_offset = to_offset;
    step->fills = frame.has_value(), step->value = value;
    if (frame) step->frame = rows(*frame, "the frame");
    program_.add(std::move(step));
  }

  void softmax(bool log, const RowsTuple& x, const RowsTuple& y) {
    auto step = std::make_unique<SoftmaxStep>();
    step->dtype = program_.dtype();
    step->log = log;
    step->x = rows(x, "x"), step->y = rows(y, "y", step->x);
    require_dense(step->x, "x"), require_dense(step->y, "y");
    program_.add(std::move(step));
  }

  void pool(PoolProblem problem, double norm, const PartTuple& x, const PartTuple& y) {
    problem.pass = Pass::kForward;
    problem.dtype = program_.dtype();
    char text[kTextCapacity];
    if (!validate(problem, text)) throw ProblemError{text};
    auto step = std::make_unique<PoolStep>();
    step->problem = problem, step->norm = norm;
    step->x = part(x, "x", problem.n, problem.c, x_plane(problem), problem.layout);
    step->y = part(y, "y", problem.n, problem.c, y_plane(problem), problem.layout);
    program_.add(std::move(step));
  }

  void response_norm(const Shape& shape, int64_t before, int64_t after, double alpha, double beta, double k,
                     bool spatial, bool last, const RowsTuple& x, const RowsTuple& y) {
    if (shape.size() < 2 || shape.size() > 5 || before < 0 || after < 0)
      throw ProblemError{"response_norm: expected 2 to 5 axes and a window of 0 or more cells to each side"};
    constexpr int64_t widest = int64_t{1} << 40;  // beyond any axis
    auto step = std::make_unique<ResponseNormStep>();
    step->dtype = program_.dtype();
    step->norm = {shape[0],
                  last ? shape.back() : shape[1],
                  {1, 1, 1},
                  static_cast<int>(shape.size()) - 2,
                  last,
                  spatial,
                  std::min(before, widest),
                  std::min(after, widest),
                  alpha,
                  beta,
                  k};
    int64_t plane = 1;
    for (size_t i = 0; i + 2 < shape.size(); ++i) plane *= step->norm.size[i] = shape[i + (last ? 1 : 2)];
    step->x = dense(x, "x", shape[0], step->norm.c, plane), step->y = dense(y, "y", shape[0], step->norm.c, plane);
    program_.add(std::move(step));
  }

  void group_norm(int64_t n, int64_t channels, int64_t pixels, int64_t groups, bool last, int32_t gamma, int32_t beta,
                  double eps, const RowsTuple& x, const RowsTuple& y) {
    if (n < 1 || channels < 1 || pixels < 1 || groups < 1 || channels % groups != 0)
      throw ProblemError{"group_norm: expected positive extents, and groups that divide the channels"};
    auto step = std::make_unique<GroupNormStep>();
    step->dtype = program_.dtype();
    step->shape = {n, channels, pixels, groups, last};
    step->gamma = values(gamma, channels, "gamma"), step->beta = values(beta, channels, "beta");
    step->eps = eps;
    step->x = dense(x, "x", n, channels, pixels), step->y = dense(y, "y", n, channels, pixels);
    program_.add(std::move(step));
  }

  void resample(int64_t inputs, int64_t outer, int64_t inner, const py::array& first, const py::array& start,
                const py::array& weights, const RowsTuple& x, const RowsTuple& y) {
    const auto numbers = py::array_t<int64_t, py::array::c_style>::ensure(first),
               starts = py::array_t<int64_t, py::array::c_style>::ensure(start);
    const auto factors = py::array_t<double, py::array::c_style>::ensure(weights);
    if (!numbers || !starts || !factors || starts.size() != numbers.size() + 1)
      throw ProblemError{"resample: expected a start for every output and one more"};
    const int64_t outputs = numbers.size(), *const f = numbers.data(), *const s = starts.data();
    if (s[0] != 0 || s[outputs] != factors.size()) throw ProblemError{"resample: the starts do not fit the weights"};
    for (int64_t j = 0; j < outputs; ++j) {
      const int64_t taps = s[j + 1] - s[j];
      if (taps < 0 || (taps > 0 && (f[j] < 0 || taps > inputs || f[j] > inputs - taps)))
        throw ProblemError{format("resample: output %" PRId64 " takes cells that x does not have", j)};
    }
    auto step = std::make_unique<ResampleStep>();
    step->dtype = program_.dtype();
    step->inputs = inputs, step->outputs = outputs, step->outer = outer, step->inner = inner;
    step->x = dense(x, "x", outer, inputs, inner), step->y = dense(y, "y", outer, outputs, inner);
    step->first = program_.add_constant(f, numbers.nbytes());
    step->start = program_.add_constant(s, starts.nbytes());
    step->weights = program_.add_constant(factors.data(), factors.nbytes());
    program_.add(std::move(step));
  }

  std::optional<std::vector<double>> run(const py::list& inputs, const py::list& outputs, int threads,
                                         const Arena& arena, size_t first, size_t last, bool timed) const {
    if (first > last || last > program_.size() || arena.bytes() < program_.bytes_of(0))
      throw ProblemError{"run: the program does not have these steps, or needs a larger arena"};
    const std::vector<char*> buffers = checked(inputs, outputs, arena.data(), 1);
    std::vector<double> seconds(timed ? program_.size() : 0);
    char text[kTextCapacity] = "";
    Failure failure;
    {
      const py::gil_scoped_release release;
      failure = program_.run(buffers, threads, first, last, timed ? seconds.data() : nullptr, text);
    }
    if (failure != Failure::kNone) throw_failure(failure, text);
    if (!timed) return std::nullopt;
    return std::vector<double>(seconds.begin() + static_cast<std::ptrdiff_t>(first),
                               seconds.begin() + static_cast<std::ptrdiff_t>(last));
  }

  void run_pieces(const py::list& inputs, const py::list& outputs, const std::vector<const Arena*>& arenas,
                  int64_t pieces) const {
    if (pieces < 1 || arenas.empty()) throw ProblemError{"run_pieces: expected a piece and an arena"};
    std::vector<char*> memory;
    for (const Arena* arena : arenas) {
      if (arena->bytes() < program_.bytes_of(0)) throw ProblemError{"run_pieces: the program needs a larger arena"};
      memory.push_back(arena->data());
    }
    const std::vector<char*> buffers = checked(inputs, outputs, nullptr, pieces);
    char text[kTextCapacity] = "";
    Failure failure;
    {
      const py::gil_scoped_release release;
      failure = program_.run_pieces(buffers, memory, pieces, text);
    }
    if (failure != Failure::kNone) throw_failure(failure, text);
  }

  size_t size() const { return program_.size(); }

 private:
  // The arena and the arrays, if they are of `pieces` times the program's sizes.
  std::vector<char*> checked(const py::list& inputs, const py::list& outputs, char* arena, int64_t pieces) const {
    if (inputs.size() != inputs_ || outputs.size() != outputs_)
      throw ProblemError{format("run: %zu inputs and %zu outputs came; expected %zu and %zu", inputs.size(),
                                outputs.size(), inputs_, outputs_)};
    std::vector<char*> buffers = {arena};
    for (const py::list& list : {inputs, outputs})
      for (const py::handle& item : list) {
        const py::array array = item.cast<py::array>();
        const int64_t bytes = program_.bytes_of(static_cast<int32_t>(buffers.size()));
        if (array.nbytes() % pieces != 0 || array.nbytes() / pieces != bytes || !(array.flags() & py::array::c_style) ||
            (buffers.size() > inputs_ && !array.writeable()))
          throw ProblemError{format("run: array %zu is not in C order, or not of %" PRId64 " times %" PRId64 " bytes",
                                    buffers.size() - 1, pieces, bytes)};
        buffers.push_back(static_cast<char*>(const_cast<void*>(array.data())));
      }
    return buffers;
  }

  size_t inputs_, outputs_;
};

std::shared_ptr<PackedWeights> make_weights(const ConvProblem& problem, const py::array& w,
                                            const std::optional<py::array>& bias, const Options& options) {
  require_valid(problem);
  if (problem.pass == Pass::kBackwardFilter || is_half(problem.dtype))
    throw ProblemError{"packed weights are of fwd or bwd_data in f32 or f64"};
  require_dtype(w, "w", problem.dtype, "the problem");
  require_shape(w, "w", shape_of_filter(problem));
  if (((problem.epilogue & kEpilogueBias) != 0) != bias.has_value())
    throw ProblemError{"the problem and the arguments do not agree about a bias"};
  if (bias) {
    require_dtype(*bias, "bias", problem.dtype, "the problem");
    require_shape(*bias, "bias", {problem.pass == Pass::kBackwardData ? problem.c : problem.k});
  }
  const py::array filters = contiguous(w), shift = bias ? contiguous(*bias) : py::array();
  std::shared_ptr<PackedWeights> weights;
  {
    const py::gil_scoped_release release;
    weights = std::make_shared<PackedWeights>(problem, options, filters.data(), bias ? shift.data() : nullptr);
  }
  if (weights->choice().failure != Failure::kNone) throw_failure(weights->choice().failure, weights->choice().text);
  return weights;
}

py::tuple planned(const ConvProblem& problem, const Options& options) {
  const Choice choice = choose(problem, options, true);
  if (choice.failure != Failure::kNone) throw_failure(choice.failure, choice.text);
  return py::make_tuple(choice.algorithm->name, choice.estimate.total());
}

}  // namespace

void register_session(py::module_& m) {
  py::class_<PackedWeights, std::shared_ptr<PackedWeights>>(
      m, "PackedWeights", "The weights and the bias of a convolution as its algorithm wants them.")
      .def(py::init(&make_weights), py::arg("problem"), py::arg("w"), py::arg("bias"), py::arg("options"))
      .def_property_readonly("problem", &PackedWeights::problem)
      .def_property_readonly("algorithm", [](const PackedWeights& w) { return w.choice().algorithm->name; })
      .def_property_readonly("bytes", &PackedWeights::bytes);
  py::class_<Arena>(m, "Arena", "The memory of one run of a program.")
      .def(py::init([](const std::string& dtype, int64_t bytes) {
             return std::make_unique<Arena>(float_named(dtype), std::max<int64_t>(bytes, 1));
           }),
           py::arg("dtype"), py::arg("bytes"))
      .def(
          "view",
          [](const py::object& self, int64_t offset, const Shape& shape) {
            return self.cast<const Arena&>().view(offset, shape, self);
          },
          py::arg("offset"), py::arg("shape"));
  py::class_<Builder>(m, "Program", "Steps on planned memory; buffers are the arena, inputs, outputs and constants.")
      .def(py::init<const std::string&, int64_t, const Shape&, const Shape&, const Options&>(), py::arg("dtype"),
           py::arg("arena_bytes"), py::arg("inputs"), py::arg("outputs"), py::arg("options"))
      .def("constant", &Builder::constant, py::arg("array"))
      .def("conv", &Builder::conv, py::arg("weights"), py::arg("problem"), py::arg("source"), py::arg("target"),
           py::arg("residual"), py::arg("alpha"), py::arg("pad_value"))
      .def("pool", &Builder::pool, py::arg("problem"), py::arg("norm"), py::arg("x"), py::arg("y"))
      .def("activation", &Builder::activation, py::arg("kind"), py::arg("alpha"), py::arg("x"), py::arg("y"))
      .def("scale_shift", &Builder::scale_shift, py::arg("channels"), py::arg("inner"), py::arg("scale"),
           py::arg("shift"), py::arg("kind"), py::arg("alpha"), py::arg("x"), py::arg("y"))
      .def("binary", &Builder::binary, py::arg("op"), py::arg("kind"), py::arg("alpha"), py::arg("a"), py::arg("b"),
           py::arg("y"))
      .def("gate", &Builder::gate, py::arg("channels"), py::arg("inner"), py::arg("repeat"), py::arg("x"),
           py::arg("gates"), py::arg("y"))
      .def("prelu", &Builder::prelu, py::arg("n"), py::arg("channels"), py::arg("inner"), py::arg("slopes"),
           py::arg("x"), py::arg("y"))
      .def("copy", &Builder::copy, py::arg("shape"), py::arg("source"), py::arg("source_offset"),
           py::arg("source_strides"), py::arg("target"), py::arg("target_offset"), py::arg("target_strides"),
           py::arg("frame") = py::none(), py::arg("value") = 0.0)
      .def("softmax", &Builder::softmax, py::arg("log"), py::arg("x"), py::arg("y"))
      .def("response_norm", &Builder::response_norm, py::arg("shape"), py::arg("before"), py::arg("after"),
           py::arg("alpha"), py::arg("beta"), py::arg("k"), py::arg("spatial"), py::arg("last"), py::arg("x"),
           py::arg("y"))
      .def("group_norm", &Builder::group_norm, py::arg("n"), py::arg("channels"), py::arg("pixels"), py::arg("groups"),
           py::arg("last"), py::arg("gamma"), py::arg("beta"), py::arg("eps"), py::arg("x"), py::arg("y"))
      .def("resample", &Builder::resample, py::arg("inputs"), py::arg("outer"), py::arg("inner"), py::arg("first"),
           py::arg("start"), py::arg("weights"), py::arg("x"), py::arg("y"))
      .def("run", &Builder::run, py::arg("inputs"), py::arg("outputs"), py::arg("threads"), py::arg("arena"),
           py::arg("first"), py::arg("last"), py::arg("timed") = false)
      .def("run_pieces", &Builder::run_pieces, py::arg("inputs"), py::arg("outputs"), py::arg("arenas"),
           py::arg("pieces"))
      .def("__len__", &Builder::size);
  m.def(
      "output_array",
      [](const std::string& dtype, const Shape& shape) { return make_output(float_named(dtype), shape); },
      py::arg("dtype"), py::arg("shape"));
  m.def("planned", &planned, py::arg("problem"), py::arg("options"));
}

}  // namespace fastconv
