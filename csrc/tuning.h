// SPDX-License-Identifier: Apache-2.0
// What a loaded tuning file says, as the choice sees it: for classes of shapes, the algorithms, the fastest first.
// A file holds timings; this holds their order alone, so that a choice stays a pure function of problem, options and
// file.
#pragma once

#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "algorithm.h"

namespace fastconv {

// The class of shapes that a problem belongs to, and the largest of it: n, the channels of a group, the groups and the
// extents of x rounded up to 1, 2, 3, 4, 6, 8, 12, 16, 24 and so on; nothing is fused. Filter, stride, dilation and
// padding stay as they are. A class is a problem, valid where one of its members is.
ConvProblem shape_class(const ConvProblem& problem);

// The name by which entries speak of a machine: an instruction set, or sm_90.
std::string machine_label(const Machine& machine);

inline constexpr size_t kHashCapacity = 16;  // of a tuning's hash, with its end

class Tuning {
 public:
  explicit Tuning(std::string hash);

  // `algorithms`: names, the fastest first. `packed`: for weights that come packed.
  void add(const std::string& label, const ConvProblem& shape_class, bool packed, std::vector<std::string> algorithms);

  // Null where nothing is said of the problem's class. `label`: of the machine.
  const std::vector<std::string>* find(const ConvProblem& problem, const std::string& label, bool packed) const;

  const std::string& hash() const { return hash_; }
  int64_t serial() const { return serial_; }  // of this process, never used again: a cache key
  int64_t size() const { return static_cast<int64_t>(entries_.size()); }

 private:
  struct Key {
    std::string label;
    ConvProblem shape_class;
    bool packed;
    bool operator<(const Key& other) const {
      if (packed != other.packed) return packed < other.packed;
      const int order = memcmp(&shape_class, &other.shape_class, sizeof shape_class);
      return order != 0 ? order < 0 : label < other.label;
    }
  };
  std::map<Key, std::vector<std::string>> entries_;
  const std::string hash_;
  const int64_t serial_;
};

}  // namespace fastconv
