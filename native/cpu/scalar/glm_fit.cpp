#include "cpu/kernel_tables.hpp"

namespace waggle::cpu {

namespace {

double lane_sum(const double* lane) {
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

void linear_kernel(const double* z, int32_t p, const double* beta, double* eta) {
  for (int32_t j = 0; j < p; ++j) {
    for (int32_t r = 0; r < kGlmBlock; ++r) eta[r] = eta[r] + beta[j] * z[j * kGlmBlock + r];
  }
}

void gradient_kernel(const double* z, int32_t p, const double* residual, double* gradient) {
  for (int32_t j = 0; j < p; ++j) {
    double lanes[kGlmLanes] = {};
    for (int32_t r = 0; r < kGlmBlock; ++r) {
      lanes[r % kGlmLanes] += residual[r] * z[j * kGlmBlock + r];
    }
    gradient[j] += lane_sum(lanes);
  }
}

void hessian_kernel(const double* z, int32_t p, const double* weight, double* hessian) {
  for (int32_t i = 0; i < p; ++i) {
    double weighted[kGlmBlock];
    for (int32_t r = 0; r < kGlmBlock; ++r) weighted[r] = weight[r] * z[i * kGlmBlock + r];
    for (int32_t j = 0; j <= i; ++j) {
      double lanes[kGlmLanes] = {};
      for (int32_t r = 0; r < kGlmBlock; ++r) {
        lanes[r % kGlmLanes] += weighted[r] * z[j * kGlmBlock + r];
      }
      hessian[static_cast<int64_t>(i) * p + j] += lane_sum(lanes);
    }
  }
}

}  // namespace

const GlmKernels kGlmScalar = {linear_kernel, gradient_kernel, hessian_kernel};

}  // namespace waggle::cpu
