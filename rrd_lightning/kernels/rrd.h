// Randomized return decomposition: rewards, and the gradient of its loss.

#pragma once

#include "perceptrons.h"

namespace {

// What the reward model sees of each step: [observation, action, observation - following, features]
struct Steps {
    int rows, observations, actions, features;
    const float *observation, *following, *action, *feature;

    int width() const { return 2 * observations + actions + features; }
};

// Some rows of what it sees, one after another.
void put_together(const Steps& steps, long first, int count, float* inputs) {
    for (long row = first; row < first + count; row++) {
        const float* now = steps.observation + row * steps.observations;
        const float* later = steps.following + row * steps.observations;
        inputs = std::copy_n(now, steps.observations, inputs);
        inputs = std::copy_n(steps.action + row * steps.actions, steps.actions, inputs);
        for (int i = 0; i < steps.observations; i++) *inputs++ = now[i] - later[i];
        inputs = std::copy_n(steps.feature + row * steps.features, steps.features, inputs);
    }
}

// A loss of `count` subsequences of `size` steps each.
struct Loss {
    int count, size;
    bool bias_correction, episode_scale;
    const float* episode_return;
    const long long* episode_length;
    const bool* with_replacement;

    // The gradient of a subsequence's predictions: 2 / (N K) (mean - R / T), and the correction's.
    void differentiate(long row, const float* predicted, float* gradient) const {
        const double length = episode_length[row], share = 2.0 / (static_cast<double>(count) * size);
        double sum = 0;
        for (int k = 0; k < size; k++) sum += predicted[k];
        const double mean = sum / size, error = share * (mean - episode_return[row] / length);
        double correction = 0;
        if (bias_correction && length > 1) {
            const bool independent = length < size || with_replacement[row];
            correction = share / (size - 1) * (independent ? 1.0 : 1.0 - size / length);
        }
        const double scale = episode_scale ? length * length : 1.0;
        for (int k = 0; k < size; k++) gradient[k] = scale * (error - correction * (predicted[k] - mean));
    }
};

}  // namespace

extern "C" {

// reward [rows] of each step.
void rrd_reward(const Network* network, const Steps* steps, float* reward) {
    Scratch scratch;
    float* inputs = scratch.take(static_cast<long>(steps->rows) * steps->width());
    const auto places = only(*network, reward);
#pragma omp parallel if (steps->rows > BLOCK)
    {
        share(1, steps->rows, [&](long, long first, int count) {
            put_together(*steps, first, count, inputs + first * steps->width());
        });
        forward(*network, steps->rows, inputs, places.data());  // of the same rows
    }
}

// predicted [count, size], and the gradients of the network's vector and, unless null, of the features.
void rrd_learn(const Network* network, const Steps* steps, const Loss* loss, float* predicted, float* of_network,
               float* of_features) {
    const int rows = steps->rows;
    Scratch scratch;
    float* transposed = scratch.take(network->length());
    float* inputs = scratch.take(static_cast<long>(rows) * steps->width());
    float* of_predicted = scratch.take(rows);
    const auto places = record(*network, rows, predicted, scratch);
#pragma omp parallel if (rows > BLOCK)
    {
        transpose(*network, transposed);
        share(1, rows, [&](long, long first, int count) {
            put_together(*steps, first, count, inputs + first * steps->width());
        });
        forward(*network, rows, inputs, places.data());
#pragma omp barrier
#pragma omp for
        for (long row = 0; row < loss->count; row++)
            loss->differentiate(row, predicted + row * loss->size, of_predicted + row * loss->size);
        if (of_features) {
            const int first = steps->width() - steps->features;
            trace(*network, rows, places.data(), of_predicted, first, steps->features, transposed, of_features);
#pragma omp barrier
        }
        backward(*network, rows, inputs, places.data(), of_predicted, transposed, of_network);
    }
}

}  // extern "C"
