// SPDX-License-Identifier: Apache-2.0
// The text form of a ConvProblem, one grammar for errors, logs, test ids, bench rows and tuning files:
//   PASS n c [d] [h] w k [t] [r] s strideX padX dilX gN layout dtype [mode] [bias] [residual] [act]
// X is one number, or one per axis joined by 'x'; a padding is one number or begin_end. See docs/problem-text.md.
#include <cinttypes>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "problem.h"

namespace fastconv {
namespace {

constexpr const char* kPassNames[] = {"fwd", "bwd_data", "bwd_filter"};
constexpr const char* kLayoutNames[] = {"nchw", "nhwc", "blocked"};
constexpr const char* kDTypeNames[] = {"f32", "f64", "f16", "bf16"};
constexpr const char* kModeNames[] = {"zeros", "constant", "reflect", "replicate", "circular"};
constexpr const char* kPoolKindNames[] = {"max", "min", "average", "lp", "signed_lp"};
constexpr const char* kActivationNames[] = {
    "none",       "relu",      "leaky_relu", "relu6", "elu",          "sigmoid",  "tanh",     "silu", "gelu",
    "hard_swish", "gelu_tanh", "selu",       "celu",  "hard_sigmoid", "softplus", "softsign", "mish", "log_sigmoid"};

template <class E, size_t N>
bool find(const char* const (&names)[N], const char* name, E* value) {
  for (size_t i = 0; i < N; ++i) {
    if (strcmp(names[i], name) != 0) continue;
    *value = static_cast<E>(i);
    return true;
  }
  return false;
}

// Appends to a text of kTextCapacity characters.
struct Writer {
  char* text;
  size_t used = 0;

  __attribute__((format(printf, 2, 3))) void add(const char* format, ...) {
    if (used >= kTextCapacity) return;
    va_list arguments;
    va_start(arguments, format);
    const int more = vsnprintf(text + used, kTextCapacity - used, format, arguments);
    va_end(arguments);
    if (more > 0) used += static_cast<size_t>(more);
  }
};

void add_per_axis(Writer* out, const char* key, const int64_t* values, int rank) {
  const int64_t* v = values + kMaxSpatial - rank;
  bool equal = true;
  for (int i = 1; i < rank; ++i) equal = equal && v[i] == v[0];
  out->add(" %s%" PRId64, key, v[0]);
  for (int i = 1; i < rank && !equal; ++i) out->add("x%" PRId64, v[i]);
}

void add_padding(Writer* out, const ConvProblem& p) {
  const int first = kMaxSpatial - p.spatial_rank;
  bool equal = true;
  for (int i = first + 1; i < kMaxSpatial; ++i)
    equal = equal && p.pad_begin[i] == p.pad_begin[first] && p.pad_end[i] == p.pad_end[first];
  for (int i = first; i < kMaxSpatial; ++i) {
    out->add(i == first ? " pad" : "x");
    out->add("%" PRId64, p.pad_begin[i]);
    if (p.pad_begin[i] != p.pad_end[i]) out->add("_%" PRId64, p.pad_end[i]);
    if (equal) break;
  }
}

bool fail(char* error, const char* token, const char* expected) {
  snprintf(error, kTextCapacity, "problem text: '%.80s' is not understood; expected %.300s", token, expected);
  return false;
}

bool read_number(const char** cursor, int64_t* value) {
  if (**cursor < '0' || **cursor > '9') return false;
  char* end = nullptr;
  const unsigned long long number = strtoull(*cursor, &end, 10);
  if (end - *cursor > 15) return false;  // far beyond any valid size, and no overflow
  *value = static_cast<int64_t>(number);
  *cursor = end;
  return true;
}

// "2", "2x1", "0_1x0_1" into begin[count] and end[count]; returns how many there are, 0 when malformed.
int read_list(const char* cursor, bool pairs, int64_t* begin, int64_t* end) {
  for (int count = 0; count < kMaxSpatial;) {
    if (!read_number(&cursor, &begin[count])) return 0;
    end[count] = begin[count];
    if (pairs && *cursor == '_') {
      ++cursor;
      if (!read_number(&cursor, &end[count])) return 0;
    }
    ++count;
    if (*cursor == 0) return count;
    if (*cursor++ != 'x') return 0;
  }
  return 0;
}

const char* after_prefix(const char* token, const char* prefix) {
  const size_t length = strlen(prefix);
  return strncmp(token, prefix, length) == 0 && token[length] >= '0' && token[length] <= '9' ? token + length : nullptr;
}

// The state of parsing: what was seen.
struct Parser {
  Parser(ConvProblem* problem, char* message) : p(problem), error(message) {}

