"""Lower bounds on epsilon from the scores of canaries: scores in, numbers out.

Every canary was included by an independent fair coin, and an observer gave it a score that should
be larger if it was included. Each bound holds with 95 % confidence, whatever the scores are like,
except the Gaussian one, which is a model, and the cosine one, which is an estimate.

======================  =========================================================================
`steinke`               one run, (epsilon, delta), any mechanism: Steinke, Nasr, Jagielski 2023
`fdp`                   one run, Gaussian trade-off: Mahloujifar, Melis, Chaudhuri 2024
`clopper_pearson`       independent trials: intervals of true and false positive rate
`gaussian`              model: the scores are two Gaussians
`cosine`                estimate for whole clients: Andrew et al. 2023
======================  =========================================================================

No trainer, no files and no torch in here.
"""
