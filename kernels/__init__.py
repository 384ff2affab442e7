"""Triton kernels of the decoder. Formula and shapes are in the kernel's file, its PyTorch twin in reference.py.

>>> from sodec.kernels import dispatch
>>> hidden = dispatch.geglu(projected)                      # PyTorch, or the kernel where it was measured to win
>>> hidden = dispatch.geglu(projected, choice="triton")     # the kernel, or a DeviceError that says why not

Reading order: dispatch.py (what callers use; kernel or PyTorch), legality.py, launch.py, then any kernel.
Importing this package imports neither torch nor triton, and touches no GPU.
"""
