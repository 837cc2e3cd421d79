"""Learning without forgetting: EWC, LwF, replay, growing heads."""
