"""A pretend CUDA device, on which a CPU-only PyTorch shows what would go wrong on a card.

    build      compiles device.cpp for the PyTorch that is installed, or says why it cannot
    plugin     a pytest plugin (`-p kit.pretend_cuda.plugin`) that loads it before torch and answers for `torch.cuda`
"""
