// Randomized return decomposition: rewards, and the gradient of its loss.

#pragma once

#include <cmath>

#include "perceptrons.h"

namespace {

// What the reward model sees of each step: [observation, action, observation - following]
struct Steps {
    int rows, observations, actions;
    const float *observation, *following, *action;

    int width() const { return 2 * observations + actions; }
};

// Some rows of what it sees, one after another.
void concatenate(const Steps& steps, long first, int count, float* inputs) {
    for (long row = first; row < first + count; row++) {
        const float* now = steps.observation + row * steps.observations;
        const float* later = steps.following + row * steps.observations;
        inputs = std::copy_n(now, steps.observations, inputs);
        inputs = std::copy_n(steps.action + row * steps.actions, steps.actions, inputs);
        for (int i = 0; i < steps.observations; i++) *inputs++ = now[i] - later[i];
    }
}

// The loss of `count` subsequences of `size` steps each.
struct Loss {
    int count, size;
    bool bias_correction, episode_scale;
    const float* episode_return;
    const long long* episode_length;
    const bool* with_replacement;

    // The gradient of a subsequence's predictions, 2 / (N K) (mean - R / T) and the correction's, and its share of
    // the loss.
    double differentiate(long row, const float* predicted, float* gradient) const {
        const double length = episode_length[row], share = 2.0 / (static_cast<double>(count) * size);
        double sum = 0, squares = 0;
        for (int k = 0; k < size; k++) sum += predicted[k];
        const double mean = sum / size, error = mean - episode_return[row] / length;
        double correction = 0;
        if (bias_correction && length > 1) {
            const bool independent = length < size || with_replacement[row];
            correction = (independent ? 1.0 : 1.0 - size / length) / (size - 1);
        }
        const double scale = episode_scale ? length * length : 1.0;
        for (int k = 0; k < size; k++) {
            const double distance = predicted[k] - mean;
            squares += distance * distance;
            gradient[k] = scale * share * (error - correction * distance);
        }
        return scale * (error * error - correction * squares / size) / count;
    }
};

}  // namespace

extern "C" {

// reward [rows] of each step.
void rrd_reward(const Network* network, const Steps* steps, float* reward) {
    Scratch scratch;
    float* inputs = scratch.take(static_cast<long>(steps->rows) * steps->width());
    const auto kept = only(*network, reward);
#pragma omp parallel if (steps->rows > BLOCK)
    {
        share(1, steps->rows, [&](long, long first, int count) {
            concatenate(*steps, first, count, inputs + first * steps->width());
        });
        forward(*network, steps->rows, inputs, kept.data());  // of the same rows
    }
}

// The gradient of the network's parameters, and metrics: the loss, the predictions' mean, their standard deviation.
void rrd_gradient(const Network* network, const Steps* steps, const Loss* loss, const Gradient* found,
                  float* metrics) {
    const int rows = steps->rows;
    Scratch scratch;
    float* transposed = scratch.take(network->length());
    float* inputs = scratch.take(static_cast<long>(rows) * steps->width());
    float* predicted = scratch.take(rows);
    float* of_predicted = scratch.take(rows);
    std::vector<double> losses(loss->count);
    const auto kept = record(*network, rows, predicted, scratch);
#pragma omp parallel if (rows > BLOCK)
    {
        transpose(*network, transposed);
        share(1, rows, [&](long, long first, int count) {
            concatenate(*steps, first, count, inputs + first * steps->width());
        });
        forward(*network, rows, inputs, kept.data());
#pragma omp barrier
#pragma omp for
        for (long row = 0; row < loss->count; row++)
            losses[row] =
                loss->differentiate(row, predicted + row * loss->size, of_predicted + row * loss->size);
        backward(*network, rows, inputs, kept.data(), of_predicted, transposed, *found);
    }
    double total = 0, sum = 0, squares = 0;
    for (const double each : losses) total += each;
    for (int row = 0; row < rows; row++) sum += predicted[row];
    for (int row = 0; row < rows; row++) squares += (predicted[row] - sum / rows) * (predicted[row] - sum / rows);
    metrics[0] = total;
    metrics[1] = sum / rows;
    metrics[2] = std::sqrt(squares / (rows - 1));
}

}  // extern "C"
