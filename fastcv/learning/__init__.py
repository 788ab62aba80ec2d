"""Models, optimizers, schedules, the learning-rate finder and the callbacks of a training."""
