// SPDX-License-Identifier: Apache-2.0
// Memory that is kept between calls: first-touch page faults cost as much as a small kernel. Blocks are 64-byte
// aligned (large ones to 2 MiB, asking for huge pages); what is kept while unused is bounded in bytes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastconv {

class BlockCache;

BlockCache& workspace_cache();  // scratch of a call
BlockCache& output_cache();     // results handed to the caller

// What is acquired for `bytes` bytes, so that one block serves similar shapes: at most a quarter more.
int64_t block_size(int64_t bytes);

// Null when there is no memory. `bytes` of release must be those of acquire.
void* acquire_block(BlockCache& cache, int64_t bytes);
void release_block(BlockCache& cache, void* block, int64_t bytes);

struct CacheState {
  int64_t held_bytes;  // kept, unused
  int64_t used_bytes;  // leased now
  int64_t limit_bytes;
};
CacheState cache_state(BlockCache& cache);
void clear(BlockCache& cache);  // gives back what is kept and unused

// A lease for the length of a scope.
class Workspace {
 public:
  explicit Workspace(int64_t bytes)
      : bytes_(bytes), data_(bytes > 0 ? acquire_block(workspace_cache(), bytes) : nullptr) {}
  ~Workspace() {
    if (data_) release_block(workspace_cache(), data_, bytes_);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  void* data() const { return data_; }
  bool failed() const { return bytes_ > 0 && !data_; }

 private:
  int64_t bytes_;
  void* data_;
};

}  // namespace fastconv
