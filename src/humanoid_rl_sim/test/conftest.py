"""One thread for torch: on tensors this small more threads only wait for each other, minutes long beside other work."""

import torch

torch.set_num_threads(1)
