// Perceptrons forward and backward.

#pragma once

#include <vector>

#include "products.h"

namespace {

// One or several perceptrons of one shape.
struct Network {
    int members, layers;
    const int* sizes;
    const float* vector;

    // Where a layer's weights of all members begin in the vector; their biases follow.
    long beginning(int layer) const {
        long place = 0;
        for (int l = 0; l < layer; l++) place += members * (sizes[l] + 1L) * sizes[l + 1];
        return place;
    }
    long weights(int layer, long member) const {
        return beginning(layer) + member * sizes[layer] * sizes[layer + 1];
    }
    long biases(int layer, long member) const {
        return beginning(layer) + (static_cast<long>(members) * sizes[layer] + member) * sizes[layer + 1];
    }
    int widest() const { return *std::max_element(sizes, sizes + layers + 1); }
    long length() const { return beginning(layers); }
};

// What follows is called by all threads together, and none of it waits for the others at its end.

// outputs[l] [members, rows, sizes[l + 1]] of each layer, from inputs [rows, sizes[0]]. Where it is null they
// are not kept.
void forward(const Network& network, int rows, const float* inputs, float* const* outputs) {
    const int* sizes = network.sizes;
    share(network.members, rows, [&](long member, long first, int count) {
        const float* seen = inputs + first * sizes[0];
        for (int l = 0; l < network.layers; l++) {
            const long in = sizes[l], out = sizes[l + 1], row = member * rows + first;
            float* made = outputs[l] ? outputs[l] + row * out : local(l % 2, BLOCK * network.widest());
            product(count, out, in, {seen, in, 1}, {network.vector + network.weights(l, member), out},
                    {made, out, network.vector + network.biases(l, member), nullptr, l + 1 < network.layers});
            seen = made;
        }
    });
}

// transposed, as long as the vector: where the weights [rows, columns] of a layer are, [columns, rows].
void transpose(const Network& network, float* transposed) {
    for (int l = 0; l < network.layers; l++) {
        const long rows = network.sizes[l], columns = network.sizes[l + 1];
        share(network.members, rows, [&](long member, int first, int count) {
            const float* from = network.vector + network.weights(l, member);
            float* to = transposed + network.weights(l, member);
            for (long j = 0; j < columns; j++)
                for (long i = first; i < first + count; i++) to[j * rows + i] = from[i * columns + j];
        });
    }
}

// found, the gradient of the vector, from that of the outputs. What the hidden layers gave is overwritten by
// its gradient. What was transposed may be on its way.
void backward(const Network& network, int rows, const float* inputs, float* const* outputs, const float* gradient,
              const float* transposed, float* found) {
    static const float one = 1.0f;
    const int* sizes = network.sizes;
    for (int l = network.layers - 1; l >= 0; l--) {
        const long in = sizes[l], out = sizes[l + 1];
        const float* above = l + 1 < network.layers ? outputs[l] : gradient;
        share(network.members, std::max(in, out), [&](long member, long first, int count) {
            const float* seen = l ? outputs[l - 1] + member * rows * in : inputs;
            const float* upper = above + member * rows * out;
            float* weights = found + network.weights(l, member);
            if (out == 1)  // then a column is stored as a row is
                product(1, count, rows, {upper, 0, 1}, {seen + first, in}, {weights + first, in});
            else if (in > out)
                product(count, out, rows, {seen + first, 1, in}, {upper, out}, {weights + first * out, out});
            else
                product(in, count, rows, {seen, 1, in}, {upper + first, out}, {weights + first, out});
        });
        share(network.members, out, [&](long member, long first, int count) {
            product(1, count, rows, {&one, 0, 0}, {above + member * rows * out + first, out},
                    {found + network.biases(l, member) + first, out});
        });
        if (l == 0) break;
#pragma omp barrier
        share(network.members, rows, [&](long member, long first, int count) {
            const long row = member * rows + first;
            product(count, in, out, {above + row * out, out, 1}, {transposed + network.weights(l, member), in},
                    {outputs[l - 1] + row * in, in, nullptr, outputs[l - 1] + row * in});
        });
#pragma omp barrier
    }
}

// found [rows, columns] of the inputs from `first_column` on, summed over members, from the gradient
// [members, rows, sizes[layers]] of the outputs. Rows in which it is zero are left out.
void trace(const Network& network, int rows, float* const* outputs, const float* gradient, int first_column,
           int columns, const float* transposed, float* found) {
    const int* sizes = network.sizes;
    const int last = network.layers - 1;
    share(1, rows, [&](long, long first, int count) {
        std::fill_n(found + first * columns, count * static_cast<long>(columns), 0.0f);
        for (long member = 0; member < network.members; member++) {
            const long begin = member * rows + first, out = sizes[last + 1];
            int kept[BLOCK], many = 0;
            for (int i = 0; i < count; i++) {
                const float* values = gradient + (begin + i) * out;
                if (std::any_of(values, values + out, [](float one) { return one != 0; })) kept[many++] = i;
            }
            // The rows that are left, one after another: of what is given, and of what a layer gave.
            const auto together = [&](const float* from, long width, int where) {
                float* to = local(where, BLOCK * network.widest());
                for (int i = 0; i < many; i++)
                    std::copy_n(from + (begin + kept[i]) * width, width, to + i * width);
                return to;
            };
            const float* upper = together(gradient, out, last % 2);
            for (int l = last; l > 0; l--) {
                float* lower = together(outputs[l - 1], sizes[l], (l - 1) % 2);
                product(many, sizes[l], sizes[l + 1], {upper, sizes[l + 1], 1},
                        {transposed + network.weights(l, member), sizes[l]},
                        {lower, sizes[l], nullptr, lower});
                upper = lower;
            }
            float* left = local(2, BLOCK * network.widest());
            product(many, columns, sizes[1], {upper, sizes[1], 1},
                    {transposed + network.weights(0, member) + first_column, sizes[0]}, {left, columns});
            for (int i = 0; i < many; i++)
                for (int j = 0; j < columns; j++) found[(first + kept[i]) * columns + j] += left[i * columns + j];
        }
    });
}

// Where `forward` keeps what each layer gives: the last at `outputs`, the others in memory of their own.
std::vector<float*> record(const Network& network, int rows, float* outputs, Scratch& scratch) {
    std::vector<float*> places;
    for (int l = 1; l < network.layers; l++)
        places.push_back(scratch.take(static_cast<long>(network.members) * rows * network.sizes[l]));
    places.push_back(outputs);
    return places;
}

// The same, for what is not kept.
std::vector<float*> only(const Network& network, float* outputs) {
    std::vector<float*> places(network.layers, nullptr);
    places.back() = outputs;
    return places;
}

}  // namespace

extern "C" {

void perceptron_forward(const Network* network, int rows, const float* inputs, float* const* outputs) {
#pragma omp parallel if (rows > BLOCK)
    forward(*network, rows, inputs, outputs);
}

void perceptron_backward(const Network* network, int rows, const float* inputs, float* const* outputs,
                         const float* gradient, float* found) {
    Scratch scratch;
    float* transposed = scratch.take(network->length());
#pragma omp parallel if (rows > BLOCK)
    {
        transpose(*network, transposed);
        backward(*network, rows, inputs, outputs, gradient, transposed, found);
    }
}

void perceptron_trace(const Network* network, int rows, float* const* outputs, const float* gradient,
                      int first_column, int columns, float* found) {
    Scratch scratch;
    float* transposed = scratch.take(network->length());
#pragma omp parallel if (rows > BLOCK)
    {
        transpose(*network, transposed);
#pragma omp barrier
        trace(*network, rows, outputs, gradient, first_column, columns, transposed, found);
    }
}

}  // extern "C"
