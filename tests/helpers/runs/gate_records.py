"""Records of a model that exists in its probabilities alone: the same problems, other chains with every seed."""

import numpy as np

from hyperscale.gate.baseline import ArmRecord, CutRecord, GateRecord, TaskRecord
from hyperscale.scoring.voting.subsets import pass_at_k

WIDTHS, LENGTHS, CHAINS = (1, 2, 4), (256, 512), 4


def draw(seed, problems=24, *, fall=None, tasks=("one", "two"), chains=CHAINS, model="mini", hard=0.0):
    """Chains are right with a probability of the problem's own, higher at the longer L.

    Args:
        seed: Of the chains; the problems are the same for all seeds.
        problems: Number of problems of each task.
        fall: Method to how much lower its probabilities are.
        tasks: Names of the tasks.
        chains: Chains a problem; more of them make accuracies less noisy.
        model: Its name.
        hard: By how much all probabilities are lower, baseline and results alike.
    """
    arms = []
    for number, task in enumerate(tasks):
        known = np.random.default_rng([99, number, problems])
        easy, size = known.beta(1, 1, problems), known.lognormal(0, 0.5, problems)
        for arm, (method, CR) in enumerate((("dms", 8.0), ("vanilla", 1.0))):
            rng = np.random.default_rng([seed, number, arm])
            lucky = rng.random((problems, chains))
            costs = 1000 * size[:, None] * rng.lognormal(0, 0.2, (problems, chains)) / CR
            cuts = []
            for step, length in enumerate(LENGTHS):
                p = np.clip(easy + 0.3 * step - hard - (fall or {}).get(method, 0.0), 0, 1)
                right = (lucky < p[:, None]).sum(axis=1)
                mean = costs.mean(axis=1) * (1 + 2 * step)
                accuracy = {w: tuple(round(pass_at_k(chains, int(c), w), 4) for c in right) for w in WIDTHS}
                cuts.append(
                    CutRecord(
                        L=length,
                        chains=(chains,),
                        kv_reads=tuple(mean),
                        peak_kv=tuple(np.sqrt(mean)),
                        accuracy=accuracy,
                    )
                )
            arms.append(
                ArmRecord(model=model, task=task, method=method, CR=CR, about={"seeds": [seed]}, cuts=tuple(cuts))
            )
    hashes = {f"p{i:04}": "0" * 16 for i in range(problems)}
    described = {task: TaskRecord(version="1.0", vote="pass", problems=hashes) for task in tasks}
    return GateRecord(format=1, hyperscale="0", tasks=described, arms=tuple(arms))
