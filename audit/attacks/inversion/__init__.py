"""Gradient inversion: from what an observer received back to the records behind it.

::

    closed_form   first fully connected layer with a bias: x = (dL/dW_j) / (dL/db_j)
    labels        classes in a batch, from the gradient of the output bias
    fedsgd        one step: search records whose gradient is the one observed
    fedavg        several local steps: search through the unrolled training
    search        the optimisers of both
    quality       PSNR, pairing of pictures with records, and the mean image as baseline
    networks      networks of the reference scenarios beside the product's own
    reference_federation
                  the reference scenarios' federations, run by the real parties
    scenario      one observer, one kind of protection, one attack
    scenarios     all of them at 28x28, from no protection to all of it

A picture counts as recovered if it is closer to a record than the mean image is: an attacker who
knows nothing of the update can always guess the mean image.
"""
