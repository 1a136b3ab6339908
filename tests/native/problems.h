// SPDX-License-Identifier: Apache-2.0
// What the drivers share that run problem files: the files, and the variants of a problem.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include "problem.h"

namespace fastconv {

// visit(problem) for every line of the files; returns how many there are.
template <class Visit>
int each_problem(int count, char** files, const Visit& visit) {
  int problems = 0;
  const auto stop = [](const char* file, const char* why) {
    printf("%s: %s\n", file, why);
    exit(2);
  };
  for (int i = 1; i < count; ++i) {
    std::ifstream file(files[i]);
    if (!file) stop(files[i], "cannot be read");
    for (std::string line; std::getline(file, line);) {
      const size_t begin = line.find_first_not_of(" \t\r");
      if (begin == std::string::npos || line[begin] == '#') continue;
      ConvProblem p;
      char error[kTextCapacity];
      if (!parse(line.c_str(), &p, error)) stop(line.c_str(), error);
      visit(p);
      ++problems;
    }
  }
  return problems;
}

// visit(problem) in three passes, all layouts and dtypes; the epilogue is what a pass can have.
template <class Visit>
void each_variant(const ConvProblem& forward, const Visit& visit) {
  for (Pass pass : {Pass::kForward, Pass::kBackwardData, Pass::kBackwardFilter})
    for (Layout x_layout : {Layout::kChannelsFirst, Layout::kChannelsLast})
      for (Layout y_layout : {Layout::kChannelsFirst, Layout::kChannelsLast})
        for (DType dtype : {DType::kFloat32, DType::kFloat64, DType::kFloat16, DType::kBFloat16}) {
          if (is_half(dtype) && x_layout != y_layout) continue;
          ConvProblem p = forward;
          p.pass = pass, p.x_layout = x_layout, p.y_layout = y_layout, p.dtype = dtype;
          if (pass == Pass::kBackwardFilter || (pass == Pass::kBackwardData && p.padding_mode != PaddingMode::kZeros))
            p.activation = Activation::kNone, p.epilogue = 0;
          else if (pass == Pass::kBackwardData)
            p.epilogue &= ~kEpilogueResidual;
          visit(p);
        }
}

// Of a dense tensor.
inline void pitches(Layout layout, int64_t channels, int64_t plane, int64_t* batch, int64_t* channel) {
  *batch = channels * plane;
  *channel = layout == Layout::kChannelsLast ? channels : plane;
}

}  // namespace fastconv
