"""β, the weight of the KL penalty against the reward in PPO."""


class KLController:
    """β, fixed, or adapted so that the KL an answer approaches ``target`` nats.

    Ziegler et al. 2019, section 2.2: e = clip(KL / target − 1, −0.2, 0.2); β ← β (1 + 0.1 e).
    """

    def __init__(self, coef: float, target: float | None) -> None:
        self.coef = coef
        self.target = target

    def update(self, kl: float) -> None:
        if self.target is not None:
            error = min(max(kl / self.target - 1, -0.2), 0.2)
            self.coef *= 1 + 0.1 * error
