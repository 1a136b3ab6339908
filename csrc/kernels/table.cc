// SPDX-License-Identifier: Apache-2.0
// The table of one instruction set. A new one may point to another's struct for what it does not have yet.
#include "kernel_table.h"
#include "simd.h"

#define FC_STRING_OF(name) #name
#define FC_STRING(name) FC_STRING_OF(name)

// `wide` has them from AVX2: code for vectors that the CPU lacks takes the compiler minutes.
#if defined(FC_ISA_WIDE)
#define FC_DEPTHWISE avx2
#else
#define FC_DEPTHWISE FC_ISA
#endif

namespace fastconv::FC_DEPTHWISE {
extern const DepthwisePixelKernels kDepthwisePixelKernels;
extern const DepthwisePlaneKernels kDepthwisePlaneKernels;
extern const DepthwiseTapsKernels kDepthwiseTapsKernels;
}  // namespace fastconv::FC_DEPTHWISE

namespace fastconv::FC_ISA {

extern const Col2imKernels kCol2imKernels;
extern const ConvertKernels kConvertKernels;
extern const GemmKernels kGemmKernels;
extern const DepthwiseKernels kDepthwiseKernels;
extern const DirectKernels kDirectKernels;
extern const GroupedKernels kGroupedKernels;
extern const ImplicitKernels kImplicitKernels;
extern const ImplicitGradientKernels kImplicitGradientKernels;
extern const PoolKernels kPoolPlaneKernels;
extern const PoolKernels kPoolWindowKernels;
extern const PoolKernels kPoolPixelKernels;
extern const PoolBackwardKernels kPoolPlaneBackwardKernels;
extern const PoolBackwardKernels kPoolPixelBackwardKernels;
extern const PoolNormKernels kPoolNormKernels;
extern const PointwiseKernels kPointwiseKernels;
extern const OptimKernels kOptimKernels;
extern const NormKernels kNormKernels;
extern const RowNormKernels kRowNormKernels;
extern const ResponseNormKernels kResponseNormKernels;
extern const ResampleKernels kResampleKernels;
extern const LossKernels kLossKernels;
extern const PairLossKernels kPairLossKernels;
extern const WinogradKernels kWinogradKernels;
extern const WinogradTransformTable kWinogradTransforms;
extern const WinogradGradientKernels kWinogradGradientKernels;

extern const KernelTable kTable;
const KernelTable kTable = {FC_STRING(FC_ISA),
                            kVectorBytes,
                            &kGemmKernels,
                            &kCol2imKernels,
                            &kDepthwiseKernels,
                            &FC_DEPTHWISE::kDepthwisePixelKernels,
                            &FC_DEPTHWISE::kDepthwisePlaneKernels,
                            &FC_DEPTHWISE::kDepthwiseTapsKernels,
                            &kDirectKernels,
                            &kGroupedKernels,
                            &kImplicitKernels,
                            &kImplicitGradientKernels,
                            &kPoolPlaneKernels,
                            &kPoolWindowKernels,
                            &kPoolPixelKernels,
                            &kPoolPlaneBackwardKernels,
                            &kPoolPixelBackwardKernels,
                            &kPoolNormKernels,
                            &kPointwiseKernels,
                            &kOptimKernels,
                            &kNormKernels,
                            &kRowNormKernels,
                            &kResponseNormKernels,
                            &kResampleKernels,
                            &kLossKernels,
                            &kPairLossKernels,
                            &kConvertKernels,
                            &kWinogradKernels,
                            &kWinogradTransforms,
                            &kWinogradGradientKernels,
                            nullptr};

}  // namespace fastconv::FC_ISA