  ConvProblem* p;
  char* error;
  struct List {
    int count = 0;
    int64_t begin[kMaxSpatial], end[kMaxSpatial];
  };
  List stride, pad, dilation;
  bool n_seen = false, c_seen = false, k_seen = false, g_seen = false;
  bool layout_seen = false, dtype_seen = false;
  bool size_seen[kMaxSpatial] = {}, filter_seen[kMaxSpatial] = {};

  bool number(const char* token, const char* digits, int64_t* value, bool* seen) {
    if (*seen) return fail(error, token, "each field once");
    *seen = true;
    if (!read_number(&digits, value) || *digits) return fail(error, token, "a number of at most 15 digits");
    return true;
  }
  bool list(const char* token, const char* digits, bool pairs, List* into) {
    if (into->count) return fail(error, token, "each field once");
    into->count = read_list(digits, pairs, into->begin, into->end);
    if (!into->count) return fail(error, token, "one number, or one per axis joined by 'x' (padding: begin_end)");
    return true;
  }
  bool incomplete(const char* expected) {
    snprintf(error, kTextCapacity, "problem text: fields are missing; expected %s", expected);
    return false;
  }
  bool read(const char* token);
  bool finish();
  bool spread(const List& given, int64_t* begin, int64_t* end, const char* what);
};

bool Parser::read(const char* token) {
  if (const char* d = after_prefix(token, "stride")) return list(token, d, false, &stride);
  if (const char* d = after_prefix(token, "pad")) return list(token, d, true, &pad);
  if (const char* d = after_prefix(token, "dil")) return list(token, d, false, &dilation);
  const struct {
    const char* prefix;
    int64_t* value;
    bool* seen;
  } numbers[] = {{"n", &p->n, &n_seen},
                 {"c", &p->c, &c_seen},
                 {"k", &p->k, &k_seen},
                 {"g", &p->groups, &g_seen},
                 {"d", &p->size[0], &size_seen[0]},
                 {"h", &p->size[1], &size_seen[1]},
                 {"w", &p->size[2], &size_seen[2]},
                 {"t", &p->filter[0], &filter_seen[0]},
                 {"r", &p->filter[1], &filter_seen[1]},
                 {"s", &p->filter[2], &filter_seen[2]}};
  for (const auto& field : numbers)
    if (const char* d = after_prefix(token, field.prefix)) return number(token, d, field.value, field.seen);
  if (!layout_seen && find_by_name(token, &p->x_layout)) {
    layout_seen = true;
    p->y_layout = p->x_layout;
    return true;
  }
  if (!dtype_seen && find_by_name(token, &p->dtype)) return dtype_seen = true;
  if (find_by_name(token, &p->padding_mode) || find_by_name(token, &p->activation)) return true;
  if (strcmp(token, "bias") == 0) return p->epilogue |= kEpilogueBias, true;
  if (strcmp(token, "residual") == 0) return p->epilogue |= kEpilogueResidual, true;
  return fail(error, token, "a field as in 'fwd n1 c64 h56 w56 k64 r3 s3 stride1 pad1 dil1 g1 nchw f32'");
}

bool Parser::spread(const List& given, int64_t* begin, int64_t* end, const char* what) {
  if (given.count == 0) return true;
  if (given.count != 1 && given.count != p->spatial_rank) {
    snprintf(error, kTextCapacity, "problem text: %s has %d entries; expected 1, or %d, one per spatial axis", what,
             given.count, p->spatial_rank);
    return false;
  }
  const int first = kMaxSpatial - p->spatial_rank;
  for (int i = first; i < kMaxSpatial; ++i) {
    const int from = given.count == 1 ? 0 : i - first;
    begin[i] = given.begin[from];
    if (end) end[i] = given.end[from];
  }
  return true;
}

bool Parser::finish() {
  p->spatial_rank = size_seen[0] ? 3 : size_seen[1] ? 2 : 1;
  if (!n_seen || !c_seen || !k_seen) return incomplete("n, c and k");
  for (int i = 0; i < kMaxSpatial; ++i) {
    const bool used = i >= kMaxSpatial - p->spatial_rank;
    if (size_seen[i] != used || filter_seen[i] != used)
      return incomplete("the axes w, or h w, or d h w, and as many of s, r s, t r s");
  }
  return spread(stride, p->stride, nullptr, "stride") && spread(pad, p->pad_begin, p->pad_end, "pad") &&
         spread(dilation, p->dilation, nullptr, "dil") && validate(*p, error);
}

}  // namespace

const char* name_of(Pass v) { return kPassNames[static_cast<int>(v)]; }
const char* name_of(Layout v) { return kLayoutNames[static_cast<int>(v)]; }
const char* name_of(DType v) { return kDTypeNames[static_cast<int>(v)]; }
const char* name_of(PaddingMode v) { return kModeNames[static_cast<int>(v)]; }
const char* name_of(Activation v) { return kActivationNames[static_cast<int>(v)]; }
const char* name_of(PoolKind v) { return kPoolKindNames[static_cast<int>(v)]; }
bool find_by_name(const char* name, Pass* v) { return find(kPassNames, name, v); }
bool find_by_name(const char* name, Layout* v) { return find(kLayoutNames, name, v) && *v != Layout::kBlocked; }
bool find_by_name(const char* name, DType* v) { return find(kDTypeNames, name, v); }
bool find_by_name(const char* name, PaddingMode* v) { return find(kModeNames, name, v); }
bool find_by_name(const char* name, Activation* v) { return find(kActivationNames, name, v); }
bool find_by_name(const char* name, PoolKind* v) { return find(kPoolKindNames, name, v); }

void to_text(const ConvProblem& p, char* text) {
  static constexpr char kSizeKeys[] = "dhw";
  static constexpr char kFilterKeys[] = "trs";
  Writer out{text};
  out.add("%s n%" PRId64 " c%" PRId64, name_of(p.pass), p.n, p.c);
  for (int i = kMaxSpatial - p.spatial_rank; i < kMaxSpatial; ++i) out.add(" %c%" PRId64, kSizeKeys[i], p.size[i]);
  out.add(" k%" PRId64, p.k);
  for (int i = kMaxSpatial - p.spatial_rank; i < kMaxSpatial; ++i) out.add(" %c%" PRId64, kFilterKeys[i], p.filter[i]);
  add_per_axis(&out, "stride", p.stride, p.spatial_rank);
  add_padding(&out, p);
  add_per_axis(&out, "dil", p.dilation, p.spatial_rank);
  out.add(" g%" PRId64 " %s %s", p.groups, name_of(p.x_layout), name_of(p.dtype));
  if (p.padding_mode != PaddingMode::kZeros) out.add(" %s", name_of(p.padding_mode));
  if (p.epilogue & kEpilogueBias) out.add(" bias");
  if (p.epilogue & kEpilogueResidual) out.add(" residual");
  if (p.activation != Activation::kNone) out.add(" %s", name_of(p.activation));
}

bool parse(const char* text, ConvProblem* problem, char* error) {
  *problem = ConvProblem{};
  problem->groups = 1;
  for (int i = 0; i < kMaxSpatial; ++i)
    problem->size[i] = problem->filter[i] = problem->stride[i] = problem->dilation[i] = 1;
  error[0] = 0;
  Parser parser(problem, error);
  char token[96];
  bool first = true;
  for (const char* cursor = text;;) {
    while (*cursor == ' ' || *cursor == '\t' || *cursor == '\n' || *cursor == '\r') ++cursor;
    if (*cursor == 0 || *cursor == '#') break;
    size_t length = strcspn(cursor, " \t\r\n#");
    if (length >= sizeof token) return fail(error, cursor, "fields shorter than 96 characters");
    memcpy(token, cursor, length);
    token[length] = 0;
    cursor += length;
    if (first) {
      first = false;
      if (!find_by_name(token, &problem->pass))
        return fail(error, token, "the pass first: fwd, bwd_data or bwd_filter");
    } else if (!parser.read(token)) {
      return false;
    }
  }
  if (first) return fail(error, "", "the pass first: fwd, bwd_data or bwd_filter");
  return parser.finish();
}

}  // namespace fastconv
