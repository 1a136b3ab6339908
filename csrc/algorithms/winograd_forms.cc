// SPDX-License-Identifier: Apache-2.0
// The algorithms that winograd.cc computes, by the tile of each.
#include "winograd_phases.h"

namespace fastconv {
namespace {

typedef WinogradTransformTable Transforms;
typedef WinogradGradientKernels Gradients;

constexpr WinogradForm kF2x23x3 = {"3 x 3", 1, &Transforms::f2x2_3x3, &Transforms::f2x2_3x3, &Gradients::f2x2_3x3};
constexpr WinogradForm kF4x43x3 = {"3 x 3", 1, &Transforms::f4x4_3x3, &Transforms::f4x4_3x3, &Gradients::f4x4_3x3};
constexpr WinogradForm kF2x25x5 = {"5 x 5", 1, &Transforms::f2x2_5x5, &Transforms::f2x2_5x5, &Gradients::f2x2_5x5};
constexpr WinogradForm kF3x34x4 = {"4 x 4", 1, &Transforms::f3x3_4x4, &Transforms::f3x3_4x4, &Gradients::f3x3_4x4};
constexpr WinogradForm kF5x52x2 = {"2 x 2", 1, &Transforms::f5x5_2x2, &Transforms::f5x5_2x2, &Gradients::f5x5_2x2};
constexpr WinogradForm kStride2 = {"3 x 3", 2, &Transforms::down_3x3, &Transforms::up_3x3, &Gradients::down_3x3};
constexpr WinogradForm kAlongRow = {"1 x 3 or 3 x 1", 1, &Transforms::f1x4_1x3, &Transforms::f1x4_1x3,
                                    &Gradients::f1x4_1x3};
constexpr WinogradForm kAlongColumn = {"1 x 3 or 3 x 1", 1, &Transforms::f4x1_3x1, &Transforms::f4x1_3x1,
                                       &Gradients::f4x1_3x1};

template <const WinogradForm& FORM>
const WinogradForm& always(const ConvProblem&) {
  return FORM;
}
const WinogradForm& along(const ConvProblem& p) { return p.filter[1] == 1 ? kAlongRow : kAlongColumn; }

constexpr char kNameF2x23x3[] = "winograd_f2x2_3x3", kNameF4x43x3[] = "winograd_f4x4_3x3",
               kNameF3x34x4[] = "winograd_f3x3_4x4", kNameF5x52x2[] = "winograd_f5x5_2x2",
               kNameF2x25x5[] = "winograd_f2x2_5x5", kNameF43[] = "winograd_f4_3",
               kNameStride2[] = "winograd_f4x4_3x3_s2";

template <const char* NAME, const WinogradForm& (*FORM)(const ConvProblem&)>
constexpr Algorithm algorithm_of(double error_factor, int exact_on_integers, SameBits same_bits) {
  return {
      NAME,
      error_factor,
      exact_on_integers,
      same_bits,
      [](const ConvProblem* p, const Machine* m, char* text) { return winograd_why_not(NAME, FORM(*p), *p, *m, text); },
      [](const ConvProblem* p, const Machine* m, Estimate* e) {
        const WinogradForm& form = FORM(*p);
        (winograd_has_phases(form, *p) ? winograd_phases_estimate : winograd_estimate)(form, *p, *m, e);
      },
      [](const ConvProblem* p, const Machine* m, int slots, bool packed) {
        const WinogradForm& form = FORM(*p);
        const auto bytes = winograd_has_phases(form, *p) ? winograd_phases_workspace : winograd_workspace_bytes;
        return bytes(form, *p, *m, slots, packed);
      },
      [](const ConvProblem* p, const Machine* m) {
        const WinogradForm& form = FORM(*p);
        return (winograd_has_phases(form, *p) ? winograd_phases_packed_bytes : winograd_packed_bytes)(form, *p, *m);
      },
      [](const ConvProblem* p, const RunContext* r, void* packed) {
        const WinogradForm& form = FORM(*p);
        const auto pack = winograd_has_phases(form, *p) ? winograd_phases_pack : winograd_pack;
        return pack(form, *p, *r->machine, r->parallel, r->w, packed);
      },
      [](const ConvProblem* p, const RunContext* r) {
        const WinogradForm& form = FORM(*p);
        return (winograd_has_phases(form, *p) ? winograd_phases_run : winograd_run)(form, *p, *r);
      },
      [](const ConvProblem*) { return TakenHalves::kAll; },
      [](const ConvProblem* p, const Machine* m) {
        const WinogradForm& form = FORM(*p);
        const auto count = winograd_has_phases(form, *p) ? winograd_phases_multiplications : winograd_multiplications;
        return count(form, *p, *m);
      }};
}

}  // namespace

extern const Algorithm kWinogradF2x23x3, kWinogradF4x43x3, kWinogradF3x34x4, kWinogradF5x52x2, kWinogradF2x25x5,
    kWinogradF43, kWinogradStride2;
const Algorithm kWinogradF2x23x3 = algorithm_of<kNameF2x23x3, always<kF2x23x3>>(2.5, 1, SameBits::kAvx);
const Algorithm kWinogradF4x43x3 = algorithm_of<kNameF4x43x3, always<kF4x43x3>>(7.0, 0, SameBits::kAvx);
const Algorithm kWinogradF2x25x5 = algorithm_of<kNameF2x25x5, always<kF2x25x5>>(7.0, 0, SameBits::kOne);
const Algorithm kWinogradF3x34x4 = algorithm_of<kNameF3x34x4, always<kF3x34x4>>(7.0, 0, SameBits::kOne);
const Algorithm kWinogradF5x52x2 = algorithm_of<kNameF5x52x2, always<kF5x52x2>>(7.0, 0, SameBits::kOne);
const Algorithm kWinogradF43 = algorithm_of<kNameF43, along>(4.0, 0, SameBits::kAvx);
const Algorithm kWinogradStride2 = algorithm_of<kNameStride2, always<kStride2>>(4.0, 0, SameBits::kOne);

}  // namespace fastconv
