"""Training a chosen trial in full: GAN Slimming from the teacher with many more steps, measured on pictures kept back.

Reading order: ``schedule`` (how long), ``selection`` (which trial), ``loop`` (the training, as each process sees it),
``distributed`` (several processes, by Ray Train), ``retrain`` (one training from start to result), ``summary`` (what
the full trainings say about the short ones). Nothing is imported here: a report reads ``summary`` without torch.
"""
