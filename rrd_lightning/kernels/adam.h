// Adam's step for several tensors at once.

#pragma once

#include <cmath>

#include "products.h"

namespace {

struct Tensor {
    float *parameter, *first_moment, *second_moment, *step;
    const float* gradient;
    long length;
    double rate, beta1, beta2, epsilon, decay;
};

}  // namespace

extern "C" {

// The next step of each tensor. Kingma and Ba, "Adam", ICLR 2015, algorithm 1; what decays is added to the gradient.
void adam_step(int count, const Tensor* tensors) {
    long total = 0;
    for (int i = 0; i < count; i++) {
        total += tensors[i].length;
        *tensors[i].step += 1;
    }
#pragma omp parallel if (total > 16384)
    for (int i = 0; i < count; i++) {
        const Tensor& tensor = tensors[i];
        const float beta1 = tensor.beta1, rest1 = 1 - tensor.beta1, beta2 = tensor.beta2, rest2 = 1 - tensor.beta2;
        const float decay = tensor.decay, epsilon = tensor.epsilon;
        const float rate = tensor.rate / (1 - std::pow(tensor.beta1, *tensor.step));
        const float correction = std::sqrt(1 - std::pow(tensor.beta2, *tensor.step));
        float* const __restrict parameter = tensor.parameter;
        float* const __restrict first = tensor.first_moment;
        float* const __restrict second = tensor.second_moment;
        const float* const __restrict gradient = tensor.gradient;
#pragma omp for simd schedule(static) nowait
        for (long at = 0; at < tensor.length; at++) {
            const float slope = gradient[at] + decay * parameter[at];
            first[at] = beta1 * first[at] + rest1 * slope;
            second[at] = beta2 * second[at] + rest2 * slope * slope;
            parameter[at] -= rate * first[at] / (std::sqrt(second[at]) / correction + epsilon);
        }
    }
}

}  // extern "C"
