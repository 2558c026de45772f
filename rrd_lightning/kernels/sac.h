// Soft actor-critic: the gradients of all its parts.

#pragma once

#include "policy.h"

namespace {

// What it learns from, what it finds, and with which constants.
struct SoftActorCritic {
    Network actor, critic, target_critic;
    Bounds bounds;
    float gamma, target_entropy;
    int rows;
    const float *feature, *following, *action, *reward;
    const bool* terminated;
    const float *noise, *next_noise, *log_temperature;
    Gradient of_actor, of_critic;
    float *of_temperature, *metrics;
};

// Called by all threads together: together [rows, left + right]
void concatenate(int rows, int left_width, const float* left, int right_width, const float* right, float* together) {
    share(1, rows, [&](long, long first, int count) {
        float* to = together + first * (left_width + right_width);
        for (long row = first; row < first + count; row++) {
            to = std::copy_n(left + row * left_width, left_width, to);
            to = std::copy_n(right + row * right_width, right_width, to);
        }
    });
}

// The lower of two critics' values; what is not a number wins.
int lower_of(const float* values, long rows, long row) {
    const float other = values[rows + row];
    return other < values[row] || other != other;
}

}  // namespace

extern "C" {

// The gradients of all parts, and metrics: the losses of critic, actor and temperature, the mean value, the
// entropy, the temperature.
void sac_gradient(const SoftActorCritic* given) {
    const SoftActorCritic& sac = *given;
    const int rows = sac.rows, width = sac.critic.sizes[0], features = sac.actor.sizes[0], actions = width - features;
    const float temperature = std::exp(*sac.log_temperature);

    Scratch scratch;
    float* critic_transposed = scratch.take(sac.critic.length());
    float* inputs = scratch.take(static_cast<long>(rows) * width);
    float* of_value = scratch.take(2L * rows);
    float* value = scratch.take(2L * rows);
    float* target = scratch.take(rows);
    float* lower_value = scratch.take(rows);
    float* log_prob = scratch.take(rows);
    const auto judged = record(sac.critic, rows, value, scratch);
    float* actor_transposed = scratch.take(sac.actor.length());
    float* outputs = scratch.take(2L * rows * actions);
    float* action = scratch.take(static_cast<long>(rows) * actions);
    float* spread = scratch.take(static_cast<long>(rows) * actions);
    float* of_action = scratch.take(static_cast<long>(rows) * actions);
    float* of_outputs = scratch.take(2L * rows * actions);
    float* values = scratch.take(2L * rows);
    const auto acted = record(sac.actor, rows, outputs, scratch);
    const auto planned = only(sac.actor, outputs), promised = only(sac.target_critic, values);
    auto imagined = judged;  // in the same memory, when that of the critics' update is free
    imagined.back() = values;

#pragma omp parallel if (rows > BLOCK)
    {
        transpose(sac.critic, critic_transposed);
        transpose(sac.actor, actor_transposed);

        // Equation 6: the soft value of the reward and what follows.
        forward(sac.actor, rows, sac.following, planned.data());
        draw(rows, actions, sac.bounds, outputs, sac.next_noise, action, spread, log_prob);
        concatenate(rows, features, sac.following, actions, action, inputs);
#pragma omp barrier
        forward(sac.target_critic, rows, inputs, promised.data());
#pragma omp barrier
        share(1, rows, [&](long, long first, int count) {
            for (long row = first; row < first + count; row++) {
                const float promise = values[lower_of(values, rows, row) * rows + row];
                const float soft = sac.terminated[row] ? 0.0f : promise - temperature * log_prob[row];
                target[row] = sac.reward[row] + sac.gamma * soft;
            }
        });

        // Equation 5: the squared error to it, summed over both critics.
        concatenate(rows, features, sac.feature, actions, sac.action, inputs);
#pragma omp barrier
        forward(sac.critic, rows, inputs, judged.data());
#pragma omp barrier
        share(1, rows, [&](long, long first, int count) {
            for (long row = first; row < first + count; row++)
                for (int member = 0; member < 2; member++)
                    of_value[member * rows + row] = (value[member * rows + row] - target[row]) * (2.0f / rows);
        });
#pragma omp barrier
        backward(sac.critic, rows, inputs, judged.data(), of_value, critic_transposed, sac.of_critic);

        // Equation 7: the reparametrised policy against the lower critic, whose weights stay.
        forward(sac.actor, rows, sac.feature, acted.data());
        draw(rows, actions, sac.bounds, outputs, sac.noise, action, spread, log_prob);
#pragma omp barrier
        concatenate(rows, features, sac.feature, actions, action, inputs);
#pragma omp barrier
        forward(sac.critic, rows, inputs, imagined.data());
#pragma omp barrier
        share(1, rows, [&](long, long first, int count) {
            for (long row = first; row < first + count; row++) {
                const int lower = lower_of(values, rows, row);
                lower_value[row] = values[lower * rows + row];
                for (int member = 0; member < 2; member++)
                    of_value[member * rows + row] = member == lower ? -1.0f / rows : 0.0f;
            }
        });
        input_gradient(sac.critic, rows, imagined.data(), of_value, features, actions, critic_transposed, of_action);
        draw_gradient(rows, actions, sac.bounds, outputs, action, spread, of_action, temperature / rows,
                      of_outputs);
#pragma omp barrier
        backward(sac.actor, rows, sac.feature, acted.data(), of_outputs, actor_transposed, sac.of_actor);
    }

    double squares = 0, sum = 0, lower = 0, log_probs = 0;
    for (int row = 0; row < rows; row++) {
        for (int member = 0; member < 2; member++) {
            const double error = value[member * rows + row] - target[row];
            squares += error * error;
            sum += value[member * rows + row];
        }
        lower += lower_value[row];
        log_probs += log_prob[row];
    }
    const double excess = log_probs / rows + sac.target_entropy;
    *sac.of_temperature = -excess;
    sac.metrics[0] = squares / rows;
    sac.metrics[1] = (temperature * log_probs - lower) / rows;
    sac.metrics[2] = -*sac.log_temperature * excess;
    sac.metrics[3] = sum / (2.0 * rows);
    sac.metrics[4] = -log_probs / rows;
    sac.metrics[5] = temperature;
}

}  // extern "C"
