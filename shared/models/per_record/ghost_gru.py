"""Per-record gradients of `SequenceGRU` with exact norms, from one more pass over the steps.

PyTorch's gates, in its order (Cho et al. 2014, with the reset gate after the product):

    r = σ(W_ir x + b_ir + W_hr h + b_hr)        z likewise
    m = W_hn h + b_hn                           n = tanh(W_in x + b_in + r ∘ m)
    h' = (1 - z) ∘ n + z ∘ h

With δ the gradients of r, z and n before their nonlinearity, the gradient of the input weights is
Σ_t (δr, δz, δn)_t x_tᵀ, of the recurrent weights Σ_t (δr, δz, δn ∘ r)_t h_{t-1}ᵀ: two sums of
outer products a layer, for which the ghost norm of
`calyx.shared.models.per_record.layer_gradients` holds.
"""

from __future__ import annotations

import torch
from torch import nn

from calyx.shared.models.per_record.layer_gradients import OuterProducts
from calyx.shared.models.per_record.outer_products import outer_products
from calyx.shared.models.recurrent import SequenceGRU


def gru_gradients(
    layer: SequenceGRU, inputs: torch.Tensor, grad_output: torch.Tensor
) -> list[OuterProducts]:
    """Gradients of a stacked GRU, two `OuterProducts` for each of its layers.

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
        gradients: list[OuterProducts] = []
        grad_states = grad_output.transpose(0, 1)
        for forward in reversed(passes):
            of_input, of_state = forward.backward(grad_states)
            if forward is not passes[0]:
                grad_states = of_input @ forward.input_weight
            a, h = forward.x.transpose(0, 1), forward.states[:-1].transpose(0, 1)
            input_bias, state_bias = forward.biases
            gradients += [
                outer_products([(weight, entries)], deltas.transpose(0, 1), [bias])
                for weight, entries, deltas, bias in (
                    (forward.input_weight, a, of_input, input_bias),
                    (forward.recurrent_weight, h, of_state, state_bias),
                )
            ]
        return [part for part in gradients if part.parameters]


class _CellPass:
    """One layer's cell loop with all that its backward loop needs. Tensors are (steps, n, ·)."""

    def __init__(self, layer: SequenceGRU, index: int, x: torch.Tensor) -> None:
        self.input_weight: nn.Parameter = getattr(layer, f"weight_ih_l{index}")
        self.recurrent_weight: nn.Parameter = getattr(layer, f"weight_hh_l{index}")
        self.biases: tuple[nn.Parameter, nn.Parameter] = (
            getattr(layer, f"bias_ih_l{index}"),
            getattr(layer, f"bias_hh_l{index}"),
        )
        steps, n, hidden = x.shape[0], x.shape[1], layer.hidden_size
        self.x = x
        # What the input adds, then r, z and n themselves.
        self.gates = x @ self.input_weight.T + self.biases[0]
        self.states = x.new_zeros(steps + 1, n, hidden)
        self.products = x.new_empty(steps, n, hidden)  # m
        recurrent = self.recurrent_weight.T.contiguous()
        for t in range(steps):
            from_state = torch.addmm(self.biases[1], self.states[t], recurrent)
            gates = self.gates[t]
            r_z, candidate = gates[:, : 2 * hidden], gates[:, 2 * hidden :]
            r_z.add_(from_state[:, : 2 * hidden]).sigmoid_()
            self.products[t] = from_state[:, 2 * hidden :]
            candidate.addcmul_(gates[:, :hidden], self.products[t]).tanh_()
            # (1 - z) n + z h
            torch.lerp(
                candidate, self.states[t], gates[:, hidden : 2 * hidden], out=self.states[t + 1]
            )

    def backward(self, grad_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """δ for the input's and for the state's weights, (steps, n, 3 hidden) each.

        Args:
            grad_states: gradients by all h_t, (steps, n, hidden).
        """
        steps, _, hidden = grad_states.shape
        r, z, candidate = self.gates.chunk(3, dim=2)
        # All that does not depend on the recursion, for all steps at once.
        candidate_by_state = (1 - z) * (1 - candidate * candidate)
        z_by_state = (self.states[:-1] - candidate) * z * (1 - z)
        r_by_candidate = self.products * r * (1 - r)
        of_input = torch.empty_like(self.gates)
        of_state = torch.empty_like(self.gates)
        grad_state = grad_states[-1]
        for t in reversed(range(steps)):
            delta, by_state = of_input[t], of_state[t]
            torch.mul(grad_state, candidate_by_state[t], out=delta[:, 2 * hidden :])
            torch.mul(grad_state, z_by_state[t], out=delta[:, hidden : 2 * hidden])
            torch.mul(delta[:, 2 * hidden :], r_by_candidate[t], out=delta[:, :hidden])
            by_state[:, : 2 * hidden] = delta[:, : 2 * hidden]
            torch.mul(delta[:, 2 * hidden :], r[t], out=by_state[:, 2 * hidden :])
            if t:
                kept = torch.addcmul(grad_states[t - 1], grad_state, z[t])
                grad_state = torch.addmm(kept, by_state, self.recurrent_weight)
        return of_input, of_state
