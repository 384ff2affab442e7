"""Training in the paper's stages: `sodec train`. Read them in this order:

    stages.py      the recipe: what each stage trains, what it penalises, and their order
    losses.py      the terms of the losses, pure functions of tensors
    adversary.py   the critic of the last stage
    parts.py       the model and the networks that only training needs
    run.py         a stage, or all of them, in pieces that resume
    state.py       one step, and everything that a checkpoint holds
    optimise.py    gradients, learning rate, the average of the weights, the bound on them
    checkpoint.py  files: checkpoints and exported weights, written and read
    data.py        pictures and the crops that are cut from them
    options.py     the options of a run; report.py: its log

The package never imports this one by itself. It needs the extra `train`.
"""
