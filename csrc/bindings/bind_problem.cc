// SPDX-License-Identifier: Apache-2.0
// ConvProblem and Options as Python classes.
#include <pybind11/stl.h>

#include <cstring>

#include "../machine.h"
#include "../plan.h"
#include "../registry.h"
#include "arrays.h"
#include "conv_arguments.h"

namespace fastconv {
namespace {

template <class E>
E named(const std::string& name, const char* what, const char* expected) {
  E value;
  if (!find_by_name(name.c_str(), &value))
    throw ProblemError{format("%s is '%.60s'; expected %s", what, name.c_str(), expected)};
  return value;
}

constexpr const char* kPasses = "fwd, bwd_data or bwd_filter";
constexpr const char* kLayouts = "nchw or nhwc";
constexpr const char* kDTypes = "f32, f64, f16 or bf16";
constexpr const char* kModes = "zeros, constant, reflect, replicate or circular";

ConvProblem make_problem(const std::string& pass, int64_t n, int64_t c, int64_t k, const Shape& size,
                         const Shape& filter, const Shape& stride, const Shape& pad_begin, const Shape& pad_end,
                         const Shape& dilation, int64_t groups, const std::string& layout, const std::string& dtype,
                         const std::string& padding_mode, const std::string& activation, bool has_bias,
                         bool has_residual) {
  ConvProblem p = empty_problem();
  p.pass = named<Pass>(pass, "pass_", kPasses);
  p.n = n, p.c = c, p.k = k, p.groups = groups;
  fill_geometry(&p, size, filter, stride, pad_begin, pad_end, dilation);
  p.x_layout = p.y_layout = named<Layout>(layout, "layout", kLayouts);
  p.dtype = named<DType>(dtype, "dtype", kDTypes);
  p.padding_mode = named<PaddingMode>(padding_mode, "padding_mode", kModes);
  p.activation = named<Activation>(activation, "activation", format("none, %s", kActivations).c_str());
  p.epilogue = (has_bias ? kEpilogueBias : 0) | (has_residual ? kEpilogueResidual : 0);
  require_valid(p);
  return p;
}

py::tuple axes(const ConvProblem& p, const int64_t* values) {
  py::tuple result(p.spatial_rank);
  for (int i = 0; i < p.spatial_rank; ++i) result[i] = values[kMaxSpatial - p.spatial_rank + i];
  return result;
}

py::tuple image_shape(const ConvProblem& p, Layout layout, int64_t channels, const int64_t* size) {
  return py::tuple(py::cast(shape_of_image(p, layout, channels, size)));
}

Options make_options(const py::object& algorithm, double precision, int64_t max_workspace, int threads,
                     bool batch_invariant, const py::object& isa, std::shared_ptr<Tuning> tuning) {
  Options o;
  char text[kTextCapacity];
  o.machine = find_machine(isa.is_none() ? nullptr : isa.cast<std::string>().c_str(), text);
  if (!o.machine) throw ProblemError{text};
  if (!algorithm.is_none()) {
    const std::string name = algorithm.cast<std::string>();
    o.algorithm = find_algorithm(name.c_str());
    if (!o.algorithm) {
      std::string known;
      for (int i = 0; i < algorithm_count(); ++i) known += (i ? ", " : "") + std::string(algorithm_at(i).name);
      throw ProblemError{format("algorithm is '%.60s'; expected one of %s", name.c_str(), known.c_str())};
    }
  }
  if (!(precision >= 1)) throw ProblemError{format("precision is %g; expected a number of at least 1", precision)};
  if (threads < 0 || threads > 256) throw ProblemError{format("threads is %d; expected 0 (all) to 256", threads)};
  o.precision = precision;
  o.max_workspace = max_workspace;
  o.threads = threads;
  o.batch_invariant = batch_invariant;
  o.tuning = std::move(tuning);
  return o;
}

}  // namespace

void register_problem(py::module_& m) {
  py::class_<ConvProblem> problem(m, "ConvProblem",
                                  "One convolution: the forward geometry, and the pass that is computed.");
  problem
      .def(py::init(&make_problem), py::arg("pass_"), py::arg("n"), py::arg("c"), py::arg("k"), py::arg("size"),
           py::arg("filter"), py::arg("stride"), py::arg("pad_begin"), py::arg("pad_end"), py::arg("dilation"),
           py::arg("groups"), py::arg("layout"), py::arg("dtype"), py::arg("padding_mode"), py::arg("activation"),
           py::arg("has_bias"), py::arg("has_residual"))
      .def_static(
          "parse",
          [](const std::string& text) {
            ConvProblem p;
            char error[kTextCapacity];
            if (!parse(text.c_str(), &p, error)) throw ProblemError{error};
            return p;
          },
          py::arg("text"))
      .def(
          "with_pass",
          [](ConvProblem p, const std::string& pass) {
            p.pass = named<Pass>(pass, "pass_", kPasses);
            if (p.pass != Pass::kForward) p.activation = Activation::kNone, p.epilogue = 0;
            return p;
          },
          py::arg("pass_"))
      .def(
          "with_n",
          [](ConvProblem p, int64_t n) {
            p.n = n;
            require_valid(p);
            return p;
          },
          py::arg("n"))
      .def(
          "with_layouts",
          [](ConvProblem p, const std::string& x, const std::string& y) {
            p.x_layout = named<Layout>(x, "x", kLayouts);
            p.y_layout = named<Layout>(y, "y", kLayouts);
            require_valid(p);
            return p;
          },
          py::arg("x"), py::arg("y"))
      .def_property_readonly("pass_", [](const ConvProblem& p) { return name_of(p.pass); })
      .def_readonly("n", &ConvProblem::n)
      .def_readonly("c", &ConvProblem::c)
      .def_readonly("k", &ConvProblem::k)
      .def_readonly("groups", &ConvProblem::groups)
      .def_readonly("spatial_rank", &ConvProblem::spatial_rank)
      .def_property_readonly("size", [](const ConvProblem& p) { return axes(p, p.size); })
      .def_property_readonly("filter", [](const ConvProblem& p) { return axes(p, p.filter); })
      .def_property_readonly("stride", [](const ConvProblem& p) { return axes(p, p.stride); })
      .def_property_readonly("dilation", [](const ConvProblem& p) { return axes(p, p.dilation); })
      .def_property_readonly("pad_begin", [](const ConvProblem& p) { return axes(p, p.pad_begin); })
      .def_property_readonly("pad_end", [](const ConvProblem& p) { return axes(p, p.pad_end); })
      .def_property_readonly("output_size",
                             [](const ConvProblem& p) {
                               const OutputSize out(p);
                               return axes(p, out.size);
                             })
      .def_property_readonly("layout", [](const ConvProblem& p) { return name_of(p.x_layout); })
      .def_property_readonly("dtype", [](const ConvProblem& p) { return name_of(p.dtype); })
      .def_property_readonly("padding_mode", [](const ConvProblem& p) { return name_of(p.padding_mode); })
      .def_property_readonly("activation", [](const ConvProblem& p) { return name_of(p.activation); })
      .def_property_readonly("has_bias", [](const ConvProblem& p) { return (p.epilogue & kEpilogueBias) != 0; })
      .def_property_readonly("has_residual", [](const ConvProblem& p) { return (p.epilogue & kEpilogueResidual) != 0; })
      .def_property_readonly("x_shape", [](const ConvProblem& p) { return image_shape(p, p.x_layout, p.c, p.size); })
      .def_property_readonly("w_shape", [](const ConvProblem& p) { return py::tuple(py::cast(shape_of_filter(p))); })
      .def_property_readonly("y_shape",
                             [](const ConvProblem& p) { return image_shape(p, p.y_layout, p.k, OutputSize(p).size); })
      .def_property_readonly("macs", [](const ConvProblem& p) { return multiply_adds(p); })
      .def_property_readonly("bytes", [](const ConvProblem& p) { return tensor_bytes(p); })
      .def("__str__",
           [](const ConvProblem& p) {
             char text[kTextCapacity];
             to_text(p, text);
             return std::string(text);
           })
      .def("__repr__",
           [](const ConvProblem& p) {
             char text[kTextCapacity];
             to_text(p, text);
             return "ConvProblem.parse('" + std::string(text) + "')";
           })
      .def("__hash__",
           [](const ConvProblem& p) { return py::hash(py::bytes(reinterpret_cast<const char*>(&p), sizeof p)); })
      .def("__eq__",
           [](const ConvProblem& a, const py::object& other) {
             return py::isinstance<ConvProblem>(other) && memcmp(&a, other.cast<const ConvProblem*>(), sizeof a) == 0;
           })
      .def(py::pickle([](const ConvProblem& p) { return py::bytes(reinterpret_cast<const char*>(&p), sizeof p); },
                      [](const py::bytes& bytes) {
                        const std::string state = bytes;
                        ConvProblem p;
                        if (state.size() != sizeof p)
                          throw ProblemError{"the pickled ConvProblem is of another version"};
                        memcpy(&p, state.data(), sizeof p);
                        require_valid(p);
                        return p;
                      }));

  m.def("shape_class", &shape_class, py::arg("problem"));
  typedef std::vector<std::tuple<std::string, ConvProblem, bool, std::vector<std::string>>> Entries;
  py::class_<Tuning, std::shared_ptr<Tuning>>(m, "Tuning", "What a tuning file says, for the machines of this process.")
      .def(py::init([](const std::string& hash, const Entries& entries) {
             auto tuning = std::make_shared<Tuning>(hash);
             for (const auto& [label, problem, packed, algorithms] : entries)
               tuning->add(label, problem, packed, algorithms);
             return tuning;
           }),
           py::arg("hash"), py::arg("entries"))
      .def_property_readonly("hash", &Tuning::hash)
      .def(
          "ranking",
          [](const Tuning& tuning, const ConvProblem& problem, const std::string& label, bool packed) {
            const auto* found = tuning.find(problem, label, packed);
            return found ? *found : std::vector<std::string>();
          },
          py::arg("problem"), py::arg("label"), py::arg("packed"))
      .def("__len__", &Tuning::size);

  py::class_<Options>(m, "Options", "What a caller may ask of the choice; immutable.")
      .def(py::init(&make_options), py::arg("algorithm") = py::none(), py::arg("precision") = 8.0,
           py::arg("max_workspace") = -1, py::arg("threads") = 0, py::arg("batch_invariant") = false,
           py::arg("isa") = py::none(), py::arg("tuning") = std::shared_ptr<Tuning>())
      .def_property_readonly("algorithm",
                             [](const Options& o) -> py::object {
                               return o.algorithm ? py::object(py::str(o.algorithm->name)) : py::none();
                             })
      .def_readonly("precision", &Options::precision)
      .def_readonly("max_workspace", &Options::max_workspace)
      .def_readonly("threads", &Options::threads)
      .def_readonly("batch_invariant", &Options::batch_invariant)
      .def_property_readonly("isa", [](const Options& o) { return o.machine->kernels->isa; })
      .def_property_readonly("tuning", [](const Options& o) { return std::const_pointer_cast<Tuning>(o.tuning); });
}

}  // namespace fastconv
