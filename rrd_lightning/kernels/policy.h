// The squashed Gaussian policy: actions tanh(u) of u = mean + exp(log_std) noise.

#pragma once

#include <cmath>

#include "perceptrons.h"

namespace {

// Bounds of log_std.
struct Bounds {
    float low, high;

    float hold(float raw) const { return raw < low ? low : raw > high ? high : raw; }
    bool passed(float raw) const { return raw < low || raw > high; }
};

// Called by all threads together. Of each draw: tanh u, exp(log_std) noise, and the log-density, summed over
// actions. The means and then the log_stds stand in a row of outputs.
void draw(int rows, int actions, Bounds bounds, const float* outputs, const float* noise, float* action,
          float* spread, float* log_prob) {
    const float constant = actions * (2 * std::log(2.0) + 0.5 * std::log(2 * std::acos(-1.0)));
    share(1, rows, [&](long, long first, int count) {
        for (long row = first; row < first + count; row++) {
            const float* mean = outputs + 2 * row * actions;
            float sum = 0;
            for (long i = 0, at = row * actions; i < actions; i++, at++) {
                const float log_std = bounds.hold(mean[actions + i]);
                spread[at] = std::exp(log_std) * noise[at];
                const float u = mean[i] + spread[at], fall = std::expm1(-2 * std::abs(u));  // exp(-2 |u|) - 1
                action[at] = std::copysign(-fall / (2 + fall), u);
                const float softplus = std::max(-2 * u, 0.0f) + std::log1p(1 + fall);  // log(1 + exp(-2 u))
                sum += 2 * (u + softplus) - log_std - 0.5f * noise[at] * noise[at];
            }
            log_prob[row] = sum - constant;
        }
    });
}

// Called by all threads together. found [rows, 2 * actions], the gradient of the outputs, from those of the
// actions, and of each log-density, which is the same for all.
void draw_gradient(int rows, int actions, Bounds bounds, const float* outputs, const float* action,
                   const float* spread, const float* of_action, float of_log_prob, float* found) {
    share(1, rows, [&](long, long first, int count) {
        for (long row = first; row < first + count; row++)
            for (long i = 0, at = row * actions; i < actions; i++, at++) {
                const long column = 2 * row * actions + i;
                const float of_mean = of_action[at] + action[at] * (2 * of_log_prob - action[at] * of_action[at]);
                found[column] = of_mean;
                found[column + actions] =
                    bounds.passed(outputs[column + actions]) ? 0.0f : of_mean * spread[at] - of_log_prob;
            }
    });
}

}  // namespace

extern "C" {

// action [rows, actions] of the policy: drawn, or, without noise, its mode.
void policy_act(const Network* actor, Bounds bounds, int rows, const float* observation, const float* noise,
                float* action) {
    const int actions = actor->sizes[actor->layers] / 2;
    Scratch scratch;
    float* outputs = scratch.take(2L * rows * actions);
    const auto kept = only(*actor, outputs);
#pragma omp parallel if (rows > BLOCK)
    {
        forward(*actor, rows, observation, kept.data());
        share(1, rows, [&](long, long first, int count) {
            for (long row = first; row < first + count; row++)
                for (long i = 0; i < actions; i++) {
                    const float* mean = outputs + 2 * row * actions + i;
                    const long at = row * actions + i;
                    const float spread = noise ? std::exp(bounds.hold(mean[actions])) * noise[at] : 0.0f;
                    action[at] = std::tanh(*mean + spread);
                }
        });
    }
}

}  // extern "C"
