// Adam's step for several tensors at once.

#pragma once

#include <cmath>

#include "products.h"

namespace {

struct Part {
    float *parameter, *first_moment, *second_moment, *step;
    const float* gradient;
    long length;
    double rate, beta1, beta2, epsilon, decay;
};

}  // namespace

extern "C" {

// The next step of each part. Kingma and Ba, "Adam", ICLR 2015, algorithm 1; what decays is added to the gradient.
void adam_step(int count, const Part* parts) {
    long total = 0;
    for (int i = 0; i < count; i++) {
        total += parts[i].length;
        *parts[i].step += 1;
    }
#pragma omp parallel if (total > 16384)
    for (int i = 0; i < count; i++) {
        const Part& part = parts[i];
        const float beta1 = part.beta1, rest1 = 1 - part.beta1, beta2 = part.beta2, rest2 = 1 - part.beta2;
        const float decay = part.decay, epsilon = part.epsilon;
        const float rate = part.rate / (1 - std::pow(part.beta1, *part.step));
        const float correction = std::sqrt(1 - std::pow(part.beta2, *part.step));
        float* const __restrict parameter = part.parameter;
        float* const __restrict first = part.first_moment;
        float* const __restrict second = part.second_moment;
        const float* const __restrict gradient = part.gradient;
#pragma omp for simd schedule(static) nowait
        for (long at = 0; at < part.length; at++) {
            const float slope = gradient[at] + decay * parameter[at];
            first[at] = beta1 * first[at] + rest1 * slope;
            second[at] = beta2 * second[at] + rest2 * slope * slope;
            parameter[at] -= rate * first[at] / (std::sqrt(second[at]) / correction + epsilon);
        }
    }
}

}  // extern "C"
