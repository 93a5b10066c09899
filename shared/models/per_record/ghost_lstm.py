"""Per-record gradients of `SequenceLSTM` with exact norms, from one more pass over the steps.

With δ_t the gradients of the gates before their nonlinearity, the gradient of the input weights is
Σ_t δ_t x_tᵀ, of the recurrent weights Σ_t δ_t h_{t−1}ᵀ, of either bias Σ_t δ_t: sums of outer
products, so the ghost norm of `calyx.shared.models.per_record.layer_gradients` applies. The forward
pass of training keeps PyTorch's fast kernel, which does not show its gates; hence the pass of our
own.
"""

from __future__ import annotations

import torch
from torch import nn

from calyx.shared.models.per_record.layer_gradients import OuterProducts
from calyx.shared.models.per_record.outer_products import outer_products
from calyx.shared.models.recurrent import SequenceLSTM


def lstm_gradients(
    layer: SequenceLSTM, inputs: torch.Tensor, grad_output: torch.Tensor
) -> list[OuterProducts]:
    """Gradients of a stacked LSTM, one `OuterProducts` for each of its layers.

    With δ_t the gradients of the gates before their nonlinearity, the gradient of the input
    weights is Σ_t δ_t x_tᵀ, of the recurrent weights Σ_t δ_t h_{t−1}ᵀ, of either bias Σ_t δ_t.
    The cell loop runs once more without autograd and backpropagation through time once, for
    all records together; nothing of the size of n gradients is ever formed for long sequences.

    Args:
        layer: the layer.
        inputs: (n, steps, input_size).
        grad_output: gradient of the summed loss by all top states, (n, steps, hidden_size).
    """
    with torch.no_grad():
        passes, x = [], inputs.transpose(0, 1)
        for index in range(layer.num_layers):
            forward = _CellPass(layer, index, x)
            passes.append(forward)
            x = forward.states[1:]
        gradients, grad_states = [], grad_output.transpose(0, 1)
        for forward in reversed(passes):
            deltas = forward.backward(grad_states)
            if forward is not passes[0]:
                grad_states = deltas @ forward.input_weight
            gradients.append(
                outer_products(
                    [
                        (forward.input_weight, forward.x.transpose(0, 1)),
                        (forward.recurrent_weight, forward.states[:-1].transpose(0, 1)),
                    ],
                    deltas.transpose(0, 1),
                    [*forward.biases],
                )
            )
        return gradients


class _CellPass:
    """One layer's cell loop with all that its backward loop needs. Tensors are (steps, n, ·).

    PyTorch's gate order is input, forget, cell, output:
    c_t = f_t ∘ c_{t−1} + i_t ∘ g_t and h_t = o_t ∘ tanh(c_t).
    """

    def __init__(self, layer: SequenceLSTM, index: int, x: torch.Tensor) -> None:
        self.input_weight: nn.Parameter = getattr(layer, f"weight_ih_l{index}")
        self.recurrent_weight: nn.Parameter = getattr(layer, f"weight_hh_l{index}")
        self.biases: list[nn.Parameter] = [
            getattr(layer, f"bias_{kind}_l{index}") for kind in ("ih", "hh")
        ]
        steps, n, hidden = x.shape[0], x.shape[1], layer.hidden_size
        self.x = x
        self.gates = x @ self.input_weight.T
        self.gates += self.biases[0] + self.biases[1]
        self.states = x.new_zeros(steps + 1, n, hidden)
        self.cells = x.new_zeros(steps + 1, n, hidden)
        self.squashed_cells = x.new_empty(steps, n, hidden)
        recurrent = self.recurrent_weight.T.contiguous()
        for t in range(steps):
            gates = self.gates[t].addmm_(self.states[t], recurrent)
            i, f, g, o = gates.chunk(4, dim=1)
            gates[:, : 2 * hidden].sigmoid_()
            g.tanh_()
            o.sigmoid_()
            torch.mul(f, self.cells[t], out=self.cells[t + 1]).addcmul_(i, g)
            torch.tanh(self.cells[t + 1], out=self.squashed_cells[t])
            torch.mul(o, self.squashed_cells[t], out=self.states[t + 1])

    def backward(self, grad_states: torch.Tensor) -> torch.Tensor:
        """δ, (steps, n, 4 hidden), from the gradients by all h_t, (steps, n, hidden)."""
        steps, n, hidden = grad_states.shape
        i, f, g, o = self.gates.chunk(4, dim=2)
        tanh_c = self.squashed_cells
        # All that does not depend on the recursion, for all steps at once: δ of the output
        # gate by h_t, the other three by c_t, and c_t by h_t.
        by_cell = torch.cat(
            [g * i * (1 - i), self.cells[:-1] * f * (1 - f), i * (1 - g * g)], dim=2
        ).view(steps, n, 3, hidden)
        output_by_state = tanh_c * o * (1 - o)
        cell_by_state = o * (1 - tanh_c * tanh_c)
        deltas = torch.empty_like(self.gates)
        grad_state = grad_states[-1]
        grad_cell = torch.zeros_like(grad_state)
        for t in reversed(range(steps)):
            delta = deltas[t]
            grad_cell = torch.addcmul(grad_cell, grad_state, cell_by_state[t])
            torch.mul(
                grad_cell.unsqueeze(1), by_cell[t], out=delta[:, : 3 * hidden].view(n, 3, hidden)
            )
            torch.mul(grad_state, output_by_state[t], out=delta[:, 3 * hidden :])
            if t:
                grad_state = torch.addmm(grad_states[t - 1], delta, self.recurrent_weight)
                grad_cell = grad_cell * f[t]
        return deltas
